// LINK: text
// LABELS: parity
// Tokenizers of the structure of well-known models, trained on a little text, against the tokenizers library
// (scripts/make_tokenizer_variants.py): every folder of tokenizer_variants is loaded, every row compared. And
// normalisation alone, over every character that has one.
#include "support/golden.h"
#include "base/file.h"
#include "text/normalizer.h"
#include "text/tokenizer.h"
#include "text/unicode.h"

#include <jansson.h>
#include <stdio.h>

// Calls check for every line of a file; returns how many there were.
static size_t for_each_line(const char *path, void (*check)(const json_t *line, const void *context),
                            const void *context) {
    FILE *file = fopen(path, "r");
    if (!file) fail_msg("cannot open %s", path);
    size_t count = 0;
    for (json_t *line; (line = json_loadf(file, JSON_ALLOW_NUL | JSON_DISABLE_EOF_CHECK, NULL)); count++) {
        check(line, context);
        json_decref(line);
    }
    fclose(file);
    assert_true(count > 0);
    return count;
}

static void check_row(const json_t *row, const void *context) {
    const Tokenizer *t = context;
    const json_t *text = json_array_get(row, 0), *want = json_array_get(row, 1),
                 *decoded = json_array_get(row, 2);
    Int32Vec ids = {0};
    tokenizer_encode(t, json_string_value(text), json_string_length(text), &ids);
    bool same = ids.count == json_array_size(want);
    for (size_t i = 0; same && i < ids.count; i++)
        same = ids.items[i] == json_integer_value(json_array_get(want, i));
    if (!same) {
        for (size_t i = 0; i < ids.count; i++) print_error("%d ", ids.items[i]);
        fail_msg("\nexpected %s of \"%s\"", json_dumps(want, JSON_COMPACT), json_string_value(text));
    }
    char *back = tokenizer_decode(t, ids.items, ids.count, true);
    const size_t size = strlen(json_string_value(decoded)); // both as far as the first U+0000
    if (strlen(back) != size || memcmp(back, json_string_value(decoded), size) != 0)
        fail_msg("decoded \"%s\", expected \"%s\"", back, json_string_value(decoded));
    free(back);
    vec_free(&ids);
}

static void check_folder(const char *folder) {
    char *rows = path_join(folder, "rows.jsonl");
    Tokenizer *t;
    Error err;
    if (!tokenizer_load(&t, folder, NULL, &err)) fail_msg("%s", err.text);
    print_message("%s: %zu rows\n", folder, for_each_line(rows, check_row, t));
    tokenizer_free(t);
    free(rows);
}

static size_t check_folders(const char *root) {
    StringList list;
    Error err;
    size_t count = 0;
    if (!file_is_folder(root)) return 0;
    if (!file_list(&list, root, &err)) fail_msg("%s", err.text);
    for (size_t i = 0; i < list.count; i++) {
        char *folder = path_join(root, list.items[i]);
        if (file_is_folder(folder)) check_folder(folder), count++;
        free(folder);
    }
    string_list_free(&list);
    return count;
}

// Those that stand here, and whatever other reference data has.
static void all_folders(void **state) {
    (void)state;
    const char *own = "tests/golden/tokenizer_variants";
    char *other = golden_path("tokenizer_variants");
    assert_true(check_folders(own) >= 5);
    if (strcmp(own, other) != 0) check_folders(other);
    free(other);
}

static void check_normal(const json_t *line, const void *context) {
    (void)context;
    static const Normalizer nfc = {true};
    const json_t *text = json_array_get(line, 0), *want = json_array_get(line, 1);
    CharVec out = {0};
    if (!normalizer_run(&nfc, json_string_value(text), json_string_length(text), &out))
        vec_extend(&out, json_string_value(text), json_string_length(text));
    vec_push(&out, '\0');
    assert_string_equal(out.items, json_string_value(want));
    vec_free(&out);
}

static void normal_form(void **state) {
    (void)state;
    static const Normalizer nfc = {true}, none = {false};
    print_message("%zu lines\n",
                  for_each_line("tests/golden/tokenizer_variants/nfc.jsonl", check_normal, NULL));
    CharVec out = {0};
    assert_false(normalizer_run(&nfc, "plain, \u00e9\u4e2d\uac00\U0001F600", 19, &out));
    assert_false(normalizer_run(&none, "e\u0301", 3, &out));
    assert_false(normalizer_run(&nfc, "", 0, &out));
    assert_int_equal(out.count, 0);
}

// So many marks on one letter that a quadratic sort would take minutes.
static void many_marks(void **state) {
    (void)state;
    static const Normalizer nfc = {true};
    CharVec text = {0}, out = {0};
    const size_t n = 200000;
    utf8_append(&text, 'a');
    for (size_t i = 0; i < n; i++) utf8_append(&text, i % 2 ? 0x316 : 0x334); // classes 220 and 1
    assert_true(normalizer_run(&nfc, text.items, text.count, &out));
    assert_int_equal(out.count, text.count);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(utf8_decode(out.items + 1 + 2 * i, 2).code_point, i < n / 2 ? 0x334 : 0x316);
    vec_free(&text);
    vec_free(&out);
}

static void word_characters(void **state) {
    (void)state;
    json_t *ranges = json_load_file("tests/golden/tokenizer_variants/word.json", 0, NULL);
    uint32_t point = 0;
    for (size_t r = 0; r <= json_array_size(ranges); r++) {
        const json_t *range = json_array_get(ranges, r);
        const json_int_t first = range ? json_integer_value(json_array_get(range, 0)) : 0x110000;
        const json_int_t last = range ? json_integer_value(json_array_get(range, 1)) : 0x10FFFF;
        for (; point < first; point++) assert_false(char_classes(point) & CHAR_WORD);
        for (; point <= last; point++) assert_true(char_classes(point) & CHAR_WORD);
    }
    json_decref(ranges);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_folders),
        cmocka_unit_test(normal_form),
        cmocka_unit_test(many_marks),
        cmocka_unit_test(word_characters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
