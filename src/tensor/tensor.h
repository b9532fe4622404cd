// A tensor is a view: an address in a backend's memory, a dtype, a shape and strides. It owns nothing.
// Outside a backend nobody dereferences data; values go in and out with tensor_upload and tensor_download
// (tensor/backend.h).
#pragma once
#include "tensor/dtype.h"

#include <stdbool.h>
#include <stddef.h>

#define TENSOR_MAX_DIMS 4

typedef struct Tensor {
    char *data; // NULL: no tensor (an optional argument left out)
    Dtype dtype;
    int ndim;
    size_t shape[TENSOR_MAX_DIMS];
    size_t stride[TENSOR_MAX_DIMS]; // in values; the innermost is always 1
} Tensor;

#define TENSOR_NONE ((Tensor){0})

// The list of sizes of a shape: tensor_at(p, DTYPE_F32, SHAPE(B, T, C)).
#define SHAPE(...)                                                                                           \
    (int)(sizeof((size_t[]){__VA_ARGS__}) / sizeof(size_t)), (const size_t[]) {                              \
        __VA_ARGS__                                                                                          \
    }

Tensor tensor_at(void *data, Dtype dtype, int ndim, const size_t *shape); // contiguous view at an address
bool tensor_exists(Tensor t);  // false for TENSOR_NONE, and while an arena only measures
size_t tensor_count(Tensor t); // number of values
size_t tensor_bytes(Tensor t); // of a contiguous tensor
size_t tensor_rows(Tensor t);  // product of all sizes but the last
size_t tensor_cols(Tensor t);  // the last size
size_t tensor_span(Tensor t);  // bytes from the first value to past the last one
bool tensor_is_contiguous(Tensor t);
// The distance in values between neighbouring rows, all leading dimensions taken as one list of rows; 0 when
// the rows lie unevenly or the values of a row do not lie side by side.
size_t tensor_row_stride(Tensor t);
bool tensor_same_shape(Tensor a, Tensor b);
Tensor tensor_reshape(Tensor t, int ndim, const size_t *shape); // t contiguous, same count
Tensor tensor_head(Tensor t, size_t n);                         // the first n entries of the first dimension
Tensor tensor_slice(Tensor t, size_t first, size_t n);   // entries [first, first + n) of the first dimension
Tensor tensor_columns(Tensor t, size_t first, size_t n); // values [first, first + n) of the last dimension
// The last dimension split in two: [..., H*D] becomes [..., H, D], keeping the strides of the rest.
Tensor tensor_split_last(Tensor t, size_t heads);
