// What a training step forgets after the forward pass and makes again, to the same bits, in the backward
// pass.
#pragma once
#include "tensor/backend.h"

typedef enum Recompute {
    RECOMPUTE_NONE,      // everything that backward reads is kept
    RECOMPUTE_NORMS,     // what costs next to nothing: norms, what they read, activations between products,
                         // weights in BF16
    RECOMPUTE_ATTENTION, // attention too
    RECOMPUTE_BLOCK,     // all of a block but its input: its forward runs again
} Recompute;

// Products' and attention's results are kept, the rest is made from them.
static inline bool recomputes_between(Recompute r) {
    return r == RECOMPUTE_NORMS || r == RECOMPUTE_ATTENTION;
}

// How the activations of blocks are laid out: what backward reads lies in `kept`, a place for each block;
// what is forgotten in `scratch`, where all blocks use the places of the first.
typedef struct BlockPlan {
    Arena *kept, *scratch;
    bool keep; // there will be a backward; without, all is forgotten
    Recompute recompute;
} BlockPlan;

// A tensor that is forgotten from this Recompute on; first: the first block's, or NULL for the first block.
static inline Tensor block_take(const BlockPlan *p, Recompute forgotten_from, const Tensor *first,
                                Dtype dtype, int ndim, const size_t *shape) {
    const bool kept = p->keep && p->recompute < forgotten_from;
    if (!kept && first) return *first;
    return arena_take(kept ? p->kept : p->scratch, dtype, ndim, shape);
}

Recompute recompute_from(const char *choice); // of `--recompute none|norms|attention|block`
