// LINK: config
// LABELS: parity
// RUNS: vlm
// `vlm bench`: nanoVLM's own figures for packing, both forms of a file of lengths, what the stages count, and
// bad input.
#include "support/golden.h"
#include "support/program.h"

#include "base/memory.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

static json_t *run_json(const char *line) {
    ProgramResult r = program_run(line);
    json_t *object = json_loads(r.out, 0, NULL);
    if (r.status || !object)
        fail_msg("vlm %s: status %d\nstdout: %s\nstderr: %s", line, r.status, r.out, r.err);
    program_result_free(&r);
    return object;
}

static long long integer(const json_t *object, const char *key) {
    const json_t *value = json_object_get(object, key);
    if (!json_is_integer(value)) fail_msg("%s is no integer", key);
    return json_integer_value(value);
}

static double number(const json_t *object, const char *key) {
    const json_t *value = json_object_get(object, key);
    if (!json_is_number(value)) fail_msg("%s is no number", key);
    return json_number_value(value);
}

static json_t *pack(const char *path, long long seq_length, const char *packing) {
    char *line = mem_printf("bench pack --lengths %s --seq_length %lld --packing %s --seconds 0 --json", path,
                            seq_length, packing);
    json_t *result = run_json(line);
    free(line);
    return result;
}

static void packing_gives_the_figures_of_nanovlm(void **state) {
    (void)state;
    char *path = golden_path("packing/utilisation.json");
    json_t *cases = json_load_file(path, 0, NULL), *want;
    size_t i;
    assert_true(json_array_size(cases) > 0);
    json_array_foreach(cases, i, want) {
        const long long length = integer(want, "seq_length");
        char *samples = golden_path("packing/%s", json_string_value(json_object_get(want, "samples_file")));
        json_t *theirs = pack(samples, length, "nanovlm"), *ours = pack(samples, length, "best");
        assert_int_equal(integer(theirs, "packs"), integer(want, "packs"));
        assert_int_equal(integer(theirs, "samples"), integer(want, "kept"));
        assert_int_equal(integer(theirs, "samples") + integer(theirs, "skipped"), integer(want, "samples"));
        assert_true(fabs(number(theirs, "fill") - number(want, "fill")) <= 5e-5); // four digits are given
        assert_int_equal(integer(ours, "tokens"), integer(theirs, "tokens"));
        assert_true(number(ours, "fill") > 0.94);
        assert_true(number(ours, "samples_per_second") > 0);
        json_decref(theirs);
        json_decref(ours);
        free(samples);
    }
    json_decref(cases);
    free(path);
}

static void write_file(const char *path, const char *text) {
    Error err;
    if (!file_write_text(path, text, strlen(text), &err)) fail_msg("%s", err.text);
}

static void lines_and_lists_are_read(void **state) {
    (void)state;
    char *path = program_temporary("lengths");
    static const char *const forms[] = {
        "{\"length\": 59, \"images\": 1}\n{\"length\": 39}\n\n  {\"images\": 9, \"length\": "
        "10}\n{\"length\": 100}",
        " [[59, 1], [39, 0],\n [10, 9], [100, 0]]",
    };
    for (size_t i = 0; i < COUNT(forms); i++) {
        write_file(path, forms[i]);
        char *line =
            mem_printf("bench pack --lengths %s --seq_length 100 --max_images 8 --seconds 0 --json", path);
        json_t *r = run_json(line); // 59 + 39 and their pads fill 100; 9 pictures and 101 tokens are too many
        assert_int_equal(integer(r, "samples"), 2);
        assert_int_equal(integer(r, "skipped"), 2);
        assert_int_equal(integer(r, "packs"), 1);
        assert_int_equal(integer(r, "tokens"), 98);
        assert_true(fabs(number(r, "fill") - 0.98) < 1e-12);
        json_decref(r);
        free(line);
    }
    char *line = mem_printf("bench pack --lengths %s --seq_length 100 --max_images 8 --seconds 0", path);
    program_expect(line, 0, "98.00% of the positions of 1 sequences of 100", "");
    free(line);
    unlink(path);
    free(path);
}

static void bad_files_are_named_with_the_line(void **state) {
    (void)state;
    static const struct {
        const char *text, *err;
    } cases[] = {
        {"{\"length\": 1}\n{\"length\": 2}\n{\"length\": oops}\n",
         "line 3 is \"{\"length\": oops}\", expected"},
        {"{\"length\": 1}\n{\"images\": 2}\n", "line 2 is"},
        {"{\"length\": -1}\n", "line 1 is"},
        {"{\"length\": 2.5}\n", "line 1 is"},
        {"{\"length\": 2, \"images\": \"x\"}\n", "line 1 is"},
        {"{\"length\": 99999999999999999999}\n", "line 1 is"},
        {"7\n", "line 1 is"},
        {"[[1, 0], [2]]", "entry 1: expected [length, images]"},
        {"[[1, 0], [2, 0]", "line 1"},
        {"", "holds no sample"},
        {"\n \n", "holds no sample"},
        {"[]", "holds no sample"},
    };
    char *path = program_temporary("lengths"), *line = mem_printf("bench pack --lengths %s", path);
    for (size_t i = 0; i < COUNT(cases); i++) {
        write_file(path, cases[i].text);
        program_expect(line, 1, "", path);
        program_expect(line, 1, "", cases[i].err);
    }
    unlink(path);
    program_expect(line, 1, "", path);
    free(line);
    free(path);
}

static void wrong_command_lines_are_refused(void **state) {
    (void)state;
    static const struct {
        const char *line;
        int status;
        const char *out, *err;
    } cases[] = {
        {"bench", 2, "  pack ", ""},
        {"bench --help", 0, "  data ", ""},
        {"bench pack --help", 0, "usage: vlm bench pack", ""},
        {"bench data --help", 0, "--max_rows N", ""},
        {"bench pakc", 2, "", "did you mean pack?"},
        {"bench qqqqqqqq", 2, "", "`vlm bench` lists all"},
        {"bench pack", 2, "", "--lengths: not given"},
        {"bench pack --lengths x --packing worst", 2, "", "expected best or nanovlm"},
        {"bench pack --lengths x --seq_length 0", 2, "", "--seq_length"},
        {"bench data --no_such_flag", 2, "", "unknown flag"},
        {"bench data --preset tiny --train_dataset_path /nowhere/at/all", 1, "", "/nowhere/at/all"},
        {"bench data --preset tiny --lm_tokenizer /nowhere/at/all", 1, "", "/nowhere/at/all"},
    };
    for (size_t i = 0; i < COUNT(cases); i++)
        program_expect(cases[i].line, cases[i].status, cases[i].out, cases[i].err);
}

// The reference data set with its settings, and further flags.
static char *on_reference(const char *command, const char *flags) {
    char *data = golden_path("data/parquet"), *tokenizer = golden_path("tokenizer/bytes");
    char *line =
        mem_printf("%s --train_dataset_path %s --lm_tokenizer %s --vit_img_size 32 --vit_patch_size 4 "
                   "--max_img_size 64 --mp_image_token_length 4 --val_size 0 --lm_max_length 400 "
                   "--max_sample_length 400 --num_workers 2 %s",
                   command, data, tokenizer, flags);
    free(data);
    free(tokenizer);
    return line;
}

// Taken apart into stages, the rows give the samples that `vlm data` counts.
static void stages_count_what_the_samples_hold(void **state) {
    (void)state;
    char *bench_line = on_reference("bench data", "--json"), *data_line = on_reference("data", "--json");
    json_t *bench = run_json(bench_line), *data = run_json(data_line);
    const json_t *stages = json_object_get(bench, "one_thread"), *loader = json_object_get(bench, "loader");
    assert_int_equal(integer(stages, "rows"), 60);
    assert_int_equal(integer(stages, "rows") - integer(stages, "unusable_rows"), integer(data, "rows_kept"));
    assert_int_equal(integer(stages, "tokens"), integer(json_object_get(data, "tokens"), "total"));
    assert_true(integer(stages, "images") > 0 && integer(stages, "bytes") > 0);
    json_t *stage;
    size_t i;
    json_array_foreach(json_object_get(stages, "stages"), i, stage) {
        assert_true(number(stage, "cpu_seconds") >= 0);
        assert_true(number(json_object_get(stage, "per_cpu_second"), "rows") >= 0);
    }
    assert_int_equal(i, 7); // six stages and all of them
    assert_int_equal(integer(loader, "rows"), 60);
    assert_true(integer(loader, "batches") > 0 && integer(loader, "tokens") > 0);
    assert_true(integer(loader, "tokens") <= integer(stages, "tokens"));
    assert_true(number(loader, "fill") > 0.5 && number(loader, "fill") <= 1);
    json_decref(bench);
    json_decref(data);
    free(bench_line);
    free(data_line);
}

static void limits_and_tables(void **state) {
    (void)state;
    char *line = on_reference("bench data", "--max_rows 10 --json");
    json_t *bench = run_json(line);
    assert_int_equal(integer(json_object_get(bench, "one_thread"), "rows"), 10);
    json_decref(bench);
    free(line);
    line = on_reference("bench data", "--stages false --json");
    bench = run_json(line);
    assert_null(json_object_get(bench, "one_thread"));
    json_decref(bench);
    free(line);
    line = on_reference("bench data", "");
    program_expect(line, 0, "resize+tiles", "");
    program_expect(line, 0, "end to end", "");
    free(line);
}

static void operators_are_measured(void **state) {
    (void)state;
    json_t *row = run_json("bench ops --only squares --values 5000 --seconds 0 --json");
    assert_string_equal(json_string_value(json_object_get(row, "name")), "sum_of_squares");
    assert_string_equal(json_string_value(json_object_get(row, "unit")), "GB/s");
    assert_true(number(row, "seconds") > 0 && number(row, "rate") > 0);
    json_decref(row);
    program_expect("bench ops --only triad --values 5000 --seconds 0", 0, "GB/s", "");
    program_expect("bench ops --values 1", 2, "", "values");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(packing_gives_the_figures_of_nanovlm),
        cmocka_unit_test(lines_and_lists_are_read),
        cmocka_unit_test(bad_files_are_named_with_the_line),
        cmocka_unit_test(wrong_command_lines_are_refused),
        cmocka_unit_test(stages_count_what_the_samples_hold),
        cmocka_unit_test(limits_and_tables),
        cmocka_unit_test(operators_are_measured),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
