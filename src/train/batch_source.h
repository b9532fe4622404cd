// Where a run's batches come from: a loader, or a list in memory (tests, benchmarks).
#pragma once
#include "data/loader.h"

typedef struct BatchSource {
    // The next batch, borrowed until the next call; *batch is NULL when the epoch is over.
    bool (*next)(void *state, const Batch **batch, Error *err);
    bool (*restart)(void *state, uint64_t epoch, Error *err); // begins an epoch; number 0 is begun already
    void (*report)(void *state, uint64_t epoch);              // logs what was read and skipped; may be NULL
    void *state;
    // The place behind the batch given out last, appended to `place`, and back to it: the next batch is then
    // the same to the bit. Both NULL: this source cannot.
    void (*save)(void *state, CharVec *place);
    bool (*restore)(void *state, const void *place, size_t size, Error *err);
} BatchSource; // next NULL: no source

BatchSource batch_source_of_loader(Loader *loader); // NULL: no source. Borrows the loader
