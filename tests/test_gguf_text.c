// LINK: text
// LABELS: parity
// Tokenizers out of GGUF files give the ids that the reference rows have for the tokenizer.json they were
// made of; what cannot be one is refused by field.
#include "support/gguf_case.h"
#include "text/tokenizer.h"

#include <stdio.h>

static json_t *read_json(const char *format, const char *name) {
    char *file = golden_path(format, name);
    json_error_t where;
    json_t *json = json_load_file(file, JSON_ALLOW_NUL, &where);
    if (!json) fail_msg("%s: %s", file, where.text);
    free(file);
    return json;
}

static Tokenizer *load(const char *file, const TokenMap *extra) {
    Tokenizer *t;
    Error err;
    if (!tokenizer_load(&t, file, extra, &err)) fail_msg("%s", err.text);
    return t;
}

static Tokenizer *load_through_gguf(const json_t *tokenizer, const char *pre, uint32_t eos,
                                    const TokenMap *extra) {
    GgufMetadata m = {0};
    put_tokenizer(&m, tokenizer, pre, eos);
    write_metadata(gguf_file, &m);
    Tokenizer *t = load(gguf_file, extra);
    assert_int_equal(tokenizer_eos_id(t), eos);
    return t;
}

static void expect_ids(const Tokenizer *t, const json_t *text, const json_t *expected, const char *what) {
    Int32Vec ids = {0};
    tokenizer_encode(t, json_string_value(text), json_string_length(text), &ids);
    bool same = ids.count == json_array_size(expected);
    for (size_t i = 0; same && i < ids.count; i++)
        same = ids.items[i] == json_integer_value(json_array_get(expected, i));
    if (!same) fail_msg("%s: \"%s\"", what, json_string_value(text));
    vec_free(&ids);
}

// Calls check for each line of a file of JSON lines.
static void for_each_line(const char *file, void (*check)(const json_t *line, void *context), void *context) {
    FILE *in = fopen(file, "r");
    if (!in) fail_msg("%s: cannot be opened", file);
    size_t lines = 0;
    for (json_t *line; (line = json_loadf(in, JSON_ALLOW_NUL | JSON_DISABLE_EOF_CHECK, NULL)); lines++) {
        check(line, context);
        json_decref(line);
    }
    fclose(in);
    assert_true(lines > 0);
    print_message("%s: %zu lines\n", file, lines);
}

// ---- the tokenizers of the reference ----

typedef struct Named {
    const char *name;
    Tokenizer *tokenizer;
} Named;

static void check_row(const json_t *row, void *context) {
    const Named *named = context;
    expect_ids(named->tokenizer, json_object_get(row, "text"), json_object_get(row, named->name),
               named->name);
}

static void check_texts_decode(const json_t *row, void *context) {
    const Named *named = context;
    if (strcmp(json_string_value(json_object_get(row, "tokenizer")), named->name) != 0) return;
    const json_t *ids = json_object_get(row, "ids");
    Int32Vec vec = {0};
    for (size_t i = 0; i < json_array_size(ids); i++)
        vec_push(&vec, (int32_t)json_integer_value(json_array_get(ids, i)));
    for (int skip = 0; skip < 2; skip++) {
        char *text = tokenizer_decode(named->tokenizer, vec.items, vec.count, skip);
        assert_string_equal(text,
                            json_string_value(json_object_get(row, skip ? "text_skip_special" : "text")));
        free(text);
    }
    vec_free(&vec);
}

static void reference_rows(void **state) {
    (void)state;
    static const char *const names[] = {"smollm2", "bytes"};
    json_t *table = read_json("text/%s", "token_table.json");
    char *encode = golden_path("text/encode.jsonl"), *decode = golden_path("text/decode.jsonl");
    for (size_t i = 0; i < 2; i++) {
        const json_t *extra = json_object_get(json_object_get(table, names[i]), "extra_tokens");
        TokenMap map = {0, mem_zeroed(json_array_size(extra) + 1, sizeof *map.items)};
        for (; map.count < json_array_size(extra); map.count++) {
            const json_t *entry = json_array_get(extra, map.count);
            map.items[map.count] = (TokenPair){(char *)json_string_value(json_array_get(entry, 0)),
                                               (char *)json_string_value(json_array_get(entry, 1))};
        }
        json_t *tokenizer = read_json("tokenizer/%s/tokenizer.json", names[i]);
        Named named = {names[i], load_through_gguf(tokenizer, "smollm", 2, &map)};
        for_each_line(encode, check_row, &named);
        for_each_line(decode, check_texts_decode, &named);
        tokenizer_free(named.tokenizer);
        json_decref(tokenizer);
        free(map.items);
    }
    json_decref(table);
    free(encode);
    free(decode);
}

// ---- other pre-tokenizers ----

// Tokenizers of variants.jsonl that differ by a pre-tokenizer that has a name: the library's own ids.
static const struct {
    const char *variant, *pre;
} by_name[] = {{"gpt2", "gpt-2"}, {"gpt2_by_pattern", "smollm"}, {"llama3", "smaug-bpe"}};

static void check_variant(const json_t *line, void *context) {
    const char *name = json_string_value(json_object_get(line, "name"));
    const json_t *rows = json_object_get(line, "rows");
    for (size_t i = 0; i < sizeof by_name / sizeof *by_name; i++) {
        if (strcmp(by_name[i].variant, name) != 0) continue;
        Tokenizer *t = load_through_gguf(json_object_get(line, "tokenizer"), by_name[i].pre, 2, NULL);
        for (size_t k = 0; k < json_array_size(rows); k++)
            expect_ids(t, json_array_get(json_array_get(rows, k), 0),
                       json_array_get(json_array_get(rows, k), 1), name);
        tokenizer_free(t);
        ++*(size_t *)context;
    }
}

static void variants(void **state) {
    (void)state;
    size_t checked = 0;
    for_each_line("tests/golden/text/variants.jsonl", check_variant, &checked);
    assert_int_equal(checked, sizeof by_name / sizeof *by_name);
}

// Whether the names of a list, with spaces between them, hold this one.
static bool holds(const char *list, const char *name) {
    const size_t size = strlen(name);
    for (const char *at = list; (at = strstr(at, name)); at += size)
        if ((at == list || at[-1] == ' ') && (at[size] == ' ' || at[size] == '\0')) return true;
    return false;
}

static void check_named_row(const json_t *row, void *context) {
    const Named *named = context;
    const char *names;
    json_t *ids;
    json_object_foreach(json_object_get(row, "ids"), names, ids) {
        if (!holds(names, named->name)) continue;
        expect_ids(named->tokenizer, json_object_get(row, "text"), ids, named->name);
        return;
    }
    fail_msg("no ids of %s", named->name);
}

// Every name of a pre-tokenizer on the same vocabulary, against llama.cpp's ids.
static void every_pre_tokenizer(void **state) {
    (void)state;
    static const char *const names[] = {"smollm",    "starcoder", "refact",  "codeshell", "gpt-2", "phi-2",
                                        "mpt",       "olmo",      "dbrx",    "llama3",    "qwen2", "llama-v3",
                                        "llama-bpe", "smaug-bpe", "default", "stablelm2"};
    json_t *json = json_load_file("tests/golden/gguf_tokenizer/tokenizer.json", 0, NULL);
    assert_non_null(json);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        Named named = {names[i], load_through_gguf(json, names[i], 0, NULL)};
        for_each_line("tests/golden/gguf_tokenizer/rows.jsonl", check_named_row, &named);
        tokenizer_free(named.tokenizer);
    }
    json_decref(json);
}

// ---- what is refused ----

typedef struct Parts {
    const char *model, *pre, *tokens[4], *merge;
    int32_t types[4];
    size_t n_types;
    uint32_t eos;
    const char *message; // a part of the error; NULL: it is accepted
} Parts;

#define AND_THE_REST {1, 1, 1, 3}, 4, 3
static const Parts parts[] = {
    {"gpt2", "gpt-2", {"a", "b", "ab", "<e>"}, "a b", AND_THE_REST, NULL},
    {"llama",
     "gpt-2",
     {"a", "b", "ab", "<e>"},
     "a b",
     AND_THE_REST,
     "ggml.model is \"llama\", expected \"gpt2\""},
    {NULL, "gpt-2", {"a", "b", "ab", "<e>"}, "a b", AND_THE_REST, "ggml.model is missing"},
    {"gpt2",
     "poro-chat",
     {"a", "b", "ab", "<e>"},
     "a b",
     AND_THE_REST,
     "ggml.pre is \"poro-chat\", expected one of smollm"},
    {"gpt2", NULL, {"a", "b", "ab", "<e>"}, "a b", AND_THE_REST, "ggml.pre is missing"},
    {"gpt2",
     "gpt-2",
     {"a", "b", "ab", "a"},
     "a b",
     AND_THE_REST,
     "ggml.tokens[3]: \"a\" is also the token of id 0"},
    {"gpt2",
     "gpt-2",
     {"a", "", "ab", "<e>"},
     "a b",
     AND_THE_REST,
     "ggml.tokens[1]: the token of id 1 is empty"},
    {"gpt2", "gpt-2", {"a", "b", "a\xff", "<e>"}, "a b", AND_THE_REST, "ggml.tokens[2]: not UTF-8"},
    {"gpt2", "gpt-2", {"a", "b", "ab", "<e>"}, "ab", AND_THE_REST, "ggml.merges[0]: expected \"left right\""},
    {"gpt2",
     "gpt-2",
     {"a", "b", "ab", "<e>"},
     "a b ",
     AND_THE_REST,
     "ggml.merges[0]: expected \"left right\""},
    {"gpt2",
     "gpt-2",
     {"a", "b", "ab", "<e>"},
     "b a",
     AND_THE_REST,
     "ggml.merges[0]: \"b a\", expected two tokens"},
    {"gpt2",
     "gpt-2",
     {"a", "b", "ab", "<e>"},
     "a c",
     AND_THE_REST,
     "ggml.merges[0]: \"a c\", expected two tokens"},
    {"gpt2",
     "gpt-2",
     {"a", "b", "ab", "<e>"},
     "a b",
     {1, 1, 0, 3},
     4,
     3,
     "ggml.tokens[2]: its token type is 0"},
    {"gpt2",
     "gpt-2",
     {"a", "b", "ab", "<e>"},
     "a b",
     {1, 1, 7, 3},
     4,
     3,
     "ggml.tokens[2]: its token type is 7"},
    {"gpt2", "gpt-2", {"a", "b", "ab", "<e>"}, "a b", {1, 1, 1}, 3, 3, "ggml.token_type has 3 entries"},
    {"gpt2",
     "gpt-2",
     {"a", "b", "ab", "<e>"},
     "a b",
     {1, 1, 1, 3},
     4,
     4,
     "ggml.eos_token_id is 4, expected one of the 4"},
};

static void write_parts(const Parts *p) {
    GgufMetadata m = {0};
    GgufString tokens[4];
    for (size_t i = 0; i < 4; i++) tokens[i] = (GgufString){p->tokens[i], strlen(p->tokens[i])};
    if (p->model) gguf_put_string(&m, "tokenizer.ggml.model", p->model);
    if (p->pre) gguf_put_string(&m, "tokenizer.ggml.pre", p->pre);
    gguf_put_strings(&m, "tokenizer.ggml.tokens", tokens, 4);
    gguf_put_i32s(&m, "tokenizer.ggml.token_type", p->types, p->n_types);
    gguf_put_strings(&m, "tokenizer.ggml.merges", &(GgufString){p->merge, strlen(p->merge)}, 1);
    gguf_put_u32(&m, "tokenizer.ggml.eos_token_id", p->eos);
    write_metadata(gguf_file, &m);
}

static void refused_tokenizers(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        Error err = {0};
        Tokenizer *t;
        write_parts(&parts[i]);
        const bool ok = tokenizer_load(&t, gguf_file, NULL, &err);
        if (ok != !parts[i].message) fail_msg("case %zu: %s", i, ok ? "accepted" : err.text);
        if (!ok && (!strstr(err.text, parts[i].message) || !strstr(err.text, gguf_file)))
            fail_msg("case %zu: %s", i, err.text);
        tokenizer_free(t);
    }
}

// Control tokens are found in raw text and left out when special ones are; others of the user's are kept.
static void kinds_of_tokens(void **state) {
    (void)state;
    const Parts p = {"gpt2", "gpt-2", {"a", "b", "<u>", "<e>"}, "", {1, 1, 4, 3}, 4, 3, NULL};
    GgufMetadata m = {0};
    GgufString tokens[4];
    for (size_t i = 0; i < 4; i++) tokens[i] = (GgufString){p.tokens[i], strlen(p.tokens[i])};
    gguf_put_string(&m, "tokenizer.ggml.model", p.model);
    gguf_put_string(&m, "tokenizer.ggml.pre", p.pre);
    gguf_put_strings(&m, "tokenizer.ggml.tokens", tokens, 4);
    gguf_put_i32s(&m, "tokenizer.ggml.token_type", p.types, 4);
    gguf_put_strings(&m, "tokenizer.ggml.merges", NULL, 0);
    gguf_put_u32(&m, "tokenizer.ggml.eos_token_id", 3);
    write_metadata(gguf_file, &m);
    TokenPair pair = {"image_token", "<|image|>"};
    Tokenizer *t = load(gguf_file, &(TokenMap){1, &pair});
    static const int32_t expected[] = {0, 2, 1, 3, 4};
    Int32Vec ids = {0};
    tokenizer_encode(t, "a<u>b<e><|image|>", 17, &ids);
    assert_int_equal(ids.count, 5);
    assert_memory_equal(ids.items, expected, sizeof expected);
    assert_int_equal(tokenizer_extra_id(t, "image_token"), 4);
    char *text = tokenizer_decode(t, ids.items, ids.count, true);
    assert_string_equal(text, "a<u>b");
    free(text);
    vec_free(&ids);
    tokenizer_free(t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reference_rows),      cmocka_unit_test(variants),
        cmocka_unit_test(every_pre_tokenizer), cmocka_unit_test(refused_tokenizers),
        cmocka_unit_test(kinds_of_tokens),
    };
    return cmocka_run_group_tests(tests, make_gguf_file, remove_gguf_file);
}
