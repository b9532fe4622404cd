// AdamW's moments in 8 bits, blocks of 256 values with a scale each (Dettmers et al. 2022), between memory
// and floats. A code stands for scale · (code/127)² with its sign in a first moment and for scale ·
// (code/255)⁴ in a second one: a map that is finer where values are small, like the paper's, but needs no
// table. scale is the block's largest value. Values are rounded up or down by chance, so that their means are
// right.
#pragma once
#include "base/half.h"
#include "tensor/ops.h"

#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define M_TOP      127.0f
#define V_TOP      255.0f
#define CODE_TINY  1e-35f // the largest of a block below this: all of it is 0
#define CHANCE_TOP 0x1p-16f

static inline float square(float x) {
    return x * x;
}

// A row's scale stands behind its codes.
static inline float block_scale(const uint8_t *row) {
    float scale;
    memcpy(&scale, row + MOMENT_BLOCK, sizeof scale);
    return scale;
}

static inline void decode_m(float *m, const uint8_t *row, size_t n) {
    const float unit = block_scale(row) / square(M_TOP);
    int codes[MOMENT_BLOCK]; // gcc 12 takes bytes apart one by one when it makes floats of them
#pragma omp simd
    for (size_t i = 0; i < n; i++) codes[i] = (int8_t)row[i];
#pragma omp simd
    for (size_t i = 0; i < n; i++) m[i] = (float)codes[i] * fabsf((float)codes[i]) * unit;
}

static inline void decode_v(float *v, const uint8_t *row, size_t n) {
    const float unit = block_scale(row) / square(square(V_TOP));
    int codes[MOMENT_BLOCK];
#pragma omp simd
    for (size_t i = 0; i < n; i++) codes[i] = row[i];
#pragma omp simd
    for (size_t i = 0; i < n; i++) v[i] = square(square((float)codes[i])) * unit;
}

// The scale for these values: 0 for none to speak of, NaN if one is not finite, which then holds for them
// all.
static inline float scale_of(const float *x, size_t n) {
    float largest = 0, poison = 0;
#pragma omp simd reduction(max : largest) reduction(+ : poison)
    for (size_t i = 0; i < n; i++) {
        largest = fabsf(x[i]) > largest ? fabsf(x[i]) : largest;
        poison += x[i] * 0;
    }
    return largest > CODE_TINY || poison != 0 ? largest + poison : 0;
}

// Puts the scale behind the codes; false if all codes are 0 and nothing is left to do.
static inline bool begin_row(uint8_t *row, float scale) {
    memcpy(row + MOMENT_BLOCK, &scale, sizeof scale);
    if (scale > 0) return true;
    memset(row, 0, MOMENT_BLOCK);
    return false;
}

// t lies between lower² and (lower + 1)²; chance in [0, 1).
static inline void encode_m(uint8_t *row, const float *m, const uint32_t *chance, size_t n) {
    const float scale = scale_of(m, n), unit = square(M_TOP) / scale;
    int codes[MOMENT_BLOCK];
    if (!begin_row(row, scale)) return;
#pragma omp simd
    for (size_t i = 0; i < n; i++) {
        const float t = fabsf(m[i]) * unit, draw = (float)(int)(chance[i] & 0xffff) * CHANCE_TOP;
        const int lower = (int)sqrtf(t);
        const float at = (float)lower;
        int code = lower + (t - at * at > draw * (2 * at + 1));
        code = code > (int)M_TOP ? (int)M_TOP : code;
        codes[i] = m[i] < 0 ? -code : code;
    }
#pragma omp simd
    for (size_t i = 0; i < n; i++) row[i] = (uint8_t)codes[i];
}

// As above with fourth powers. What is not 0 never becomes 0, because m is divided by its root.
static inline void encode_v(uint8_t *row, const float *v, const uint32_t *chance, size_t n) {
    const float scale = scale_of(v, n), unit = square(square(V_TOP)) / scale;
    int codes[MOMENT_BLOCK];
    if (!begin_row(row, scale)) return;
#pragma omp simd
    for (size_t i = 0; i < n; i++) {
        const float t = v[i] * unit, draw = (float)(int)(chance[i] >> 16) * CHANCE_TOP;
        const int lower = (int)sqrtf(sqrtf(t));
        const float from = square(square((float)lower)), to = square(square((float)lower + 1));
        int code = lower + (t - from > draw * (to - from));
        code = code > (int)V_TOP ? (int)V_TOP : code;
        codes[i] = code + (code == 0 && t > 0);
    }
#pragma omp simd
    for (size_t i = 0; i < n; i++) row[i] = (uint8_t)codes[i];
}
