// Sequences side by side as a batch (nanoVLM: data/collators.py, VQACollator).
#pragma once
#include "base/batch.h"
#include "base/vec.h"

// One packed sequence, borrowed or owned by whoever filled it.
typedef struct Sequence {
    Int32Vec ids, mask, labels; // as many of each
    Int32Vec starts;            // and for each the position at which its sample begins
    size_t n_images, n_tiles, n_samples;
} Sequence;

// Appends a sample and the pad token that nanoVLM puts behind each one (mask 0, no target, of the sample).
void sequence_append(Sequence *s, const Int32Vec *ids, const Int32Vec *labels, size_t n_images,
                     size_t n_tiles, int32_t pad_id);
void sequence_clear(Sequence *s);
void sequence_free(Sequence *s);

// Left-pads n sequences to T tokens into b's arrays, which hold n rows, and sets B, T and the counts;
// b->images is left alone. A NULL sequence or one longer than T is left out, so B can be less than n. Each
// position of the padding begins at itself.
void collate(Batch *b, const Sequence *const *sequences, size_t n, size_t T, int32_t pad_id);
