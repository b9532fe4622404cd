// LINK: format
// RUNS: vlm
// `vlm inspect` on each kind of thing it knows, whole and damaged.
#include "base/memory.h"
#include "format/safetensors.h"
#include "support/program.h"
#include "support/reference.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static json_t *inspect(const char *flags, const char *path) {
    char *line = mem_printf("inspect %s --json%s%s", path, *flags ? " " : "", flags);
    ProgramResult r = program_run(line);
    json_t *object = json_loads(r.out, 0, NULL);
    if (r.status || !object) fail_msg("vlm %s: status %d, %s%s", line, r.status, r.out, r.err);
    program_result_free(&r);
    free(line);
    return object;
}

static const char *text(const json_t *o, const char *key) {
    const char *value = json_string_value(json_object_get(o, key));
    return value ? value : "";
}

static long long integer(const json_t *o, const char *key) {
    return json_integer_value(json_object_get(o, key));
}

// The lines of the table are at most 100 columns wide.
static void assert_readable(const char *path, const char *shows) {
    char *line = mem_printf("inspect %s --stats", path);
    ProgramResult r = program_run(line);
    assert_int_equal(r.status, 0);
    assert_non_null(strstr(r.out, shows));
    for (char *row = strtok(r.out, "\n"); row; row = strtok(NULL, "\n"))
        if (strlen(row) > 100) fail_msg("%s: %zu columns: %s", path, strlen(row), row);
    program_result_free(&r);
    free(line);
}

// Values whose statistics are known: 1, 2, 3, NaN, infinity, -infinity.
static bool fill_known(void *context, size_t i, void *dst) {
    const float values[] = {1, 2, 3, NAN, INFINITY, -INFINITY};
    (void)context, (void)i;
    memcpy(dst, values, sizeof values);
    return true;
}

static char *known_file(void) {
    char *path = program_temporary("known.safetensors");
    const SafetensorsSpec spec = {"some.weight", DTYPE_F32, 2, {2, 3}};
    const char *const metadata[1][2] = {{"format", "pt"}};
    Error err;
    if (!safetensors_write(path, &spec, 1, metadata, 1, fill_known, NULL, &err)) fail_msg("%s", err.text);
    return path;
}

static void test_safetensors(void **state) {
    (void)state;
    char *path = known_file();
    json_t *o = inspect("--stats", path), *t = json_array_get(json_object_get(o, "tensors"), 0);
    const json_t *s = json_object_get(t, "stats"), *totals = json_object_get(o, "totals");
    assert_string_equal(text(o, "kind"), "weights");
    assert_string_equal(text(json_object_get(o, "metadata"), "format"), "pt");
    assert_string_equal(text(t, "name"), "some.weight");
    assert_string_equal(text(t, "type"), "F32");
    assert_int_equal(integer(totals, "values"), 6);
    assert_int_equal(integer(totals, "bytes"), 24);
    assert_int_equal(integer(s, "nan"), 1);
    assert_int_equal(integer(s, "infinite"), 2);
    assert_true(json_real_value(json_object_get(s, "min")) == 1.0);
    assert_true(json_real_value(json_object_get(s, "max")) == 3.0);
    assert_true(json_real_value(json_object_get(s, "mean")) == 2.0);
    assert_true(fabs(json_real_value(json_object_get(s, "std")) - sqrt(2.0 / 3)) < 1e-12);
    json_decref(o);
    o = inspect("--tensor some.weight", path);
    t = json_array_get(json_object_get(o, "tensors"), 0);
    const json_t *values = json_object_get(t, "first_values");
    assert_int_equal(json_array_size(values), 6);
    assert_true(json_is_null(json_array_get(values, 3)));
    json_decref(o);
    assert_readable(path, "NaN 1  infinite 2");
    char *line = mem_printf("inspect --tensor other %s", path);
    program_expect(line, 1, "", "has no tensor other");
    free(line);
    unlink(path);
    free(path);
}

static void test_folders(void **state) {
    (void)state;
    char *path = golden_path("model/a_base");
    json_t *o = inspect("", path);
    assert_string_equal(text(o, "kind"), "checkpoint");
    assert_string_equal(text(o, "tokenizer"), "tokenizer");
    assert_int_equal(integer(json_object_get(o, "config"), "lm_vocab_size"), 290);
    const json_t *groups = json_object_get(o, "groups"), *totals = json_object_get(o, "totals");
    long long sum = 0;
    const char *group;
    json_t *n;
    json_object_foreach((json_t *)groups, group, n) sum += json_integer_value(n);
    assert_int_equal(sum, integer(totals, "values"));
    json_decref(o);
    assert_readable(path, "lm_vocab_size");
    free(path);
    path = golden_path("backbones/llama_sharded");
    o = inspect("", path);
    assert_int_equal(json_array_size(json_object_get(o, "files")), 3);
    json_decref(o);
    free(path);
}

static void test_gguf(void **state) {
    (void)state;
    char *path = golden_path("gguf/aligned64.gguf");
    json_t *o = inspect("--stats", path);
    assert_string_equal(text(o, "kind"), "GGUF");
    assert_int_equal(integer(json_object_get(o, "metadata"), "general.alignment"), 64);
    assert_string_equal(text(json_array_get(json_object_get(o, "tensors"), 1), "type"), "F16");
    json_decref(o);
    assert_readable(path, "2 tensors, 512 values, 1536 bytes");
    free(path);
}

static void test_rows(void **state) {
    (void)state;
    char *path = golden_path("data/parquet/train-00000-of-00002.parquet");
    json_t *o = inspect("", path);
    assert_string_equal(text(o, "kind"), "Parquet");
    assert_int_equal(integer(o, "rows"), 30);
    assert_int_equal(json_array_size(json_object_get(o, "row_groups")), 3);
    assert_string_equal(text(json_array_get(json_object_get(o, "columns"), 2), "type"), "string");
    json_decref(o);
    assert_readable(path, "row groups");
    free(path);
    path = golden_path("data/arrow/data-00000-of-00002.arrow");
    o = inspect("", path);
    assert_string_equal(text(o, "kind"), "Arrow IPC");
    assert_true(integer(o, "rows") > 0);
    json_decref(o);
    free(path);
}

static void test_tokenizers(void **state) {
    (void)state;
    json_t *o = inspect("", "assets/tokenizer"), *t = json_object_get(o, "tokenizer");
    assert_string_equal(text(o, "kind"), "tokenizer");
    assert_int_equal(integer(t, "vocabulary"), 512);
    assert_string_equal(text(t, "chat_template"), "ChatML");
    assert_int_equal(json_array_size(json_object_get(t, "special_tokens")), 3);
    json_decref(o);
    assert_readable("assets/tokenizer", "Digits");
}

// The first half of a file, under a name that ends the same way.
static void expect_half_refused(const char *reference, const char *name) {
    char *from = golden_path("%s", reference), *to = program_temporary(name), *bytes;
    size_t size;
    Error err;
    if (!file_read(&bytes, &size, from, &err) || !file_write_text(to, bytes, size / 2, &err))
        fail_msg("%s", err.text);
    char *line = mem_printf("inspect %s --json --stats", to);
    program_expect(line, 1, "", to);
    unlink(to);
    free(line);
    free(bytes);
    free(from);
    free(to);
}

static void test_damaged(void **state) {
    (void)state;
    expect_half_refused("model/a_base/model.safetensors", "half.safetensors");
    expect_half_refused("gguf/aligned64.gguf", "half.gguf");
    expect_half_refused("data/parquet/train-00000-of-00002.parquet", "half.parquet");
    expect_half_refused("tokenizer/bytes/tokenizer.json", "half.json");
    program_expect("inspect /none/such", 1, "", "/none/such");
    program_expect("inspect", 2, "", "one file, folder or Hub name, then flags; 0 were given");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_safetensors), cmocka_unit_test(test_folders),    cmocka_unit_test(test_gguf),
        cmocka_unit_test(test_rows),        cmocka_unit_test(test_tokenizers), cmocka_unit_test(test_damaged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
