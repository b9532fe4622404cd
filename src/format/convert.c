#include "format/convert.h"
#include "base/check.h"
#include "base/half.h"

#include <stdint.h>
#include <string.h>

bool convert_is_float(Dtype dtype) {
    return dtype <= DTYPE_F64;
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
        out[i] = f32_from_bf16(half);
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
