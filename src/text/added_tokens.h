// Tokens found in the raw text before anything else is done to it: leftmost first, then the longest.
#pragma once
#include "base/vec.h"

#include <stdbool.h>

typedef struct AddedToken {
    int32_t id;
    bool strip_left, strip_right; // swallows the white space beside it
    bool single_word;             // not beside a character of a word
} AddedToken;

// A trie over bytes; node 0 is the root.
typedef struct AddedNode {
    uint32_t child, sibling; // 0: none
    uint8_t byte;
    int32_t token; // index into tokens, -1: none ends here
} AddedNode;

typedef struct AddedTokens {
    VEC(AddedNode) nodes;
    VEC(AddedToken) tokens;
    bool begins[256]; // whether a token begins with this byte
} AddedTokens;

// text is not empty. The later of two tokens with the same text counts.
void added_tokens_insert(AddedTokens *a, const char *text, size_t size, AddedToken token);
void added_tokens_free(AddedTokens *a);

// The next token in text: where it begins and ends, with the white space it swallows, which reaches back to
// the end of the match before at the most. Start with a zeroed match. False: none is left.
typedef struct AddedMatch {
    size_t begin, end;
    size_t next; // where to look for the one after it: behind the token itself
    int32_t id;
} AddedMatch;
bool added_tokens_next(const AddedTokens *a, const char *text, size_t size, AddedMatch *match);

// Whether a text is always cut between this character and the token behind it: the token is added, stands for
// itself, and no token reaches over the two.
bool added_tokens_cut_before(const AddedTokens *a, const char *token, char before);
