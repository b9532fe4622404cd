// Number formats of tensors and of the files that hold them.
#pragma once
#include <stddef.h>

typedef enum Dtype {
    DTYPE_F32,
    DTYPE_BF16,
    DTYPE_F16,
    DTYPE_F64,
    DTYPE_I64,
    DTYPE_I32,
    DTYPE_I16,
    DTYPE_I8,
    DTYPE_U8,
    DTYPE_BOOL,
    DTYPE_Q8_0, // blocks of 32 values: a F16 scale and 32 whole numbers of 8 bits (llama.cpp); in memory only
    DTYPE_Q8_TILES, // the same blocks, and bytes, in the order in which the backend multiplies
                    // (arrange_weights)
    DTYPE_COUNT
} Dtype;

size_t dtype_size(Dtype dtype);                 // bytes of one value; 0 for blocks
size_t dtype_block(Dtype dtype);                // values that can only be stored together: 32 of Q8, else 1
size_t dtype_bytes(Dtype dtype, size_t values); // of values side by side, a multiple of dtype_block
const char *dtype_name(Dtype dtype);            // "F32", "BF16", … as safetensors spells them
int dtype_from_name(const char *name, size_t length); // the Dtype, or -1 for an unknown name and for blocks
