#include "text/added_tokens.h"

#include "text/unicode.h"

static uint32_t find_child(const AddedTokens *a, uint32_t node, uint8_t byte) {
    uint32_t child = a->nodes.items[node].child;
    while (child && a->nodes.items[child].byte != byte) child = a->nodes.items[child].sibling;
    return child;
}

void added_tokens_insert(AddedTokens *a, const char *text, size_t size, AddedToken token) {
    if (a->nodes.count == 0) vec_push(&a->nodes, (AddedNode){.token = -1});
    uint32_t node = 0;
    for (size_t i = 0; i < size; i++) {
        const uint8_t byte = (uint8_t)text[i];
        uint32_t child = find_child(a, node, byte);
        if (!child) {
            child = (uint32_t)a->nodes.count;
            vec_push(&a->nodes,
                     (AddedNode){.sibling = a->nodes.items[node].child, .byte = byte, .token = -1});
            a->nodes.items[node].child = child;
        }
        node = child;
    }
    a->begins[(uint8_t)text[0]] = true;
    a->nodes.items[node].token = (int32_t)a->tokens.count;
    vec_push(&a->tokens, token);
}

void added_tokens_free(AddedTokens *a) {
    vec_free(&a->nodes);
    vec_free(&a->tokens);
    *a = (AddedTokens){0};
}

// The longest token that begins here; its length, 0 when there is none.
static size_t longest_at(const AddedTokens *a, const char *text, size_t size, const AddedToken **token) {
    size_t length = 0;
    uint32_t node = 0;
    for (size_t i = 0; i < size; i++) {
        node = find_child(a, node, (uint8_t)text[i]);
        if (!node) break;
        const int32_t found = a->nodes.items[node].token;
        if (found >= 0) length = i + 1, *token = &a->tokens.items[found];
    }
    return length;
}

// Where the last character of text[from…at) begins.
static size_t last_character(const char *text, size_t from, size_t at) {
    do at--;
    while (at > from && ((uint8_t)text[at] & 0xC0) == 0x80);
    return at;
}

static bool has_class(const char *text, size_t size, unsigned class) {
    return char_classes(utf8_decode(text, size).code_point) & class;
}

static size_t skip_space_back(const char *text, size_t from, size_t at) {
    while (at > from) {
        const size_t begin = last_character(text, from, at);
        if (!has_class(text + begin, at - begin, CHAR_SPACE)) break;
        at = begin;
    }
    return at;
}

static size_t skip_space(const char *text, size_t size, size_t at) {
    while (at < size && has_class(text + at, size - at, CHAR_SPACE))
        at += utf8_decode(text + at, size - at).size;
    return at;
}

static bool stands_alone(const char *text, size_t size, size_t begin, size_t end) {
    if (end < size && has_class(text + end, size - end, CHAR_WORD)) return false;
    if (begin == 0) return true;
    const size_t before = last_character(text, 0, begin);
    return !has_class(text + before, begin - before, CHAR_WORD);
}

bool added_tokens_next(const AddedTokens *a, const char *text, size_t size, AddedMatch *match) {
    if (a->nodes.count == 0) return false;
    size_t length;
    for (size_t i = match->next; i < size; i += length) {
        const AddedToken *token = NULL;
        length = a->begins[(uint8_t)text[i]] ? longest_at(a, text + i, size - i, &token) : 0;
        if (length == 0 || (token->single_word && !stands_alone(text, size, i, i + length))) {
            length = length ? length : 1;
            continue;
        }
        match->next = i + length;
        match->begin = token->strip_left ? skip_space_back(text, match->end < i ? match->end : i, i) : i;
        match->end = token->strip_right ? skip_space(text, size, match->next) : match->next;
        match->id = token->id;
        return true;
    }
    return false;
}

bool added_tokens_cut_before(const AddedTokens *a, const char *token, char before) {
    if (a->nodes.count == 0) return false;
    for (size_t i = 0; i < a->nodes.count; i++) // the root has no byte
        if (i > 0 && a->nodes.items[i].byte == (uint8_t)before) return false;
    const AddedToken *found = NULL;
    const size_t size = strlen(token);
    return longest_at(a, token, size, &found) == size && !found->strip_left && !found->single_word;
}
