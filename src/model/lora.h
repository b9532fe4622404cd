// Low-rank adapters (Hu et al. 2021) on the matrices of linear layers: to y = x wᵀ comes s · (x Aᵀ) Bᵀ, with
// A [r, C], B [O, r] and s = alpha/r. B lies transposed, [r, O], so that the product that accumulates
// (linear_backward_input) adds the branch to y without room for it.
#pragma once
#include "model/params.h"

// Shared by the layers of one part of the model. Backward makes x Aᵀ again instead of keeping it.
typedef struct Lora {
    Backend *be;
    float scale;
    Tensor h, dh; // [M, r]
} Lora;

// Takes the tensors for M rows; none without adapters.
void lora_plan(Lora *l, Backend *be, const Params *params, Arena *arena, size_t M, bool gradients);
// The linear layer of w with its adapter, if it has one: y [M, O] = x wᵀ + b + s · (x Aᵀ) Bᵀ; assigned. b may
// be NULL.
void lora_forward(const Lora *l, Tensor y, Tensor x, const Param *w, const Param *b);
// dx [M, C] of dy [M, O] (+ dx when accumulate).
void lora_backward_input(const Lora *l, Tensor dx, Tensor dy, const Param *w, bool accumulate);
// The gradients of what is trained of w, b, A and B += of dy and the layer's x, with what lora_backward_input
// left in dh: it comes before, for the same w and dy, and for no other in between.
void lora_backward_weight(const Lora *l, Tensor dy, Tensor x, const Param *w, const Param *b);
// Both, one after the other.
void lora_backward(const Lora *l, Tensor dx, Tensor dy, Tensor x, const Param *w, const Param *b,
                   bool accumulate);

// w [O, C] += s · B A on the host, as PEFT merges it; b [r, O] as here.
void lora_merge(float *w, const float *a, const float *b, size_t O, size_t C, size_t r, float scale);
