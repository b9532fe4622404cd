// Normalisation of text before it is cut into pieces: Unicode's form NFC, as the tokenizers library does it.
#pragma once
#include "base/vec.h"

#include "base/error.h"

#include <jansson.h>

typedef struct Normalizer {
    bool nfc;
} Normalizer;

// Reads the object normalizer of tokenizer.json: null, NFC, or a Sequence of NFC. What it cannot do is an
// error that names the type.
bool normalizer_load(Normalizer *n, const json_t *json, Error *err);
// text (valid UTF-8) in its normal form: appended to out and true, or false when text is already normal (the
// usual case, and quickly seen), and nothing is appended.
bool normalizer_run(const Normalizer *n, const char *text, size_t size, CharVec *out);
