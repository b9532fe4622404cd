// Gradient clipping and AdamW.
#include "ops/cpu/kernels.h"

#include <math.h>

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

void KERNEL(adamw)(Backend *be, Tensor p, Tensor m, Tensor v, Tensor grad, Tensor hyper, Tensor clip,
                   double beta1, double beta2, float eps) {
    const float *h = floats(hyper);
    AdamwStep step = {h[0], h[1], h[2], floats(clip)[1], (float)(1 - beta1), (float)beta2, (float)(1 - beta2),
                      eps};
    size_t n = tensor_count(p);
#pragma omp parallel for num_threads(threads_for(be, 4 * n))
    for (size_t i = 0; i < pieces(n); i++) {
        size_t at = i * PIECE;
        adamw_piece(floats(p) + at, floats(m) + at, floats(v) + at, floats(grad) + at, piece_length(n, i),
                    step);
    }
}
