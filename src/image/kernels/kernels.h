// The inner loops of resizing, one table a level of instructions; all levels give the same bits. Only
// image/*.c and the kernels themselves include this.
#pragma once
#include "base/cpu_level.h"

#include <stddef.h>
#include <stdint.h>

#define FIXED_BITS     22 // of the weights, after the point
#define FIXED_HALF     (1 << (FIXED_BITS - 1))
#define FIXED_LOW_BITS 12 // of a weight in the fast form, see RowFilter
#define BLOCK          16 // outputs that are computed together; bytes that a row may be written or read beyond its end
#define WINDOW         16             // bytes that 4 neighbouring outputs take 4 taps from, in the fast form
#define OVER_255       0x1.010102p-8f // 1 / 255, and what rounding it has left
#define OVER_255_REST  -0x1.fdfdfep-33f

// Weights of the horizontal pass in fixed point. Every output has the same number of taps, a multiple of 4,
// filled up with zeros; a row therefore needs taps + WINDOW + BLOCK readable bytes behind its end.
typedef struct RowFilter {
    size_t n_out, blocks, taps; // blocks = n_out / BLOCK rounded up: what is computed
    uint32_t *first;            // [blocks * BLOCK]
    int32_t *weights;           // [blocks * BLOCK, taps]
    // The fast form, NULL where the outputs lie too far apart (strong reductions). A weight is high * 4096 +
    // low; the taps 4q … 4q + 3 of an output are taken as pairs (0, 2) and (1, 3).
    uint8_t *shuffle; // [blocks, 4 windows, 16]: place in the window of each output's taps 0 … 3
    int16_t *pairs;   // [blocks, taps / 4, {high, low} x {(0, 2), (1, 3)}, BLOCK, 2]
} RowFilter;

typedef struct ImageKernels {
    // n RGB pixels to three rows, `plane` bytes apart.
    void (*split)(uint8_t *planes, size_t plane, const uint8_t *rgb, size_t n);
    // One row of one channel: f->blocks * BLOCK bytes.
    void (*filter_row)(uint8_t *out, const uint8_t *in, const RowFilter *f);
    // The weighted sum of n_rows rows of bytes, as bytes or as byte / 255 (a true division). Reads up to
    // BLOCK bytes beyond n.
    void (*mix_bytes)(uint8_t *out, const uint8_t *const *rows, const int32_t *weights, size_t n_rows,
                      size_t n);
    void (*mix_floats)(float *out, const uint8_t *const *rows, const int32_t *weights, size_t n_rows,
                       size_t n);
    // sums = x * weight (first) or sums + x * weight
    void (*add_row)(float *sums, const float *x, float weight, bool first, size_t n);
    // out[i] = sum of in[i * stride + j] * weights[j] over j < 2 * stride
    void (*shrink)(float *out, const float *in, const float *weights, size_t stride, size_t n);
} ImageKernels;

extern const ImageKernels image_kernels_generic;
#ifdef CPU_LEVELS_X86
extern const ImageKernels image_kernels_avx2, image_kernels_avx512;
#endif
