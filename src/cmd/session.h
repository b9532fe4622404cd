// A checkpoint ready to answer: configuration, tokenizer, backend and weights, as `generate` and `eval` need
// them.
#pragma once
#include "data/prompt.h"
#include "model/generate.h"

typedef struct Session {
    VLMConfig config;
    Tokenizer *tokenizer;
    ChatTemplate chat;
    Backend *be;
    Vlm model;
} Session;

// Opens configuration and tokenizer. lm_tokenizer: instead of the checkpoint's own when not NULL.
bool session_open(Session *s, const char *checkpoint, const char *lm_tokenizer, Error *err);
// Gets memory for prompts of up to `positions` tokens and `tiles` tiles, `batch` at a time, and loads the
// weights.
bool session_load(Session *s, const char *checkpoint, size_t batch, size_t positions, size_t tiles,
                  size_t threads, Error *err);
void session_close(Session *s);
