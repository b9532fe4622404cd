// Attention written out in double: o = softmax(scale q kᵀ + masks) v, and log Σ exp of each query's scores.
#pragma once
#include <stdbool.h>
#include <stddef.h>

typedef struct Sizes {
    size_t B, Tq, Tk, H, K, D;
} Sizes;

// Arguments of the forward in the order of the reference: o, lse, q, k, v, mask, starts.
typedef struct Problem {
    double *o, *lse, *q, *k, *v, *mask, *starts;
    Sizes s;
    double scale;
    bool causal;
} Problem;

// Sequences [b0, b1), query heads [h0, h1), queries [i0, i1).
typedef struct Part {
    size_t b0, b1, h0, h1, i0, i1;
} Part;

// o and lse of a part, where the problem has them; with dout, the sum of dout o over that part is returned,
// else 0.
double attention_reference(const Problem *p, const double *dout, Part part);
