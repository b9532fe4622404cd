// Cross-entropy with its gradient, and sums in double over fixed parts.
#include "base/check.h"
#include "base/half.h"
#include "ops/cpu/kernels.h"
#include "ops/cpu/vecmath.h"

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

// The same on BF16, whose exponentials are computed twice because there is nowhere to keep them exactly.
static float cross_entropy_row_bf16(uint16_t *row, size_t V, size_t target, float dscale) {
    float x[PIECE], largest = -INFINITY, logit = f32_from_bf16(row[target]);
    double sum = 0;
    for (size_t i = 0; i < pieces(V); i++) {
        load_bf16(x, row + i * PIECE, piece_length(V, i));
        float most = row_max(x, piece_length(V, i));
        largest = most > largest ? most : largest;
    }
    for (size_t i = 0; i < pieces(V); i++) {
        load_bf16(x, row + i * PIECE, piece_length(V, i));
        sum += sum_exp(x, largest, piece_length(V, i), false);
    }
    float factor = dscale / (float)sum;
    for (size_t i = 0, at = 0; dscale != 0 && i < pieces(V); i++, at += PIECE) {
        size_t n = piece_length(V, i);
        load_bf16(x, row + at, n);
#pragma omp simd
        for (size_t k = 0; k < n; k++) x[k] = exp_f32(x[k] - largest) * factor;
        if (target >= at && target - at < n) x[target - at] -= dscale;
        store_bf16(row + at, x, n);
    }
    return logf((float)sum) - (logit - largest);
}

void KERNEL(cross_entropy)(Backend *be, Tensor losses, Tensor logits, Tensor targets, float dscale) {
    size_t M = tensor_rows(logits), V = tensor_cols(logits);
#pragma omp parallel for num_threads(threads_for(be, 4 * M * V))
    for (size_t m = 0; m < M; m++) {
        int target = ints(targets)[m];
        CHECK(target >= 0 && (size_t)target < V, "row %zu has target %d of %zu", m, target, V);
        floats(losses)[m] =
            logits.dtype == DTYPE_BF16
                ? cross_entropy_row_bf16((uint16_t *)logits.data + m * V, V, (size_t)target, dscale)
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
