// A batch of random tokens and pixels, the same every time.
#pragma once
#include "base/batch.h"
#include "config/config.h"

// A sequence begins with three tokens and its pictures; targets are its last ones.
typedef struct BatchShape {
    size_t B, T, tiles, targets; // tiles of the whole batch; targets of a sequence
    int32_t image_token;
    size_t second; // position at which a second sample begins in each sequence; 0: none, and no `starts`
} BatchShape;

Batch random_batch(BatchShape s, const VLMConfig *c);
void random_batch_free(Batch *b);
