// What a training step forgets after the forward pass and makes again, to the same bits, in the backward
// pass.
#pragma once

typedef enum Recompute {
    RECOMPUTE_NONE,      // everything that backward reads is kept
    RECOMPUTE_ATTENTION, // what is cheap from what is kept: attention, norms, activations between products
    RECOMPUTE_BLOCK,     // all of a block but its input: its forward runs again
} Recompute;

Recompute recompute_from(const char *choice); // of `--recompute none|attention|block`
