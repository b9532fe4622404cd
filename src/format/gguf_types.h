// The number formats of GGUF tensors (ggml's types): plain ones, and blocks of 32 or 256 values that share
// scales. Layouts: ggml's ggml-common.h and the gguf package's quants.py.
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum GgufType { // the numbers that stand in files
    GGUF_TYPE_F32 = 0,
    GGUF_TYPE_F16 = 1,
    GGUF_TYPE_Q4_0 = 2,
    GGUF_TYPE_Q4_1 = 3,
    GGUF_TYPE_Q5_0 = 6,
    GGUF_TYPE_Q5_1 = 7,
    GGUF_TYPE_Q8_0 = 8,
    GGUF_TYPE_Q2_K = 10,
    GGUF_TYPE_Q3_K = 11,
    GGUF_TYPE_Q4_K = 12,
    GGUF_TYPE_Q5_K = 13,
    GGUF_TYPE_Q6_K = 14,
    GGUF_TYPE_F64 = 28,
    GGUF_TYPE_BF16 = 30,
} GgufType;

const char *gguf_type_name(uint32_t type);    // "Q8_0"; NULL for a number that is no type
int gguf_type_from_name(const char *name);    // in any case ("q8_0"); -1 for an unknown one
size_t gguf_type_block_values(GgufType type); // a row is a multiple of this; 1 for plain types
size_t gguf_type_block_bytes(GgufType type);
size_t gguf_type_row_bytes(GgufType type, size_t values); // values is a multiple of gguf_type_block_values
bool gguf_type_can_decode(GgufType type);                 // the types of the enum
bool gguf_type_can_encode(GgufType type);                 // F32, F16, BF16, Q8_0

// Converts n values, n a multiple of gguf_type_block_values(type); blocks need not be aligned. The values are
// those of the gguf package's dequantize and quantize, to the bit. Q8_0 has no NaN and no infinity: a block
// that holds one is lost, so look for them before.
void gguf_decode(float *out, GgufType type, const void *blocks, size_t n);
void gguf_encode(void *blocks, GgufType type, const float *values, size_t n);
