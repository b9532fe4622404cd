// Gradient clipping and AdamW.
#include "base/half.h"
#include "ops/cpu/kernels.h"

#include <math.h>
#include <string.h>

void KERNEL(clip_factor)(Backend *be, Tensor clip, Tensor squares, float max_norm) {
    (void)be;
    double total = 0;
    for (size_t i = 0; i < tensor_count(squares); i++) total += floats(squares)[i];
    float norm = (float)sqrt(total), factor = max_norm / (norm + 1e-6f);
    floats(clip)[0] = norm;
    floats(clip)[1] = max_norm <= 0 || factor > 1 ? 1 : factor; // a norm that is NaN gives a NaN
}

typedef struct AdamwStep {
    float decay, rate, correction, clip; // hyper[0 … 2], clip[1]
    float new_m, beta2, new_v, eps;      // 1 − beta1, beta2, 1 − beta2
} AdamwStep;

static void adamw_piece(float *p, float *m, float *v, const float *grad, size_t n, AdamwStep s) {
#pragma omp simd
    for (size_t i = 0; i < n; i++) {
        float g = grad[i] * s.clip, w = p[i] * s.decay;
        float mi = m[i] + (g - m[i]) * s.new_m;
        float vi = v[i] * s.beta2 + g * g * s.new_v;
        m[i] = mi;
        v[i] = vi;
        p[i] = w - s.rate * (mi / (sqrtf(vi) / s.correction + s.eps));
    }
}

static void round_piece(uint16_t *out, const float *in, size_t n) {
#pragma omp simd
    for (size_t i = 0; i < n; i++) out[i] = bf16_from_f32(in[i]);
}

// What else has to go over the weights and gradients of a piece is done while they are in the cache.
void KERNEL(adamw)(Backend *be, Tensor p, Tensor m, Tensor v, Tensor rounded, Tensor grad, Tensor hyper,
                   Tensor clip, double beta1, double beta2, float eps, bool clear) {
    const float *h = floats(hyper);
    AdamwStep step = {h[0], h[1], h[2], floats(clip)[1], (float)(1 - beta1), (float)beta2, (float)(1 - beta2),
                      eps};
    size_t n = tensor_count(p);
#pragma omp parallel for num_threads(threads_for(be, 4 * n))
    for (size_t i = 0; i < pieces(n); i++) {
        size_t at = i * PIECE, length = piece_length(n, i);
        float *weights = floats(p) + at, *g = floats(grad) + at;
        adamw_piece(weights, floats(m) + at, floats(v) + at, g, length, step);
        if (tensor_exists(rounded)) round_piece((uint16_t *)rounded.data + at, weights, length);
        if (clear) memset(g, 0, length * sizeof *g);
    }
}
