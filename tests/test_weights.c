// LINK: format
// Weights by name: one file, a folder, shards with an index; what is damaged or missing is named; every value
// of every floating dtype is converted exactly.
#include "base/memory.h"
#include "base/random.h"
#include "format/convert.h"
#include "format/weights.h"
#include "support/folders.h"
#include "support/golden.h"
#include "support/weights_case.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const TensorCase first[] = {{"b", 2, {3, 5}}, {"a", 1, {7}}, {NULL, 0, {0}}};
static const TensorCase second[] = {{"c", 0, {0}}, {"aa", 3, {2, 1, 2}}, {NULL, 0, {0}}};
#define INDEX                                                                                                \
    "{\"weight_map\": {\"a\": \"one.safetensors\", \"b\": \"one.safetensors\", "                             \
    "\"aa\": \"two.safetensors\", \"c\": \"two.safetensors\"}}"

static char *in_folder(const char *name) { // caller frees
    return path_join(test_folder, name);
}

static char *fresh_folder(void) { // of shards, without an index; caller frees
    char *path = in_folder("shards"), *one = path_join(path, "one.safetensors"),
         *two = path_join(path, "two.safetensors");
    Error err;
    remove_folder_tree(path);
    assert_true(file_make_folders(path, &err));
    write_tensors(one, first, DTYPE_F32);
    write_tensors(two, second, DTYPE_BF16);
    free(one);
    free(two);
    return path;
}

static Weights *open_or_fail(const char *path) {
    Weights *w;
    Error err = {""};
    if (!weights_open(&w, path, &err)) fail_msg("%s", err.text);
    return w;
}

static void expect_values(const Weights *w, const char *name, size_t t, size_t count) {
    const WeightsEntry *e = weights_find(w, name);
    assert_non_null(e);
    assert_int_equal(e->count, count);
    float values[16];
    Error err;
    for (size_t begin = 0; begin < count; begin++) { // every part of it
        if (!weights_read_f32(values, e, begin, count - begin, &err)) fail_msg("%s", err.text);
        for (size_t i = begin; i < count; i++) assert_true(values[i - begin] == case_value(t, i));
    }
}

static void test_shards(void **state) {
    (void)state;
    char *path = fresh_folder();
    write_text(path, "model.safetensors.index.json", INDEX);
    Weights *w = open_or_fail(path);
    static const char *const names[] = {"a", "aa", "b", "c"};
    assert_int_equal(weights_count(w), 4);
    for (size_t i = 0; i < 4; i++) assert_string_equal(weights_entry(w, i)->name, names[i]);
    assert_null(weights_entry(w, 4));
    assert_null(weights_find(w, "ab"));
    expect_values(w, "b", 0, 15);
    expect_values(w, "a", 1, 7);
    expect_values(w, "c", 0, 1);
    expect_values(w, "aa", 1, 4);
    assert_string_equal(weights_find(w, "a")->type, "F32");
    assert_string_equal(weights_find(w, "aa")->type, "BF16");
    assert_int_equal(weights_find(w, "aa")->bytes, 8);
    assert_non_null(strstr(weights_entry_path(weights_find(w, "c")), "two.safetensors"));
    weights_close(w);
    free(path);
}

static void test_one_file(void **state) {
    (void)state;
    static const Dtype dtypes[] = {DTYPE_F32, DTYPE_BF16, DTYPE_F16, DTYPE_F64};
    for (int i = 0; i < 8; i++) {
        char *path = in_folder("single"), *file = path_join(path, "model.safetensors");
        Error err;
        assert_true(file_make_folders(path, &err));
        write_tensors(file, first, dtypes[i / 2]);
        Weights *w = open_or_fail(i % 2 ? path : file); // as a folder and as a file
        assert_string_equal(weights_path(w), i % 2 ? path : file);
        expect_values(w, "b", 0, 15);
        expect_values(w, "a", 1, 7);
        assert_null(weights_config(w, &err));
        assert_non_null(strstr(err.text, "single/config.json: not found"));
        write_text(path, "config.json", "{\"x\": 1}");
        json_t *config = weights_config(w, &err);
        assert_int_equal(json_integer_value(json_object_get(config, "x")), 1);
        json_decref(config);
        write_text(path, "config.json", "[]");
        assert_null(weights_config(w, &err));
        assert_non_null(strstr(err.text, "not a JSON object"));
        weights_close(w);
        remove_folder_tree(path);
        free(file);
        free(path);
    }
}

static void expect_refused(const char *path, const char *message) {
    Weights *w;
    Error err = {""};
    if (weights_open(&w, path, &err)) fail_msg("opened, expected: %s", message);
    assert_null(w);
    if (!strstr(err.text, message)) fail_msg("message is: %s, expected: %s", err.text, message);
}

static void test_bad_indexes(void **state) {
    (void)state;
    static const struct {
        const char *index, *message;
    } cases[] = {
        {"", "model.safetensors.index.json: line"},
        {"[]", "weight_map is not an object"},
        {"{}", "weight_map is not an object"},
        {"{\"weight_map\": {}}", "weight_map is not an object"},
        {"{\"weight_map\": {\"a\": 1}}", "the file of a is not a string"},
        {"{\"weight_map\": {\"a\": \"../one.safetensors\"}}", "expected a file of the same folder"},
        {"{\"weight_map\": {\"a\": \"/etc/passwd\"}}", "expected a file of the same folder"},
        {"{\"weight_map\": {\"a\": \"..\"}}", "expected a file of the same folder"},
        {"{\"weight_map\": {\"a\": \"\"}}", "expected a file of the same folder"},
        {"{\"weight_map\": {\"a\": \"three.safetensors\"}}", "three.safetensors: not found, though"},
        {"{\"weight_map\": {\"d\": \"one.safetensors\"}}", "one.safetensors: tensor d is missing"},
        {"{\"weight_map\": {\"a\": \"two.safetensors\", \"b\": \"one.safetensors\"}}",
         "two.safetensors: tensor a is missing"},
        {"{\"weight_map\": {\"a\": \"one.safetensors\", \"a\": \"two.safetensors\"}}", "duplicate"},
        {"{\"weight_map\": {\"a\": \"model.safetensors.index.json\"}}", "no known kind of weights"},
    };
    char *path = fresh_folder();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_text(path, "model.safetensors.index.json", cases[i].index);
        expect_refused(path, cases[i].message);
    }
    free(path);
}

static void test_bad_folders(void **state) {
    (void)state;
    char *path = fresh_folder(), *two = path_join(path, "two.safetensors");
    expect_refused(path, "no weights in this folder");
    expect_refused("/nowhere/model.safetensors", "/nowhere/model.safetensors: not found");
    write_text(path, "model.safetensors.index.json", INDEX);
    write_tensors(two, first, DTYPE_F32); // the names of the other shard
    expect_refused(path, "stands in");
    assert_int_equal(truncate(two, 40), 0);
    expect_refused(path, "two.safetensors: header of");
    assert_int_equal(truncate(two, 0), 0);
    expect_refused(path, "two.safetensors: not a safetensors file");
    write_text(path, "notes.txt", "not weights");
    char *notes = path_join(path, "notes.txt");
    expect_refused(notes, "no known kind of weights");
    free(notes);
    free(two);
    free(path);
}

// Bytes of the index changed, left out or put in: opened or refused, never more.
static void test_damaged_indexes(void **state) {
    (void)state;
    char *path = fresh_folder();
    Random r = random_stream(5, RANDOM_TEST, 0);
    size_t opened = 0, n = strlen(INDEX);
    for (int round = 0; round < 600; round++) {
        char text[sizeof INDEX + 1] = INDEX;
        const size_t at = random_below(&r, n), kind = random_below(&r, 3);
        if (kind == 0) text[at] = (char)(1 + random_below(&r, 255));
        if (kind == 1) text[at] = '\0'; // cut
        if (kind == 2) memmove(text + at, text + at + 1, n - at);
        write_text(path, "model.safetensors.index.json", text);
        Weights *w;
        Error err = {""};
        if (weights_open(&w, path, &err))
            opened++;
        else
            assert_true(err.text[0]);
        weights_close(w);
    }
    printf("600 damaged indexes: %zu opened\n", opened);
    free(path);
}

// All 65536 values of both halves, at an odd address; the compiler's own conversion is the reference for F16.
static void test_conversion_of_halves(void **state) {
    (void)state;
    enum { N = 65536 };
    unsigned char *bytes = mem_alloc(2 * N + 1);
    float *f16 = mem_alloc(N * sizeof *f16), *bf16 = mem_alloc(N * sizeof *bf16);
    for (uint32_t i = 0; i < N; i++) memcpy(bytes + 1 + 2 * i, &(uint16_t){(uint16_t)i}, 2);
    convert_to_f32(f16, DTYPE_F16, bytes + 1, N);
    convert_to_f32(bf16, DTYPE_BF16, bytes + 1, N);
    for (uint32_t i = 0; i < N; i++) {
        const uint16_t bits = (uint16_t)i;
        const uint32_t upper = (uint32_t)i << 16;
        _Float16 half;
        memcpy(&half, &bits, 2);
        const float expected = (float)half;
        assert_true(isnan(expected) ? isnan(f16[i]) : memcmp(&expected, &f16[i], 4) == 0);
        assert_memory_equal(&upper, &bf16[i], 4);
    }
    free(bytes);
    free(f16);
    free(bf16);
}

static void test_conversion_of_doubles(void **state) {
    (void)state;
    const double wide[] = {0.1, -1e300, 1e-300, INFINITY, 16777217.0};
    const float expected[] = {0.1f, -INFINITY, 0.0f, INFINITY, 16777216.0f};
    float values[5];
    convert_to_f32(values, DTYPE_F64, wide, 5);
    assert_memory_equal(values, expected, sizeof values);
    assert_true(convert_is_float(DTYPE_F16) && !convert_is_float(DTYPE_I64) && !convert_is_float(DTYPE_U8));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shards),
        cmocka_unit_test(test_one_file),
        cmocka_unit_test(test_bad_indexes),
        cmocka_unit_test(test_bad_folders),
        cmocka_unit_test(test_damaged_indexes),
        cmocka_unit_test(test_conversion_of_halves),
        cmocka_unit_test(test_conversion_of_doubles),
    };
    return cmocka_run_group_tests(tests, make_test_folder, remove_test_folder);
}
