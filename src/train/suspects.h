// Which data a skipped update was made of: the rows of its batches for the log, and the batch itself as a
// page (data/show.h) in the run's folder: batches/step_<n>_batch_<m>.html, m counting from 1 within the
// epoch, with _rank<r> behind it where there are several ranks.
#pragma once
#include "base/batch.h"
#include "base/vec.h"
#include "data/sample.h"

typedef struct Suspects {
    const SampleRules *rules; // borrowed; NULL: pages are not to be had
    char *folder;             // of the pages
    size_t most;              // pages of skipped batches in it
    size_t rank, world_size;
    VEC(size_t) rows; // of the micro-batches since the last update
} Suspects;

// run: the run's folder.
void suspects_open(Suspects *s, const char *run, const SampleRules *rules, size_t most, size_t rank,
                   size_t world_size);
void suspects_close(Suspects *s);
// A micro-batch has been taken in; is_first: of its update.
void suspects_add(Suspects *s, const Batch *batch, bool is_first);
// "rows 3, 7-9 of the data set" as `vlm data --show` counts them, "unknown rows" without any; long lists are
// cut. Caller frees.
char *suspects_rows_text(const size_t *rows, size_t n);

typedef struct SuspectPage {
    uint64_t step, batch;
    const char *why; // heads the page
    bool is_wanted;  // asked for, so that it does not count
} SuspectPage;

// Writes a page, unless there are enough of them. A failure costs the page and a warning.
void suspects_show(const Suspects *s, const Batch *batch, SuspectPage page);
