// The inside of a loader: four stages over bounded buffers, of which any thread may do the next piece of
// work.
//
//   read:  a thread reads the next window of rows                                     (one thread at a time)
//   rows:  a thread takes the next row number and builds its sample into the ring     (any number at once)
//   pack:  the samples leave the ring in row order, become packs, and packs a batch  (one thread at a time)
//   fill:  pictures of a batch become tiles in its buffer                             (any number at once)
//
// Only the pack stage decides anything, and it sees the rows in order: so order and content of the batches do
// not depend on the number of threads. Only loader*.c include this.
#pragma once
#include "data/collate.h"
#include "data/loader.h"
#include "data/packer.h"
#include "data/row_stream.h"
#include "data/sample.h"

#include <pthread.h>

typedef enum RowFate {
    ROW_SAMPLE,     // what sample_build said
    ROW_UNREADABLE, // its row group could not be read
    ROW_END,        // no row: the epoch is over
    ROW_FAILURE,    // no row: the data set is out of reach
} RowFate;

typedef struct RingSlot {
    bool done;
    RowFate row;
    SampleFate fate; // when ROW_SAMPLE
    Sample *sample;  // when SAMPLE_KEPT
    const char *path;
    size_t row_in_file;
    uint64_t place; // in the epoch
    Error err;
} RingSlot;

// What the rows seen so far came to: all samples that were built, and those that a sequence can hold.
typedef struct BuiltSamples {
    size_t rows, n, bytes, building;
    struct {
        size_t n, bytes, tokens;
    } packed;
} BuiltSamples;

// How many of the latter are looked at for what batches will be like.
enum { ENOUGH_SAMPLES = 256 };
typedef VEC(PackItem) SampleSizes;

typedef struct BatchSlot {
    Batch batch;
    TileFeatures features; // with a cache
    size_t filled_tiles;   // room of the pictures that is memory and not only addresses
    Sequence *sequences;   // [batch_size], while packs come in
    size_t n_sequences;
    VEC(Sample *) samples;        // in the order of their tiles
    VEC(size_t) first_tile, rows; // rows: of the data set
    size_t next, left;            // samples not yet begun, not yet finished
    bool failed;
    Error err;
    LoaderCounts counts; // when it was formed
    CharVec state;       // and what loader_save needs to go on behind it
} BatchSlot;

// Kinds of trouble, each logged when it is first met.
enum { SKIP_KINDS = 8 };

struct Loader {
    const Config *config;
    LoaderSplit split;
    LoaderRanks ranks;
    SampleRules rules;
    int32_t pad_id;
    size_t max_tiles; // of a batch
    TileCache *cache; // NULL: none
    uint64_t epoch;
    Dataset *data;
    RowStream *rows;
    Packer *packer;

    pthread_mutex_t lock; // over everything below; pthread_cond_broadcast(changed) whenever something changed
    pthread_cond_t changed;
    pthread_t *threads;
    size_t n_threads;
    bool stop, paused;
    size_t working; // threads at a piece of work

    RingSlot *ring; // [ring_size]; row number i of the epoch in slot i % ring_size
    size_t ring_size;
    uint64_t claimed, packed;  // rows taken by the second stage, by the third
    bool rows_over;            // there is none behind them
    BuiltSamples built;        // by the second stage
    SampleSizes sizes;         // of the first ones that a sequence can hold; without the samples
    bool reading, read_failed; // a thread reads a window; no further one can be read
    Error read_err;            // why

    bool packing, pack_ended; // a thread packs; the packer got its last row
    uint64_t next_place;      // of the first row that the packer has not had
    bool over, failed;        // no further batch will be formed; because of err
    Error err;
    LoaderCounts counts, given_counts; // as of the pack stage; of the batch given out last
    bool reported[SKIP_KINDS];
    uint64_t given;      // batches given out in this epoch
    bool ended, broken;  // loader_next has told the end of the epoch; which was a failure,
    Error end_err;       // this one
    CharVec given_state; // of the batch given out last

    BatchSlot *slots; // [n_slots]; batch number i of the epoch in slot i % n_slots
    size_t n_slots;
    uint64_t formed, released; // batches handed to the fill stage, given back by the caller
    bool lent;                 // batch number `released` is with the caller
};

// Samples that are built ahead of the packer.
static inline size_t loader_ring_size(const Config *c) {
    return 16 + 4 * c->options.num_workers;
}

// Does one piece of work if there is any. Called and left with the lock held, released meanwhile.
bool loader_work(Loader *l);
// Waits until no thread works; none begins until loader_resume. Both with the lock held.
void loader_pause(Loader *l);
void loader_resume(Loader *l);
// Forgets everything under way and stands at the beginning of the epoch; no thread may be working.
void loader_clear(Loader *l);

// What a batch carries of the state (loader_state.c): the next row and the packer.
void loader_put_stages(const Loader *l, CharVec *state);
