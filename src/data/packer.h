// Packing: samples go in, sequences ("packs") of at most `length` tokens come out. Two strategies behind one
// interface: `best` (ours) fills sequences to 98% and more; `nanovlm` repeats nanoVLM's knapsacks exactly
// (data/advanced_datasets.py). A packer serves one thread; what it gives depends only on what it was given.
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

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
} PackItem;

typedef struct Pack {
    const PackItem *items; // longest first
    size_t count;
} Pack;

typedef struct Packer Packer;

// strategy: "best" or "nanovlm" (anything else is a bug of the caller). It buffers `buffer_tokens` tokens
// before it packs; 0: what the strategy does by itself for `batch_size` sequences a batch.
Packer *packer_new(const char *strategy, PackLimits limits, size_t batch_size, size_t buffer_tokens);
void packer_free(Packer *p); // frees no sample
// Forgets everything and starts anew with this seed. Items not yet taken are handed to `drop` (may be NULL).
void packer_reset(Packer *p, uint64_t seed, uint64_t epoch, void (*drop)(void *sample));

// Whether an item can ever be packed: `best` breaks no limit; nanoVLM gives a sample with more pictures than
// a sequence may hold a sequence of its own.
bool packer_accepts(const Packer *p, const PackItem *item);
void packer_add(Packer *p, PackItem item); // must be acceptable
void packer_finish(Packer *p);             // no more items: all that is left becomes packs
bool packer_ready(const Packer *p);        // packer_take would give one
bool packer_take(Packer *p,
                 Pack *pack); // the next pack; its items are borrowed until the next call of packer_*
