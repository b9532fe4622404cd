// Moving values: fill, copy, add, and rows by index.
#include "ops/cpu/kernels.h"
#include "ops/cpu/vecmath.h"

#include <stdint.h>
#include <string.h>

void KERNEL(fill)(Backend *be, Tensor x, float value) {
    size_t n = tensor_count(x);
#pragma omp parallel for num_threads(threads_for(be, n))
    for (size_t p = 0; p < pieces(n); p++) {
        float *out = floats(x) + p * PIECE;
        size_t length = piece_length(n, p);
        for (size_t i = 0; i < length; i++) out[i] = value;
    }
}

// Round to nearest, ties to even; a NaN stays one.
static inline uint16_t bf16_from_f32(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    uint32_t rounded = bits + 0x7fff + (bits >> 16 & 1);
    return (uint16_t)((bits & 0x7fffffff) > 0x7f800000 ? bits >> 16 | 0x40 : rounded >> 16);
}

static void row_to_bf16(uint16_t *y, const float *x, size_t n) {
#pragma omp simd
    for (size_t i = 0; i < n; i++) y[i] = bf16_from_f32(x[i]);
}

static void row_from_bf16(float *y, const uint16_t *x, size_t n) {
#pragma omp simd
    for (size_t i = 0; i < n; i++) y[i] = float_from_bits((unsigned)x[i] << 16);
}

void KERNEL(copy)(Backend *be, Tensor y, Tensor x) {
    size_t rows = tensor_rows(y), cols = tensor_cols(y);
    size_t y_step = tensor_row_stride(y) * dtype_size(y.dtype);
    size_t x_step = tensor_row_stride(x) * dtype_size(x.dtype);
#pragma omp parallel for num_threads(threads_for(be, rows *cols))
    for (size_t i = 0; i < rows; i++) {
        void *to = y.data + i * y_step;
        const void *from = x.data + i * x_step;
        if (x.dtype == y.dtype)
            memcpy(to, from, cols * dtype_size(x.dtype));
        else if (y.dtype == DTYPE_BF16)
            row_to_bf16(to, from, cols);
        else
            row_from_bf16(to, from, cols);
    }
}

static void add_piece(float *y, const float *a, const float *b, size_t n) {
#pragma omp simd
    for (size_t i = 0; i < n; i++) y[i] = a[i] + b[i];
}

void KERNEL(add)(Backend *be, Tensor y, Tensor a, Tensor b) {
    size_t n = tensor_count(y);
#pragma omp parallel for num_threads(threads_for(be, n))
    for (size_t p = 0; p < pieces(n); p++) {
        size_t at = p * PIECE;
        add_piece(floats(y) + at, floats(a) + at, floats(b) + at, piece_length(n, p));
    }
}

void KERNEL(gather_rows)(Backend *be, Tensor y, Tensor x, Tensor rows) {
    size_t n = tensor_count(rows), C = tensor_cols(x), M = tensor_rows(x);
#pragma omp parallel for num_threads(threads_for(be, n *C))
    for (size_t i = 0; i < n; i++)
        memcpy(floats(y) + i * C, floats(x) + checked_row(rows, i, M) * C, C * sizeof(float));
}

void KERNEL(scatter_rows)(Backend *be, Tensor y, Tensor x, Tensor rows) {
    size_t n = tensor_count(rows), C = tensor_cols(y), M = tensor_rows(y);
#pragma omp parallel for num_threads(threads_for(be, n *C))
    for (size_t i = 0; i < n; i++)
        memcpy(floats(y) + checked_row(rows, i, M) * C, floats(x) + i * C, C * sizeof(float));
}

void KERNEL(zero_rows)(Backend *be, Tensor y, Tensor rows) {
    size_t n = tensor_count(rows), C = tensor_cols(y), M = tensor_rows(y);
#pragma omp parallel for num_threads(threads_for(be, n *C))
    for (size_t i = 0; i < n; i++) memset(floats(y) + checked_row(rows, i, M) * C, 0, C * sizeof(float));
}
