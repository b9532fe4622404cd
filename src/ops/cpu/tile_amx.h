// The same products in AMX's tiles of 16 rows by 64 bytes: tdpbf16ps adds to 16 x 16 sums the products of 16
// rows of 16 pairs and 16 pairs of 16 columns (Intel's optimization manual, chapter on AMX). Two by two tiles
// of sums are held at a time, so that each factor that is read is used twice.
#pragma once
#include "ops/cpu/tile.h"

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#define AMX_ROWS 16

// A thread's tiles are configured here and given back by products_end; so nobody else's stay in the way.
static inline void products_begin(void) {
    struct {
        uint8_t palette, start_row, zero[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } config = {.palette = 1};
    for (size_t i = 0; i < 8; i++) config.row_bytes[i] = 64, config.rows[i] = AMX_ROWS;
    _tile_loadconfig(&config);
}
static inline void products_end(void) {
    _tile_release();
}

// R by V tiles of sums, 1 or 2 each way: tile 2 r + v, of rows 4 + r and columns 6 + v.
ALWAYS_INLINE void amx_block(float *c, size_t ldc, const Pair *a, size_t lda, const Pair *b, size_t ldb,
                             size_t K, bool accumulate, const size_t R, const size_t V) {
    const size_t down = AMX_ROWS, c_bytes = ldc * sizeof *c, a_bytes = lda * sizeof *a,
                 b_bytes = ldb * sizeof *b;
    if (accumulate) {
        _tile_loadd(0, c, c_bytes);
        if (V > 1) _tile_loadd(1, c + LANES, c_bytes);
        if (R > 1) _tile_loadd(2, c + down * ldc, c_bytes);
        if (R > 1 && V > 1) _tile_loadd(3, c + down * ldc + LANES, c_bytes);
    } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    }
    for (size_t k = 0; k < K; k += 16) {
        _tile_loadd(4, a + k, a_bytes);
        _tile_loadd(6, b + k * ldb, b_bytes);
        _tile_dpbf16ps(0, 4, 6);
        if (V > 1) {
            _tile_loadd(7, b + k * ldb + LANES, b_bytes);
            _tile_dpbf16ps(1, 4, 7);
        }
        if (R > 1) {
            _tile_loadd(5, a + down * lda + k, a_bytes);
            _tile_dpbf16ps(2, 5, 6);
            if (V > 1) _tile_dpbf16ps(3, 5, 7);
        }
    }
    _tile_stored(0, c, c_bytes);
    if (V > 1) _tile_stored(1, c + LANES, c_bytes);
    if (R > 1) _tile_stored(2, c + down * ldc, c_bytes);
    if (R > 1 && V > 1) _tile_stored(3, c + down * ldc + LANES, c_bytes);
}

ALWAYS_INLINE void amx_rows(float *c, size_t ldc, const Pair *a, size_t lda, const Pair *b, size_t ldb,
                            size_t N, size_t K, bool accumulate, const size_t R) {
    size_t n = 0;
    for (; n + 2 * LANES <= N; n += 2 * LANES) amx_block(c + n, ldc, a, lda, b + n, ldb, K, accumulate, R, 2);
    if (n < N) amx_block(c + n, ldc, a, lda, b + n, ldb, K, accumulate, R, 1);
}

// The last rows of c, fewer than a tile has: by way of a copy, because what follows c is not ours.
static inline void amx_last_rows(float *c, size_t ldc, const Pair *a, size_t lda, const Pair *b, size_t ldb,
                                 size_t rows, size_t N, size_t K, bool accumulate) {
    float sums[AMX_ROWS * LANES] __attribute__((aligned(64)));
    for (size_t n = 0; n < N; n += LANES) {
        for (size_t i = 0; accumulate && i < rows; i++)
            memcpy(sums + i * LANES, c + i * ldc + n, LANES * sizeof *c);
        amx_block(sums, LANES, a, lda, b + n, ldb, K, accumulate, 1, 1);
        for (size_t i = 0; i < rows; i++) memcpy(c + i * ldc + n, sums + i * LANES, LANES * sizeof *c);
    }
}

// c [M, N] = a b (+ c when accumulate) over K pairs; N is a multiple of LANES. Rows of a up to the next
// multiple of 16 must be there to be read, and pairs of a and b up to that, which must be 0.
static inline void pair_product(float *c, size_t ldc, const Pair *a, size_t lda, const Pair *b, size_t ldb,
                                size_t M, size_t N, size_t K, bool accumulate) {
    size_t i = 0;
    for (; i + 2 * AMX_ROWS <= M; i += 2 * AMX_ROWS)
        amx_rows(c + i * ldc, ldc, a + i * lda, lda, b, ldb, N, K, accumulate, 2);
    for (; i + AMX_ROWS <= M; i += AMX_ROWS)
        amx_rows(c + i * ldc, ldc, a + i * lda, lda, b, ldb, N, K, accumulate, 1);
    if (i < M) amx_last_rows(c + i * ldc, ldc, a + i * lda, lda, b, ldb, M - i, N, K, accumulate);
}
