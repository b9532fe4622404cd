// LINK: text
// LABELS: parity
// Tokenizer and chat against the reference rows: every row found is compared, id by id.
#include "support/golden.h"
#include "base/batch.h"
#include "text/chat.h"
#include "text/unicode.h"

#include <jansson.h>
#include <stdio.h>

enum { SMOLLM2, BYTES, N_TOKENIZERS };
static const char *const names[N_TOKENIZERS] = {"smollm2", "bytes"};
static Tokenizer *tokenizers[N_TOKENIZERS];

static json_t *load_json(const char *name, bool required) {
    char *path = golden_path("text/%s", name);
    json_error_t where;
    json_t *json = json_load_file(path, JSON_ALLOW_NUL, &where);
    if (!json && required) fail_msg("%s: %s", path, where.text);
    free(path);
    return json;
}

// Calls check for every line of text/<name>; no line at all is a failure.
static void for_each_row(const char *name, void (*check)(const json_t *row)) {
    char *path = golden_path("text/%s", name), *bytes;
    size_t size, rows = 0;
    Error err;
    if (!file_read(&bytes, &size, path, &err)) fail_msg("%s", err.text);
    for (char *line = bytes, *end; line < bytes + size; line = end + 1) {
        end = memchr(line, '\n', (size_t)(bytes + size - line));
        if (!end) end = bytes + size;
        json_error_t where;
        json_t *row = json_loadb(line, (size_t)(end - line), JSON_ALLOW_NUL, &where);
        if (!row) fail_msg("%s row %zu: %s", path, rows, where.text);
        check(row);
        json_decref(row);
        rows++;
    }
    assert_true(rows > 0);
    print_message("%s: %zu rows\n", path, rows);
    free(bytes);
    free(path);
}

static TokenMap token_map(const json_t *tokens) {
    TokenMap map = {json_array_size(tokens), mem_zeroed(json_array_size(tokens) + 1, sizeof *map.items)};
    for (size_t i = 0; i < map.count; i++) {
        const json_t *entry = json_array_get(tokens, i);
        map.items[i].name = (char *)json_string_value(json_array_get(entry, 0));
        map.items[i].token = (char *)json_string_value(json_array_get(entry, 1));
    }
    return map;
}

static int load_tokenizers(void **state) {
    (void)state;
    json_t *table = load_json("token_table.json", true);
    for (size_t i = 0; i < N_TOKENIZERS; i++) {
        TokenMap extra = token_map(json_object_get(json_object_get(table, names[i]), "extra_tokens"));
        char *path = golden_path("tokenizer/%s", names[i]);
        Error err = {0};
        if (!tokenizer_load(&tokenizers[i], path, &extra, &err)) {
            print_error("%s\n", err.text);
            return -1;
        }
        free(path);
        free(extra.items);
    }
    json_decref(table);
    return 0;
}

static int free_tokenizers(void **state) {
    (void)state;
    for (size_t i = 0; i < N_TOKENIZERS; i++) tokenizer_free(tokenizers[i]);
    return 0;
}

static void expect_ids(const json_t *expected, const Int32Vec *ids, const char *what, const char *text) {
    bool same = json_array_size(expected) == ids->count;
    for (size_t i = 0; same && i < ids->count; i++)
        same = json_integer_value(json_array_get(expected, i)) == ids->items[i];
    if (!same) fail_msg("%s: %zu ids, expected %zu; \"%s\"", what, ids->count, json_array_size(expected), text);
}

static void check_encode(const json_t *row) {
    const json_t *text = json_object_get(row, "text");
    for (size_t i = 0; i < N_TOKENIZERS; i++) {
        Int32Vec ids = {0};
        tokenizer_encode(tokenizers[i], json_string_value(text), json_string_length(text), &ids);
        expect_ids(json_object_get(row, names[i]), &ids, names[i], json_string_value(text));
        vec_free(&ids);
    }
}

static void encode_rows(void **state) {
    (void)state;
    for_each_row("encode.jsonl", check_encode);
}

static const Tokenizer *tokenizer_of(const json_t *row) {
    const char *name = json_string_value(json_object_get(row, "tokenizer"));
    return tokenizers[strcmp(name, names[BYTES]) == 0 ? BYTES : SMOLLM2];
}

static void expect_text(const json_t *expected, const CharVec *bytes) {
    CharVec text = {0};
    utf8_append_lossy(&text, bytes->items, bytes->count);
    if (text.count != json_string_length(expected) ||
        (text.count && memcmp(text.items, json_string_value(expected), text.count) != 0))
        fail_msg("decoded %zu bytes, expected %zu: \"%s\"", text.count, json_string_length(expected),
                 json_string_value(expected));
    vec_free(&text);
}

static Int32Vec ids_of(const json_t *array) {
    Int32Vec ids = {0};
    for (size_t i = 0; i < json_array_size(array); i++)
        vec_push(&ids, (int32_t)json_integer_value(json_array_get(array, i)));
    return ids;
}

static void check_decode(const json_t *row) {
    Int32Vec ids = ids_of(json_object_get(row, "ids"));
    CharVec bytes = {0};
    for (int skip = 0; skip < 2; skip++) {
        const json_t *expected = json_object_get(row, skip ? "text_skip_special" : "text");
        vec_clear(&bytes);
        tokenizer_decode_bytes(tokenizer_of(row), ids.items, ids.count, skip, &bytes);
        expect_text(expected, &bytes);
        char *text = tokenizer_decode(tokenizer_of(row), ids.items, ids.count, skip);
        assert_string_equal(text, json_string_value(expected));
        free(text);
    }
    vec_free(&bytes);
    vec_free(&ids);
}

static void decode_rows(void **state) {
    (void)state;
    for_each_row("decode.jsonl", check_decode);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(encode_rows),
        cmocka_unit_test(decode_rows),
    };
    return cmocka_run_group_tests(tests, load_tokenizers, free_tokenizers);
}
