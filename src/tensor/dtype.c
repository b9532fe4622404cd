#include "tensor/dtype.h"
#include "base/check.h"

#include <stdbool.h>
#include <string.h>

static const struct {
    const char *name;
    size_t size;
} dtypes[DTYPE_COUNT] = {
    [DTYPE_F32] = {"F32", 4},   [DTYPE_BF16] = {"BF16", 2}, [DTYPE_F16] = {"F16", 2},
    [DTYPE_F64] = {"F64", 8},   [DTYPE_I64] = {"I64", 8},   [DTYPE_I32] = {"I32", 4},
    [DTYPE_I16] = {"I16", 2},   [DTYPE_I8] = {"I8", 1},     [DTYPE_U8] = {"U8", 1},
    [DTYPE_BOOL] = {"BOOL", 1}, [DTYPE_Q8_0] = {"Q8_0", 0}, [DTYPE_Q8_TILES] = {"Q8_0 in tiles", 0},
};

size_t dtype_size(Dtype dtype) {
    return dtypes[dtype].size;
}

enum { Q8_0_VALUES = 32, Q8_0_BYTES = 34 };

static bool is_blocks(Dtype dtype) {
    return dtype == DTYPE_Q8_0 || dtype == DTYPE_Q8_TILES;
}

size_t dtype_block(Dtype dtype) {
    return is_blocks(dtype) ? Q8_0_VALUES : 1;
}

size_t dtype_bytes(Dtype dtype, size_t values) {
    if (!is_blocks(dtype)) return values * dtypes[dtype].size;
    CHECK(values % Q8_0_VALUES == 0, "%zu values, not whole blocks of %d", values, Q8_0_VALUES);
    return values / Q8_0_VALUES * Q8_0_BYTES;
}

const char *dtype_name(Dtype dtype) {
    return dtypes[dtype].name;
}

int dtype_from_name(const char *name, size_t length) {
    for (int i = 0; i < DTYPE_Q8_0; i++) // those that files of plain values may have
        if (strlen(dtypes[i].name) == length && memcmp(dtypes[i].name, name, length) == 0) return i;
    return -1;
}
