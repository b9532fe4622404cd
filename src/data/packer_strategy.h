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

// Where a sample of a saved state belongs: pack number and how many rounds it has waited.
#define NO_PACK UINT64_MAX
typedef struct SavedItem {
    uint64_t pack, age; // pack NO_PACK: it waits
} SavedItem;

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
    // After packer_restore: samples that are missing, those that have come, what all must amount to.
    VEC(uint64_t) missing_rows;
    VEC(SavedItem) missing; // as many
    VEC(PackItem) supplied;
    uint64_t supplied_hash;
};

typedef struct PackStrategy {
    const char *name;
    size_t buffer_sequences;  // tokens buffered before packing: this times the length,
    bool per_batch;           // and times the batch size
    bool images_may_overflow; // a sample with too many pictures gets a sequence of its own
    bool python;              // draws from PythonRandom, which is then part of the state
    size_t buffer_bytes;
    // Moves waiting items into finished packs; at least one pack, and all items when `last`.
    void (*arrange)(Packer *p, bool last);
} PackStrategy;

void pack_best(Packer *p, bool last);
void pack_nanovlm(Packer *p, bool last);

void packer_wait(Packer *p, PackItem item, uint64_t age); // the item came `age` rounds ago
// The number in p->ready of the first item of a finished pack.
size_t packer_pack_first(const Packer *p, size_t pack);
// Indices of the waiting items, longest first, ties by arrival; caller frees.
size_t *packer_sorted(const Packer *p);
bool pack_item_fits(const PackItem *item, const PackLimits *room); // room: what is left of a pack
void pack_item_place(PackLimits *room, const PackItem *item);      // an oversized item leaves nothing
// Closes the pack of the items appended to p->ready since the last call; no item, no pack.
void packer_close_pack(Packer *p);
