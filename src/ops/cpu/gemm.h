// Matrix products by oneDNN. The one door to it: no other file knows the library.
#pragma once
#include "tensor/ops.h"

#include <stdbool.h>
#include <stddef.h>

// c [M, N] = op(a) op(b) (+ c when accumulate), row-major; op(a) is [M, K]: a [M, K], or with a_transposed
// the transpose of a [K, M]; likewise op(b) [K, N]. lda, ldb, ldc: distances between rows in values. Aborts
// when the library refuses, which only wrong arguments or the end of memory can bring about.
typedef struct GemmSize {
    size_t M, N, K;
} GemmSize;
void gemm(int threads, GemmSize size, float *c, size_t ldc, bool accumulate, const float *a, size_t lda,
          bool a_transposed, const float *b, size_t ldb, bool b_transposed);

// The same of BF16 factors, with sums in F32; c is F32 or BF16, bias (opt) [N] F32 is added to each row. The
// first call of each kind and size makes a primitive and keeps it; the next ones allocate nothing, until a
// hundred others have come. Needs
// AVX-512 BF16 or AMX. One call at a time, whatever the host thread: the primitives' memory is shared.
typedef struct GemmMatrix {
    void *data;
    size_t stride;
    bool transposed; // never of c
    Dtype dtype;     // of c; a and b are BF16
} GemmMatrix;
void gemm_bf16(int threads, GemmSize size, GemmMatrix c, bool accumulate, GemmMatrix a, GemmMatrix b,
               const float *bias);

// Makes the primitive of such a product without running it: the bytes of scratch that it works in, of which
// there is one for all products. No data is looked at.
size_t gemm_bf16_prepare(int threads, GemmSize size, GemmMatrix c, bool accumulate, GemmMatrix a,
                         GemmMatrix b, bool has_bias);
size_t gemm_bf16_scratch(void); // what that scratch is now, in whole pages
// Primitives of gemm_bf16 that there are now, and at most.
size_t gemm_bf16_primitives(size_t *most);
// Has the library make its code for products in F32, which it does with the first of each kind.
void gemm_prepare(int threads);

// Columns of c that are made at a time where b is a weight in F32, to be rounded in blocks of about
// LINEAR_ROUNDED values.
static inline size_t gemm_weight_columns(GemmSize size) {
    const size_t blocks = (size.N * size.K + LINEAR_ROUNDED - 1) / LINEAR_ROUNDED,
                 even = (size.N + blocks - 1) / blocks;
    return blocks > 1 ? (even + 63) / 64 * 64 : size.N;
}

// Keeps the library to the instructions of a level (as cpu_level_name gives it). Works for a process's first
// call only.
void gemm_limit_level(const char *level);
void gemm_describe(char *text, size_t size); // "oneDNN 2.6.3"
