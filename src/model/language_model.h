// The Llama-like decoder: RMS norms, grouped-query attention with rotary positions, SwiGLU
// (nanoVLM, models/language_model.py; Touvron et al. 2023; Ainslie et al. 2023).
#pragma once
#include "model/lora.h"
#include "model/recompute.h"

// What a block's forward leaves for its backward. M = B*T rows.
typedef struct DecoderBlockActs {
    Tensor x;                 // [M, C] entering the block
    Tensor norm1, norm1_rstd; // [M, C], [M]
    Tensor q, k, v;           // [M, H*D], [M, K*D] twice; q and k already rotated
    Tensor lse;               // [B, H, T]
    Tensor attn;              // [M, C] heads joined, before out_proj
    Tensor branch;            // [M, C] what the attention branch adds; x_mid is made from it again
    Tensor x_mid;             // [M, C] after the attention branch
    Tensor norm2, norm2_rstd;
    Tensor gate, up, swiglu; // [M, inner]
} DecoderBlockActs;

// Keys and values of earlier positions, for generation: [B, capacity, K*D] a block.
typedef struct KVCache {
    Arena arena;
    size_t B, capacity, used; // used: positions that hold keys and values
    Tensor *k, *v;
    Tensor
        rows; // [B*capacity] I32: the rows of k and v, as [B*capacity, K*D], that a forward's positions take
    int32_t *host_rows; // staging of rows
} KVCache;

typedef struct LanguageModel {
    Backend *be;
    const VLMConfig *config;
    const Params *params;
    Recompute recompute; // of plans that keep activations
    size_t B, T;         // of the current plan
    Tensor starts;       // [B, T] I32: where each position's sample begins; absent: one sample a sequence
    Tensor positions;    // [T] I32; with starts [B*T], counted from them
    Tensor cos, sin;     // [T, D] or [B*T, D]
    size_t blocks_at;    // in the arena: from here on lies only what the blocks' backward needs
    DecoderBlockActs *blocks; // config->lm_n_blocks
    Tensor x_out;             // [M, C] leaving the last block
    Tensor norm_rstd;
    Tensor out;    // [M, C] after the last norm
    Tensor branch; // [M, C] scratch: what a branch adds to the residual stream
    // gradients, shared by all blocks
    Tensor dx, dnorm, dattn; // [M, C]
    Tensor dq, dk, dv;
    Tensor delta;               // [B, H, T], of attention's backward
    Tensor dswiglu, dgate, dup; // [M, inner]
    Lora lora;
    int32_t *host_positions; // staging of positions
    size_t host_capacity;
    size_t end; // past the last position
} LanguageModel;

// max_positions: of a plan; with documents those of all its sequences.
void language_model_init(LanguageModel *lm, Backend *be, const VLMConfig *config, const Params *params,
                         size_t max_positions);
void language_model_free(LanguageModel *lm);
// As vision_encoder_plan, for B sequences of T positions. documents: each sample attends to itself only, and
// language_model_set_starts is called before the forward.
void language_model_plan(LanguageModel *lm, Arena *arena, Arena *scratch, size_t B, size_t T, bool keep,
                         bool gradients, bool documents);
// starts [B, T] as in Batch, on the host.
void language_model_set_starts(LanguageModel *lm, const int32_t *starts);
// Where the embeddings go in: [M, C].
Tensor language_model_input(const LanguageModel *lm);
// From the embeddings in language_model_input to lm->out. mask (opt) [B, T] (with a cache: [B, cache->used +
// T]) I32. cache (opt): its keys and values are seen too, and those of these T positions are appended;
// positions go on there.
void language_model_forward(LanguageModel *lm, Tensor mask, KVCache *cache);
// lm->dnorm holds d out on entry; on return lm->dx holds the gradient of the embeddings. Accumulates the
// gradients of the language group if it is trained (the head's and the embedding's are the caller's).
void language_model_backward(LanguageModel *lm, Tensor mask);

// act: of the model's parameters (Params.act).
bool kv_cache_create(KVCache *cache, Backend *be, const VLMConfig *config, Dtype act, size_t B,
                     size_t capacity, Error *err);
void kv_cache_free(KVCache *cache);
