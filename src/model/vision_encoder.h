// The SigLIP vision transformer: patches, learned positions, pre-norm blocks, a final layer norm
// (nanoVLM, models/vision_transformer.py; Dosovitskiy et al. 2021; Zhai et al. 2023).
#pragma once
#include "model/lora.h"
#include "model/recompute.h"

// What a block's forward leaves for its backward. Shapes: I tiles, N tokens (patches, and cls in front).
typedef struct VisionBlockActs {
    Tensor x;                       // [I, N, C] entering the block
    Tensor ln1, ln1_mean, ln1_rstd; // [I, N, C], [I*N] twice
    Tensor qkv;                     // [I, N, 3C]
    Tensor lse;                     // [I, H, N]
    Tensor attn;                    // [I, N, C] heads joined, before out_proj
    Tensor branch;                  // [I, N, C] what the attention branch adds; x_mid is made from it again
    Tensor x_mid;                   // [I, N, C] after the attention branch
    Tensor ln2, ln2_mean, ln2_rstd;
    Tensor fc1, gelu; // [I, N, inner]
} VisionBlockActs;

typedef struct VisionEncoder {
    Backend *be;
    const VLMConfig *config;
    const Params *params;
    Recompute recompute; // of plans that keep activations
    size_t tokens;       // N
    size_t I;            // tiles of the current plan
    Tensor images;       // [I, 3, Y, X]: room for the input, which is forgotten once it is cut into patches
    Tensor patches;      // [I*P, 3*p*p]
    Tensor embedded;     // [I, P, C] after the convolution, before positions
    VisionBlockActs *blocks; // config->vit_n_blocks
    Tensor x_out;            // [I, N, C] leaving the last block
    Tensor ln_mean, ln_rstd;
    Tensor out;    // [I, N, C] after the last norm; with vit_cls_flag [I, C]
    Tensor branch; // [I, N, C] scratch: what a branch adds to the residual stream
    // gradients, shared by all blocks
    Tensor dx, dnorm, dattn; // [I, N, C]: of the residual stream, a norm's result, the joined heads
    Tensor dqkv;             // [I, N, 3C]
    Tensor delta;            // [I, H, N], of attention's backward
    Tensor dinner;           // [I, N, inner]
    Tensor dpatches;         // [I, P, C]
    Lora lora;
} VisionEncoder;

// config and params are borrowed; the plans below take the memory.
void vision_encoder_init(VisionEncoder *v, Backend *be, const VLMConfig *config, const Params *params);
void vision_encoder_free(VisionEncoder *v);
// Takes the tensors for I tiles. keep: every block keeps its own activations, for backward; otherwise all
// share. In scratch lies what nobody reads once forward or backward is through with this part of the model.
void vision_encoder_plan(VisionEncoder *v, Arena *arena, Arena *scratch, size_t I, bool keep);
// What backward alone needs; its memory may be anyone's until vision_encoder_backward.
void vision_encoder_plan_gradients(VisionEncoder *v, Arena *arena, size_t I);
// images [I, 3, Y, X] to v->out.
void vision_encoder_forward(VisionEncoder *v, Tensor images);
// dout like out; accumulates the gradients of the vision group.
void vision_encoder_backward(VisionEncoder *v, Tensor dout);
