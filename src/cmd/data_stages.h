// From rows to batches one stage after the other on the calling thread, each timed by itself: what a thread
// of the loader does, taken apart.
#pragma once
#include "cmd/bench_time.h"
#include "cmd/data_setup.h"
#include "data/collate.h"

// When to stop: after so many rows (0: the end of the data) or seconds (0: no limit).
typedef struct BenchLimit {
    size_t rows;
    double seconds;
} BenchLimit;
bool bench_enough(BenchLimit limit, uint64_t rows, BenchTime begin);

typedef struct Amounts {
    uint64_t rows, images, tokens, bytes; // bytes: encoded pictures and texts as they lie in the rows
} Amounts;

enum { STAGE_READ, STAGE_DECODE, STAGE_TILES, STAGE_TEXT, STAGE_PACK, STAGE_COLLATE, N_STAGES };
extern const char *const stage_names[N_STAGES];

typedef struct Stages {
    DataSetup *setup;
    BenchTime times[N_STAGES];
    Amounts amounts;
    uint64_t unusable; // rows that gave no sample
    Packer *packer;
    Sequence *sequences; // [batch_size]
    size_t n_sequences;
    Batch batch;
    VEC(float) tiles; // of one picture
} Stages;

void stages_init(Stages *s, DataSetup *setup); // setup is borrowed until stages_free
void stages_free(Stages *s);
// Runs rows through all stages. Rows that give no sample are counted; a data set out of reach is an error.
bool stages_run(Stages *s, BenchLimit limit, Error *err);
BenchTime stages_total(const Stages *s);
