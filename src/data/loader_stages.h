// The inside of a loader: three stages over bounded buffers, of which any thread may do the next piece of
// work.
//
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
    Error err;
} RingSlot;

typedef struct BatchSlot {
    Batch batch;
    Sequence *sequences; // [batch_size], while packs come in
    size_t n_sequences;
    VEC(Sample *) samples; // in the order of their tiles
    VEC(size_t) first_tile;
    size_t next, left; // samples not yet begun, not yet finished
    bool failed;
    Error err;
    LoaderCounts counts; // when it was formed
} BatchSlot;

// Kinds of trouble, each logged when it is first met.
enum { SKIP_KINDS = 8 };

struct Loader {
    const Config *config;
    LoaderSplit split;
    SampleRules rules;
    int32_t pad_id;
    size_t max_tiles; // of a batch
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
    uint64_t claimed, packed; // rows taken by the first stage, by the second
    bool claiming, rows_over; // a thread reads the next row; there is none

    bool packing, pack_ended; // a thread packs; the packer got its last row
    bool over, failed;        // no further batch will be formed; because of err
    Error err;
    LoaderCounts counts, given_counts; // as of the pack stage; of the batch given out last
    bool reported[SKIP_KINDS];
    uint64_t epoch_batches; // formed in this epoch

    BatchSlot *slots; // [n_slots]; batch number i of the epoch in slot i % n_slots
    size_t n_slots;
    uint64_t formed, released; // batches handed to the fill stage, given back by the caller
    uint64_t fill_from;        // batches before this one are passed over: they get no tiles
    bool lent;                 // batch number `released` is with the caller
};

// Does one piece of work if there is any. Called and left with the lock held, released meanwhile.
bool loader_work(Loader *l);
void loader_clear(Loader *l); // forgets everything under way; no thread may be working
