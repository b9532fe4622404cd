// Where attention's backward sums dq in F32 when it is BF16: a slot for each of the groups (key heads of a
// sequence) that are under way at a time.
#pragma once
#include <stddef.h>

#define KEY_TILE 128 // keys of a task of the backward pass

typedef struct SlotSizes {
    size_t count, width, size; // slots, values of a row in whole vectors of any level, values of a slot
    size_t scratch_bytes;
} SlotSizes;

// group: query heads of a key head; tiles: of a sequence, each a task.
static inline SlotSizes slot_sizes(size_t groups, size_t group, size_t T, size_t D, size_t tiles,
                                   size_t threads) {
    enum { WIDEST = 16 };
    const size_t under_way = threads / tiles + 2, count = groups < under_way ? groups : under_way,
                 width = (D + WIDEST - 1) / WIDEST * WIDEST, size = group * T * width;
    return (SlotSizes){count, width, size, count * size * sizeof(float)};
}
