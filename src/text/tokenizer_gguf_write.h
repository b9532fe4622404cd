// A tokenizer as metadata of a GGUF file, the inverse of tokenizer_load_gguf.
#pragma once
#include "format/gguf.h"
#include "text/tokenizer.h"

// A token put behind those of the tokenizer, or another text for one of them.
typedef struct GgufToken {
    int32_t id;
    const char *text; // as it stands in the vocabulary: a line break is "Ċ"
    bool control;     // found in raw text, left out of what is shown
} GgufToken;

// The token types, merges, the name of the pre-tokenizer, the end token and the template. rows: of the
// embedding; ids without a token become unused ones. An error when the pre-tokenizer has no name in
// llama.cpp.
bool tokenizer_put_gguf(const Tokenizer *t, GgufMetadata *m, size_t rows, const GgufToken *changes,
                        size_t n_changes, const char *chat_template, Error *err);
