// Compiled without contraction to fused multiply-add (CMakeLists.txt), so that d·q + m rounds twice
// everywhere.
#include "format/gguf_types.h"
#include "base/check.h"
#include "base/half.h"
#include "format/convert.h"

#include <string.h>
#include <strings.h>

typedef const unsigned char *Bytes;

static float half_at(Bytes p) {
    uint16_t h;
    memcpy(&h, p, sizeof h);
    return f32_from_f16(h);
}

static void put_half(unsigned char *p, uint16_t h) {
    memcpy(p, &h, sizeof h);
}

// ---- plain types ----

static void decode_f32(float *out, Bytes p, size_t n) {
    convert_to_f32(out, DTYPE_F32, p, n);
}

static void decode_f16(float *out, Bytes p, size_t n) {
    convert_to_f32(out, DTYPE_F16, p, n);
}

static void decode_bf16(float *out, Bytes p, size_t n) {
    convert_to_f32(out, DTYPE_BF16, p, n);
}

static void decode_f64(float *out, Bytes p, size_t n) {
    convert_to_f32(out, DTYPE_F64, p, n);
}

static void encode_f32(unsigned char *p, const float *x, size_t n) {
    memcpy(p, x, n * sizeof *x);
}

static void encode_f16(unsigned char *p, const float *x, size_t n) {
    for (size_t i = 0; i < n; i++) put_half(p + 2 * i, f16_from_f32(x[i]));
}

static void encode_bf16(unsigned char *p, const float *x, size_t n) {
    for (size_t i = 0; i < n; i++) put_half(p + 2 * i, bf16_from_f32(x[i]));
}

// ---- blocks of 32: scale d, perhaps minimum m, perhaps 32 fifth bits, then quants ----

static void decode_q4_0(float *out, Bytes p, size_t n) {
    for (size_t b = 0; b < n; b++, p += 18, out += 32) {
        const float d = half_at(p);
        for (int i = 0; i < 16; i++) {
            out[i] = d * (float)((p[2 + i] & 15) - 8);
            out[i + 16] = d * (float)((p[2 + i] >> 4) - 8);
        }
    }
}

static void decode_q4_1(float *out, Bytes p, size_t n) {
    for (size_t b = 0; b < n; b++, p += 20, out += 32) {
        const float d = half_at(p), m = half_at(p + 2);
        for (int i = 0; i < 16; i++) {
            out[i] = d * (float)(p[4 + i] & 15) + m;
            out[i + 16] = d * (float)(p[4 + i] >> 4) + m;
        }
    }
}

// The 32 five-bit numbers whose fifth bits stand at high and whose other bits at low.
static void five_bits(int q[32], Bytes high, Bytes low) {
    uint32_t bits;
    memcpy(&bits, high, sizeof bits);
    for (int i = 0; i < 16; i++) {
        q[i] = (low[i] & 15) | (int)(bits >> i & 1) << 4;
        q[i + 16] = low[i] >> 4 | (int)(bits >> (i + 16) & 1) << 4;
    }
}

static void decode_q5_0(float *out, Bytes p, size_t n) {
    int q[32];
    for (size_t b = 0; b < n; b++, p += 22, out += 32) {
        const float d = half_at(p);
        five_bits(q, p + 2, p + 6);
        for (int i = 0; i < 32; i++) out[i] = d * (float)(q[i] - 16);
    }
}

static void decode_q5_1(float *out, Bytes p, size_t n) {
    int q[32];
    for (size_t b = 0; b < n; b++, p += 24, out += 32) {
        const float d = half_at(p), m = half_at(p + 2);
        five_bits(q, p + 4, p + 8);
        for (int i = 0; i < 32; i++) out[i] = d * (float)q[i] + m;
    }
}

static void decode_q8_0(float *out, Bytes p, size_t n) {
    for (size_t b = 0; b < n; b++, p += 34, out += 32) {
        const float d = half_at(p);
        for (int i = 0; i < 32; i++) out[i] = d * (float)(int8_t)p[2 + i];
    }
}

// The largest |x|, by bits, which are in the order of the numbers: NaN is above all.
static float largest_of_32(const float *x) {
    int32_t largest = 0;
    for (int i = 0; i < 32; i++) {
        const int32_t bits = (int32_t)(f32_to_bits(x[i]) & 0x7fffffff);
        largest = bits > largest ? bits : largest;
    }
    return f32_from_bits((uint32_t)largest);
}

// Rounds halves away from zero, without roundf, which is a call for each value. The bounds only matter where
// a value is not finite.
static void encode_q8_0(unsigned char *p, const float *x, size_t n) {
    for (size_t b = 0; b < n; b++, p += 34, x += 32) {
        const float d = largest_of_32(x) / 127, inverse = d == 0 ? 0 : 1 / d;
        int8_t quants[32];
        put_half(p, f16_from_f32(d));
        for (int i = 0; i < 32; i++) {
            float v = x[i] * inverse;
            v = v <= 127 ? v : 127;
            v = v >= -127 ? v : -127;
            const int32_t whole = (int32_t)v;
            const float rest = v - (float)whole; // exact
            quants[i] = (int8_t)(whole + (rest >= 0.5f) - (rest <= -0.5f));
        }
        memcpy(p + 2, quants, sizeof quants);
    }
}

// ---- blocks of 256: scales of smaller groups are multiples of d, their minima of dmin ----

// 16 scales and minima of four bits; quants of two bits: 32 values a shift, four shifts, twice.
static void decode_q2_k(float *out, Bytes p, size_t n) {
    for (size_t b = 0; b < n; b++, p += 84, out += 256) {
        const Bytes scales = p, quants = p + 16;
        const float d = half_at(p + 80), dmin = half_at(p + 82);
        for (int group = 0; group < 16; group++) {
            const float scale = d * (float)(scales[group] & 15), minimum = dmin * (float)(scales[group] >> 4);
            const Bytes q = quants + group / 8 * 32 + group % 2 * 16;
            for (int i = 0; i < 16; i++)
                out[group * 16 + i] = scale * (float)(q[i] >> group % 8 / 2 * 2 & 3) - minimum;
        }
    }
}

// 16 scales of six bits, their low four in 8 bytes, their high two in 4; a third bit of each quant in a mask,
// which takes 4 away where it is not set.
static void decode_q3_k(float *out, Bytes p, size_t n) {
    for (size_t b = 0; b < n; b++, p += 110, out += 256) {
        const Bytes mask = p, quants = p + 32, scales = p + 96;
        const float d = half_at(p + 108);
        for (int group = 0; group < 16; group++) {
            const int low = scales[group % 8] >> group / 8 * 4 & 15;
            const int high = scales[8 + group % 4] >> group / 4 * 2 & 3;
            const float scale = d * (float)((low | high << 4) - 32);
            const Bytes q = quants + group / 8 * 32 + group % 2 * 16, m = mask + group % 2 * 16;
            for (int i = 0; i < 16; i++) {
                const int third = m[i] >> group / 2 & 1;
                out[group * 16 + i] = scale * (float)((q[i] >> group % 8 / 2 * 2 & 3) - (third ? 0 : 4));
            }
        }
    }
}

// Scale and minimum of group 0…7, six bits each, out of Q4_K's and Q5_K's twelve bytes.
static void scale_and_minimum(Bytes s, int group, int *scale, int *minimum) {
    const int i = group % 4;
    *scale = group < 4 ? s[i] & 63 : (s[8 + i] & 15) | (s[i] >> 6) << 4;
    *minimum = group < 4 ? s[4 + i] & 63 : s[8 + i] >> 4 | (s[4 + i] >> 6) << 4;
}

// fifth: 32 bytes that hold the fifth bits of the eight groups, or NULL.
static void decode_k(float *out, Bytes p, Bytes fifth, Bytes quants) {
    const float d = half_at(p), dmin = half_at(p + 2);
    for (int group = 0; group < 8; group++, out += 32) {
        int s, m;
        scale_and_minimum(p + 4, group, &s, &m);
        const float scale = d * (float)s, minimum = dmin * (float)m;
        const Bytes q = quants + group / 2 * 32;
        for (int i = 0; i < 32; i++) {
            const int high = fifth ? (fifth[i] >> group & 1) << 4 : 0;
            out[i] = scale * (float)((q[i] >> group % 2 * 4 & 15) | high) - minimum;
        }
    }
}

static void decode_q4_k(float *out, Bytes p, size_t n) {
    for (size_t b = 0; b < n; b++, p += 144, out += 256) decode_k(out, p, NULL, p + 16);
}

static void decode_q5_k(float *out, Bytes p, size_t n) {
    for (size_t b = 0; b < n; b++, p += 176, out += 256) decode_k(out, p, p + 16, p + 48);
}

// Quants of six bits less 32: per half of the block 64 bytes of low four bits and 32 bytes of high two.
static void decode_q6_k(float *out, Bytes p, size_t n) {
    for (size_t b = 0; b < n; b++, p += 210, out += 256) {
        const Bytes scales = p + 192;
        const float d = half_at(p + 208);
        for (int group = 0; group < 16; group++) {
            const int half = group / 8, quarter = group / 2 % 4, at = group % 2 * 16;
            const float scale = d * (float)(int8_t)scales[group];
            const Bytes low = p + half * 64 + quarter % 2 * 32 + at, high = p + 128 + half * 32 + at;
            for (int i = 0; i < 16; i++) {
                const int q = (low[i] >> quarter / 2 * 4 & 15) | (high[i] >> quarter * 2 & 3) << 4;
                out[group * 16 + i] = scale * (float)(q - 32);
            }
        }
    }
}

// ---- the table ----

typedef struct TypeInfo {
    const char *name;
    size_t values, bytes; // of a block
    void (*decode)(float *out, Bytes blocks, size_t n_blocks);
    void (*encode)(unsigned char *blocks, const float *values, size_t n_blocks);
} TypeInfo;

static const TypeInfo types[] = {
    [GGUF_TYPE_F32] = {"F32", 1, 4, decode_f32, encode_f32},
    [GGUF_TYPE_F16] = {"F16", 1, 2, decode_f16, encode_f16},
    [GGUF_TYPE_Q4_0] = {"Q4_0", 32, 18, decode_q4_0, NULL},
    [GGUF_TYPE_Q4_1] = {"Q4_1", 32, 20, decode_q4_1, NULL},
    [GGUF_TYPE_Q5_0] = {"Q5_0", 32, 22, decode_q5_0, NULL},
    [GGUF_TYPE_Q5_1] = {"Q5_1", 32, 24, decode_q5_1, NULL},
    [GGUF_TYPE_Q8_0] = {"Q8_0", 32, 34, decode_q8_0, encode_q8_0},
    [9] = {"Q8_1", 32, 40, NULL, NULL},
    [GGUF_TYPE_Q2_K] = {"Q2_K", 256, 84, decode_q2_k, NULL},
    [GGUF_TYPE_Q3_K] = {"Q3_K", 256, 110, decode_q3_k, NULL},
    [GGUF_TYPE_Q4_K] = {"Q4_K", 256, 144, decode_q4_k, NULL},
    [GGUF_TYPE_Q5_K] = {"Q5_K", 256, 176, decode_q5_k, NULL},
    [GGUF_TYPE_Q6_K] = {"Q6_K", 256, 210, decode_q6_k, NULL},
    [15] = {"Q8_K", 256, 292, NULL, NULL},
    [16] = {"IQ2_XXS", 256, 66, NULL, NULL},
    [17] = {"IQ2_XS", 256, 74, NULL, NULL},
    [18] = {"IQ3_XXS", 256, 98, NULL, NULL},
    [19] = {"IQ1_S", 256, 50, NULL, NULL},
    [20] = {"IQ4_NL", 32, 18, NULL, NULL},
    [21] = {"IQ3_S", 256, 110, NULL, NULL},
    [22] = {"IQ2_S", 256, 82, NULL, NULL},
    [23] = {"IQ4_XS", 256, 136, NULL, NULL},
    [24] = {"I8", 1, 1, NULL, NULL},
    [25] = {"I16", 1, 2, NULL, NULL},
    [26] = {"I32", 1, 4, NULL, NULL},
    [27] = {"I64", 1, 8, NULL, NULL},
    [GGUF_TYPE_F64] = {"F64", 1, 8, decode_f64, NULL},
    [29] = {"IQ1_M", 256, 56, NULL, NULL},
    [GGUF_TYPE_BF16] = {"BF16", 1, 2, decode_bf16, encode_bf16},
    [34] = {"TQ1_0", 256, 54, NULL, NULL},
    [35] = {"TQ2_0", 256, 66, NULL, NULL},
    [39] = {"MXFP4", 32, 17, NULL, NULL},
    [40] = {"NVFP4", 64, 36, NULL, NULL},
    [41] = {"Q1_0", 128, 18, NULL, NULL},
};
#define N_TYPES (sizeof types / sizeof *types)

const char *gguf_type_name(uint32_t type) {
    return type < N_TYPES ? types[type].name : NULL;
}

int gguf_type_from_name(const char *name) {
    for (size_t i = 0; i < N_TYPES; i++)
        if (types[i].name && strcasecmp(types[i].name, name) == 0) return (int)i;
    return -1;
}

size_t gguf_type_block_values(GgufType type) {
    return types[type].values;
}

size_t gguf_type_block_bytes(GgufType type) {
    return types[type].bytes;
}

size_t gguf_type_row_bytes(GgufType type, size_t values) {
    CHECK(values % types[type].values == 0, "%zu values, blocks of %zu", values, types[type].values);
    return values / types[type].values * types[type].bytes;
}

bool gguf_type_can_decode(GgufType type) {
    return types[type].decode;
}

bool gguf_type_can_encode(GgufType type) {
    return types[type].encode;
}

void gguf_decode(float *out, GgufType type, const void *blocks, size_t n) {
    CHECK(types[type].decode, "type %s cannot be decoded", types[type].name);
    CHECK(n % types[type].values == 0, "%zu values, blocks of %zu", n, types[type].values);
    if (n) types[type].decode(out, blocks, n / types[type].values);
}

void gguf_encode(void *blocks, GgufType type, const float *values, size_t n) {
    CHECK(types[type].encode, "type %s cannot be encoded", types[type].name);
    CHECK(n % types[type].values == 0, "%zu values, blocks of %zu", n, types[type].values);
    if (n) types[type].encode(blocks, values, n / types[type].values);
}
