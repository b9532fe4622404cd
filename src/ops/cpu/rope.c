// Rotary positions. The table is computed as nanoVLM does it in float32, one rounding after the other.
#include "ops/cpu/kernels.h"
#include "ops/cpu/lanes.h"
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

// n pairs from i on: (a, b) = (x_i, x_{i + D/2}) becomes (a c_i − b s_i, b c_{i+D/2} + a s_{i+D/2}); back:
// the transpose.
ALWAYS_INLINE void rotate_pairs(char *x, const Dtype dtype, const char *c, const char *s, size_t i,
                                size_t half, const size_t n, const bool back) {
    const size_t j = i + half;
    const Lanes c1 = load_some(c, DTYPE_F32, i, n), c2 = load_some(c, DTYPE_F32, j, n),
                s1 = load_some(s, DTYPE_F32, i, n), s2 = load_some(s, DTYPE_F32, j, n),
                a = load_some(x, dtype, i, n), b = load_some(x, dtype, j, n);
    store_some(x, dtype, i, n, back ? a * c1 + b * s2 : a * c1 - b * s1);
    store_some(x, dtype, j, n, back ? b * c2 - a * s1 : b * c2 + a * s2);
}

// The heads of one position.
ALWAYS_INLINE void rotate(char *x, const Dtype dtype, const char *cos, const char *sin, size_t H, size_t half,
                          const bool back) {
    for (size_t h = 0; h < H; h++, x += 2 * half * bytes_of(dtype)) {
        size_t i = 0;
        for (; i + LANES <= half; i += LANES) rotate_pairs(x, dtype, cos, sin, i, half, LANES, back);
        if (i < half) rotate_pairs(x, dtype, cos, sin, i, half, half - i, back);
    }
}

typedef void Rotation(char *x, const char *cos, const char *sin, size_t H, size_t half);
#define ROTATION(name, dtype, back)                                                                          \
    static void name(char *x, const char *cos, const char *sin, size_t H, size_t half) {                     \
        rotate(x, dtype, cos, sin, H, half, back);                                                           \
    }
ROTATION(forward_f32, DTYPE_F32, false)
ROTATION(forward_bf16, DTYPE_BF16, false)
ROTATION(backward_f32, DTYPE_F32, true)
ROTATION(backward_bf16, DTYPE_BF16, true)

static void rotate_all(Backend *be, Tensor x, Tensor cos, Tensor sin, Rotation *rotation) {
    size_t M = x.shape[0], H = x.shape[1], D = x.shape[2], n = tensor_rows(cos);
#pragma omp parallel for num_threads(threads_for(be, M *H *D))
    for (size_t m = 0; m < M; m++) {
        const size_t angles = m % n * D * sizeof(float);
        rotation(x.data + m * H * D * bytes_of(x.dtype), cos.data + angles, sin.data + angles, H, D / 2);
    }
}

void KERNEL(rope_forward)(Backend *be, Tensor x, Tensor cos, Tensor sin) {
    rotate_all(be, x, cos, sin, x.dtype == DTYPE_BF16 ? forward_bf16 : forward_f32);
}
void KERNEL(rope_backward)(Backend *be, Tensor dx, Tensor cos, Tensor sin) {
    rotate_all(be, dx, cos, sin, dx.dtype == DTYPE_BF16 ? backward_bf16 : backward_f32);
}
