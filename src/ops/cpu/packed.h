// Weights kept in a smaller format than F32, unpacked a stretch of a row at a time.
#pragma once
#include "base/half.h"
#include "ops/cpu/kernels.h"

#include <string.h>

#ifdef __F16C__
#include <immintrin.h>
#endif

// ---- Q8_0: a block is its F16 scale, then 32 signed bytes ----

enum { Q8_VALUES = 32, Q8_BYTES = 34 };

static inline float q8_scale(const void *half) {
    uint16_t bits;
    memcpy(&bits, half, sizeof bits);
#ifdef __F16C__
    return _cvtsh_ss(bits);
#else
    return f32_from_f16(bits);
#endif
}

static inline void unpack_q8_0(float *out, const char *block, size_t n) {
    for (size_t i = 0; i < n; i += Q8_VALUES, block += Q8_BYTES) {
        const signed char *q = (const signed char *)block + 2;
        const float scale = q8_scale(block);
#pragma omp simd
        for (size_t j = 0; j < Q8_VALUES; j++) out[i + j] = scale * (float)q[j];
    }
}

// ---- Q8_TILES: the blocks of 32 rows at a time, in the bytes of those rows ----
// Block by block: 32 scales, then the codes (value + 128), four of each row, then the next four. So all is
// aligned to 64 bytes. Rows that fill no tile follow as Q8_0.

enum { Q8_ROWS = 32, Q8_TILE_BLOCK = Q8_ROWS * Q8_BYTES };

typedef struct Q8Block {
    uint16_t *scales; // [32]
    uint8_t *codes;   // [32 / 4, 32, 4]
} Q8Block;

static inline Q8Block q8_block(const char *tile, size_t b) {
    char *scales = (char *)tile + b * Q8_TILE_BLOCK;
    return (Q8Block){(uint16_t *)scales, (uint8_t *)scales + Q8_ROWS * sizeof(uint16_t)};
}

// Makes a tile of up to 32 rows of Q8_0; those that are not there are 0.
static inline void q8_arrange_tile(char *tile, const char *rows, size_t count, size_t blocks) {
    if (count < Q8_ROWS) memset(tile, 0, Q8_ROWS * blocks * Q8_BYTES);
    for (size_t b = 0; b < blocks; b++) {
        const Q8Block to = q8_block(tile, b);
        for (size_t r = 0; r < count; r++) {
            const char *from = rows + (r * blocks + b) * Q8_BYTES;
            memcpy(&to.scales[r], from, sizeof *to.scales);
            for (size_t q = 0; q < Q8_VALUES; q += 4) {
                uint32_t four;
                memcpy(&four, from + sizeof *to.scales + q, sizeof four);
                four ^= 0x80808080; // + 128 each
                memcpy(to.codes + q * Q8_ROWS + r * 4, &four, sizeof four);
            }
        }
    }
}

static inline void unpack_codes(float out[4], const uint8_t codes[4], float scale) {
#ifdef __AVX2__
    int32_t four;
    memcpy(&four, codes, sizeof four);
    const __m128i whole = _mm_sub_epi32(_mm_cvtepu8_epi32(_mm_cvtsi32_si128(four)), _mm_set1_epi32(128));
    _mm_storeu_ps(out, _mm_mul_ps(_mm_set1_ps(scale), _mm_cvtepi32_ps(whole)));
#else
    for (size_t i = 0; i < 4; i++) out[i] = scale * (float)(codes[i] - 128);
#endif
}

// Values [first, first + n) of row r of a tile.
static inline void unpack_q8_tile(float *out, const char *tile, size_t r, size_t first, size_t n) {
    for (size_t i = 0; i < n; i += Q8_VALUES) {
        const Q8Block block = q8_block(tile, (first + i) / Q8_VALUES);
        const float scale = q8_scale(&block.scales[r]);
        for (size_t q = 0; q < Q8_VALUES; q += 4)
            unpack_codes(out + i + q, block.codes + q * Q8_ROWS + r * 4, scale);
    }
}

static inline void unpack_q8_tiles(float *out, Tensor w, size_t row, size_t first, size_t n) {
    const size_t blocks = tensor_cols(w) / Q8_VALUES, r = row % Q8_ROWS;
    const char *tile = w.data + (row - r) * blocks * Q8_BYTES;
    if (row - r + Q8_ROWS <= tensor_rows(w))
        unpack_q8_tile(out, tile, r, first, n);
    else
        unpack_q8_0(out, tile + (r * blocks + first / Q8_VALUES) * Q8_BYTES, n);
}

// ---- any format ----

static inline void unpack_bf16(float *out, const uint16_t *in, size_t n) {
#pragma omp simd
    for (size_t i = 0; i < n; i++) out[i] = f32_from_bf16(in[i]);
}

// Values [first, first + n) of a row of w, whole blocks.
static inline void unpack(float *out, Tensor w, size_t row, size_t first, size_t n) {
    const size_t at = row * tensor_cols(w) + first;
    if (w.dtype == DTYPE_Q8_TILES)
        unpack_q8_tiles(out, w, row, first, n);
    else if (w.dtype == DTYPE_BF16)
        unpack_bf16(out, (const uint16_t *)w.data + at, n);
    else
        memcpy(out, floats(w) + at, n * sizeof *out);
}
