// Tokens by id and by text.
#pragma once
#include "base/error.h"
#include "base/vec.h"

typedef struct VocabToken {
    size_t offset;      // of its text in Vocab.texts
    uint32_t size;      // bytes of its text
    bool used, special; // used: this id has a token
} VocabToken;

typedef struct Vocab {
    VEC(VocabToken) tokens; // by id
    CharVec texts;
    int32_t *slots; // hash table of ids, -1 where empty
    size_t n_slots, n_used;
} Vocab;

// Adds a token whose text is new; fails when it is empty, or its id negative, too high, or used before.
bool vocab_add(Vocab *v, const char *text, size_t size, int64_t id, Error *err);
int32_t vocab_find(const Vocab *v, const char *text, size_t size); // -1 when there is none
const VocabToken *vocab_token(const Vocab *v, int64_t id);         // NULL when there is none
void vocab_free(Vocab *v);
