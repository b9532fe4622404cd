// Cross-entropy with its gradient, and sums in double over fixed parts.
#include "base/check.h"
#include "base/half.h"
#include "ops/cpu/kernels.h"
#include "ops/cpu/lanes.h"

#include <math.h>
#include <omp.h>

// ---- a row of logits, in F32 or BF16 ----

ALWAYS_INLINE float row_max(const char *x, const Dtype dtype, size_t n) {
    Lanes most[4];
    for (size_t k = 0; k < 4; k++) most[k] = lanes_of(-INFINITY);
    FOR_VECTORS(n, i, in_row, k, {
        Lanes v = load_some(x, dtype, i, in_row);
        for (size_t c = in_row; c < LANES; c++) v[c] = -INFINITY;
        most[k] = greatest(v, most[k]);
    });
    const Lanes all = greatest(greatest(most[0], most[1]), greatest(most[2], most[3]));
    float largest = all[0];
    for (size_t c = 1; c < LANES; c++) largest = all[c] > largest ? all[c] : largest;
    return largest;
}

// Σ exp(x − largest); where there is room for them, these exponentials are left in `kept`, which may be x.
// Pieces keep the rounding error of a vocabulary's length small.
ALWAYS_INLINE float sum_exp(const char *x, const Dtype dtype, float largest, size_t n, char *kept) {
    double total = 0;
    for (size_t p = 0; p < pieces(n); p++) {
        Lanes s[4] = {0};
        FOR_VECTORS(piece_length(n, p), at, in_row, k, {
            const size_t i = p * PIECE + at;
            Lanes e = exp_lanes(load_some(x, dtype, i, in_row) - largest);
            if (in_row < LANES) e = first_of(e, in_row);
            if (kept) store_some(kept, DTYPE_F32, i, in_row, e);
            s[k] += e;
        });
        total += total_of((s[0] + s[1]) + (s[2] + s[3]));
    }
    return (float)total;
}

ALWAYS_INLINE void scale_row(char *y, const Dtype dtype, const char *x, float factor, size_t n) {
    FOR_VECTORS(n, i, in_row, k, {
        store_some(y, dtype, i, in_row, load_some(x, DTYPE_F32, i, in_row) * factor);
        (void)k;
    });
}

ALWAYS_INLINE float value_at(const char *x, const Dtype dtype, size_t i) {
    return dtype == DTYPE_BF16 ? f32_from_bf16(((const uint16_t *)x)[i]) : ((const float *)x)[i];
}

// `kept` is room for the row in F32, or the row itself.
ALWAYS_INLINE float cross_entropy_row(char *x, const Dtype dtype, char *kept, size_t V, size_t target,
                                      float dscale) {
    const float largest = row_max(x, dtype, V), logit = value_at(x, dtype, target) - largest,
                s = sum_exp(x, dtype, largest, V, dscale != 0 ? kept : NULL);
    if (dscale != 0) {
        const float factor = dscale / s, of_target = ((float *)kept)[target] * factor - dscale;
        scale_row(x, dtype, kept, factor, V);
        if (dtype == DTYPE_BF16)
            ((uint16_t *)x)[target] = bf16_from_f32(of_target);
        else
            ((float *)x)[target] = of_target;
    }
    return logf(s) - logit;
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
        char *x = logits.data + m * V * bytes_of(logits.dtype);
        floats(losses)[m] =
            bf16 ? cross_entropy_row(x, DTYPE_BF16, (char *)(rows + (size_t)omp_get_thread_num() * V), V,
                                     (size_t)target, dscale)
                 : cross_entropy_row(x, DTYPE_F32, x, V, (size_t)target, dscale);
    }
}

// ---- sums ----

// Several sums, because each addition waits for the one before it.
ALWAYS_INLINE double part_sum(const float *x, size_t n, const bool squares) {
    enum { SUMS = 64 };
    double s[SUMS] = {0}, total = 0;
    size_t i = 0;
    for (; i + SUMS <= n; i += SUMS)
#pragma omp simd
        for (size_t k = 0; k < SUMS; k++) s[k] += squares ? (double)x[i + k] * x[i + k] : x[i + k];
    for (size_t k = 0; i < n; i++, k++) s[k] += squares ? (double)x[i] * x[i] : x[i];
    for (size_t k = 0; k < SUMS; k++) total += s[k];
    return total;
}

// The list is cut into the same parts whatever the number of threads, and the parts are added in order.
ALWAYS_INLINE double sum_in_parts(Backend *be, Tensor x, const bool squares) {
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
