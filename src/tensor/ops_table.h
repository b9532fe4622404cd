// The table a backend fills: one line an operator, and its signature as the kernel sees it (tensor/ops.h says
// what it computes). Shapes and dtypes have been checked before a kernel runs.
#pragma once
#include "tensor/backend.h"

#define BACKEND_OPS(OP)                                                                                      \
    OP(fill, Tensor x, float value)                                                                          \
    OP(copy, Tensor y, Tensor x)                                                                             \
    OP(add, Tensor y, Tensor a, Tensor b)                                                                    \
    OP(multiply, Tensor x, float factor)                                                                     \
    OP(gather_rows, Tensor y, Tensor x, Tensor rows)                                                         \
    OP(scatter_rows, Tensor y, Tensor x, Tensor rows)                                                        \
    OP(zero_rows, Tensor y, Tensor rows)                                                                     \
    OP(arrange_weights, Tensor w)                                                                            \
    OP(linear_forward, Tensor y, Tensor x, Tensor w, Tensor b)                                               \
    OP(linear_backward_input, Tensor dx, Tensor dy, Tensor w, bool accumulate)                               \
    OP(linear_backward_weight, Tensor dw, Tensor db, Tensor dy, Tensor x)                                    \
    OP(layer_norm_forward, Tensor y, Tensor mean, Tensor rstd, Tensor x, Tensor w, Tensor b, float eps)      \
    OP(layer_norm_backward, Tensor dx, Tensor rounded, Tensor dw, Tensor db, Tensor dy, Tensor x, Tensor w,  \
       Tensor mean, Tensor rstd)                                                                             \
    OP(rms_norm_forward, Tensor y, Tensor rstd, Tensor x, Tensor w, float eps)                               \
    OP(rms_norm_backward, Tensor dx, Tensor rounded, Tensor dw, Tensor dy, Tensor x, Tensor w, Tensor rstd)  \
    OP(add_layer_norm_forward, Tensor sum, Tensor y, Tensor mean, Tensor rstd, Tensor x, Tensor branch,      \
       Tensor w, Tensor b, float eps)                                                                        \
    OP(add_rms_norm_forward, Tensor sum, Tensor y, Tensor rstd, Tensor x, Tensor branch, Tensor w,           \
       float eps)                                                                                            \
    OP(gelu_forward, Tensor y, Tensor x)                                                                     \
    OP(gelu_backward, Tensor dx, Tensor y, Tensor dy, Tensor x)                                              \
    OP(swiglu_forward, Tensor y, Tensor gate, Tensor up)                                                     \
    OP(swiglu_backward, Tensor dgate, Tensor dup, Tensor y, Tensor dy, Tensor gate, Tensor up)               \
    OP(rope_table, Tensor cos, Tensor sin, Tensor positions, Tensor inv_freq, float divisor, float scaling)  \
    OP(rope_forward, Tensor x, Tensor cos, Tensor sin)                                                       \
    OP(rope_backward, Tensor dx, Tensor cos, Tensor sin)                                                     \
    OP(attention_forward, Tensor o, Tensor lse, Tensor q, Tensor k, Tensor v, Tensor mask, Tensor starts,    \
       float scale, bool causal)                                                                             \
    OP(attention_backward, Tensor dq, Tensor dk, Tensor dv, Tensor delta, Tensor dout, Tensor q, Tensor k,   \
       Tensor v, Tensor o, Tensor lse, Tensor mask, Tensor starts, float scale, bool causal)                 \
    OP(embedding_forward, Tensor y, Tensor table, Tensor ids)                                                \
    OP(embedding_backward, Tensor dtable, Tensor dy, Tensor ids)                                             \
    OP(patchify, Tensor patches, Tensor images, size_t P)                                                    \
    OP(position_forward, Tensor y, Tensor x, Tensor position, Tensor cls)                                    \
    OP(position_backward, Tensor dx, Tensor dposition, Tensor dcls, Tensor dy)                               \
    OP(pixel_shuffle_forward, Tensor y, Tensor x, size_t S)                                                  \
    OP(pixel_shuffle_backward, Tensor dx, Tensor dy, size_t S)                                               \
    OP(cross_entropy, Tensor losses, Tensor logits, Tensor targets, float dscale)                            \
    OP(sum, Tensor total, Tensor x, float scale)                                                             \
    OP(sum_of_squares, Tensor total, Tensor x)                                                               \
    OP(clip_factor, Tensor clip, Tensor squares, float max_norm)                                             \
    OP(adamw, Tensor p, Tensor m, Tensor v, Tensor rounded, Tensor grad, Tensor hyper, Tensor clip,          \
       double beta1, double beta2, float eps, bool clear)

struct BackendOps {
#define OP_POINTER(name, ...) void (*name)(Backend * be, __VA_ARGS__);
    BACKEND_OPS(OP_POINTER)
#undef OP_POINTER
};
