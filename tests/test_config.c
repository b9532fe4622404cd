// LINK: config
// Fields, flags, configuration files and checks, against what nanoVLM and Python write.
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

static bool parse_words(Config *c, const char *line, Error *err) {
    char *copy = mem_strdup(line), *argv[32] = {"train"};
    int argc = 1;
    for (char *word = strtok(copy, " "); word; word = strtok(NULL, " ")) argv[argc++] = word;
    bool ok = config_parse(c, (FieldSet){0}, argc, argv, err);
    free(copy);
    return ok;
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
        FileList cases = golden_cases(folders[i], "config.json");
        for (size_t j = 0; j < cases.count; j++)
            load_and_save_again(folders[i], cases.names[j], strcmp(cases.names[j], "c_cls") != 0);
        count += cases.count;
        file_list_free(&cases);
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

static void bad_files_are_named(void **state) {
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
    for (size_t i = 0; i < COUNT(cases); i++) {
        Config c;
        Error err;
        config_init(&c);
        if (load_text(&c, cases[i].text, strlen(cases[i].text), &err))
            fail_msg("accepted: %s", cases[i].text);
        expect_error(&err, cases[i].text, cases[i].fragment);
        config_free(&c);
    }
    Config c;
    Error err;
    config_init(&c);
    assert_false(config_load(&c, "/nowhere/config.json", &err));
    expect_error(&err, "missing file", "/nowhere/config.json");
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
    assert_true(
        parse_words(&a,
                    "--preset tiny --seed 7 --packing nanovlm --train_dataset_name a,b --lmms_eval_limit 0.5 "
                    "--hf_repo_name none --relevance_min_rating -3 --run_name größe --max_minutes 1.5",
                    &err));
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

// ---- flags ----

static void flags_set_fields(void **state) {
    (void)state;
    static const struct {
        const char *line, *field, *value; // value as JSON
    } cases[] = {
        {"--batch_size 3", "batch_size", "3"},
        {"--batch-size=3 --batch_size 4", "batch_size", "4"},
        {"--lr_mp 1e-4", "lr_mp", "0.0001"},
        {"--lr_mp 1", "lr_mp", "1.0"},
        {"--lr_mp=.5", "lr_mp", "0.5"},
        {"--lm_re_base 5000", "lm_re_base", "5000"},
        {"--lm_re_base 5e3", "lm_re_base", "5000.0"},
        {"--compile", "compile", "true"},
        {"--compile --batch_size 1", "compile", "true"},
        {"--compile False", "compile", "false"},
        {"--log_wandb=false", "log_wandb", "false"},
        {"--no_log_wandb", "log_wandb", "false"},
        {"--no-log-wandb --batch_size 1", "log_wandb", "false"},
        {"--hf_repo_name none", "hf_repo_name", "null"},
        {"--wandb_entity none", "wandb_entity", "null"},
        {"--run_name x --run_name none", "run_name", "null"},
        {"--vit_model_type none", "vit_model_type", "\"none\""},
        {"--lmms_eval_limit 8", "lmms_eval_limit", "8.0"},
        {"--lmms_eval_limit 8 --lmms_eval_limit None", "lmms_eval_limit", "null"},
        {"--train_dataset_name a,b,c", "train_dataset_name", "[\"a\", \"b\", \"c\"]"},
        {"--relevance_min_rating -2", "relevance_min_rating", "-2"},
        {"--vlm_extra_tokens {\"image_token\":\"<i>\"}", "vlm_extra_tokens", "{\"image_token\": \"<i>\"}"},
        {"--seed 9223372036854775807", "seed", "9223372036854775807"},
        {"--packing nanovlm", "packing", "\"nanovlm\""},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        Config c;
        FieldSet sets[3];
        Error err;
        config_init(&c);
        config_sets(&c, sets);
        if (!parse_words(&c, cases[i].line, &err)) fail_msg("%s: %s", cases[i].line, err.text);
        for (int j = 0; j < 3; j++) {
            const Field *f = fields_find(sets[j].table, cases[i].field, strlen(cases[i].field));
            if (!f) continue;
            json_t *value = fields_get_json(sets[j], f);
            char *text = pyjson_dump(value, -1);
            if (strcmp(text, cases[i].value)) fail_msg("%s gives %s", cases[i].line, text);
            free(text);
            json_decref(value);
        }
        config_free(&c);
    }
}

static void bad_flags_are_named(void **state) {
    (void)state;
    static const struct {
        const char *line, *fragment;
    } cases[] = {
        {"--batch_size 3x", "--batch_size: found \"3x\", expected a whole number from 1 to 4096"},
        {"--batch_size -1", "found \"-1\""},
        {"--batch_size 0", "found \"0\""},
        {"--batch_size 2.0", "found \"2.0\""},
        {"--batch_size +2", "found \"+2\""},
        {"--batch_size=", "found \"\""},
        {"--batch_size", "--batch_size: the value is missing"},
        {"--batch_size --compile", "the value is missing"},
        {"--val_size 99999999999999999999", "--val_size"},
        {"--lr_mp 1e999", "found \"1e999\""},
        {"--lr_mp inf", "found \"inf\""},
        {"--lr_mp nan", "expected a number of at least 0"},
        {"--lr_mp 0x10", "found \"0x10\""},
        {"--lr_mp 1e-3e", "found \"1e-3e\""},
        {"--lr_mp -1", "found \"-1\""},
        {"--compile maybe", "--compile: found \"maybe\", expected true or false"},
        {"--compile=", "expected true or false"},
        {"--no_batch_size", "unknown flag"},
        {"--no_log_wandb=true", "unknown flag"},
        {"--bach_size 3", "--bach_size: unknown flag; did you mean --batch_size?"},
        {"--lr-vision-backbon=3", "did you mean --lr_vision_backbone?"},
        {"--qqqqqqqqqqqq", "`vlm train --help` lists all"},
        {"-batch_size 3", "did you mean --batch_size?"},
        {"batch_size", "unexpected argument"},
        {"-- x", "unexpected argument"},
        {"--packing worst", "expected best or nanovlm"},
        {"--packing be", "expected best or nanovlm"},
        {"--train_dataset_name a,,b", "texts separated by commas"},
        {"--vlm_extra_tokens [1]", "a JSON object of texts"},
        {"--vlm_extra_tokens {", "a JSON object of texts"},
        {"--preset huge", "expected tiny, small, nanovlm-222m or nanovlm-460m"},
        {"--config /nowhere.json", "/nowhere.json"},
        {"--run_name \xff", "--run_name"},
        {"--train_dataset_name a,\xff", "--train_dataset_name"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        Config c;
        Error err;
        config_init(&c);
        if (parse_words(&c, cases[i].line, &err)) fail_msg("accepted: %s", cases[i].line);
        expect_error(&err, cases[i].line, cases[i].fragment);
        config_free(&c);
    }
}

static void flags_win_over_files_over_presets(void **state) {
    (void)state;
    static const char text[] = "{\"VLMConfig\": {\"lm_n_blocks\": 9, \"vit_n_blocks\": 9},"
                               " \"TrainConfig\": {\"lr_mp\": 3}}";
    char *path = temporary_path();
    Error err;
    assert_true(file_write_text(path, text, sizeof text - 1, &err));
    for (int order = 0; order < 2; order++) {
        char *line = order ? mem_printf("--config %s --vit_n_blocks 5 --preset tiny", path)
                           : mem_printf("--vit_n_blocks 5 --preset tiny --config %s", path);
        Config c;
        config_init(&c);
        if (!parse_words(&c, line, &err)) fail_msg("%s", err.text);
        assert_int_equal(c.vlm.vit_n_blocks, 5);     // flag
        assert_int_equal(c.vlm.lm_n_blocks, 9);      // file
        assert_int_equal(c.vlm.vit_hidden_dim, 128); // preset
        assert_int_equal(c.train.stats_log_interval, 50);
        assert_int_equal(c.vlm.lm_max_position_embeddings, 8192); // default
        assert_true(c.train.lr_mp.is_int && c.train.lr_mp.value == 3);
        config_free(&c);
        free(line);
    }
    unlink(path);
    free(path);
}

// A struct with every type.
typedef struct Sample {
    char *text, *batch_size;
    StringList list, repeated;
    OptionalNumber optional;
    int integer;
    TokenMap map;
} Sample;

static const Field sample_fields[] = {
    {"text", FIELD_STRING, offsetof(Sample, text), NULL, 0, 0, NULL, ""},
    {"batch_size", FIELD_STRING, offsetof(Sample, batch_size), "own", 0, 0, NULL, ""},
    {"list", FIELD_STRING_LIST, offsetof(Sample, list), NULL, 0, 0, NULL, ""},
    {"repeated", FIELD_STRING_REPEATED, offsetof(Sample, repeated), NULL, 0, 0, NULL, ""},
    {"optional", FIELD_OPTIONAL_NUMBER, offsetof(Sample, optional), "-0.5", -1, 0, NULL, ""},
    {"integer", FIELD_INT, offsetof(Sample, integer), "-4", 0, 0, NULL, ""},
    {"map", FIELD_TOKEN_MAP, offsetof(Sample, map), "{\"b\": \"1\", \"a\": \"2\"}", 0, 0, NULL, ""},
};
static const FieldTable sample_table = {"Sample", sample_fields, COUNT(sample_fields)};

static void commands_have_flags_of_their_own(void **state) {
    (void)state;
    Sample s;
    Config c;
    Error err;
    FieldSet set = {&sample_table, &s};
    char *argv[] = {"x",    "--repeated",   "a,b", "--list=c,d", "--repeated=e", "--batch_size",
                    "mine", "--text=--dash"};
    fields_set_defaults(set);
    config_init(&c);
    if (!config_parse(&c, set, COUNT(argv), argv, &err)) fail_msg("%s", err.text);
    assert_string_equal(s.batch_size, "mine"); // before the field of the same name in TrainConfig
    assert_int_equal(c.train.batch_size, 2);
    assert_int_equal(s.repeated.count, 2);
    assert_string_equal(s.repeated.items[0], "a,b");
    assert_string_equal(s.repeated.items[1], "e");
    assert_int_equal(s.list.count, 2);
    assert_string_equal(s.text, "--dash");
    assert_int_equal(s.integer, -4);
    assert_string_equal(s.map.items[0].name, "b");

    Sample copy;
    FieldSet other = {&sample_table, &copy};
    assert_true(fields_copy(other, &s));
    json_t *first = fields_to_json(set), *second = fields_to_json(other);
    assert_true(json_equal(first, second));
    assert_ptr_not_equal(copy.text, s.text);
    json_decref(first);
    json_decref(second);
    fields_free(other);
    fields_free(set);
    config_free(&c);
}

static void positional_arguments_are_collected(void **state) {
    (void)state;
    Sample s;
    Error err;
    FieldSet set = {&sample_table, &s};
    StringList words = {0};
    char *argv[] = {"x", "one", "--integer", "5", "two", "-", "--", "--text"};
    fields_set_defaults(set);
    if (!flags_parse(&set, 1, COUNT(argv), argv, &words, &err)) fail_msg("%s", err.text);
    assert_int_equal(words.count, 4);
    assert_string_equal(words.items[1], "two");
    assert_string_equal(words.items[3], "--text");
    assert_int_equal(s.integer, 5);
    for (size_t i = 0; i < words.count; i++) free(words.items[i]);
    free(words.items);
    fields_free(set);
}

static void near_names_are_found(void **state) {
    (void)state;
    static const char *const names[] = {"train", "generate", "eval"};
    assert_string_equal(nearest_name("trian", names, 3), "train");
    assert_string_equal(nearest_name("generat", names, 3), "generate");
    assert_string_equal(nearest_name("eva", names, 3), "eval");
    assert_null(nearest_name("synthesize", names, 3));
    assert_null(nearest_name("", names, 3));
    assert_null(nearest_name("x", names, 0));
}

// ---- presets and checks ----

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

static void fields_that_do_not_fit_are_named(void **state) {
    (void)state;
    static const struct {
        const char *line, *fragment;
        bool training_only;
    } cases[] = {
        {"--vit_n_heads 7", "vit_hidden_dim 768 is no multiple of vit_n_heads 7", false},
        {"--vit_patch_size 513", "vit_patch_size 513 is larger than vit_img_size 512", false},
        {"--vit_ln_eps 0", "vit_ln_eps", false},
        {"--vit_dropout 1", "vit_dropout is 1: it must be at least 0 and below 1", false},
        {"--vit_cls_flag", "vit_cls_flag is true", false},
        {"--mp_pixel_shuffle_factor 5", "mp_pixel_shuffle_factor 5 does not divide the grid of 32 x 32",
         false},
        {"--mp_pixel_shuffle_factor 64", "mp_pixel_shuffle_factor 64", false},
        {"--mp_image_token_length 65", "set it to 64", false},
        {"--mp_image_token_length 63", "set it to 64", false},
        {"--lm_n_heads 7", "lm_hidden_dim 960 is no multiple of lm_n_heads 7", false},
        {"--lm_n_kv_heads 4", "lm_n_heads 15 is no multiple of lm_n_kv_heads 4", false},
        {"--lm_n_heads 64 --lm_n_kv_heads 64", "is 15: rotary positions need an even head size", false},
        {"--lm_use_tokens true", "lm_use_tokens is true", false},
        {"--lm_rms_eps 0", "lm_rms_eps", false},
        {"--lm_dropout 1.0", "lm_dropout", false},
        {"--extra_token_amount 65", "vlm_extra_tokens holds 66 tokens: set it to 66", false},
        {"--lm_vocab_size 49217", "set it to 49218", false},
        {"--vlm_extra_tokens {} --extra_token_amount 0", "no image_token", false},
        {"--vlm_extra_tokens {\"image_token\":\"\"} --extra_token_amount 1", "image_token is empty", false},
        {"--vlm_extra_tokens {\"image_token\":\"a\",\"b\":\"a\"} --extra_token_amount 2",
         "image_token and b are both a", false},
        {"--max_img_size 700", "max_img_size 700 is no multiple of vit_img_size 512", true},
        {"--max_img_size 4608", "has no r9c9", true},
        {"--lm_max_length 66", "every sample with a picture would be left out", true},
        {"--max_images_per_example 19", "max_images_per_knapsack 18", true},
        {"--lr_mp 0 --lr_vision_backbone 0 --lr_language_backbone 0", "nothing would be trained", true},
        {"--max_grad_norm 0", "max_grad_norm", true},
        {"--train_dataset_path=", "train_dataset_path is empty", true},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        Config c;
        Error err;
        config_init(&c);
        if (!parse_words(&c, cases[i].line, &err)) fail_msg("%s: %s", cases[i].line, err.text);
        if (vlm_config_check(&c.vlm, &err) != cases[i].training_only)
            fail_msg("%s: model check", cases[i].line);
        if (train_config_check(&c, &err)) fail_msg("%s: accepted", cases[i].line);
        expect_error(&err, cases[i].line, cases[i].fragment);
        config_free(&c);
    }
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
        cmocka_unit_test(bad_files_are_named),
        cmocka_unit_test(everything_is_written_and_read_again),
        cmocka_unit_test(flags_set_fields),
        cmocka_unit_test(bad_flags_are_named),
        cmocka_unit_test(flags_win_over_files_over_presets),
        cmocka_unit_test(commands_have_flags_of_their_own),
        cmocka_unit_test(positional_arguments_are_collected),
        cmocka_unit_test(near_names_are_found),
        cmocka_unit_test(presets_fit_together),
        cmocka_unit_test(fields_that_do_not_fit_are_named),
        cmocka_unit_test(runs_are_named_as_nanovlm_does),
        cmocka_unit_test(broken_files_give_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
