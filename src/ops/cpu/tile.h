// Small matrix products for attention's tiles, with vectors as wide as the level's registers, of which ROWS
// rows of two fill as many as there are.
#pragma once
#include <stdbool.h>
#include <stddef.h>

#if defined(__AVX512F__)
#define LANES 16
#define ROWS  8
#elif defined(__AVX2__)
#define LANES 8
#define ROWS  4
#else
#define LANES 4
#define ROWS  4
#endif
typedef float Lanes __attribute__((vector_size(LANES * sizeof(float)), aligned(sizeof(float)), may_alias));

// a[i, k] lies at data[i · row + k · col], so a transposed matrix is the same with the two exchanged.
typedef struct Factor {
    const float *data;
    size_t row, col;
} Factor;

#define ALWAYS_INLINE static inline __attribute__((always_inline))

// R rows by V vectors of c (+)= a b, held in registers. R and V are constants where this is used.
ALWAYS_INLINE void tile_block(float *c, size_t ldc, Factor a, const float *b, size_t ldb, size_t K,
                              bool accumulate, const size_t R, const size_t V) {
    Lanes sum[ROWS][2] = {0};
    for (size_t k = 0; k < K; k++) {
        for (size_t i = 0; i < R; i++)
            for (size_t v = 0; v < V; v++)
                sum[i][v] += a.data[i * a.row + k * a.col] * *(const Lanes *)(b + k * ldb + v * LANES);
    }
    for (size_t i = 0; i < R; i++)
        for (size_t v = 0; v < V; v++) {
            Lanes *out = (Lanes *)(c + i * ldc + v * LANES);
            if (accumulate) sum[i][v] += *out;
            *out = sum[i][v];
        }
}

// The same for fewer columns than a vector has.
ALWAYS_INLINE void tile_edge(float *c, size_t ldc, Factor a, const float *b, size_t ldb, size_t K,
                             bool accumulate, size_t R, size_t columns) {
    for (size_t i = 0; i < R; i++) {
        float sum[LANES] = {0};
        for (size_t k = 0; k < K; k++)
            for (size_t n = 0; n < columns; n++) sum[n] += a.data[i * a.row + k * a.col] * b[k * ldb + n];
        for (size_t n = 0; n < columns; n++) c[i * ldc + n] = accumulate ? c[i * ldc + n] + sum[n] : sum[n];
    }
}

ALWAYS_INLINE void tile_rows(float *c, size_t ldc, Factor a, const float *b, size_t ldb, size_t N, size_t K,
                             bool accumulate, const size_t R) {
    size_t n = 0;
    for (; n + 2 * LANES <= N; n += 2 * LANES) tile_block(c + n, ldc, a, b + n, ldb, K, accumulate, R, 2);
    for (; n + LANES <= N; n += LANES) tile_block(c + n, ldc, a, b + n, ldb, K, accumulate, R, 1);
    if (n < N) tile_edge(c + n, ldc, a, b + n, ldb, K, accumulate, R, N - n);
}

// c [M, N] = a b (+ c when accumulate); b [K, N] and c have rows ldb and ldc apart.
static inline void tile_product(float *c, size_t ldc, Factor a, const float *b, size_t ldb, size_t M,
                                size_t N, size_t K, bool accumulate) {
    size_t i = 0;
    for (; i + ROWS <= M; i += ROWS, a.data += ROWS * a.row, c += ROWS * ldc)
        tile_rows(c, ldc, a, b, ldb, N, K, accumulate, ROWS);
    for (; i + 4 <= M; i += 4, a.data += 4 * a.row, c += 4 * ldc)
        tile_rows(c, ldc, a, b, ldb, N, K, accumulate, 4);
    for (; i < M; i++, a.data += a.row, c += ldc) tile_rows(c, ldc, a, b, ldb, N, K, accumulate, 1);
}
