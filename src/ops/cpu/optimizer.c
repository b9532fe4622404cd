// Gradient clipping and AdamW.
#include "base/half.h"
#include "ops/cpu/kernels.h"
#include "ops/cpu/moments8.h"

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

// ---- moments in BF16 ----

// Rounds down or up, the more likely to the nearer one: the mean is right. Nearest rounding would never let a
// second moment decay, which loses a thousandth a step where BF16 tells a 128th.
static uint16_t bf16_by_chance(float x, uint32_t chance) {
    return x != x ? 0x7fc0 : (uint16_t)((f32_to_bits(x) + (chance & 0xffff)) >> 16);
}

// 32 bits that differ from value to value and from step to step (the finaliser of MurmurHash3, shortened).
static uint32_t chance_of(uint32_t index, uint32_t step, float gradient) {
    uint32_t x = (index * 0x9e3779b1u) ^ step ^ f32_to_bits(gradient);
    x = (x ^ x >> 15) * 0x85ebca6bu;
    return x ^ x >> 16;
}

enum { SHORT_PIECE = 512 }; // moments as floats stay in the first cache

static void adamw_piece_bf16(float *p, uint16_t *m, uint16_t *v, const float *grad, size_t n, AdamwStep s,
                             size_t first, uint32_t seed) {
    float mf[SHORT_PIECE], vf[SHORT_PIECE];
    for (size_t at = 0; at < n; at += SHORT_PIECE) {
        const size_t length = n - at < SHORT_PIECE ? n - at : SHORT_PIECE;
#pragma omp simd
        for (size_t i = 0; i < length; i++)
            mf[i] = f32_from_bf16(m[at + i]), vf[i] = f32_from_bf16(v[at + i]);
        adamw_piece(p + at, mf, vf, grad + at, length, s);
#pragma omp simd
        for (size_t i = 0; i < length; i++) {
            const uint32_t chance = chance_of((uint32_t)(first + at + i), seed, grad[at + i]);
            m[at + i] = bf16_by_chance(mf[i], chance);
            v[at + i] = bf16_by_chance(vf[i], chance >> 16);
        }
    }
}

// ---- moments in 8 bits ----

_Static_assert(PIECE % MOMENT_BLOCK == 0, "a piece is whole blocks");

static void adamw_piece_8(float *p, uint8_t *m, uint8_t *v, const float *grad, size_t n, AdamwStep s,
                          size_t first, uint32_t seed) {
    float mf[MOMENT_BLOCK], vf[MOMENT_BLOCK];
    uint32_t chance[MOMENT_BLOCK];
    for (size_t at = 0; at < n; at += MOMENT_BLOCK, m += MOMENT_ROW, v += MOMENT_ROW) {
        const size_t length = n - at < MOMENT_BLOCK ? n - at : MOMENT_BLOCK;
        decode_m(mf, m, length);
        decode_v(vf, v, length);
        adamw_piece(p + at, mf, vf, grad + at, length, s);
#pragma omp simd
        for (size_t i = 0; i < length; i++)
            chance[i] = chance_of((uint32_t)(first + at + i), seed, grad[at + i]);
        encode_m(m, mf, chance, length);
        encode_v(v, vf, chance, length);
    }
}

// The numbers of a step as one of 32 bits, another one each step.
static uint32_t seed_of(const float *hyper) {
    return f32_to_bits(hyper[0]) * 3 + f32_to_bits(hyper[1]) * 5 + f32_to_bits(hyper[2]) * 7;
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
        if (m.dtype == DTYPE_BF16)
            adamw_piece_bf16(weights, (uint16_t *)m.data + at, (uint16_t *)v.data + at, g, length, step, at,
                             seed_of(h));
        else if (m.dtype == DTYPE_U8)
            adamw_piece_8(weights, (uint8_t *)m.data + at / MOMENT_BLOCK * MOMENT_ROW,
                          (uint8_t *)v.data + at / MOMENT_BLOCK * MOMENT_ROW, g, length, step, at,
                          seed_of(h));
        else
            adamw_piece(weights, floats(m) + at, floats(v) + at, g, length, step);
        if (tensor_exists(rounded)) round_piece((uint16_t *)rounded.data + at, weights, length);
        if (clear) memset(g, 0, length * sizeof *g);
    }
}
