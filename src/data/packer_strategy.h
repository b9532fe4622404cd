// What the packing strategies share; only packer*.c include it.
#pragma once
#include "base/vec.h"
#include "data/packer.h"
#include "data/python_random.h"

typedef struct WaitingItem {
    PackItem item;
    uint64_t arrival; // number of the item: makes every sort's result unique
    uint64_t round;   // of the packer when the item came
} WaitingItem;

struct Packer {
    const struct PackStrategy *strategy;
    PackLimits limits;
    size_t buffer_tokens;
    uint64_t seed, epoch;
    PythonRandom python; // of nanovlm
    uint64_t arrivals, rounds;
    VEC(WaitingItem) waiting;
    size_t waiting_tokens, waiting_bytes;
    // Finished packs: pack k holds ready.items[ends[k-1] … ends[k]).
    VEC(PackItem) ready;
    VEC(size_t) ends;
    size_t taken; // packs already given out
};

typedef struct PackStrategy {
    const char *name;
    size_t buffer_sequences;  // tokens buffered before packing: this times the length,
    bool per_batch;           // and times the batch size
    bool images_may_overflow; // a sample with too many pictures gets a sequence of its own
    size_t buffer_bytes;
    // Moves waiting items into finished packs; at least one pack, and all items when `last`.
    void (*arrange)(Packer *p, bool last);
} PackStrategy;

void pack_best(Packer *p, bool last);
void pack_nanovlm(Packer *p, bool last);

// Indices of the waiting items, longest first, ties by arrival; caller frees.
size_t *packer_sorted(const Packer *p);
bool pack_item_fits(const PackItem *item, const PackLimits *room); // room: what is left of a pack
void pack_item_place(PackLimits *room, const PackItem *item);      // an oversized item leaves nothing
// Closes the pack of the items appended to p->ready since the last call; no item, no pack.
void packer_close_pack(Packer *p);
