// A GGUF file of llama.cpp's architecture "llama", seen as a Hugging Face LlamaForCausalLM: the names of its
// tensors in both directions, the order of rows, and config.json.
#pragma once
#include "format/gguf.h"

#include <jansson.h>

#define GGUF_LLAMA_MAX_NAME 80

// "blk.3.attn_q.weight" is "model.layers.3.self_attn.q_proj.weight". False, and name empty, for a tensor that
// the other side does not have. *rotated, if wanted: whether the rows of the tensor stand in another order
// (below).
bool gguf_llama_name_to_hf(char name[GGUF_LLAMA_MAX_NAME], const char *gguf_name, bool *rotated);
bool gguf_llama_name_from_hf(char name[GGUF_LLAMA_MAX_NAME], const char *hf_name, bool *rotated);

// llama.cpp rotates neighbouring values of q and k, transformers the two halves of a head. So the converter
// (convert_hf_to_gguf.py, LlamaModel.permute) puts row p · D/2 + i of a head of D rows, p in {0, 1}, at
// 2 i + p. Both count rows over all heads; D is even.
size_t gguf_llama_row_to_hf(size_t row, size_t head_dim);
size_t gguf_llama_row_from_hf(size_t row, size_t head_dim);

// Values of one head's row of q and k.
bool gguf_llama_head_dim(const Gguf *g, size_t *head_dim, Error *err);
// config.json as transformers would have it; the caller drops the reference. NULL with an error for another
// architecture, a field that is missing or of another type, or one that LlamaForCausalLM has no place for.
json_t *gguf_llama_config(const Gguf *g, Error *err);
