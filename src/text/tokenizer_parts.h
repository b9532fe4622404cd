// What a Tokenizer is made of; seen by tokenizer.c, which runs it, and tokenizer_load.c and
// tokenizer_gguf.c, which read it.
#pragma once
#include "text/added_tokens.h"
#include "text/bpe.h"
#include "text/normalizer.h"
#include "text/pretokenizer.h"
#include "text/tokenizer.h"
#include "text/vocab.h"

typedef struct ExtraToken {
    char *name, *text; // owned
    int32_t id;
} ExtraToken;

struct Tokenizer {
    Vocab vocab;
    AddedTokens added[2]; // [0] is looked for first; [1] are those of "normalized": true
    Normalizer normalizer;
    PreTokenizer pretokenizer;
    Bpe bpe;
    VEC(ExtraToken) extra;
    int32_t eos_id;
    char *chat_template;    // owned; NULL: none
    size_t n_tokens_around; // by the post-processor
    int32_t first_id;       // the first of them, if it stands in front; -1: none does
    bool clean_up_spaces;   // when decoding
};

// Fills a zeroed Tokenizer, eos_id included, from the metadata of a GGUF file. Errors name file and field.
bool tokenizer_load_gguf(Tokenizer *t, const char *path, Error *err);
// Reads what stands beside tokenizer.json: eos, chat template, clean-up (tokenizer_config.json,
// chat_template.jinja).
bool tokenizer_load_config(Tokenizer *t, const char *folder, Error *err);
// A JSON object from a file. The caller drops *json, also after a failure.
bool tokenizer_read_json(json_t **json, const char *path, Error *err);
