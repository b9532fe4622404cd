// From a data set to batches: files → rows → samples → packs → left-padded batches, prepared ahead by
// threads, in an order that does not depend on their number.
#pragma once
#include "base/batch.h"
#include "config/config.h"
#include "data/sample.h"
#include "data/tile_cache.h"
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

// The processes of a run: each has a loader with rows of its own, and all end an epoch after as many batches.
typedef struct LoaderRanks {
    size_t rank, world_size;
    // Given whether this rank has a batch, returns whether all have one. Called by loader_next on its thread,
    // as often on every rank. NULL: each rank ends when its own rows do.
    bool (*agree)(void *state, bool has_batch);
    void *state;
} LoaderRanks;

// Opens the data set of config->train (path and names) for one split: the first val_size rows are validation,
// the rest training (data/row_stream.h). With val_dataset_path, validation has that data set (val_size rows
// of it, all when val_size is 0 or more than there are) and training all of its own. tokenizer and config are
// borrowed until loader_close. Fails when no file can be read. config->options.num_workers threads prepare
// batches, at most prefetch_factor of them ahead; with 0 threads they are made in loader_next. What bounds
// its memory is told in docs/loader.md.
bool loader_open_rank(Loader **l, const Config *config, const Tokenizer *tokenizer, LoaderSplit split,
                      LoaderRanks ranks, Error *err);
// A run of one process.
static inline bool loader_open(Loader **l, const Config *config, const Tokenizer *tokenizer,
                               LoaderSplit split, Error *err) {
    return loader_open_rank(l, config, tokenizer, split, (LoaderRanks){.world_size = 1}, err);
}
// Before the first batch: batches come with what the cache, which is borrowed, knows of their tiles.
bool loader_use_cache(Loader *l, TileCache *cache, Error *err);
void loader_close(Loader *l); // also in the middle of an epoch; NULL is fine
// The next batch of this epoch, borrowed until the next call; *batch is NULL when the epoch is over. An
// incomplete last batch is dropped, as nanoVLM does. A training epoch without any batch is an error. A rank
// that fails tells the others that it has no batch, so that they do not wait for it.
bool loader_next(Loader *l, const Batch **batch, Error *err);
bool loader_restart(Loader *l, uint64_t epoch, Error *err); // begin an epoch (0 is begun by loader_open)
LoaderCounts loader_counts(const Loader *l);
uint64_t loader_rows(const Loader *l);            // rows of an epoch, of this rank
const SampleRules *loader_rules(const Loader *l); // what its samples are made by; the loader's own

// The whole state as of the batch given out last (or the epoch's beginning, or end), appended to `state`: a
// few kilobytes. Restored into a loader of the same data set and settings, the next batch and all later ones
// are the same to the bit, whatever the number of threads. Only the rows that wait in the packer are read
// again, then the epoch goes on.
void loader_save(Loader *l, CharVec *state);
// Bytes that are no state, or one of another data set or other settings, are an error that names what
// differs; the loader then stands at the beginning of its epoch. That a waiting row can't be had any more, or
// is another one, is an error of the next loader_next.
bool loader_restore(Loader *l, const void *state, size_t size, Error *err);
// What tells data sets apart: rows, and a hash over the names of the files and the rows of their groups.
void loader_identity(const Loader *l, uint64_t *rows, uint64_t *files);
// Greatest number of tiles a batch can hold under this configuration: what the model's memory is planned for.
size_t loader_max_tiles(const Config *config);
// Memory of a batch's arrays, with so many tiles.
size_t loader_batch_bytes(const Config *config, size_t tiles);
size_t loader_tile_bytes(const VLMConfig *config); // of a tile's pixels in it

// What waits in a loader, in bytes.
typedef struct LoaderHeld {
    size_t samples; // to be packed, with their pictures
    size_t tiles;   // of batches prepared ahead, and of the one given out
} LoaderHeld;

// What a loader holds at most, in bytes, if the data goes on as it begins.
typedef struct LoaderMemory {
    size_t rows;      // of the data set's open windows
    size_t file;      // one that is open: footer, places
    size_t batches;   // their arrays, but for the tiles
    LoaderHeld busy;  // while rows are read and samples built
    LoaderHeld ready; // with its first batches
    LoaderHeld given; // while batches are given out
    size_t building;  // what its threads, or its caller, take to build samples
    size_t reading;   // what reading the largest group takes, with
    size_t kept;      // what is kept of it, which is among the rows
    size_t to_come;   // of busy.samples those that are not there yet while a group is read
    // no bytes:
    size_t mean_tiles; // of a batch
    size_t most_tiles; // of those that samples like the first ones make
    size_t slots;      // batches that are there together
    bool keeps_open;   // the file; else only while it reads
} LoaderMemory;
// Waits for the first samples, or builds them, if the loader has no threads.
LoaderMemory loader_memory(Loader *l);
