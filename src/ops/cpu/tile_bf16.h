// Small products of BF16 matrices with sums in F32, by AMX (tile_amx.h) or by vdpbf16ps: each lane adds the
// products of a pair of neighbouring values. A pair is handled as one 32-bit word. The left factor's pairs
// are broadcast; the right factor is [pairs, columns], a whole number of vectors wide.
#pragma once
#include "ops/cpu/tile.h"

#include <immintrin.h>
#include <stdint.h>

typedef uint32_t __attribute__((may_alias)) Pair; // two BF16 values, the first in the lower half

#ifdef __AMX_BF16__
#include "ops/cpu/tile_amx.h"
#else
// A thread's products stand between these two.
static inline void products_begin(void) {}
static inline void products_end(void) {}

// R rows by V vectors of c (+)= a b over K pairs, held in registers. R and V are constants where this is
// used.
ALWAYS_INLINE void pair_block(float *c, size_t ldc, const Pair *a, size_t lda, const Pair *b, size_t ldb,
                              size_t K, bool accumulate, const size_t R, const size_t V) {
    __m512 sum[8][2];
    for (size_t i = 0; i < R; i++)
        for (size_t v = 0; v < V; v++)
            sum[i][v] = accumulate ? _mm512_loadu_ps(c + i * ldc + v * LANES) : _mm512_setzero_ps();
#pragma GCC unroll 2
    for (size_t k = 0; k < K; k++)
        for (size_t i = 0; i < R; i++) {
            __m512bh left = (__m512bh)_mm512_set1_epi32((int)a[i * lda + k]);
            for (size_t v = 0; v < V; v++)
                sum[i][v] =
                    _mm512_dpbf16_ps(sum[i][v], left, (__m512bh)_mm512_loadu_si512(b + k * ldb + v * LANES));
        }
    for (size_t i = 0; i < R; i++)
        for (size_t v = 0; v < V; v++) _mm512_storeu_ps(c + i * ldc + v * LANES, sum[i][v]);
}

ALWAYS_INLINE void pair_rows(float *c, size_t ldc, const Pair *a, size_t lda, const Pair *b, size_t ldb,
                             size_t N, size_t K, bool accumulate, const size_t R) {
    size_t n = 0;
    for (; n + 2 * LANES <= N; n += 2 * LANES)
        pair_block(c + n, ldc, a, lda, b + n, ldb, K, accumulate, R, 2);
    if (n < N) pair_block(c + n, ldc, a, lda, b + n, ldb, K, accumulate, R, 1);
}

// c [M, N] = a b (+ c when accumulate) over K pairs; N is a multiple of LANES. Rows of a up to the next
// multiple of 16 must be there to be read, and pairs of a and b up to that, which must be 0.
static inline void pair_product(float *c, size_t ldc, const Pair *a, size_t lda, const Pair *b, size_t ldb,
                                size_t M, size_t N, size_t K, bool accumulate) {
    size_t i = 0;
    for (; i + 8 <= M; i += 8, a += 8 * lda, c += 8 * ldc)
        pair_rows(c, ldc, a, lda, b, ldb, N, K, accumulate, 8);
    for (; i + 4 <= M; i += 4, a += 4 * lda, c += 4 * ldc)
        pair_rows(c, ldc, a, lda, b, ldb, N, K, accumulate, 4);
    for (; i < M; i++, a += lda, c += ldc) pair_rows(c, ldc, a, lda, b, ldb, N, K, accumulate, 1);
}
#endif

// The pairs (low[i], high[i]) of the 16 values in the lower half and the 16 in the upper half.
static inline __m512i interleaved(__m512i halves) {
    const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23,
                                           7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    return _mm512_permutexvar_epi16(order, halves);
}

// The pairs (low[i], high[i]), rounded to nearest even.
static inline __m512i pairs_of(__m512 low, __m512 high) {
    return interleaved((__m512i)_mm512_cvtne2ps_pbh(high, low));
}
