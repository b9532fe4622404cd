// Conversions between float and the 16-bit formats, without branches where a compiler can vectorise them.
#pragma once
#include <stdint.h>
#include <string.h>

static inline float f32_from_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline uint32_t f32_to_bits(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline float f32_from_bf16(uint16_t h) {
    return f32_from_bits((uint32_t)h << 16);
}

// IEEE 754 binary16. Its exponent is 112 smaller, or 224 where it stands for infinity and NaN; a subnormal
// is read as the fraction of 2⁻¹⁴ · (1 + fraction), from which 2⁻¹⁴ is taken away again.
static inline float f32_from_f16(uint16_t h) {
    const uint32_t sign = (uint32_t)(h & 0x8000) << 16, rest = (uint32_t)(h & 0x7fff) << 13;
    const uint32_t special = rest >= 31u << 23 ? 112u << 23 : 0;
    const uint32_t tiny = f32_to_bits(f32_from_bits(rest + (113u << 23)) - 0x1p-14f);
    return f32_from_bits(sign | (rest < 1u << 23 ? tiny : rest + (112u << 23) + special));
}

// Rounds to nearest even; NaN stays NaN and quiet, as in ggml and PyTorch.
static inline uint16_t bf16_from_f32(float value) {
    const uint32_t bits = f32_to_bits(value);
    if ((bits & 0x7fffffff) > 0x7f800000) return (uint16_t)(bits >> 16 | 64);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// Rounds to nearest even, from 65520 on to infinity. Added to 0.5, whose last bit is worth 2⁻²⁴, a subnormal
// is rounded by the addition.
static inline uint16_t f16_from_f32(float value) {
    const uint32_t bits = f32_to_bits(value), sign = bits >> 16 & 0x8000, rest = bits & 0x7fffffff;
    if (rest > 0x7f800000) return (uint16_t)(sign | 0x7e00 | (rest >> 13 & 0x3ff));
    if (rest >= 0x477ff000) return (uint16_t)(sign | 0x7c00);
    if (rest < 0x38800000)
        return (uint16_t)(sign | (f32_to_bits(f32_from_bits(rest) + 0.5f) - f32_to_bits(0.5f)));
    return (uint16_t)(sign | (rest + 0xfff + (rest >> 13 & 1) - (112u << 23)) >> 13);
}
