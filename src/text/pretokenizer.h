// Cutting text into pieces that are merged each by itself: the steps Digits, Split and ByteLevel of
// tokenizer.json.
#pragma once
#define PCRE2_CODE_UNIT_WIDTH 8
#include "base/error.h"

#include <jansson.h>
#include <pcre2.h>
#include <stddef.h>

typedef enum PreTokenizerKind {
    PRETOKENIZER_DIGITS, // digits are cut out, singly or in runs
    PRETOKENIZER_SPLIT,  // matches of a pattern are cut out, or thrown away
    PRETOKENIZER_SPACE,  // ByteLevel's add_prefix_space: every piece begins with a space
    PRETOKENIZER_GPT2,   // ByteLevel's use_regex: words, numbers, symbols, white space
    PRETOKENIZER_LLAMA3, // the pattern of Llama 3 and Qwen 2: the same with a mark before a word, fewer
                         // digits
} PreTokenizerKind;

typedef struct PreTokenizerStep {
    PreTokenizerKind kind;
    bool single;         // DIGITS: each digit alone
    bool remove;         // SPLIT: matches are thrown away
    bool invert;         // SPLIT: what is between the matches counts as match
    size_t max_numbers;  // LLAMA3: numbers of a piece
    pcre2_code *pattern; // SPLIT
} PreTokenizerStep;

#define PRETOKENIZER_MAX_STEPS 8
typedef struct PreTokenizer {
    size_t count;
    PreTokenizerStep steps[PRETOKENIZER_MAX_STEPS];
} PreTokenizer;

// Reads the object pre_tokenizer of tokenizer.json. What it cannot do is an error that names type or field.
bool pretokenizer_load(PreTokenizer *p, const json_t *json, Error *err);
void pretokenizer_free(PreTokenizer *p);

// Calls emit for each piece of text (valid UTF-8), in order.
typedef void PieceFn(void *context, const char *piece, size_t size);
void pretokenizer_run(const PreTokenizer *p, const char *text, size_t size, PieceFn *emit, void *context);
