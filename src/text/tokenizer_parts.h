// What a Tokenizer is made of; seen by tokenizer.c, which runs it, and tokenizer_load.c and
// tokenizer_gguf.c, which read it.
#pragma once
#include "text/added_tokens.h"
#include "text/bpe.h"
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
    PreTokenizer pretokenizer;
    Bpe bpe;
    VEC(ExtraToken) extra;
    int32_t eos_id;
};

// Fills a zeroed Tokenizer, eos_id included, from the metadata of a GGUF file. Errors name file and field.
bool tokenizer_load_gguf(Tokenizer *t, const char *path, Error *err);
