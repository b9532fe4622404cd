#include "text/vocab.h"

#include "base/check.h"

#include <inttypes.h>

#define MAX_ID (1 << 24) // an id far above all others would ask for memory up to it

static size_t hash_bytes(const char *text, size_t size) { // FNV-1a
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < size; i++) h = (h ^ (uint8_t)text[i]) * 0x100000001b3u;
    return (size_t)(h ^ h >> 32);
}

// The slot that holds this text, or the empty one where it belongs.
static size_t find_slot(const Vocab *v, const char *text, size_t size) {
    size_t slot = hash_bytes(text, size) & (v->n_slots - 1);
    while (v->slots[slot] >= 0) {
        const VocabToken *t = &v->tokens.items[v->slots[slot]];
        if (t->size == size && memcmp(v->texts.items + t->offset, text, size) == 0) break;
        slot = (slot + 1) & (v->n_slots - 1);
    }
    return slot;
}

static void grow_slots(Vocab *v) {
    v->n_slots = v->n_slots ? 2 * v->n_slots : 1024;
    v->slots = mem_resize(v->slots, v->n_slots * sizeof *v->slots);
    memset(v->slots, 0xFF, v->n_slots * sizeof *v->slots);
    for (size_t id = 0; id < v->tokens.count; id++) {
        const VocabToken *t = &v->tokens.items[id];
        if (t->used) v->slots[find_slot(v, v->texts.items + t->offset, t->size)] = (int32_t)id;
    }
}

bool vocab_add(Vocab *v, const char *text, size_t size, int64_t id, Error *err) {
    if (id < 0 || id > MAX_ID)
        return error_set(err, "token \"%s\" has the id %" PRId64 ", expected 0…%d", text, id, MAX_ID);
    if (size == 0) return error_set(err, "the token of id %" PRId64 " is empty", id);
    if (vocab_token(v, id))
        return error_set(err, "the id %" PRId64 " has two tokens, one is \"%s\"", id, text);
    CHECK(vocab_find(v, text, size) < 0, "the token \"%s\" has an id", text);
    if (2 * (v->n_used + 1) > v->n_slots) grow_slots(v);
    const size_t slot = find_slot(v, text, size);
    while (v->tokens.count <= (size_t)id) vec_push(&v->tokens, (VocabToken){0});
    v->tokens.items[id] = (VocabToken){.offset = v->texts.count, .size = (uint32_t)size, .used = true};
    vec_extend(&v->texts, text, size);
    vec_push(&v->texts, '\0');
    v->slots[slot] = (int32_t)id;
    v->n_used++;
    return true;
}

int32_t vocab_find(const Vocab *v, const char *text, size_t size) {
    return v->n_slots ? v->slots[find_slot(v, text, size)] : -1;
}

const VocabToken *vocab_token(const Vocab *v, int64_t id) {
    return id >= 0 && (uint64_t)id < v->tokens.count && v->tokens.items[id].used ? &v->tokens.items[id]
                                                                                 : NULL;
}

void vocab_free(Vocab *v) {
    vec_free(&v->tokens);
    vec_free(&v->texts);
    free(v->slots);
    *v = (Vocab){0};
}
