// LINK: config
// Flags on the command line, their order of precedence, and the checks of what they give.
#include "support/golden.h"

#include "base/memory.h"
#include "base/pyjson.h"
#include "config/config.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

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

// The one field of that name in all tables; value: as JSON.
static void expect_field(const char *line, const char *name, const char *value) {
    Config c;
    FieldSet sets[3];
    Error err;
    size_t found = 0;
    config_init(&c);
    config_sets(&c, sets);
    if (!parse_words(&c, line, &err)) fail_msg("%s: %s", line, err.text);
    for (int j = 0; j < 3; j++) {
        const Field *f = fields_find(sets[j].table, name, strlen(name));
        if (!f) continue;
        json_t *is = fields_get_json(sets[j], f);
        char *text = pyjson_dump(is, -1);
        if (strcmp(text, value)) fail_msg("%s gives %s", line, text);
        free(text);
        json_decref(is);
        found++;
    }
    assert_int_equal(found, 1);
    config_free(&c);
}

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
    for (size_t i = 0; i < COUNT(cases); i++) expect_field(cases[i].line, cases[i].field, cases[i].value);
}

static void expect_refused(const char *line, const char *fragment) {
    Config c;
    Error err;
    config_init(&c);
    if (parse_words(&c, line, &err)) fail_msg("accepted: %s", line);
    expect_error(&err, line, fragment);
    config_free(&c);
}

static void bad_values_are_named(void **state) {
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
        {"--val_size 99999999999999999999", "--val_size"},
        {"--lr_mp 1e999", "found \"1e999\""},
        {"--lr_mp inf", "found \"inf\""},
        {"--lr_mp nan", "expected a number of at least 0"},
        {"--lr_mp 0x10", "found \"0x10\""},
        {"--lr_mp 1e-3e", "found \"1e-3e\""},
        {"--lr_mp -1", "found \"-1\""},
        {"--compile maybe", "--compile: found \"maybe\", expected true or false"},
        {"--compile=", "expected true or false"},
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
    for (size_t i = 0; i < COUNT(cases); i++) expect_refused(cases[i].line, cases[i].fragment);
}

static void bad_command_lines_are_named(void **state) {
    (void)state;
    static const struct {
        const char *line, *fragment;
    } cases[] = {
        {"--batch_size", "--batch_size: the value is missing"},
        {"--batch_size --compile", "the value is missing"},
        {"--no_batch_size", "unknown flag"},
        {"--no_log_wandb=true", "unknown flag"},
        {"--bach_size 3", "--bach_size: unknown flag; did you mean --batch_size?"},
        {"--lr-vision-backbon=3", "did you mean --lr_vision_backbone?"},
        {"--qqqqqqqqqqqq", "`vlm train --help` lists all"},
        {"-batch_size 3", "did you mean --batch_size?"},
        {"batch_size", "unexpected argument"},
        {"-- x", "unexpected argument"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) expect_refused(cases[i].line, cases[i].fragment);
}

static void flags_win_over_files_over_presets(void **state) {
    (void)state;
    static const char text[] = "{\"VLMConfig\": {\"lm_n_blocks\": 9, \"vit_n_blocks\": 9},"
                               " \"TrainConfig\": {\"lr_mp\": 3}}";
    char *path = mem_printf("/tmp/test_flags.%d.json", (int)getpid());
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

// ---- checks ----

// fits_model: only training minds.
static void expect_misfit(const char *line, const char *fragment, bool fits_model) {
    Config c;
    Error err;
    config_init(&c);
    if (!parse_words(&c, line, &err)) fail_msg("%s: %s", line, err.text);
    if (vlm_config_check(&c.vlm, &err) != fits_model) fail_msg("%s: model check", line);
    if (train_config_check(&c, &err)) fail_msg("%s: accepted", line);
    expect_error(&err, line, fragment);
    config_free(&c);
}

static void models_that_do_not_fit_are_named(void **state) {
    (void)state;
    static const struct {
        const char *line, *fragment;
    } cases[] = {
        {"--vit_n_heads 7", "vit_hidden_dim 768 is no multiple of vit_n_heads 7"},
        {"--vit_patch_size 513", "vit_patch_size 513 is larger than vit_img_size 512"},
        {"--vit_ln_eps 0", "vit_ln_eps"},
        {"--vit_dropout 1", "vit_dropout is 1: it must be at least 0 and below 1"},
        {"--vit_cls_flag", "vit_cls_flag is true"},
        {"--mp_pixel_shuffle_factor 5", "mp_pixel_shuffle_factor 5 does not divide the grid of 32 x 32"},
        {"--mp_pixel_shuffle_factor 64", "mp_pixel_shuffle_factor 64"},
        {"--mp_image_token_length 65", "set it to 64"},
        {"--mp_image_token_length 63", "set it to 64"},
        {"--lm_n_heads 7", "lm_hidden_dim 960 is no multiple of lm_n_heads 7"},
        {"--lm_n_kv_heads 4", "lm_n_heads 15 is no multiple of lm_n_kv_heads 4"},
        {"--lm_n_heads 64 --lm_n_kv_heads 64", "is 15: rotary positions need an even head size"},
        {"--lm_use_tokens true", "lm_use_tokens is true"},
        {"--lm_rms_eps 0", "lm_rms_eps"},
        {"--lm_dropout 1.0", "lm_dropout"},
        {"--extra_token_amount 65", "vlm_extra_tokens holds 66 tokens: set it to 66"},
        {"--lm_vocab_size 49217", "set it to 49218"},
        {"--vlm_extra_tokens {} --extra_token_amount 0", "no image_token"},
        {"--vlm_extra_tokens {\"image_token\":\"\"} --extra_token_amount 1", "image_token is empty"},
        {"--vlm_extra_tokens {\"image_token\":\"a\",\"b\":\"a\"} --extra_token_amount 2",
         "image_token and b are both a"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) expect_misfit(cases[i].line, cases[i].fragment, false);
}

static void runs_that_do_not_fit_are_named(void **state) {
    (void)state;
    static const struct {
        const char *line, *fragment;
    } cases[] = {
        {"--max_img_size 700", "max_img_size 700 is no multiple of vit_img_size 512"},
        {"--max_img_size 4608", "has no r9c9"},
        {"--lm_max_length 66", "every sample with a picture would be left out"},
        {"--max_images_per_example 19", "max_images_per_knapsack 18"},
        {"--lr_mp 0 --lr_vision_backbone 0 --lr_language_backbone 0", "nothing would be trained"},
        {"--max_grad_norm 0", "max_grad_norm"},
        {"--train_dataset_path=", "train_dataset_path is empty"},
        {"--lora_adapter x", "lora_rank is 0"},
        {"--lora_rank 4 --lora_alpha 0", "lora_alpha is 0"},
        {"--lora_rank 4 --lr_lora 0", "lr_lora is 0"},
        {"--profile --detect_anomaly", "profile and detect_anomaly cannot both watch"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) expect_misfit(cases[i].line, cases[i].fragment, true);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(flags_set_fields),
        cmocka_unit_test(bad_values_are_named),
        cmocka_unit_test(bad_command_lines_are_named),
        cmocka_unit_test(flags_win_over_files_over_presets),
        cmocka_unit_test(commands_have_flags_of_their_own),
        cmocka_unit_test(positional_arguments_are_collected),
        cmocka_unit_test(near_names_are_found),
        cmocka_unit_test(models_that_do_not_fit_are_named),
        cmocka_unit_test(runs_that_do_not_fit_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
