// What a Tokenizer is made of; seen by tokenizer.c, which runs it, and tokenizer_load.c, which reads it.
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
};
