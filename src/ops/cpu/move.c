// Moving values: fill, copy, add, multiply, and rows by index.
#include "ops/cpu/kernels.h"

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

// n values from x's place x_at to y's place y_at, converted if the dtypes differ (F32 and BF16).
static void move_values(Tensor y, size_t y_at, Tensor x, size_t x_at, size_t n) {
    if (x.dtype == y.dtype)
        memcpy(y.data + y_at * dtype_size(y.dtype), x.data + x_at * dtype_size(x.dtype),
               n * dtype_size(x.dtype));
    else if (y.dtype == DTYPE_BF16)
        store_floats(y, y_at, n, floats(x) + x_at);
    else
        load_floats(x, x_at, n, floats(y) + y_at);
}

void KERNEL(copy)(Backend *be, Tensor y, Tensor x) {
    size_t rows = tensor_rows(y), cols = tensor_cols(y);
    size_t y_step = tensor_row_stride(y), x_step = tensor_row_stride(x);
#pragma omp parallel for num_threads(threads_for(be, rows *cols))
    for (size_t i = 0; i < rows; i++) move_values(y, i * y_step, x, i * x_step, cols);
}

static void add_piece(float *y, const float *a, const float *b, size_t n) {
#pragma omp simd
    for (size_t i = 0; i < n; i++) y[i] = a[i] + b[i];
}

void KERNEL(add)(Backend *be, Tensor y, Tensor a, Tensor b) {
    size_t n = tensor_count(y);
#pragma omp parallel for num_threads(threads_for(be, n))
    for (size_t p = 0; p < pieces(n); p++) {
        size_t at = p * PIECE, length = piece_length(n, p);
        float room[PIECE];
        add_piece(floats(y) + at, floats(a) + at, load_floats(b, at, length, room), length);
    }
}

void KERNEL(multiply)(Backend *be, Tensor x, float factor) {
    size_t n = tensor_count(x);
#pragma omp parallel for num_threads(threads_for(be, n))
    for (size_t p = 0; p < pieces(n); p++) {
        size_t at = p * PIECE, length = piece_length(n, p);
        float room[PIECE], *out = target_floats(x, at, room);
        const float *in = load_floats(x, at, length, room);
        for (size_t i = 0; i < length; i++) out[i] = in[i] * factor;
        store_floats(x, at, length, out);
    }
}

void KERNEL(gather_rows)(Backend *be, Tensor y, Tensor x, Tensor rows) {
    size_t n = tensor_count(rows), C = tensor_cols(x), M = tensor_rows(x);
#pragma omp parallel for num_threads(threads_for(be, n *C))
    for (size_t i = 0; i < n; i++) move_values(y, i * C, x, checked_row(rows, i, M) * C, C);
}

void KERNEL(scatter_rows)(Backend *be, Tensor y, Tensor x, Tensor rows) {
    size_t n = tensor_count(rows), C = tensor_cols(y), M = tensor_rows(y);
#pragma omp parallel for num_threads(threads_for(be, n *C))
    for (size_t i = 0; i < n; i++) move_values(y, checked_row(rows, i, M) * C, x, i * C, C);
}

void KERNEL(zero_rows)(Backend *be, Tensor y, Tensor rows) {
    size_t n = tensor_count(rows), C = tensor_cols(y), M = tensor_rows(y);
#pragma omp parallel for num_threads(threads_for(be, n *C))
    for (size_t i = 0; i < n; i++) memset(floats(y) + checked_row(rows, i, M) * C, 0, C * sizeof(float));
}
