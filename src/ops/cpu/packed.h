// Weights kept in a smaller format than F32, unpacked a stretch of a row at a time.
#pragma once
#include "base/half.h"
#include "ops/cpu/kernels.h"

#ifdef __F16C__
#include <immintrin.h>
#endif

enum { Q8_VALUES = 32, Q8_BYTES = 34 }; // a block: its F16 scale, then 32 signed bytes

static inline float q8_scale(const char *block) {
    uint16_t half;
    memcpy(&half, block, sizeof half);
#ifdef __F16C__
    return _cvtsh_ss(half);
#else
    return f32_from_f16(half);
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

static inline void unpack_bf16(float *out, const uint16_t *in, size_t n) {
#pragma omp simd
    for (size_t i = 0; i < n; i++) out[i] = f32_from_bf16(in[i]);
}

// Values [first, first + n) of a row of w, whole blocks.
static inline void unpack(float *out, Tensor w, size_t row, size_t first, size_t n) {
    const char *from = w.data + dtype_bytes(w.dtype, row * tensor_cols(w) + first);
    if (w.dtype == DTYPE_Q8_0)
        unpack_q8_0(out, from, n);
    else if (w.dtype == DTYPE_BF16)
        unpack_bf16(out, (const uint16_t *)from, n);
    else
        memcpy(out, from, n * sizeof *out);
}
