// LayerNorm and RMSNorm over the last dimension, a row a task; the weights' gradients a strip of columns a
// task.
#include "ops/cpu/kernels.h"

#include <math.h>

static float row_sum(const float *x, size_t n) {
    float s = 0;
#pragma omp simd reduction(+ : s)
    for (size_t i = 0; i < n; i++) s += x[i];
    return s;
}

static float sum_of_squares_about(const float *x, float mean, size_t n) {
    float s = 0;
#pragma omp simd reduction(+ : s)
    for (size_t i = 0; i < n; i++) s += (x[i] - mean) * (x[i] - mean);
    return s;
}

// y from `at` on = (x − mean) · rstd · w + b; b may be NULL.
static void write_row(Tensor y, size_t at, const float *x, float mean, float rstd, const float *w,
                      const float *b, size_t C) {
    float room[PIECE];
    for (size_t p = 0; p < pieces(C); p++) {
        size_t c0 = p * PIECE, n = piece_length(C, p);
        float *out = target_floats(y, at + c0, room);
        const float *in = x + c0, *weight = w + c0, *bias = b ? b + c0 : NULL;
        if (bias) {
#pragma omp simd
            for (size_t i = 0; i < n; i++) out[i] = (in[i] - mean) * rstd * weight[i] + bias[i];
        } else {
#pragma omp simd
            for (size_t i = 0; i < n; i++) out[i] = in[i] * rstd * weight[i];
        }
        store_floats(y, at + c0, n, out);
    }
}

void KERNEL(layer_norm_forward)(Backend *be, Tensor y, Tensor mean, Tensor rstd, Tensor x, Tensor w, Tensor b,
                                float eps) {
    Matrix mx = matrix(x);
    size_t C = mx.cols;
    const float *weight = floats(w), *bias = floats(b);
#pragma omp parallel for num_threads(threads_for(be, mx.rows *C))
    for (size_t m = 0; m < mx.rows; m++) {
        const float *in = row(mx, m);
        float mu = row_sum(in, C) / (float)C;
        float r = 1.0f / sqrtf(sum_of_squares_about(in, mu, C) / (float)C + eps);
        write_row(y, m * C, in, mu, r, weight, bias, C);
        floats(mean)[m] = mu;
        floats(rstd)[m] = r;
    }
}

void KERNEL(rms_norm_forward)(Backend *be, Tensor y, Tensor rstd, Tensor x, Tensor w, float eps) {
    Matrix mx = matrix(x);
    size_t C = mx.cols;
    const float *weight = floats(w);
#pragma omp parallel for num_threads(threads_for(be, mx.rows *C))
    for (size_t m = 0; m < mx.rows; m++) {
        const float *in = row(mx, m);
        float r = 1.0f / sqrtf(sum_of_squares_about(in, 0, C) / (float)C + eps);
        write_row(y, m * C, in, 0, r, weight, NULL, C);
        floats(rstd)[m] = r;
    }
}

// With n = (x − mean) · rstd: y = n w + b, so dx = rstd (dy w − Σ(dy w)/C − n Σ(dy w n)/C). RMSNorm is the
// same with mean 0 and without the middle term.
static void norm_row_backward(float *dx, Tensor dy, size_t at, const float *x, const float *w, float mean,
                              float rstd, bool centred, size_t C) {
    float room[PIECE], s = 0, sn = 0;
    for (size_t p = 0; p < pieces(C); p++) {
        size_t c0 = p * PIECE, n = piece_length(C, p);
        const float *g = load_floats(dy, at + c0, n, room), *in = x + c0, *weight = w + c0;
#pragma omp simd reduction(+ : s, sn)
        for (size_t i = 0; i < n; i++) {
            s += g[i] * weight[i];
            sn += g[i] * weight[i] * ((in[i] - mean) * rstd);
        }
    }
    s = centred ? s / (float)C : 0;
    sn /= (float)C;
    for (size_t p = 0; p < pieces(C); p++) {
        size_t c0 = p * PIECE, n = piece_length(C, p);
        const float *g = load_floats(dy, at + c0, n, room), *in = x + c0, *weight = w + c0;
#pragma omp simd
        for (size_t i = 0; i < n; i++)
            dx[c0 + i] += rstd * (g[i] * weight[i] - s - (in[i] - mean) * rstd * sn);
    }
}

// dw[c] += Σ_m dy n and db[c] += Σ_m dy for a strip of columns; mean and db may be NULL. Blocks of rows keep
// the rounding errors of long sums small.
static void add_weight_gradients(float *dw, float *db, Tensor dy, Matrix x, const float *mean,
                                 const float *rstd, size_t first, size_t width) {
    enum { BLOCK_ROWS = 64 };
    float total_w[STRIP] = {0}, total_b[STRIP] = {0};
    for (size_t m0 = 0; m0 < x.rows; m0 += BLOCK_ROWS) {
        size_t m1 = m0 + BLOCK_ROWS < x.rows ? m0 + BLOCK_ROWS : x.rows;
        float part_w[STRIP] = {0}, part_b[STRIP] = {0}, room[STRIP];
        for (size_t m = m0; m < m1; m++) {
            const float *g = load_floats(dy, m * x.cols + first, width, room), *in = row(x, m) + first;
            float mu = mean ? mean[m] : 0, r = rstd[m];
            for (size_t c = 0; c < width; c++) {
                part_w[c] += g[c] * ((in[c] - mu) * r);
                part_b[c] += g[c];
            }
        }
        for (size_t c = 0; c < STRIP; c++) total_w[c] += part_w[c], total_b[c] += part_b[c];
    }
    for (size_t c = 0; c < width; c++) dw[first + c] += total_w[c];
    for (size_t c = 0; db && c < width; c++) db[first + c] += total_b[c];
}

static void norm_backward(Backend *be, Tensor dx, Tensor dw, Tensor db, Tensor dy, Tensor x, Tensor w,
                          Tensor mean, Tensor rstd) {
    Matrix mdx = matrix(dx), mx = matrix(x);
    const float *mu = floats(mean), *r = floats(rstd);
    int threads = threads_for(be, mx.rows * mx.cols);
#pragma omp parallel for num_threads(threads)
    for (size_t m = 0; m < mx.rows; m++)
        norm_row_backward(row(mdx, m), dy, m * mx.cols, row(mx, m), floats(w), mu ? mu[m] : 0, r[m],
                          mu != NULL, mx.cols);
    if (!tensor_exists(dw)) return;
#pragma omp parallel for num_threads(threads)
    for (size_t s = 0; s < strips(mx.cols); s++)
        add_weight_gradients(floats(dw), floats(db), dy, mx, mu, r, s * STRIP, strip_width(mx.cols, s));
}

void KERNEL(layer_norm_backward)(Backend *be, Tensor dx, Tensor dw, Tensor db, Tensor dy, Tensor x, Tensor w,
                                 Tensor mean, Tensor rstd) {
    norm_backward(be, dx, dw, db, dy, x, w, mean, rstd);
}

void KERNEL(rms_norm_backward)(Backend *be, Tensor dx, Tensor dw, Tensor dy, Tensor x, Tensor w,
                               Tensor rstd) {
    norm_backward(be, dx, dw, TENSOR_NONE, dy, x, w, TENSOR_NONE, rstd);
}
