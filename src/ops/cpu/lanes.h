// A vector of the level's width through values in F32 or BF16: read, computed in F32, written, without a copy
// in between. `dtype` is a constant where these are used, or each read and write asks for it again.
#pragma once
#include "base/half.h"
#include "ops/cpu/tile.h"
#include "tensor/dtype.h"

#include <stdint.h>
#include <string.h>
#if defined(__SSE2__)
#include <immintrin.h>
#endif

typedef uint32_t LanesBits __attribute__((vector_size(LANES * sizeof(uint32_t)), may_alias));

ALWAYS_INLINE Lanes lanes_of(float x) {
    return x - (Lanes){0};
}

// Where a is NaN the result is b; so NaN passes through as b.
ALWAYS_INLINE Lanes least(Lanes a, Lanes b) {
#if defined(__AVX512F__)
    return (Lanes)_mm512_min_ps((__m512)a, (__m512)b);
#elif defined(__AVX__)
    return (Lanes)_mm256_min_ps((__m256)a, (__m256)b);
#elif defined(__SSE2__)
    return (Lanes)_mm_min_ps((__m128)a, (__m128)b);
#else
    for (size_t i = 0; i < LANES; i++) b[i] = a[i] < b[i] ? a[i] : b[i];
    return b;
#endif
}
ALWAYS_INLINE Lanes greatest(Lanes a, Lanes b) {
#if defined(__AVX512F__)
    return (Lanes)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(__AVX__)
    return (Lanes)_mm256_max_ps((__m256)a, (__m256)b);
#elif defined(__SSE2__)
    return (Lanes)_mm_max_ps((__m128)a, (__m128)b);
#else
    for (size_t i = 0; i < LANES; i++) b[i] = a[i] > b[i] ? a[i] : b[i];
    return b;
#endif
}
ALWAYS_INLINE Lanes within(Lanes x, float limit) {
    return greatest(lanes_of(-limit), least(lanes_of(limit), x));
}

// The sum of all values.
ALWAYS_INLINE float total_of(Lanes x) {
#if defined(__AVX512F__)
    return _mm512_reduce_add_ps((__m512)x);
#else
    for (size_t n = LANES / 2; n > 0; n /= 2)
        for (size_t i = 0; i < n; i++) x[i] += x[i + n];
    return x[0];
#endif
}

// The first n values of x, and 0.
ALWAYS_INLINE Lanes first_of(Lanes x, size_t n) {
    for (size_t i = n; i < LANES; i++) x[i] = 0;
    return x;
}

// ---- values in memory ----

ALWAYS_INLINE Lanes widened(const uint16_t *in) {
#if defined(__AVX512F__)
    return (Lanes)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)in)), 16);
#elif defined(__AVX2__)
    return (Lanes)_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)in)), 16);
#elif defined(__SSE2__)
    return (Lanes)_mm_unpacklo_epi16(_mm_setzero_si128(), _mm_loadl_epi64((const __m128i *)in));
#else
    Lanes x;
    for (size_t i = 0; i < LANES; i++) x[i] = f32_from_bf16(in[i]);
    return x;
#endif
}

// As bf16_from_f32, in the upper half of each word.
ALWAYS_INLINE LanesBits rounded_bits(Lanes x) {
    const LanesBits bits = (LanesBits)x, nan = (LanesBits)((bits & 0x7fffffffu) > 0x7f800000u);
    return ((bits + 0x7fffu + (bits >> 16 & 1u)) & ~nan) | ((bits | 0x400000u) & nan);
}

// To nearest even. The processor's own instruction takes a denormal number for 0.
ALWAYS_INLINE void store_rounded(uint16_t *out, Lanes x) {
#if defined(__AVX512BF16__)
    _mm256_storeu_si256((__m256i *)out, (__m256i)_mm512_cvtneps_pbh((__m512)x));
#elif defined(__AVX512F__)
    _mm256_storeu_si256((__m256i *)out, _mm512_cvtepi32_epi16((__m512i)(rounded_bits(x) >> 16)));
#elif defined(__AVX2__)
    const __m256i words = (__m256i)(rounded_bits(x) >> 16);
    _mm_storeu_si128((__m128i *)out,
                     _mm_packus_epi32(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1)));
#elif defined(__SSE2__)
    const __m128i words = _mm_srai_epi32((__m128i)rounded_bits(x), 16); // signed, for a pack that saturates
    _mm_storel_epi64((__m128i *)out, _mm_packs_epi32(words, words));
#else
    for (size_t i = 0; i < LANES; i++) out[i] = bf16_from_f32(x[i]);
#endif
}

ALWAYS_INLINE size_t bytes_of(const Dtype dtype) {
    return dtype == DTYPE_BF16 ? sizeof(uint16_t) : sizeof(float);
}

// Values i, i + 1, …
ALWAYS_INLINE Lanes load_lanes(const char *data, const Dtype dtype, size_t i) {
    const void *from = data + i * bytes_of(dtype);
    return dtype == DTYPE_BF16 ? widened(from) : *(const Lanes *)from;
}
ALWAYS_INLINE void store_lanes(char *data, const Dtype dtype, size_t i, Lanes x) {
    void *to = data + i * bytes_of(dtype);
    if (dtype == DTYPE_BF16)
        store_rounded(to, x);
    else
        *(Lanes *)to = x;
}

// Only n of them, which at the end of a row may be fewer than a vector has; the others read as 0.
ALWAYS_INLINE Lanes load_some(const char *data, const Dtype dtype, size_t i, size_t n) {
    if (n == LANES) return load_lanes(data, dtype, i);
    char room[sizeof(Lanes)] = {0};
    memcpy(room, data + i * bytes_of(dtype), n * bytes_of(dtype));
    return load_lanes(room, dtype, 0);
}
ALWAYS_INLINE void store_some(char *data, const Dtype dtype, size_t i, size_t n, Lanes x) {
    if (n == LANES) {
        store_lanes(data, dtype, i, x);
        return;
    }
    char room[sizeof(Lanes)];
    store_lanes(room, dtype, 0, x);
    memcpy(data + i * bytes_of(dtype), room, n * bytes_of(dtype));
}

// Runs the statements that follow for each vector of a row of C values: its first value is i, n of them
// belong to the row. Whole vectors come in fours with k from 0 to 3, for sums that need not wait for each
// other.
#define FOR_VECTORS(C, i, n, k, ...)                                                                         \
    do {                                                                                                     \
        size_t at_ = 0;                                                                                      \
        for (; at_ + 4 * LANES <= (C); at_ += 4 * LANES)                                                     \
            for (size_t k = 0; k < 4; k++) {                                                                 \
                const size_t i = at_ + k * LANES, n = LANES;                                                 \
                __VA_ARGS__                                                                                  \
            }                                                                                                \
        for (size_t k = 0; at_ + LANES <= (C); at_ += LANES, k++) {                                          \
            const size_t i = at_, n = LANES;                                                                 \
            __VA_ARGS__                                                                                      \
        }                                                                                                    \
        for (const size_t i = at_, n = (C)-at_, k = 3; at_ < (C); at_ = (C)) {                               \
            __VA_ARGS__                                                                                      \
        }                                                                                                    \
    } while (0)

// ---- functions ----

// 1/x to about one unit in the last place, for x whose reciprocal is neither infinite nor 0.
ALWAYS_INLINE Lanes reciprocal(Lanes x) {
#if defined(__AVX512F__)
    const Lanes near = (Lanes)_mm512_rcp14_ps((__m512)x);
    return near + near * (1.0f - x * near);
#else
    return 1.0f / x;
#endif
}

// eˣ as exp_f32 in vecmath.h, with its infinities and NaN.
ALWAYS_INLINE Lanes exp_lanes(Lanes x) {
    x = greatest(lanes_of(-104.0f), least(lanes_of(89.0f), x));
    const Lanes shifted = x * 1.44269504f + 12582912.0f, n = shifted - 12582912.0f;
    const Lanes r = x - n * 0x1.63p-1f - n * -2.12194440e-4f;
    Lanes p = r * 0.0013814599f + 0.008368717f;
    p = p * r + 0.04166839f;
    p = p * r + 0.16666521f;
    p = p * r + 0.49999994f;
    p = p * r * r + r + 1.0f;
#if defined(__AVX512F__)
    return (Lanes)_mm512_scalef_ps((__m512)p, (__m512)n);
#else
    typedef int32_t Whole __attribute__((vector_size(sizeof(Lanes)), may_alias));
    const Whole whole = (Whole)shifted - 0x4b400000, half = whole >> 1;
    return p * (Lanes)((half + 127) << 23) * (Lanes)((whole - half + 127) << 23);
#endif
}

// So many vectors at a time where a value takes a long chain of instructions: the processor looks too few
// instructions ahead to find other chains to work on by itself.
#if defined(__AVX512F__)
#define CHAINS 4
#else
#define CHAINS 1
#endif
#define FOR_CHAINS(v) for (size_t v = 0; v < V; v++)

// 2ˣ of V vectors, x ≤ 127: 2^⌊x⌋ times a least-maximum polynomial of the rest (error 8e-8). Where that is no
// normal number it may be 0; of −infinity it is. NaN stays NaN.
ALWAYS_INLINE void exp2_chains(Lanes *x, const size_t V) {
    static const float power[] = {0.0018777841f, 0.0089891274f, 0.0558261722f,
                                  0.2401538193f, 0.6931530237f, 0.9999999404f};
    Lanes rest[CHAINS], p[CHAINS];
#if defined(__AVX512F__)
    const int down = _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC; // the rest of −infinity is 0
    FOR_CHAINS(v) rest[v] = (Lanes)_mm512_reduce_ps((__m512)x[v], down);
#else
    Lanes whole[CHAINS]; // in the low bits
    FOR_CHAINS(v) x[v] = greatest(lanes_of(-127.0f), x[v]);
    FOR_CHAINS(v) whole[v] = x[v] - 0.5f + 12582912.0f;
    FOR_CHAINS(v) rest[v] = x[v] - (whole[v] - 12582912.0f);
#endif
    FOR_CHAINS(v) p[v] = rest[v] * power[0] + power[1];
    for (size_t i = 2; i < 6; i++) FOR_CHAINS(v) p[v] = p[v] * rest[v] + power[i];
#if defined(__AVX512F__)
    FOR_CHAINS(v) x[v] = (Lanes)_mm512_scalef_ps((__m512)p[v], (__m512)x[v]);
#else
    FOR_CHAINS(v) p[v] = (Lanes)((LanesBits)p[v] + ((LanesBits)whole[v] << 23));
    FOR_CHAINS(v) x[v] = (Lanes)((LanesBits)p[v] & ~(LanesBits)(x[v] <= -126.0f));
#endif
}
ALWAYS_INLINE Lanes exp2_lanes(Lanes x) {
    exp2_chains(&x, 1);
    return x;
}

// σ(x) and σ(−x) = 1 − σ(x), both without cancellation, of V vectors.
typedef struct Sigmoid {
    Lanes plus[CHAINS], minus[CHAINS];
} Sigmoid;

// For |x| ≤ 86, so that no power of e is too small or too large for 2ⁿ to be a sum of exponents. As exp_f32
// in vecmath.h otherwise. Of NaN the results may be anything.
ALWAYS_INLINE void sigmoid_lanes(Sigmoid *s, const Lanes *x, const size_t V) {
    static const float taylor[] = {0.0013814599f, 0.008368717f, 0.04166839f, 0.16666521f,
                                   0.49999994f,   1.0f,         1.0f};
    Lanes shifted[CHAINS], r[CHAINS], p[CHAINS];
    FOR_CHAINS(v) shifted[v] = x[v] * -1.44269504f + 12582912.0f;
    FOR_CHAINS(v) r[v] = shifted[v] - 12582912.0f;
    FOR_CHAINS(v) p[v] = -x[v] - r[v] * 0x1.63p-1f;
    FOR_CHAINS(v) r[v] = p[v] - r[v] * -2.12194440e-4f;
    FOR_CHAINS(v) p[v] = r[v] * taylor[0] + taylor[1];
    for (size_t i = 2; i < 7; i++) FOR_CHAINS(v) p[v] = p[v] * r[v] + taylor[i];
    FOR_CHAINS(v) p[v] = (Lanes)((LanesBits)p[v] + ((LanesBits)shifted[v] << 23));
    FOR_CHAINS(v) s->plus[v] = 1.0f + p[v];
    FOR_CHAINS(v) s->plus[v] = reciprocal(s->plus[v]);
    FOR_CHAINS(v) s->minus[v] = p[v] * s->plus[v];
}
