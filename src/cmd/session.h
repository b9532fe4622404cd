// A model ready to answer: configuration, tokenizer, backend and weights, as `generate` and `eval` need them.
// It is a checkpoint as nanoVLM saves it, or a decoder alone (a GGUF file, or a folder with a Llama model),
// which answers without pictures.
#pragma once
#include "data/prompt.h"
#include "model/backbone.h"
#include "model/generate.h"

typedef struct Session {
    VLMConfig config;
    char *path;
    bool decoder_alone;
    Backbone backbone; // the decoder alone
    Tokenizer *tokenizer;
    ChatTemplate chat;
    int32_t end_of_turn; // the token that ends an answer as eos does; -1: none
    Error no_chat;       // why a decoder alone has no chat template, "" when it has
    Backend *be;
    Vlm model;
} Session;

// Whether a path that exists is a decoder alone: a file is; a folder is when its config.json is
// transformers', which names a model_type, or when a GGUF file in it stands for the config.json.
bool is_decoder_alone(const char *path);

// Opens configuration and tokenizer. checkpoint: a folder, a file, or a name in the local Hub cache.
// lm_tokenizer: instead of the checkpoint's own when not NULL.
bool session_open(Session *s, const char *checkpoint, const char *lm_tokenizer, Error *err);

typedef struct SessionPlan {
    size_t batch, positions,
        tiles;           // prompts of up to so many tokens, `batch` at a time, with so many tiles in all
    size_t threads;      // 0: one per physical core
    Dtype weights;       // what matrices are kept in: F32, BF16, Q8_0
    const char *adapter; // folder of adapters to be merged; NULL: none
} SessionPlan;
#define WEIGHTS_CHOICES "f32|bf16|q8_0"
Dtype weights_dtype(const char *choice); // of WEIGHTS_CHOICES
// Gets memory and loads the weights.
bool session_load(Session *s, const SessionPlan *plan, Error *err);
void session_close(Session *s);

// Merges the adapters of a folder into weights that were loaded from `checkpoint`; NULL: does nothing. A
// checkpoint's own adapters, which it holds merged, are an error.
bool session_merge(Params *p, Backend *be, const char *checkpoint, const char *adapter, Error *err);
