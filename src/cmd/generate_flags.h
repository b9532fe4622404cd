// The flags of `vlm generate`, and what they say as the model takes it.
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
extern const FieldTable generate_table;

// seed_offset: of the generation.
GenerateOptions generate_options(const GenerateFlags *f, const Session *s, uint64_t seed_offset);
// Positions of a chat or of a batch's sequences: --context, or what the model was made for up to 4096.
size_t generate_context(const GenerateFlags *f, const Session *s);
// Most tiles that fit into so many positions; 0 for a decoder alone.
size_t generate_tiles(const Session *s, size_t positions);
