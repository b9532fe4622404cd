// Packing: samples go in, sequences ("packs") of at most `length` tokens come out. Two strategies behind one
// interface: `best` (ours) fills sequences to 98% and more; `nanovlm` repeats nanoVLM's knapsacks exactly
// (data/advanced_datasets.py). A packer serves one thread; what it gives depends only on what it was given.
#pragma once
#include "base/bytes.h"
#include "base/error.h"

// What one sequence may hold.
typedef struct PackLimits {
    size_t length; // tokens, each sample's pad token counted
    size_t images;
    size_t tiles;
} PackLimits;
#define PACK_NO_LIMIT SIZE_MAX

typedef struct PackItem {
    void *sample;                 // the caller's
    size_t length, images, tiles; // length with the pad token behind it
    size_t bytes;                 // memory held while it waits; only the strategy `best` looks at it
    uint64_t row; // where it comes from, for packer_save only: greater for each item that is added
} PackItem;

typedef struct Pack {
    const PackItem *items; // longest first
    size_t count;
} Pack;

typedef struct Packer Packer;

// strategy: "best" or "nanovlm" (anything else is a bug of the caller). It buffers `buffer_tokens` tokens
// before it packs; 0: what the strategy does by itself for `batch_size` sequences a batch.
Packer *packer_new(const char *strategy, PackLimits limits, size_t batch_size, size_t buffer_tokens);
Packer *packer_like(const Packer *p); // of the same kind, limits, buffer and seed, and empty
void packer_free(Packer *p);          // frees no sample
// Forgets everything and starts anew with this seed. Items not yet taken are handed to `drop` (may be NULL).
void packer_reset(Packer *p, uint64_t seed, uint64_t epoch, void (*drop)(void *sample));

// Whether an item can ever be packed: `best` breaks no limit; nanoVLM gives a sample with more pictures than
// a sequence may hold a sequence of its own.
bool packer_accepts(const Packer *p, const PackItem *item);
void packer_add(Packer *p, PackItem item); // must be acceptable
void packer_finish(Packer *p);             // no more items: all that is left becomes packs
// How many items of this size wait at most.
size_t packer_most_waiting(const Packer *p, size_t tokens, size_t bytes);
bool packer_ready(const Packer *p); // packer_take would give one
bool packer_take(Packer *p,
                 Pack *pack); // the next pack; its items are borrowed until the next call of packer_*

// The whole state without the samples: which rows wait, for how long, in which finished packs, and random
// counters. 2 to 3 bytes an item; 2.5 KB more for nanovlm, whose generator is Python's.
void packer_save(const Packer *p, CharVec *out);
// Back to a saved state, of a packer made with the same strategy, limits, batch size and buffer. Rows must be
// below `rows`. Items not yet taken are handed to `drop`. From then on the packer gives nothing until
// packer_supply has brought every sample it misses, lowest row first. Bad bytes are an error and change
// nothing.
bool packer_restore(Packer *p, ByteReader *in, uint64_t rows, void (*drop)(void *sample), Error *err);
size_t packer_missing(const Packer *p); // samples still to be supplied
// Their rows: the next one first, borrowed until the next packer_restore. NULL when there is none.
const uint64_t *packer_missing_rows(const Packer *p);
// item->row must be the next one missing. The packer owns the sample in any case. With the last one: an error
// when they are not the samples of the saved state, which leaves nothing to go on with but packer_reset.
bool packer_supply(Packer *p, PackItem item, Error *err);
