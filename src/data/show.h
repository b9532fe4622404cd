// Samples as a page of HTML that stands alone: the pictures with their tiles, the tokens with what is trained
// on, the turns with their ratings, the labels. Nothing in it runs or is loaded from elsewhere.
#pragma once
#include "base/batch.h"
#include "data/sample.h"

// A turn of the row, whether it became part of the sample or not. Texts are borrowed and need not be UTF-8.
typedef struct ShowTurn {
    const char *user, *assistant; // NULL: a null
    size_t user_size, assistant_size;
    bool is_rated[N_RATINGS];
    int64_t ratings[N_RATINGS];
    bool kept;
} ShowTurn;

// A picture, or why there is none.
typedef struct ShowPicture {
    const Picture *picture; // NULL: the problem stands in its place
    const char *problem;
    size_t width, height; // in the file, turned, before any resize; 0 when not known
} ShowPicture;

// One section of the page. What is not known is left 0 or NULL.
typedef struct ShowSample {
    const char *title;    // "row 17"
    const char *origin;   // where it comes from
    const char *problem;  // why it is not trained on; NULL when it is
    const Sample *sample; // its ids and labels
    const ShowPicture *pictures;
    size_t n_pictures;
    const ShowTurn *turns;
    size_t n_turns;
} ShowSample;

void show_begin(CharVec *html, const char *title);
// Fails when a picture cannot be encoded.
bool show_sample(CharVec *html, const SampleRules *rules, const ShowSample *s, Error *err);
void show_end(CharVec *html);

// The parts of a section by themselves, for what is no sample: n tokens with their labels (as in Sample), a
// picture.
void show_tokens(CharVec *html, const SampleRules *rules, const int32_t *ids, const int32_t *labels,
                 size_t n);
bool show_image(CharVec *html, const Image *image, Error *err); // as a data: URL; made smaller when large

// A batch just as it is trained on, a section for each sample with its row, tiles and tokens (show_batch.c).
// In a tile, values that are not finite are shown in magenta and counted.
bool show_batch(CharVec *html, const SampleRules *rules, const Batch *batch, Error *err);
