// Single-precision matrix products, by oneDNN. The one door to it: no other file knows the library.
#pragma once
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

// Keeps the library to the instructions of a level ("generic", "avx2", "avx512"). Works for a process's first
// call only.
void gemm_limit_level(const char *level);
void gemm_describe(char *text, size_t size); // "oneDNN 2.6.3"
