// A synthetic set of visual questions in FineVision's schema: pictures drawn with cairo, questions whose
// answers need the picture, balanced so that a guess from the question alone is seldom right. The embedded
// default data.
#pragma once
#include "config/fields.h"
#include "synth/scene.h"

enum { SYNTH_MAX_TURNS = 8, SYNTH_RATINGS = 4 };

typedef struct SynthOptions {
    char *out; // folder; train/ and test/ are made in it
    size_t rows, test_rows, samples, image_size;
    StringList kinds; // names of synth_kinds
    size_t turns, max_shapes, colours, shapes, shards;
    uint64_t seed;
    size_t rows_per_group;
    char *ground;   // of the pictures: light | dark | any
    char *format;   // png | jpeg
    size_t threads; // 0: one per core
} SynthOptions;
extern const FieldTable synth_table;

// Names kinds that do not exist or do not fit the other options.
bool synth_options_check(const SynthOptions *o, Error *err);

typedef enum SynthSplit { SYNTH_TRAIN, SYNTH_TEST } SynthSplit;

typedef struct SynthTurn {
    char user[96], assistant[16];
    char subject[96];           // the question in its first wording: two turns of a row never share it
    int ratings[SYNTH_RATINGS]; // relevance, image correspondence, visual dependency, formatting
} SynthTurn;

typedef struct SynthRow {
    size_t n_pictures, n_turns;
    Scene pictures[SCENE_MAX_PICTURES];
    SynthTurn turns[SYNTH_MAX_TURNS];
} SynthRow;

// Row `index` of a split: the same for the same options, seed and index, whatever else is drawn. A picture's
// signature decides which split it may be in, so no test picture looks nearly like a training picture of any
// seed. Fails when the options allow so few scenes that none was found for the split.
bool synth_row(SynthRow *row, const SynthOptions *o, SynthSplit split, uint64_t index, Error *err);

// The picture as 8-bit RGB, [size, size, 3], caller frees; and as the bytes of a PNG or JPEG file, caller
// frees.
bool scene_draw(uint8_t **rgb, const Scene *p, size_t size, Error *err);
bool scene_encode(unsigned char **bytes, size_t *n_bytes, const Scene *p, size_t size, const char *format,
                  Error *err);

// Writes the first o->samples test rows to out/samples: pictures as PNG files, questions.jsonl.
bool synth_write_samples(const SynthOptions *o, Error *err);

// Writes out/train/train-00000-of-00001.parquet … and out/test/test-….parquet, each folder a data set of its
// own, and the samples. Folders that hold other .parquet files are refused, because a reader would take those
// in.
bool synth_write(const SynthOptions *o, Error *err);
