// Cross-entropy with its gradient, and sums in double over fixed parts.
#include "base/check.h"
#include "base/half.h"
#include "ops/cpu/kernels.h"
#include "ops/cpu/vecmath.h"

#include <omp.h>

static float row_max(const float *x, size_t n) {
    float largest = x[0];
#pragma omp simd reduction(max : largest)
    for (size_t i = 0; i < n; i++) largest = x[i] > largest ? x[i] : largest;
    return largest;
}

// Σ exp(x − largest), and with `keep` these exponentials in place of x. Pieces keep the rounding error of a
// vocabulary's length small.
static float sum_exp(float *x, float largest, size_t n, bool keep) {
    double total = 0;
    for (size_t at = 0; at < n; at += PIECE) {
        size_t end = at + PIECE < n ? at + PIECE : n;
        float s = 0;
        if (keep) {
#pragma omp simd reduction(+ : s)
            for (size_t i = at; i < end; i++) s += x[i] = exp_f32(x[i] - largest);
        } else {
#pragma omp simd reduction(+ : s)
            for (size_t i = at; i < end; i++) s += exp_f32(x[i] - largest);
        }
        total += s;
    }
    return (float)total;
}

static float cross_entropy_row(float *x, size_t V, size_t target, float dscale) {
    float largest = row_max(x, V), logit = x[target] - largest, s = sum_exp(x, largest, V, dscale != 0);
    if (dscale != 0) {
        float factor = dscale / s;
#pragma omp simd
        for (size_t i = 0; i < V; i++) x[i] *= factor;
        x[target] -= dscale;
    }
    return logf(s) - logit;
}

static void load_bf16(float *y, const uint16_t *x, size_t n) {
#pragma omp simd
    for (size_t i = 0; i < n; i++) y[i] = f32_from_bf16(x[i]);
}

static void store_bf16(uint16_t *y, const float *x, size_t n) {
#pragma omp simd
    for (size_t i = 0; i < n; i++) y[i] = bf16_from_f32(x[i]);
}

// A row of BF16 goes through floats that are this thread's alone.
static float cross_entropy_row_bf16(uint16_t *row, float *x, size_t V, size_t target, float dscale) {
    load_bf16(x, row, V);
    float loss = cross_entropy_row(x, V, target, dscale);
    if (dscale != 0) store_bf16(row, x, V);
    return loss;
}

void KERNEL(cross_entropy)(Backend *be, Tensor losses, Tensor logits, Tensor targets, float dscale) {
    size_t M = tensor_rows(logits), V = tensor_cols(logits);
    int threads = threads_for(be, 4 * M * V);
    bool bf16 = logits.dtype == DTYPE_BF16;
    float *rows = bf16 ? cpu_scratch(be, (size_t)threads * V * sizeof(float)) : NULL;
#pragma omp parallel for num_threads(threads)
    for (size_t m = 0; m < M; m++) {
        int target = ints(targets)[m];
        CHECK(target >= 0 && (size_t)target < V, "row %zu has target %d of %zu", m, target, V);
        floats(losses)[m] =
            bf16 ? cross_entropy_row_bf16((uint16_t *)logits.data + m * V,
                                          rows + (size_t)omp_get_thread_num() * V, V, (size_t)target, dscale)
                 : cross_entropy_row(floats(logits) + m * V, V, (size_t)target, dscale);
    }
}

static double part_sum(const float *x, size_t n, bool squares) {
    double s = 0;
    if (squares) {
#pragma omp simd reduction(+ : s)
        for (size_t i = 0; i < n; i++) s += (double)x[i] * x[i];
    } else {
#pragma omp simd reduction(+ : s)
        for (size_t i = 0; i < n; i++) s += x[i];
    }
    return s;
}

// The list is cut into the same parts whatever the number of threads, and the parts are added in order.
static double sum_in_parts(Backend *be, Tensor x, bool squares) {
    enum { PARTS = 64 };
    double part[PARTS], total = 0;
    size_t n = tensor_count(x), length = (n + PARTS - 1) / PARTS;
#pragma omp parallel for num_threads(threads_for(be, n))
    for (size_t p = 0; p < PARTS; p++) {
        size_t first = p * length < n ? p * length : n, end = first + length < n ? first + length : n;
        part[p] = part_sum(floats(x) + first, end - first, squares);
    }
    for (size_t p = 0; p < PARTS; p++) total += part[p];
    return total;
}

void KERNEL(sum)(Backend *be, Tensor total, Tensor x, float scale) {
    floats(total)[0] = (float)(sum_in_parts(be, x, false) * scale);
}

void KERNEL(sum_of_squares)(Backend *be, Tensor total, Tensor x) {
    floats(total)[0] = (float)sum_in_parts(be, x, true);
}
