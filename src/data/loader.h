// From a data set to batches: files → rows → samples → packs → left-padded batches, prepared ahead by
// threads, in an order that does not depend on their number.
#pragma once
#include "base/batch.h"
#include "config/config.h"
#include "text/chat.h"

typedef struct Loader Loader;

// What became of the rows that went into the batches given out so far, in all epochs.
typedef struct LoaderCounts {
    uint64_t rows, samples, packs, batches;
    uint64_t
        skipped_unreadable;    // broken or missing images, null texts, wrong types: rows nanoVLM would die of
    uint64_t skipped_ratings;  // no turn left after the rating filter
    uint64_t skipped_too_long; // ≥ max_sample_length tokens, or more than a sequence holds
    uint64_t skipped_images;   // more than max_images_per_example pictures, or more than a sequence may hold
    uint64_t skipped_no_image; // batches without any picture
    uint64_t truncated;        // samples that were cut at their end (long_samples truncate)
} LoaderCounts;

typedef enum LoaderSplit { LOADER_TRAIN, LOADER_VALIDATION } LoaderSplit;

// Opens the data set of config->train (path and names) for one split: the first val_size rows are validation,
// the rest training (data/row_stream.h). tokenizer and config are borrowed until loader_close. Fails when no
// file can be read. config->options.num_workers threads prepare batches, at most prefetch_factor of them
// ahead; with 0 threads they are made in loader_next.
bool loader_open(Loader **l, const Config *config, const Tokenizer *tokenizer, LoaderSplit split, Error *err);
void loader_close(Loader *l); // also in the middle of an epoch; NULL is fine
// The next batch of this epoch, borrowed until the next call; *batch is NULL when the epoch is over. An
// incomplete last batch is dropped, as nanoVLM does. A training epoch without any batch is an error.
bool loader_next(Loader *l, const Batch **batch, Error *err);
// Passes over the next n batches of this epoch without making their tiles, which is most of the work: a
// resume begins where the run stopped. The same as n calls of loader_next, whose last batch nobody may look
// at.
bool loader_skip(Loader *l, uint64_t n, Error *err);
bool loader_restart(Loader *l, uint64_t epoch, Error *err); // begin an epoch (0 is begun by loader_open)
LoaderCounts loader_counts(const Loader *l);
// Greatest number of tiles a batch can hold under this configuration: what the model's memory is planned for.
size_t loader_max_tiles(const Config *config);
