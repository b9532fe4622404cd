// A row as a training sample (nanoVLM: data/datasets.py, VQADataset): turns filtered by their ratings,
// pictures, tokens and labels.
#pragma once
#include "data/picture.h"
#include "data/row_columns.h"

// How rows become samples under a configuration. Constant: any number of threads may use it.
typedef struct SampleRules {
    const VLMConfig *vlm;
    const TrainConfig *train;
    ChatTemplate chat;
    const char *image_token; // its text
    int32_t image_token_id;
    bool jpeg_reduced_scale;
    bool global_tile; // the tokenizer has a token for it
    bool truncate;    // samples that are too long are cut at their end
    int minima[N_RATINGS];
} SampleRules;

// config and tokenizer are borrowed. Fails when the tokenizer has no image token, or one that it does not
// keep whole, or when the template is unknown.
bool sample_rules_init(SampleRules *r, const Config *config, const Tokenizer *tokenizer, Error *err);

typedef struct Sample {
    size_t row;           // of the data set; the loader's, sample_build leaves it 0
    Int32Vec ids, labels; // labels: shifted left by one
    size_t n_pictures, n_tiles;
    Picture *pictures;
    bool had_image_token; // an image token was removed from its text
    bool truncated;       // its end was cut off to fit
} Sample;

// What became of a row.
typedef enum SampleFate {
    SAMPLE_KEPT,
    SAMPLE_BAD_TEXT, // nanoVLM would die of these two: null texts; broken or missing pictures
    SAMPLE_BAD_IMAGE,
    SAMPLE_NO_TURN,         // no turn is left after the rating filter
    SAMPLE_TOO_MANY_IMAGES, // more than max_images_per_example
    SAMPLE_TOO_LONG, // max_sample_length tokens or more; if they are cut: nothing trained would be left
} SampleFate;

// Builds the sample of a row. Cheap checks come before pictures are decoded. Whatever is not SAMPLE_KEPT
// leaves the sample empty and the reason in err.
SampleFate sample_build(Sample *s, const SampleRules *r, const RowColumns *columns, size_t row, Error *err);
void sample_free(Sample *s);
size_t sample_bytes(const Sample *s);          // memory it holds
size_t sample_building_bytes(const Sample *s); // and what it took beside while it was built, at most
// Writes the n_tiles tiles [3, P, P] of all its pictures to out.
bool sample_tiles(float *out, const Sample *s, const SampleRules *r, Error *err);
