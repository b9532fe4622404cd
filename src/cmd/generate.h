// The flags of `vlm generate` and its ways of working: one prompt, a chat, a file of prompts.
#pragma once
#include "cmd/session.h"

typedef struct GenerateFlags {
    char *checkpoint, *hf_model, *lm_tokenizer, *weights;
    char *prompt, *prompt_file, *system;
    StringList image, stop;
    size_t generations, max_new_tokens, threads, context;
    bool greedy, plain, interactive, json, verbose;
    int top_k;
    Number top_p, temperature;
    uint64_t seed;
    char *logits_out, *adapter;
    char *batch, *out;
    size_t batch_size;
} GenerateFlags;

// What the flags say, as the model takes it. seed_offset: of the generation.
GenerateOptions generate_options(const GenerateFlags *f, const Session *s, uint64_t seed_offset);
#define WEIGHTS_CHOICES "f32|bf16|q8_0"
Dtype weights_dtype(const char *choice); // of WEIGHTS_CHOICES
// Positions of a chat or of a batch's sequences: --context, or what the model was made for up to 4096.
size_t generate_context(const GenerateFlags *f, const Session *s);
// Most tiles that fit into so many positions; 0 for a decoder alone.
size_t generate_tiles(const Session *s, size_t positions);

// Pictures from files; free with pictures_free, also after a failure. A decoder alone takes none.
typedef struct Pictures {
    size_t count;
    Picture *items;
} Pictures;
bool pictures_add(Pictures *p, const Session *s, const char *path, Error *err);
void pictures_free(Pictures *p);

// The session is open, the weights are not loaded yet.
bool generate_chat(Session *s, const GenerateFlags *f, Error *err);
bool generate_batch(Session *s, const GenerateFlags *f, Error *err);
// Before the first thread is made: Ctrl-C then stops an answer, and ends the program where there is none.
void chat_catch_interrupts(void);
