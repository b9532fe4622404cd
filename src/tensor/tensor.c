#include "tensor/tensor.h"
#include "base/check.h"

Tensor tensor_at(void *data, Dtype dtype, int ndim, const size_t *shape) {
    CHECK(ndim >= 1 && ndim <= TENSOR_MAX_DIMS, "ndim %d", ndim);
    Tensor t = {.data = data, .dtype = dtype, .ndim = ndim};
    size_t stride = 1;
    for (int i = ndim - 1; i >= 0; i--) {
        t.shape[i] = shape[i];
        t.stride[i] = stride;
        stride *= shape[i];
    }
    return t;
}

bool tensor_exists(Tensor t) {
    return t.data != NULL;
}

size_t tensor_count(Tensor t) {
    size_t n = 1;
    for (int i = 0; i < t.ndim; i++) n *= t.shape[i];
    return n;
}

size_t tensor_bytes(Tensor t) {
    return dtype_bytes(t.dtype, tensor_count(t));
}

size_t tensor_cols(Tensor t) {
    return t.shape[t.ndim - 1];
}

size_t tensor_rows(Tensor t) {
    size_t n = 1;
    for (int i = 0; i < t.ndim - 1; i++) n *= t.shape[i];
    return n;
}

size_t tensor_span(Tensor t) {
    if (tensor_count(t) == 0) return 0;
    size_t last = 0;
    for (int i = 0; i < t.ndim; i++) last += (t.shape[i] - 1) * t.stride[i];
    return dtype_bytes(t.dtype, last + 1);
}

bool tensor_is_contiguous(Tensor t) {
    size_t stride = 1;
    for (int i = t.ndim - 1; i >= 0; i--) {
        if (t.shape[i] != 1 && t.stride[i] != stride) return false;
        stride *= t.shape[i];
    }
    return true;
}

size_t tensor_row_stride(Tensor t) {
    size_t stride = 0, rows = 1;
    if (tensor_cols(t) > 1 && t.stride[t.ndim - 1] != 1) return 0;
    for (int i = t.ndim - 2; i >= 0; i--) {
        if (t.shape[i] == 1) continue;
        if (rows > 1 && t.stride[i] != rows * stride) return 0;
        if (rows == 1) stride = t.stride[i];
        rows *= t.shape[i];
    }
    return rows == 1 ? tensor_cols(t) : stride;
}

bool tensor_same_shape(Tensor a, Tensor b) {
    if (a.ndim != b.ndim) return false;
    for (int i = 0; i < a.ndim; i++)
        if (a.shape[i] != b.shape[i]) return false;
    return true;
}

Tensor tensor_reshape(Tensor t, int ndim, const size_t *shape) {
    CHECK(tensor_is_contiguous(t), "only a contiguous tensor can be reshaped");
    Tensor r = tensor_at(t.data, t.dtype, ndim, shape);
    CHECK(tensor_count(r) == tensor_count(t), "%zu values become %zu", tensor_count(t), tensor_count(r));
    return r;
}

Tensor tensor_slice(Tensor t, size_t first, size_t n) {
    CHECK(first + n <= t.shape[0], "rows %zu to %zu of %zu", first, first + n, t.shape[0]);
    t.data += dtype_bytes(t.dtype, first * t.stride[0]);
    t.shape[0] = n;
    return t;
}

Tensor tensor_head(Tensor t, size_t n) {
    return tensor_slice(t, 0, n);
}

Tensor tensor_columns(Tensor t, size_t first, size_t n) {
    CHECK(first + n <= tensor_cols(t), "columns %zu to %zu of %zu", first, first + n, tensor_cols(t));
    t.data += dtype_bytes(t.dtype, first);
    t.shape[t.ndim - 1] = n;
    return t;
}

Tensor tensor_split_last(Tensor t, size_t heads) {
    size_t cols = tensor_cols(t);
    CHECK(t.ndim < TENSOR_MAX_DIMS && cols % heads == 0, "%zu columns into %zu heads", cols, heads);
    t.shape[t.ndim - 1] = heads;
    t.stride[t.ndim - 1] = cols / heads;
    t.shape[t.ndim] = cols / heads;
    t.stride[t.ndim] = 1;
    t.ndim++;
    return t;
}
