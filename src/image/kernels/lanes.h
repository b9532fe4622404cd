// Vectors of one level of instructions: LANES sums of 32 bits, and how bytes become them and leave them.
#pragma once
#include "image/kernels/kernels.h"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX2__)
#define LANES 8
#else
#define LANES 4
#endif

typedef int32_t Ints __attribute__((vector_size(4 * LANES)));
typedef float Floats __attribute__((vector_size(4 * LANES)));

static inline Ints ints_of(int32_t value) {
    return value - (Ints){0};
}

#if defined(__AVX512F__)

static inline Ints load_bytes(const uint8_t *p) {
    return (Ints)_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p));
}
static inline Ints clip(Ints v) { // to 0 … 255
    return (Ints)_mm512_min_epi32(_mm512_max_epi32((__m512i)v, _mm512_setzero_si512()),
                                  _mm512_set1_epi32(255));
}
static inline void store_bytes(uint8_t *p, Ints v) {
    _mm_storeu_si128((__m128i *)p, _mm512_cvtepi32_epi8((__m512i)v));
}
// The true quotient of a byte and 255: the product with 1 / 255, given in two parts, rounds to the same.
static inline Floats over_255(Ints v) {
    __m512 x = _mm512_cvtepi32_ps((__m512i)v);
    return (Floats)_mm512_fmadd_ps(x, _mm512_set1_ps(OVER_255),
                                   _mm512_mul_ps(x, _mm512_set1_ps(OVER_255_REST)));
}
// From 16 bytes of a window for every 4 lanes, each lane's 4 taps.
static inline Ints load_taps(const uint8_t *p, const uint32_t *first, const uint8_t *shuffle) {
    __m512i v = _mm512_castsi128_si512(_mm_loadu_si128((const __m128i *)(p + first[0])));
    v = _mm512_inserti32x4(v, _mm_loadu_si128((const __m128i *)(p + first[4])), 1);
    v = _mm512_inserti32x4(v, _mm_loadu_si128((const __m128i *)(p + first[8])), 2);
    v = _mm512_inserti32x4(v, _mm_loadu_si128((const __m128i *)(p + first[12])), 3);
    return (Ints)_mm512_shuffle_epi8(v, _mm512_loadu_si512(shuffle));
}
static inline Ints even_bytes(Ints v) {
    return (Ints)_mm512_and_si512((__m512i)v, _mm512_set1_epi16(255));
}
static inline Ints odd_bytes(Ints v) {
    return (Ints)_mm512_srli_epi16((__m512i)v, 8);
}
static inline Ints pair_products(Ints v,
                                 const int16_t *pairs) { // 16-bit numbers, multiplied and added in twos
    return (Ints)_mm512_madd_epi16((__m512i)v, _mm512_loadu_si512(pairs));
}

#elif defined(__AVX2__)

static inline Ints load_bytes(const uint8_t *p) {
    return (Ints)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p));
}
static inline Ints clip(Ints v) { // to 0 … 255
    return (Ints)_mm256_min_epi32(_mm256_max_epi32((__m256i)v, _mm256_setzero_si256()),
                                  _mm256_set1_epi32(255));
}
static inline void store_bytes(uint8_t *p, Ints v) {
    __m128i low = _mm256_castsi256_si128((__m256i)v), high = _mm256_extracti128_si256((__m256i)v, 1);
    __m128i words = _mm_packs_epi32(low, high);
    _mm_storel_epi64((__m128i *)p, _mm_packus_epi16(words, words));
}
// The true quotient of a byte and 255: the product with 1 / 255, given in two parts, rounds to the same.
static inline Floats over_255(Ints v) {
    __m256 x = _mm256_cvtepi32_ps((__m256i)v);
    return (Floats)_mm256_fmadd_ps(x, _mm256_set1_ps(OVER_255),
                                   _mm256_mul_ps(x, _mm256_set1_ps(OVER_255_REST)));
}
// From 16 bytes of a window for every 4 lanes, each lane's 4 taps.
static inline Ints load_taps(const uint8_t *p, const uint32_t *first, const uint8_t *shuffle) {
    __m256i v = _mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)(p + first[0])));
    v = _mm256_inserti128_si256(v, _mm_loadu_si128((const __m128i *)(p + first[4])), 1);
    return (Ints)_mm256_shuffle_epi8(v, _mm256_loadu_si256((const __m256i *)shuffle));
}
static inline Ints even_bytes(Ints v) {
    return (Ints)_mm256_and_si256((__m256i)v, _mm256_set1_epi16(255));
}
static inline Ints odd_bytes(Ints v) {
    return (Ints)_mm256_srli_epi16((__m256i)v, 8);
}
static inline Ints pair_products(Ints v,
                                 const int16_t *pairs) { // 16-bit numbers, multiplied and added in twos
    return (Ints)_mm256_madd_epi16((__m256i)v, _mm256_loadu_si256((const __m256i *)pairs));
}

#else

static inline Ints load_bytes(const uint8_t *p) {
    return (Ints){p[0], p[1], p[2], p[3]};
}
static inline Ints clip(Ints v) { // to 0 … 255
    Ints above = v > 255;
    return ((v & ~above) | (above & 255)) & (v >= 0);
}
static inline void store_bytes(uint8_t *p, Ints v) {
    for (int i = 0; i < LANES; i++) p[i] = (uint8_t)v[i];
}
static inline Floats over_255(Ints v) {
    return __builtin_convertvector(v, Floats) / 255.0f;
}

#endif
