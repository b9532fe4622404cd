// LINK: config
// Configuration files, defaults, presets and run names, against what nanoVLM and Python write.
#include "support/golden.h"

#include "base/memory.h"
#include "base/pyjson.h"
#include "base/random.h"
#include "config/config.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

static json_t *golden_json(const char *path) {
    char *full = golden_path("%s", path);
    json_error_t where;
    json_t *value = json_load_file(full, 0, &where);
    if (!value) fail_msg("%s: %s", full, where.text);
    free(full);
    return value;
}

static char *golden_text(const char *path) {
    char *full = golden_path("%s", path), *text;
    size_t size;
    Error err;
    if (!file_read(&text, &size, full, &err)) fail_msg("%s", err.text);
    free(full);
    return text;
}

static void expect_error(const Error *err, const char *what, const char *fragment) {
    if (!strstr(err->text, fragment)) fail_msg("%s: the error lacks \"%s\": %s", what, fragment, err->text);
}

// ---- Python's JSON and floats ----

static void floats_are_written_as_python_does(void **state) {
    (void)state;
    json_t *cases = golden_json("config/float_repr.json"), *one;
    size_t i;
    assert_true(json_array_size(cases) > 500);
    json_array_foreach(cases, i, one) {
        uint64_t bits = strtoull(json_string_value(json_array_get(one, 0)), NULL, 16);
        double value;
        memcpy(&value, &bits, sizeof value);
        char text[32];
        py_repr_double(text, value);
        assert_string_equal(text, json_string_value(json_array_get(one, 1)));
    }
    json_decref(cases);
    char text[32];
    py_repr_double(text, NAN);
    assert_string_equal(text, "nan");
    py_repr_double(text, -INFINITY);
    assert_string_equal(text, "-inf");
}

static void json_is_written_as_python_does(void **state) {
    (void)state;
    json_t *golden = golden_json("config/dumps.json");
    static const struct {
        const char *name;
        int indent;
    } cases[] = {{"none", -1}, {"0", 0}, {"2", 2}, {"4", 4}};
    for (size_t i = 0; i < COUNT(cases); i++) {
        char *text = pyjson_dump(json_object_get(golden, "value"), cases[i].indent);
        assert_string_equal(text, json_string_value(json_object_get(golden, cases[i].name)));
        free(text);
    }
    json_decref(golden);
}

// ---- defaults, files ----

static void expect_dump(FieldSet set, const char *golden) {
    json_t *object = fields_to_json(set);
    char *text = pyjson_dump(object, 4), *expected = golden_text(golden);
    assert_string_equal(text, expected);
    free(expected);
    free(text);
    json_decref(object);
}

static void defaults_are_nanovlms(void **state) {
    (void)state;
    Config c;
    FieldSet sets[3];
    Error err;
    config_init(&c);
    config_sets(&c, sets);
    expect_dump(sets[0], "config/VLMConfig.json");
    expect_dump(sets[1], "config/TrainConfig.json");
    if (!train_config_check(&c, &err)) fail_msg("%s", err.text);
    config_free(&c);
}

static char *temporary_path(void) {
    return mem_printf("/tmp/test_config.%d.json", (int)getpid());
}

static void load_and_save_again(const char *folder, const char *name, bool whole_model) {
    char *path = golden_path("%s/%s/config.json", folder, name), *relative, *copy = temporary_path(), *saved;
    size_t size;
    VLMConfig c;
    FieldSet set = {&vlm_config_table, &c};
    Error err;
    fields_set_defaults(set);
    if (!vlm_config_load(&c, path, &err)) fail_msg("%s", err.text);
    if (vlm_config_check(&c, &err) != whole_model) fail_msg("%s: check: %s", name, err.text);
    if (!whole_model) expect_error(&err, name, "vit_cls_flag");
    if (!vlm_config_save(&c, copy, &err)) fail_msg("%s", err.text);
    assert_true(file_read(&saved, &size, copy, &err));
    relative = mem_printf("%s/%s/config.json", folder, name);
    char *original = golden_text(relative);
    assert_string_equal(saved, original);
    unlink(copy);
    free(original);
    free(relative);
    free(saved);
    free(copy);
    free(path);
    fields_free(set);
}

static void reference_configurations_survive(void **state) {
    (void)state;
    static const char *const folders[] = {"model", "train", "generate"};
    size_t count = 0;
    for (size_t i = 0; i < COUNT(folders); i++) {
        StringList cases = golden_cases(folders[i], "config.json");
        for (size_t j = 0; j < cases.count; j++)
            load_and_save_again(folders[i], cases.items[j], strcmp(cases.items[j], "c_cls") != 0);
        count += cases.count;
        string_list_free(&cases);
    }
    assert_true(count >= 9);
}

static void missing_keys_take_their_defaults(void **state) {
    (void)state;
    VLMConfig c;
    FieldSet set = {&vlm_config_table, &c};
    Error err;
    char *path = temporary_path();
    fields_set_defaults(set);
    c.lm_n_blocks = 7; // of an earlier use
    assert_true(file_write_text(path, "{\"vit_n_blocks\": 3}", 19, &err));
    if (!vlm_config_load(&c, path, &err)) fail_msg("%s", err.text);
    assert_int_equal(c.vit_n_blocks, 3);
    assert_int_equal(c.lm_n_blocks, 32);
    assert_string_equal(c.vlm_checkpoint_path, "checkpoints");
    unlink(path);
    free(path);
    fields_free(set);
}

static bool load_text(Config *c, const char *text, size_t size, Error *err) {
    char *path = temporary_path();
    FILE *stream = fopen(path, "wb"); // without file_write_text's waiting for the disk
    assert_true(stream && fwrite(text, 1, size, stream) == size && !fclose(stream));
    bool ok = config_load(c, path, err);
    if (!ok) expect_error(err, "file", path);
    unlink(path);
    free(path);
    return ok;
}

static void expect_bad_text(const char *text, const char *fragment) {
    Config c;
    Error err;
    config_init(&c);
    if (load_text(&c, text, strlen(text), &err)) fail_msg("accepted: %s", text);
    expect_error(&err, text, fragment);
    config_free(&c);
}

static void bad_texts_are_named(void **state) {
    (void)state;
    static const struct {
        const char *text, *fragment;
    } cases[] = {
        {"", "not valid JSON"},
        {"{\"lm_hidden_dim\": 96", "line 1"},
        {"[1]", "expected a JSON object"},
        {"{\"lm_hiden_dim\": 96}", "did you mean \"lm_hidden_dim\"?"},
        {"{\"lm-hidden-dim\": 96}", "unknown key"},
        {"{\"zzz\": 96}", "remove it"},
        {"{\"lm_hidden_dim\": -1}", "lm_hidden_dim: found -1, expected a whole number from 1 to 65536"},
        {"{\"lm_hidden_dim\": 0}", "found 0"},
        {"{\"lm_hidden_dim\": 96.0}", "found 96.0"},
        {"{\"lm_hidden_dim\": \"96\"}", "found \"96\""},
        {"{\"lm_hidden_dim\": 99999999999999999999}", "too big"},
        {"{\"vit_dropout\": 2}", "found 2, expected a number from 0 to 1"},
        {"{\"vit_dropout\": 1e999}", "not valid JSON"},
        {"{\"vit_dropout\": NaN}", "not valid JSON"},
        {"{\"vit_cls_flag\": 1}", "expected true or false"},
        {"{\"vit_model_type\": null}", "found null, expected text"},
        {"{\"vlm_extra_tokens\": {\"image_token\": 3}}", "a JSON object of texts"},
        {"{\"vlm_extra_tokens\": []}", "a JSON object of texts"},
        {"{\"VLMConfig\": {}, \"lm_hidden_dim\": 96}", "unknown section \"lm_hidden_dim\""},
        {"{\"TrainConfig\": {\"batch_size\": true}}", "batch_size: found true"},
        {"{\"TrainConfig\": {\"train_dataset_name\": [\"a\", \"\"]}}", "train_dataset_name"},
        {"{\"TrainOptions\": {\"packing\": \"bset\"}}", "expected best or nanovlm"},
        {"{\"TrainOptions\": 3}", "expected a JSON object"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) expect_bad_text(cases[i].text, cases[i].fragment);
}

static void bad_paths_are_named(void **state) {
    (void)state;
    Config c;
    Error err;
    config_init(&c);
    assert_false(config_load(&c, "/nowhere/config.json", &err));
    expect_error(&err, "missing file", "/nowhere/config.json");
    char *checkpoint = golden_path("model/a_base"); // a folder stands for the config.json in it
    if (!config_load(&c, checkpoint, &err)) fail_msg("%s", err.text);
    assert_int_equal(c.vlm.lm_hidden_dim, 48);
    assert_false(config_load(&c, "/", &err));
    expect_error(&err, "a folder without it", "/config.json: ");
    free(checkpoint);
    assert_false(vlm_config_save(&c.vlm, "/nowhere/config.json", &err));
    expect_error(&err, "missing folder", "/nowhere/config.json");
    config_free(&c);
}

static void everything_is_written_and_read_again(void **state) {
    (void)state;
    Config a, b;
    Error err;
    config_init(&a);
    config_init(&b);
    char *argv[] = {"train",
                    "--preset",
                    "tiny",
                    "--seed=7",
                    "--packing=nanovlm",
                    "--train_dataset_name=a,b",
                    "--lmms_eval_limit=0.5",
                    "--hf_repo_name=none",
                    "--relevance_min_rating=-3",
                    "--run_name=größe",
                    "--max_minutes=1.5"};
    assert_true(config_parse(&a, (FieldSet){0}, COUNT(argv), argv, &err));
    json_t *first = config_to_json(&a);
    char *text = pyjson_dump(first, 4);
    assert_true(load_text(&b, text, strlen(text), &err));
    json_t *second = config_to_json(&b);
    assert_true(json_equal(first, second));
    assert_int_equal(b.options.seed, 7);
    assert_int_equal(b.train.relevance_min_rating, -3);
    assert_string_equal(b.options.run_name, "größe");
    json_decref(first);
    json_decref(second);
    free(text);
    config_free(&a);
    config_free(&b);
}

// ---- presets, run names ----

static void presets_fit_together(void **state) {
    (void)state;
    static const char *const names[] = {"tiny", "small", "nanovlm-222m", "nanovlm-460m"};
    for (size_t i = 0; i < COUNT(names); i++) {
        Config c;
        Error err;
        config_init(&c);
        if (!config_apply_preset(&c, names[i], &err)) fail_msg("%s", err.text);
        if (!train_config_check(&c, &err)) fail_msg("%s: %s", names[i], err.text);
        config_free(&c);
    }
    Config c;
    Error err;
    config_init(&c);
    assert_false(config_apply_preset(&c, "huge", &err));
    expect_error(&err, "preset", "nanovlm-222m");
    assert_true(config_apply_preset(&c, "tiny", &err));
    assert_int_equal(vlm_config_head_dim(&c.vlm), 32);
    assert_int_equal(vlm_config_patches(&c.vlm), 64);
    config_free(&c);
}

static void runs_are_named_as_nanovlm_does(void **state) {
    (void)state;
    json_t *golden = golden_json("train/run_names.json"), *run;
    const char *date = json_string_value(json_object_get(golden, "date"));
    size_t i;
    assert_true(json_array_size(json_object_get(golden, "runs")) > 0);
    json_array_foreach(json_object_get(golden, "runs"), i, run) {
        Config c;
        FieldSet sets[3];
        Error err;
        config_init(&c);
        config_sets(&c, sets);
        if (!fields_from_json(sets[0], json_object_get(run, "vlm"), "vlm", &err) ||
            !fields_from_json(sets[1], json_object_get(run, "train"), "train", &err))
            fail_msg("%s", err.text);
        char *name = run_name(&c, (size_t)json_integer_value(json_object_get(run, "world_size")), date);
        assert_string_equal(name, json_string_value(json_object_get(run, "name")));
        free(name);
        config_free(&c);
    }
    json_decref(golden);
}

// ---- broken files ----

static size_t mutate(char *bytes, size_t size, Random *r) {
    for (uint64_t n = 1 + random_below(r, 4); n; n--) {
        size_t at = random_below(r, size);
        switch (random_below(r, 3)) {
        case 0:
            bytes[at] = (char)random_below(r, 256);
            break;
        case 1:
            bytes[at] = "{}[]\",:-0e\\\n"[random_below(r, 12)];
            break;
        default: // takes some bytes out
            memmove(bytes + at, bytes + at + 1, size - at - 1);
            if (size > 1) size--;
        }
    }
    return size;
}

// Whatever the bytes are, loading answers with a configuration or an error that names the file.
static void broken_files_give_errors(void **state) {
    (void)state;
    Config whole;
    config_init(&whole);
    json_t *object = config_to_json(&whole);
    char *text = pyjson_dump(object, -1), *copy = mem_alloc(strlen(text));
    size_t size = strlen(text), loaded = 0, refused = 0;
    Random r = random_stream(1, RANDOM_TEST, 0);
    for (size_t i = 0; i < 6000; i++) {
        Config c;
        Error err;
        bool truncate = i < size && i % 3 == 0;
        memcpy(copy, text, size);
        size_t n = truncate ? i : mutate(copy, size, &r);
        config_init(&c);
        bool ok = load_text(&c, copy, n, &err);
        if (ok && truncate) fail_msg("the first %zu of %zu bytes were accepted", n, size);
        if (ok) vlm_config_check(&c.vlm, &err);
        loaded += ok;
        refused += !ok;
        config_free(&c);
    }
    assert_true(loaded > 100 && refused > 100);
    free(copy);
    free(text);
    json_decref(object);
    config_free(&whole);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(floats_are_written_as_python_does),
        cmocka_unit_test(json_is_written_as_python_does),
        cmocka_unit_test(defaults_are_nanovlms),
        cmocka_unit_test(reference_configurations_survive),
        cmocka_unit_test(missing_keys_take_their_defaults),
        cmocka_unit_test(bad_texts_are_named),
        cmocka_unit_test(bad_paths_are_named),
        cmocka_unit_test(everything_is_written_and_read_again),
        cmocka_unit_test(presets_fit_together),
        cmocka_unit_test(runs_are_named_as_nanovlm_does),
        cmocka_unit_test(broken_files_give_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
