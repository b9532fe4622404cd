// Rotary positions. The table is computed as nanoVLM does it in float32, one rounding after the other.
#include "ops/cpu/kernels.h"
#include "tensor/ops.h"

#include <math.h>

void KERNEL(rope_table)(Backend *be, Tensor cos, Tensor sin, Tensor positions, Tensor inv_freq, float divisor,
                        float scaling) {
    size_t n = tensor_count(positions), half = tensor_count(inv_freq);
#pragma omp parallel for num_threads(threads_for(be, n *half * 16))
    for (size_t p = 0; p < n; p++) {
        float *c = floats(cos) + p * 2 * half, *s = floats(sin) + p * 2 * half;
        for (size_t i = 0; i < half; i++) {
            float angle = (float)ints(positions)[p] * (floats(inv_freq)[i] / divisor);
            c[i] = c[i + half] = cosf(angle) * scaling;
            s[i] = s[i + half] = sinf(angle) * scaling;
        }
    }
}

// The pair (a, b) = (x_i, x_{i + D/2}) becomes (a c_i − b s_i, b c_{i+D/2} + a s_{i+D/2}).
static void rotate(float *x, const float *c, const float *s, size_t half) {
    float *y = x + half;
    const float *c2 = c + half, *s2 = s + half;
#pragma omp simd
    for (size_t i = 0; i < half; i++) {
        float a = x[i], b = y[i];
        x[i] = a * c[i] - b * s[i];
        y[i] = b * c2[i] + a * s2[i];
    }
}

// The transpose of rotate.
static void rotate_back(float *x, const float *c, const float *s, size_t half) {
    float *y = x + half;
    const float *c2 = c + half, *s2 = s + half;
#pragma omp simd
    for (size_t i = 0; i < half; i++) {
        float a = x[i], b = y[i];
        x[i] = a * c[i] + b * s2[i];
        y[i] = b * c2[i] - a * s[i];
    }
}

static void rotate_all(Backend *be, Tensor x, Tensor cos, Tensor sin,
                       void (*rotation)(float *, const float *, const float *, size_t)) {
    size_t M = x.shape[0], H = x.shape[1], D = x.shape[2], n = tensor_rows(cos);
#pragma omp parallel for num_threads(threads_for(be, M *H *D))
    for (size_t m = 0; m < M; m++) {
        const float *c = floats(cos) + m % n * D, *s = floats(sin) + m % n * D;
        for (size_t h = 0; h < H; h++) {
            size_t at = (m * H + h) * D;
            float room[ATTENTION_MAX_D], *head = target_floats(x, at, room);
            load_floats(x, at, D, room);
            rotation(head, c, s, D / 2);
            store_floats(x, at, D, head);
        }
    }
}

void KERNEL(rope_forward)(Backend *be, Tensor x, Tensor cos, Tensor sin) {
    rotate_all(be, x, cos, sin, rotate);
}
void KERNEL(rope_backward)(Backend *be, Tensor dx, Tensor cos, Tensor sin) {
    rotate_all(be, dx, cos, sin, rotate_back);
}
