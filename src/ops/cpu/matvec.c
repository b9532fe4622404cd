// y = x wᵀ + b for a few rows of x and for packed w. Few rows (a token a sequence) are bound by reading w, so
// they are dot products that read each value of w once, in whatever format it is kept; many rows are a matrix
// product with a block of w unpacked. x stays F32 in both.
#include "ops/cpu/packed.h"
#include "ops/cpu/tile.h"

#include <string.h>

// Rows of w that run beside one another: x is read once for all, and memory likes several streams.
enum { DOT_ROWS = 4 };

typedef uint16_t HalfLanes __attribute__((vector_size(LANES * 2), aligned(2), may_alias));
typedef uint32_t WordLanes __attribute__((vector_size(LANES * 4)));
typedef int8_t ByteLanes __attribute__((vector_size(LANES), aligned(1), may_alias));

ALWAYS_INLINE Lanes lanes_bf16(const char *p) {
    return (Lanes)(__builtin_convertvector(*(const HalfLanes *)p, WordLanes) << 16);
}

ALWAYS_INLINE Lanes lanes_i8(const char *p) {
    return __builtin_convertvector(*(const ByteLanes *)p, Lanes);
}

ALWAYS_INLINE float sum_of_lanes(Lanes v) {
    float part[LANES];
    memcpy(part, &v, sizeof part);
    for (size_t width = LANES / 2; width > 0; width /= 2)
        for (size_t i = 0; i < width; i++) part[i] += part[i + width];
    return part[0];
}

// out[r] = x · row r of w for R rows that begin `stride` bytes apart; R is a constant where this is used.
ALWAYS_INLINE void dot_f32(float *out, const float *x, const char *w, size_t stride, size_t n, const size_t R) {
    Lanes sum[DOT_ROWS] = {0};
    const size_t whole = n / LANES * LANES;
    for (size_t k = 0; k < whole; k += LANES)
        for (size_t r = 0; r < R; r++)
            sum[r] += *(const Lanes *)(x + k) * *(const Lanes *)(w + r * stride + k * sizeof(float));
    for (size_t r = 0; r < R; r++) {
        const float *rest = (const float *)(w + r * stride);
        out[r] = sum_of_lanes(sum[r]);
        for (size_t k = whole; k < n; k++) out[r] += x[k] * rest[k];
    }
}

ALWAYS_INLINE void dot_bf16(float *out, const float *x, const char *w, size_t stride, size_t n,
                            const size_t R) {
    Lanes sum[DOT_ROWS] = {0};
    const size_t whole = n / LANES * LANES;
    for (size_t k = 0; k < whole; k += LANES)
        for (size_t r = 0; r < R; r++) sum[r] += *(const Lanes *)(x + k) * lanes_bf16(w + r * stride + 2 * k);
    for (size_t r = 0; r < R; r++) {
        const uint16_t *rest = (const uint16_t *)(w + r * stride);
        out[r] = sum_of_lanes(sum[r]);
        for (size_t k = whole; k < n; k++) out[r] += x[k] * f32_from_bf16(rest[k]);
    }
}

ALWAYS_INLINE void dot_q8_0(float *out, const float *x, const char *w, size_t stride, size_t n,
                            const size_t R) {
    Lanes sum[DOT_ROWS] = {0};
    for (size_t k = 0; k < n; k += Q8_VALUES, w += Q8_BYTES)
        for (size_t r = 0; r < R; r++) {
            const char *block = w + r * stride;
            Lanes part = {0};
            for (size_t i = 0; i < Q8_VALUES; i += LANES)
                part += *(const Lanes *)(x + k + i) * lanes_i8(block + 2 + i);
            sum[r] += part * q8_scale(block);
        }
    for (size_t r = 0; r < R; r++) out[r] = sum_of_lanes(sum[r]);
}

ALWAYS_INLINE void dot_rows(float *out, const float *x, Tensor w, size_t first, const size_t R) {
    const size_t n = tensor_cols(w), stride = dtype_bytes(w.dtype, n);
    const char *rows = w.data + first * stride;
    if (w.dtype == DTYPE_Q8_0)
        dot_q8_0(out, x, rows, stride, n, R);
    else if (w.dtype == DTYPE_BF16)
        dot_bf16(out, x, rows, stride, n, R);
    else
        dot_f32(out, x, rows, stride, n, R);
}

// Outputs [o, o + R) of every row of x, while these rows of w are in the cache.
ALWAYS_INLINE void few_outputs(Matrix y, Matrix x, Tensor w, const float *bias, size_t o, const size_t R) {
    for (size_t m = 0; m < x.rows; m++) {
        float out[DOT_ROWS];
        dot_rows(out, row(x, m), w, o, R);
        for (size_t r = 0; r < R; r++) row(y, m)[o + r] = out[r] + (bias ? bias[o + r] : 0.0f);
    }
}

static void few_rows(Backend *be, Matrix y, Matrix x, Tensor w, const float *bias) {
    const size_t whole = y.cols / DOT_ROWS;
#pragma omp parallel for schedule(static) num_threads(threads_for(be, y.cols *x.cols))
    for (size_t i = 0; i < whole; i++) few_outputs(y, x, w, bias, i * DOT_ROWS, DOT_ROWS);
    for (size_t o = whole * DOT_ROWS; o < y.cols; o++) few_outputs(y, x, w, bias, o, 1);
}

// A block of w as F32: 512 KiB, which stay in a core's second cache.
enum { UNPACKED_ROWS = 128, UNPACKED_COLS = 1024 };

static void many_rows(Backend *be, Matrix y, Matrix x, Tensor w, const float *bias) {
    static _Thread_local float block[UNPACKED_ROWS * UNPACKED_COLS];
    float *unpacked = block; // the calling thread's, for all that help it
    for (size_t m = 0; bias && m < y.rows; m++) memcpy(row(y, m), bias, y.cols * sizeof(float));
    for (size_t o = 0; o < y.cols; o += UNPACKED_ROWS) {
        const size_t rows = y.cols - o < UNPACKED_ROWS ? y.cols - o : UNPACKED_ROWS;
        for (size_t k = 0; k < x.cols; k += UNPACKED_COLS) {
            const size_t cols = x.cols - k < UNPACKED_COLS ? x.cols - k : UNPACKED_COLS;
#pragma omp parallel for num_threads(threads_for(be, rows *cols))
            for (size_t r = 0; r < rows; r++) unpack(unpacked + r * cols, w, o + r, k, cols);
            gemm(cpu_threads(be), (GemmSize){y.rows, rows, cols}, y.data + o, y.stride, bias || k > 0,
                 x.data + k, x.stride, false, unpacked, cols, true);
        }
    }
}

// Beyond this many rows of x a matrix product is faster.
enum { FEW_ROWS = 8 };

bool KERNEL(linear_by_rows)(Backend *be, Tensor y, Tensor x, Tensor w, Tensor b) {
    const float *bias = tensor_exists(b) ? floats(b) : NULL;
    const bool few = tensor_rows(x) <= FEW_ROWS;
    if (few)
        few_rows(be, matrix(y), matrix(x), w, bias);
    else if (w.dtype != DTYPE_F32)
        many_rows(be, matrix(y), matrix(x), w, bias);
    return few || w.dtype != DTYPE_F32;
}
