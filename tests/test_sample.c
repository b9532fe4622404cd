// LINK: data
// Samples: rows of unusual texts and ratings (tests/golden/samples/make.py), cutting of long ones, and
// tokenizers that do not do.
#include "support/data_case.h"

#include "base/batch.h"
#include "base/log.h"
#include "data/loader.h"
#include "data/sample.h"

// Rows of one file under a configuration.
typedef struct Rows {
    Config config;
    Tokenizer *tokenizer;
    SampleRules rules;
    RecordBatch *batch;
    RowColumns columns;
} Rows;

static void rows_open(Rows *r, const char *path) {
    Error err;
    ParquetReader *reader;
    expect(parquet_open(&reader, path, &err), &err);
    expect(parquet_read(&r->batch, reader, 0, NULL, 0, &err), &err);
    parquet_close(reader);
    expect(row_columns_bind(&r->columns, r->batch, &err), &err);
    data_config(&r->config, path, "default");
    r->tokenizer = data_tokenizer(&r->config);
    expect(sample_rules_init(&r->rules, &r->config, r->tokenizer, &err), &err);
}

static void rows_close(Rows *r) {
    record_batch_free(r->batch);
    tokenizer_free(r->tokenizer);
    config_free(&r->config);
}

// ---- unusual rows ----

static CharVec expected_text(const json_t *turns) {
    CharVec text = {0};
    for (size_t i = 0; i < json_array_size(turns); i++)
        for (size_t side = 0; side < 2; side++) {
            const json_t *part = json_array_get(json_array_get(turns, i), side);
            const char *role = side ? "<|im_start|>assistant\n" : "<|im_start|>user\n";
            vec_extend(&text, role, strlen(role));
            vec_extend(&text, json_string_value(part), json_string_length(part));
            vec_extend(&text, "<|im_end|>\n", 11);
        }
    return text;
}

static void check_row(Rows *r, size_t row, const char *what, const char *fate, const json_t *turns) {
    static const char *const fates[] = {
        [SAMPLE_KEPT] = "kept", [SAMPLE_BAD_TEXT] = "bad", [SAMPLE_NO_TURN] = "no_turn"};
    Error err = {0};
    Sample s;
    const SampleFate got = sample_build(&s, &r->rules, &r->columns, row, &err);
    if (got > SAMPLE_NO_TURN || !fates[got] || strcmp(fates[got], fate) != 0)
        fail_msg("%s: fate %d, expected %s; %s", what, (int)got, fate, err.text);
    if (got != SAMPLE_KEPT) {
        assert_true(err.text[0] != '\0');
        assert_null(s.ids.items);
        return;
    }
    CharVec want = expected_text(turns), text = {0};
    tokenizer_decode_bytes(r->tokenizer, s.ids.items, s.ids.count, false, &text);
    if (text.count != want.count || memcmp(text.items, want.items, want.count) != 0)
        fail_msg("%s: text", what);
    assert_int_equal(s.had_image_token, strcmp(what, "image token") == 0);
    assert_false(s.truncated);
    vec_free(&want);
    vec_free(&text);
    sample_free(&s);
}

static void check_rows(const char *path, size_t fate_column) {
    Rows r;
    json_t *expected = json_load_file("tests/golden/samples/expected.json", JSON_ALLOW_NUL, NULL), *row;
    assert_true(json_array_size(expected) > 20);
    rows_open(&r, path);
    size_t i;
    json_array_foreach(expected, i, row)
        check_row(&r, i, json_string_value(json_array_get(row, 0)),
                  json_string_value(json_array_get(row, fate_column)), json_array_get(row, fate_column + 1));
    rows_close(&r);
    json_decref(expected);
}

static void unusual_rows(void **state) {
    (void)state;
    check_rows("tests/golden/samples/rows.parquet", 1);
}

static void absent_ratings(void **state) {
    (void)state;
    check_rows("tests/golden/samples/no_ratings.parquet", 3);
}

// ---- long samples ----

typedef struct LongRow {
    Rows rows;
    char *folder;
    Sample whole;
} LongRow;

static void long_row_open(LongRow *l, size_t n_images, size_t n_turns) {
    static const FineVisionTurn turns[] = {
        {"What is it that can be seen here?", "A red circle, 12 wide.", 5, 5, 5, 5},
        {"", "", 5, 5, 5, 5},
        {"And what lies behind it?", "Nothing at all.", 5, 5, 5, 5}};
    Error err;
    ParquetWriter *w;
    size_t sizes[2];
    unsigned char *pngs[] = {make_png(&sizes[0], 64, 30, 1), make_png(&sizes[1], 20, 20, 2)};
    FineVisionImage images[] = {{pngs[0], sizes[0], NULL}, {pngs[1], sizes[1], NULL}};
    l->folder = make_folder();
    char *path = path_join(l->folder, "row.parquet");
    expect(parquet_create(&w, path, 10, &err), &err);
    expect(parquet_write_row(w, &(FineVisionRow){images, n_images, turns, n_turns, NULL}, &err), &err);
    expect(parquet_finish(w, &err), &err);
    rows_open(&l->rows, path);
    free(path);
    for (size_t i = 0; i < 2; i++) free(pngs[i]);
    assert_int_equal(sample_build(&l->whole, &l->rows.rules, &l->rows.columns, 0, &err), SAMPLE_KEPT);
    l->rows.rules.truncate = true;
}

static void long_row_close(LongRow *l) {
    sample_free(&l->whole);
    rows_close(&l->rows);
    remove_folder(l->folder);
}

// Positions that must be there: all image tokens, and a first trained label, with the token it aims at.
static size_t least_tokens(const LongRow *l) {
    size_t i = 0, last_image = 0;
    while (l->whole.labels.items[i] == IGNORE_INDEX) i++;
    for (size_t k = 0; k < l->whole.ids.count; k++)
        if (l->whole.ids.items[k] == l->rows.rules.image_token_id) last_image = k;
    assert_true(last_image < i);
    return i + 2;
}

static void check_cut(LongRow *l, size_t n) {
    Error err = {0};
    Sample s;
    const Sample *whole = &l->whole;
    const SampleFate fate = sample_build(&s, &l->rows.rules, &l->rows.columns, 0, &err);
    if (n < least_tokens(l)) {
        assert_int_equal(fate, SAMPLE_TOO_LONG);
        assert_non_null(strstr(err.text, "nothing to train on"));
        return;
    }
    assert_int_equal(fate, SAMPLE_KEPT);
    const bool cut = n < whole->ids.count;
    assert_int_equal(s.truncated, cut);
    assert_int_equal(s.ids.count, cut ? n : whole->ids.count);
    assert_int_equal(s.labels.count, s.ids.count);
    assert_int_equal(s.n_tiles, whole->n_tiles);
    assert_memory_equal(s.ids.items, whole->ids.items, s.ids.count * sizeof *s.ids.items);
    assert_memory_equal(s.labels.items, whole->labels.items, (s.ids.count - 1) * sizeof *s.ids.items);
    assert_int_equal(s.labels.items[s.ids.count - 1], IGNORE_INDEX);
    sample_free(&s);
}

// Every length from one token to more than all, by either limit: the cut falls into the pictures, the user's
// texts, between turns and into the answers.
static void cut_everywhere(void **state) {
    (void)state;
    for (size_t n_images = 0; n_images <= 2; n_images++) {
        LongRow l;
        long_row_open(&l, n_images, 3);
        TrainConfig *train = &l.rows.config.train;
        VLMConfig *vlm = &l.rows.config.vlm;
        const size_t full = l.whole.ids.count;
        assert_true(full > least_tokens(&l) + 20 && full < 250);
        for (size_t n = 0; n <= full + 2; n++) {
            train->max_sample_length = n + 1, vlm->lm_max_length = 256;
            check_cut(&l, n);
            train->max_sample_length = 256, vlm->lm_max_length = n + 1;
            check_cut(&l, n);
        }
        long_row_close(&l);
    }
}

// The shapes of that by name, so that a fault in least_tokens cannot hide one in the code.
static void cut_by_hand(void **state) {
    (void)state;
    Error err;
    Sample s;
    LongRow l;
    long_row_open(&l, 1, 1);
    CharVec text = {0};
    l.rows.config.train.max_sample_length = l.whole.ids.count - 1; // two less: <|im_end|> and \n
    assert_int_equal(sample_build(&s, &l.rows.rules, &l.rows.columns, 0, &err), SAMPLE_KEPT);
    tokenizer_decode_bytes(l.rows.tokenizer, s.ids.items, s.ids.count, false, &text);
    vec_push(&text, '\0');
    assert_non_null(strstr(text.items, "<|im_start|>assistant\nA red circle, 12 wide."));
    assert_null(strstr(strstr(text.items, "assistant"), "<|im_end|>"));
    assert_int_equal(s.labels.items[s.ids.count - 2], s.ids.items[s.ids.count - 1]);
    assert_int_equal(s.labels.items[s.ids.count - 1], IGNORE_INDEX);
    assert_int_equal(s.n_pictures, 1);
    sample_free(&s);
    l.rows.config.train.max_sample_length = 10; // in the middle of the image string
    assert_int_equal(sample_build(&s, &l.rows.rules, &l.rows.columns, 0, &err), SAMPLE_TOO_LONG);
    l.rows.rules.truncate = false;
    l.rows.config.train.max_sample_length = l.whole.ids.count;
    assert_int_equal(sample_build(&s, &l.rows.rules, &l.rows.columns, 0, &err), SAMPLE_TOO_LONG);
    vec_free(&text);
    long_row_close(&l);
}

static LoaderCounts count_epoch(const char *path, const char *long_samples) {
    Error err;
    Config c;
    Loader *loader;
    data_config(&c, path, "default");
    c.vlm.lm_max_length = c.train.max_sample_length = 80;
    set_text(&c.options.long_samples, long_samples);
    Tokenizer *t = data_tokenizer(&c);
    expect(loader_open(&loader, &c, t, LOADER_TRAIN, &err), &err);
    const Batch *batch;
    do {
        expect(loader_next(loader, &batch, &err), &err);
        for (size_t i = 0; batch && i < batch->B * batch->T; i++)
            if (batch->labels[i] != IGNORE_INDEX) assert_int_equal(batch->labels[i], batch->input_ids[i + 1]);
    } while (batch);
    const LoaderCounts counts = loader_counts(loader);
    loader_close(loader);
    tokenizer_free(t);
    config_free(&c);
    return counts;
}

static void loader_counts_cuts(void **state) {
    (void)state;
    char *folder = make_folder(), *path = path_join(folder, "rows.parquet");
    write_rows(path, 0, 60, 20);
    const LoaderCounts skipped = count_epoch(path, "skip"), cut = count_epoch(path, "truncate");
    assert_int_equal(skipped.truncated, 0);
    assert_true(skipped.skipped_too_long > 5);
    assert_int_equal(cut.truncated, skipped.skipped_too_long);
    assert_int_equal(cut.skipped_too_long, 0);
    assert_int_equal(cut.samples, skipped.samples + cut.truncated);
    free(path);
    remove_folder(folder);
}

// ---- tokenizers that do not do ----

static void expect_no_rules(Config *c, const char *tokenizer, const char *message) {
    Error err = {0};
    Tokenizer *t;
    SampleRules rules;
    expect(tokenizer_load(&t, tokenizer, &c->vlm.vlm_extra_tokens, &err), &err);
    assert_false(sample_rules_init(&rules, c, t, &err));
    if (!strstr(err.text, message)) fail_msg("%s; expected %s", err.text, message);
    tokenizer_free(t);
}

static void image_token_missing(void **state) {
    (void)state;
    Config c;
    data_config(&c, "none", "default");
    char *bytes = golden_path("tokenizer/bytes");
    TokenPair *first = &c.vlm.vlm_extra_tokens.items[0];
    assert_string_equal(first->name, "image_token");
    set_text(&first->name, "picture_token");
    expect_no_rules(&c, bytes, "the tokenizer has no image_token");
    free(bytes);
    config_free(&c);
}

// Tokens of the file that swallow the image token: one of two of them, and one that must stand alone.
static void image_token_split(void **state) {
    (void)state;
    static const char *const added[] = {
        "{\"id\": 400, \"content\": \"<|image|><|image|>\", \"special\": true}",
        "{\"id\": 400, \"content\": \"<|image\", \"special\": true, \"rstrip\": true}, "
        "{\"id\": 401, \"content\": \"|><|image|>\"}",
        "{\"id\": 400, \"content\": \"><\"}",
        "{\"id\": 400, \"content\": \"<|image|>x\", \"lstrip\": true}",
    };
    static const bool splits[] = {true, false, false, false};
    char *golden = golden_path("tokenizer/bytes/tokenizer.json"), *folder = make_folder();
    char *path = path_join(folder, "tokenizer.json");
    for (size_t i = 0; i < sizeof added / sizeof *added; i++) {
        Config c;
        Error err;
        data_config(&c, "none", "default");
        json_t *json = json_load_file(golden, JSON_ALLOW_NUL, NULL);
        char list[512];
        snprintf(list, sizeof list, "[%s]", added[i]);
        json_t *tokens = json_loads(list, 0, &(json_error_t){0});
        json_array_extend(json_object_get(json, "added_tokens"), tokens);
        assert_int_equal(json_dump_file(json, path, 0), 0);
        if (splits[i]) {
            expect_no_rules(&c, path, "four image tokens \"<|image|>\" in a row become 2 tokens");
        } else {
            Tokenizer *t;
            SampleRules rules;
            expect(tokenizer_load(&t, path, &c.vlm.vlm_extra_tokens, &err), &err);
            expect(sample_rules_init(&rules, &c, t, &err), &err);
            tokenizer_free(t);
        }
        json_decref(tokens);
        json_decref(json);
        config_free(&c);
    }
    free(path);
    free(golden);
    remove_folder(folder);
}

int main(void) {
    log_set_level(LOG_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unusual_rows),       cmocka_unit_test(absent_ratings),
        cmocka_unit_test(cut_everywhere),     cmocka_unit_test(cut_by_hand),
        cmocka_unit_test(loader_counts_cuts), cmocka_unit_test(image_token_missing),
        cmocka_unit_test(image_token_split),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
