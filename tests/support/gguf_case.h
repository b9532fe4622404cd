// GGUF files for tests. Static, so that the other tests need not link the format room.
#pragma once
#include "support/folders.h"
#include "support/golden.h"

#include "base/memory.h"
#include "format/gguf.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// The file that a program of tests writes, between these two as set-up and tear-down of the group.
static char *gguf_file;

static inline int make_gguf_file(void **state) {
    make_test_folder(state);
    gguf_file = path_join(test_folder, "small.gguf");
    return 0;
}

static inline int remove_gguf_file(void **state) {
    free(gguf_file);
    return remove_test_folder(state);
}

static inline Gguf *open_gguf(const char *path) {
    Gguf *g;
    Error err;
    if (!gguf_open(&g, path, &err)) fail_msg("%s", err.text);
    return g;
}

static inline bool gguf_case_no_values(void *context, size_t i, void *dst) {
    (void)context, (void)i, (void)dst;
    return false;
}

// A file of metadata alone.
static inline void write_metadata(const char *path, GgufMetadata *m) {
    Error err;
    if (!gguf_write(path, m, NULL, 0, gguf_case_no_values, NULL, &err)) fail_msg("%s", err.text);
    gguf_metadata_free(m);
}

// Where the token of this id stands in what will be tokenizer.ggml.tokens; token types are llama.cpp's.
typedef struct GgufVocab {
    GgufString *tokens;
    int32_t *types;
    size_t n, capacity;
} GgufVocab;

static inline void gguf_case_token(GgufVocab *v, const char *text, int64_t id, int32_t type) {
    assert_true(id >= 0 && (size_t)id < v->capacity);
    v->tokens[id] = (GgufString){text, strlen(text)};
    v->types[id] = type;
    if ((size_t)id >= v->n) v->n = (size_t)id + 1;
}

static inline void gguf_case_merges(GgufMetadata *m, const json_t *merges) {
    const size_t n = json_array_size(merges);
    GgufString *items = mem_zeroed(n + 1, sizeof *items);
    char **texts = mem_zeroed(n + 1, sizeof *texts);
    for (size_t i = 0; i < n; i++) {
        const json_t *merge = json_array_get(merges, i);
        texts[i] = json_is_string(merge) ? mem_strdup(json_string_value(merge))
                                         : mem_printf("%s %s", json_string_value(json_array_get(merge, 0)),
                                                      json_string_value(json_array_get(merge, 1)));
        items[i] = (GgufString){texts[i], strlen(texts[i])};
    }
    gguf_put_strings(m, "tokenizer.ggml.merges", items, n);
    for (size_t i = 0; i < n; i++) free(texts[i]);
    free(texts);
    free(items);
}

// The vocabulary, merges and added tokens of a tokenizer.json as metadata; its pre-tokenizer goes by this
// name.
static inline void put_tokenizer(GgufMetadata *m, const json_t *tokenizer, const char *pre, uint32_t eos) {
    const json_t *model = json_object_get(tokenizer, "model"), *vocab = json_object_get(model, "vocab"),
                 *added = json_object_get(tokenizer, "added_tokens");
    const size_t capacity = json_object_size(vocab) + json_array_size(added);
    GgufVocab v = {mem_zeroed(capacity, sizeof *v.tokens), mem_zeroed(capacity, sizeof *v.types), 0,
                   capacity};
    const char *text;
    json_t *id;
    json_object_foreach((json_t *)vocab, text, id) gguf_case_token(&v, text, json_integer_value(id), 1);
    for (size_t i = 0; i < json_array_size(added); i++) {
        const json_t *token = json_array_get(added, i);
        gguf_case_token(&v, json_string_value(json_object_get(token, "content")),
                        json_integer_value(json_object_get(token, "id")),
                        json_is_true(json_object_get(token, "special")) ? 3 : 4);
    }
    gguf_put_string(m, "tokenizer.ggml.model", "gpt2");
    gguf_put_string(m, "tokenizer.ggml.pre", pre);
    gguf_put_strings(m, "tokenizer.ggml.tokens", v.tokens, v.n);
    gguf_put_i32s(m, "tokenizer.ggml.token_type", v.types, v.n);
    gguf_case_merges(m, json_object_get(model, "merges"));
    gguf_put_u32(m, "tokenizer.ggml.eos_token_id", eos);
    free(v.tokens);
    free(v.types);
}
