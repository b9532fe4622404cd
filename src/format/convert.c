#include "format/convert.h"
#include "base/check.h"

#include <stdint.h>
#include <string.h>

bool convert_is_float(Dtype dtype) {
    return dtype <= DTYPE_F64;
}

static float f32_from_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static uint32_t bits_of_f32(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

// IEEE 754 binary16 without branches, so that the loop below becomes vector code: the exponent is moved up by
// 112; one of all ones goes to all ones, and one of 0 (subnormals, zero) is made with a hidden bit that is
// then subtracted.
static float f32_from_f16(uint16_t h) {
    const uint32_t hidden = 113u << 23, low = (uint32_t)(h & 0x7fff) << 13;
    const uint32_t normal = low + (112u << 23) + (low >= 31u << 23 ? 112u << 23 : 0);
    const uint32_t tiny = bits_of_f32(f32_from_bits(low + hidden) - f32_from_bits(hidden));
    return f32_from_bits((low < 1u << 23 ? tiny : normal) | (uint32_t)(h & 0x8000) << 16);
}

static void convert_f16(float *out, const unsigned char *p, size_t count) {
    for (size_t i = 0; i < count; i++) {
        uint16_t half;
        memcpy(&half, p + i * sizeof half, sizeof half);
        out[i] = f32_from_f16(half);
    }
}

static void convert_bf16(float *out, const unsigned char *p, size_t count) {
    for (size_t i = 0; i < count; i++) {
        uint16_t half;
        memcpy(&half, p + i * sizeof half, sizeof half);
        out[i] = f32_from_bits((uint32_t)half << 16);
    }
}

static void convert_f64(float *out, const unsigned char *p, size_t count) {
    for (size_t i = 0; i < count; i++) {
        double wide;
        memcpy(&wide, p + i * sizeof wide, sizeof wide);
        out[i] = (float)wide;
    }
}

void convert_to_f32(float *out, Dtype dtype, const void *values, size_t count) {
    CHECK(convert_is_float(dtype), "dtype %s", dtype_name(dtype));
    if (dtype == DTYPE_F16)
        convert_f16(out, values, count);
    else if (dtype == DTYPE_BF16)
        convert_bf16(out, values, count);
    else if (dtype == DTYPE_F64)
        convert_f64(out, values, count);
    else if (count)
        memcpy(out, values, count * sizeof *out);
}
