// How norms' backward pass cuts its rows: into the same parts whatever the number of threads.
#pragma once
#include <stddef.h>

#define NORM_GROUP 4 // rows that are worked on side by side

typedef struct NormParts {
    size_t rows, parts;   // rows of a part, and how many parts
    size_t width;         // columns, in whole vectors of any level
    size_t scratch_bytes; // what the parts' gradients of weights take
} NormParts;

static inline NormParts norm_parts(size_t M, size_t C) {
    enum { MOST_PARTS = 64, LEAST_ROWS = 16, WIDEST = 16 };
    const size_t even = (M + MOST_PARTS - 1) / MOST_PARTS,
                 rows = even < LEAST_ROWS ? LEAST_ROWS : (even + NORM_GROUP - 1) / NORM_GROUP * NORM_GROUP,
                 parts = (M + rows - 1) / rows, width = (C + WIDEST - 1) / WIDEST * WIDEST;
    return (NormParts){rows, parts, width, parts * 2 * width * sizeof(float)};
}
