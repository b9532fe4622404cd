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

static size_t skip_space_back(const char *text, size_t from, size_t at) {
    while (at > from) {
        size_t begin = at - 1;
        while (begin > from && ((uint8_t)text[begin] & 0xC0) == 0x80) begin--;
        if (!(char_classes(utf8_decode(text + begin, at - begin).code_point) & CHAR_SPACE)) break;
        at = begin;
    }
    return at;
}

static size_t skip_space(const char *text, size_t size, size_t at) {
    while (at < size) {
        const Utf8Char c = utf8_decode(text + at, size - at);
        if (!(char_classes(c.code_point) & CHAR_SPACE)) break;
        at += c.size;
    }
    return at;
}

bool added_tokens_find(const AddedTokens *a, const char *text, size_t size, size_t from, AddedMatch *match) {
    if (a->nodes.count == 0) return false;
    for (size_t i = from; i < size; i++) {
        if (!a->begins[(uint8_t)text[i]]) continue;
        const AddedToken *token = NULL;
        const size_t length = longest_at(a, text + i, size - i, &token);
        if (length == 0) continue;
        match->begin = token->strip_left ? skip_space_back(text, from, i) : i;
        match->end = token->strip_right ? skip_space(text, size, i + length) : i + length;
        match->id = token->id;
        return true;
    }
    return false;
}
