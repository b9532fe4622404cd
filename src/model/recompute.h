// What a training step forgets after the forward pass and makes again, to the same bits, in the backward
// pass.
#pragma once
#include <stdbool.h>

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

Recompute recompute_from(const char *choice); // of `--recompute none|norms|attention|block`
