// LINK: data
// LABELS: parity
// Rows as samples: all rows of the reference data set, limits, and rows of random content.
#include "support/data_case.h"
#include "support/sha256.h"

#include "base/log.h"
#include "data/row_stream.h"
#include "data/sample.h"

#include <math.h>

// ---- the reference data set ----

static void check_ids(const Int32Vec *got, const json_t *want, size_t row, const char *what) {
    if (got->count != json_array_size(want))
        fail_msg("row %zu: %zu %s, expected %zu", row, got->count, what, json_array_size(want));
    for (size_t i = 0; i < got->count; i++)
        if (got->items[i] != json_integer_value(json_array_get(want, i)))
            fail_msg("row %zu: %s[%zu] is %d, expected %lld", row, what, i, got->items[i],
                     json_integer_value(json_array_get(want, i)));
}

static void check_global_tile(const float *tile, size_t P, const json_t *samples, size_t row) {
    json_t *spot;
    size_t i;
    json_array_foreach(samples, i, spot) {
        size_t at[3];
        for (size_t k = 0; k < 3; k++) at[k] = (size_t)json_integer_value(json_array_get(spot, k));
        double want = json_real_value(json_array_get(spot, 3));
        double got = tile[(at[0] * P + at[1]) * P + at[2]];
        expect_within("global tile, absolute", fabs(got - want), 1e-6, "row %zu", row);
    }
}

static void check_tiles(const Sample *s, const SampleRules *r, const json_t *images, size_t row) {
    Error err;
    size_t P = r->vlm->vit_img_size, tile = 3 * P * P, n, total = 0;
    float *tiles = mem_alloc((s->n_tiles * tile + 1) * sizeof *tiles), *at = tiles;
    expect(sample_tiles(tiles, s, r, &err), &err);
    assert_int_equal(s->n_pictures, json_array_size(images));
    for (size_t i = 0; i < s->n_pictures; i++, at += n * tile, total += n) {
        const json_t *image = json_array_get(images, i),
                     *spots = json_object_get(image, "global_samples_cyx");
        n = (size_t)json_integer_value(json_object_get(image, "n_tiles"));
        assert_int_equal(n, grid_tiles(picture_grid(&s->pictures[i], P), true));
        char hex[65];
        size_t global = n > 1;
        sha256_hex(hex, at + global * tile, (n - global) * tile * sizeof *at);
        assert_string_equal(hex, json_string_value(json_object_get(image, "split_tiles_sha256")));
        assert_int_equal(global, spots != NULL);
        if (spots) check_global_tile(at, P, spots, row);
    }
    assert_int_equal(total, s->n_tiles);
    free(tiles);
}

typedef struct Outcomes {
    size_t samples, dropped, errors, errors_filtered_first;
} Outcomes;

static void check_row(Outcomes *o, const SampleRules *r, RowRef ref, const json_t *want, size_t row,
                      bool strict) {
    Error err;
    Sample s;
    const char *outcome = json_string_value(json_object_get(want, "outcome"));
    SampleFate fate = sample_build(&s, r, &ref.group->columns, ref.row, &err);
    bool is_sample = strcmp(outcome, "sample") == 0, is_dropped = strcmp(outcome, "dropped") == 0;
    if (is_sample != (fate == SAMPLE_KEPT) || (is_dropped && fate != SAMPLE_NO_TURN))
        fail_msg("row %zu: fate %d, expected %s: %s", row, (int)fate, outcome, err.text);
    o->samples += is_sample, o->dropped += is_dropped;
    if (is_sample) {
        check_ids(&s.ids, json_object_get(want, "input_ids"), row, "ids");
        check_ids(&s.labels, json_object_get(want, "labels"), row, "labels");
        check_tiles(&s, r, json_object_get(want, "images"), row);
        sample_free(&s);
    } else if (!is_dropped) { // ratings are looked at before pictures, so that filtered ones need not be
                              // decoded
        o->errors++;
        o->errors_filtered_first += fate == SAMPLE_NO_TURN;
        if (!(fate == SAMPLE_BAD_TEXT || fate == SAMPLE_BAD_IMAGE || (strict && fate == SAMPLE_NO_TURN)))
            fail_msg("row %zu: fate %d, expected %s: %s", row, (int)fate, outcome, err.text);
        assert_true(strlen(err.text) > 0);
    }
}

static json_t *read_expected(void) {
    Error err;
    char *bytes, *path = golden_path("data/expected.jsonl");
    size_t size;
    expect(file_read(&bytes, &size, path, &err), &err);
    json_t *rows = json_array();
    for (char *line = strtok(bytes, "\n"); line; line = strtok(NULL, "\n"))
        json_array_append_new(rows, json_loads(line, JSON_ALLOW_NUL, NULL));
    free(bytes);
    free(path);
    return rows;
}

static int minimum(const json_t *settings, const char *set, const char *rating) {
    return (int)json_integer_value(
        json_object_get(json_object_get(json_object_get(settings, "minima"), set), rating));
}

static void set_minima(TrainConfig *c, const char *set) {
    char *path = golden_path("data/settings.json");
    json_t *settings = json_load_file(path, 0, NULL);
    c->relevance_min_rating = minimum(settings, set, "relevance");
    c->image_correspondence_min_rating = minimum(settings, set, "image_correspondence");
    c->visual_dependency_min_rating = minimum(settings, set, "visual_dependency");
    c->formatting_min_rating = minimum(settings, set, "formatting");
    json_decref(settings);
    free(path);
}

// Returns the number of rows.
static size_t check_rows(Outcomes *o, const SampleRules *rules, RowStream *rows, const char *set) {
    Error err;
    json_t *expected = read_expected();
    size_t n = 0;
    for (RowRef ref;; n++) {
        expect(row_stream_next(rows, &ref, &err), &err);
        if (!ref.group) break;
        const json_t *row = json_array_get(expected, n), *want = json_object_get(row, set);
        if (json_is_string(want)) want = json_object_get(row, "default"); // "same"
        check_row(o, rules, ref, want, n, strcmp(set, "strict") == 0);
        row_release(&ref);
    }
    assert_int_equal(n, json_array_size(expected));
    json_decref(expected);
    return n;
}

static void check_all_rows(const char *layout, const char *set) {
    Error err;
    char *folder = golden_path(layout);
    Config c;
    Dataset *d;
    RowStream *rows;
    SampleRules rules;
    Outcomes o = {0};
    data_config(&c, folder, "default");
    set_minima(&c.train, set);
    c.train.max_images_per_example = c.train.max_sample_length = 100000; // the limits belong to a later step
    Tokenizer *t = data_tokenizer(&c);
    expect(sample_rules_init(&rules, &c, t, &err), &err);
    expect(dataset_open(&d, folder, &c.train.train_dataset_name, &err), &err);
    expect(row_stream_open(&rows, d, (RowStreamSettings){0}, &err), &err);
    const size_t n = check_rows(&o, &rules, rows, set);
    assert_true(o.samples > 0 && o.dropped > 0 && o.errors > 0);
    print_message("%s, %s: %zu rows: %zu samples, %zu dropped, %zu errors (%zu of them filtered first)\n",
                  layout, set, n, o.samples, o.dropped, o.errors, o.errors_filtered_first);
    row_stream_close(rows);
    dataset_close(d);
    tokenizer_free(t);
    config_free(&c);
    free(folder);
}

// Every folder of the reference data set holds the same rows in a layout of its own.
static void check_all_layouts(const char *set) {
    Error err;
    StringList layouts;
    char *root = golden_path("data");
    size_t n = 0;
    expect(file_list(&layouts, root, &err), &err);
    for (size_t i = 0; i < layouts.count; i++) {
        char *layout = path_join("data", layouts.items[i]), *folder = golden_path(layout);
        bool is_layout = file_is_folder(folder);
        free(folder);
        if (is_layout) check_all_rows(layout, set);
        n += is_layout;
        free(layout);
    }
    assert_true(n > 0);
    string_list_free(&layouts);
    free(root);
}

static void test_default_minima(void **state) {
    (void)state;
    check_all_layouts("default");
}

static void test_strict_minima(void **state) {
    (void)state;
    check_all_layouts("strict");
}

// ---- single rows ----

typedef struct OneRow {
    Config config;
    Tokenizer *tokenizer;
    SampleRules rules;
    RecordBatch *batch;
    RowColumns columns;
    char *folder;
} OneRow;

// Writes the row to a file and reads it back.
static void one_row_begin(OneRow *o, const FineVisionRow *row) {
    Error err;
    ParquetWriter *w;
    ParquetReader *reader;
    o->folder = make_folder();
    char *path = path_join(o->folder, "row.parquet");
    expect(parquet_create(&w, path, 10, &err), &err);
    expect(parquet_write_row(w, row, &err), &err);
    expect(parquet_finish(w, &err), &err);
    expect(parquet_open(&reader, path, &err), &err);
    expect(parquet_read(&o->batch, reader, 0, NULL, 0, &err), &err);
    parquet_close(reader);
    expect(row_columns_bind(&o->columns, o->batch, &err), &err);
    data_config(&o->config, path, "default");
    o->tokenizer = data_tokenizer(&o->config);
    expect(sample_rules_init(&o->rules, &o->config, o->tokenizer, &err), &err);
    free(path);
}

static void one_row_end(OneRow *o) {
    record_batch_free(o->batch);
    tokenizer_free(o->tokenizer);
    config_free(&o->config);
    remove_folder(o->folder);
}

static void test_limits(void **state) {
    (void)state;
    Error err;
    size_t size;
    unsigned char *png = make_png(&size, 20, 10, 1);
    FineVisionImage images[5];
    for (size_t i = 0; i < 5; i++) images[i] = (FineVisionImage){png, size, NULL};
    FineVisionTurn turn = {"question", "answer", 5, 5, 5, 5};
    OneRow o;
    Sample s;
    one_row_begin(&o, &(FineVisionRow){images, 5, &turn, 1, NULL});
    assert_int_equal(sample_build(&s, &o.rules, &o.columns, 0, &err), SAMPLE_TOO_MANY_IMAGES);
    o.config.train.max_images_per_example = 5;
    assert_int_equal(sample_build(&s, &o.rules, &o.columns, 0, &err), SAMPLE_KEPT);
    size_t length = s.ids.count;
    assert_int_equal(s.n_pictures, 5);
    sample_free(&s);
    o.config.train.max_sample_length = length; // nanoVLM skips length ≥ max_sample_length
    assert_int_equal(sample_build(&s, &o.rules, &o.columns, 0, &err), SAMPLE_TOO_LONG);
    o.config.train.max_sample_length = length + 1;
    assert_int_equal(sample_build(&s, &o.rules, &o.columns, 0, &err), SAMPLE_KEPT);
    sample_free(&s);
    one_row_end(&o);
    free(png);
}

static void test_image_tokens_in_text(void **state) { // removed once; what then becomes one has no picture
    (void)state;
    Error err;
    Sample s;
    OneRow o;
    FineVisionTurn turn = {"a<|image|>b<|image|>", "c<|image|>", 5, 5, 5, 5};
    one_row_begin(&o, &(FineVisionRow){NULL, 0, &turn, 1, NULL});
    assert_int_equal(sample_build(&s, &o.rules, &o.columns, 0, &err), SAMPLE_KEPT);
    assert_true(s.had_image_token);
    char *text = tokenizer_decode(o.tokenizer, s.ids.items, s.ids.count, false);
    assert_string_equal(text, "<|im_start|>user\nab<|im_end|>\n<|im_start|>assistant\nc<|im_end|>\n");
    free(text);
    sample_free(&s);
    one_row_end(&o);
    turn = (FineVisionTurn){"a<|im<|image|>age|>", "c", 5, 5, 5, 5};
    one_row_begin(&o, &(FineVisionRow){NULL, 0, &turn, 1, NULL});
    assert_int_equal(sample_build(&s, &o.rules, &o.columns, 0, &err), SAMPLE_BAD_TEXT);
    one_row_end(&o);
}

static void test_large_pictures_wait_resized(void **state) {
    (void)state;
    Error err;
    size_t size;
    unsigned char *png = make_png(&size, 300, 300, 3);
    FineVisionImage image = {png, size, NULL};
    FineVisionTurn turn = {"q", "a", 5, 5, 5, 5};
    OneRow o;
    Sample s;
    one_row_begin(&o, &(FineVisionRow){&image, 1, &turn, 1, NULL});
    assert_int_equal(sample_build(&s, &o.rules, &o.columns, 0, &err), SAMPLE_KEPT);
    assert_int_equal(s.pictures[0].image.width, 64);
    assert_true(sample_bytes(&s) < 3 * 300 * 300);
    sample_free(&s);
    one_row_end(&o);
    free(png);
}

// ---- random content ----

static void build_and_drop(OneRow *o, size_t *kept) {
    Error err = {""};
    Sample s;
    SampleFate fate = sample_build(&s, &o->rules, &o->columns, 0, &err);
    if (fate != SAMPLE_KEPT) {
        assert_true(strlen(err.text) > 0 && s.ids.count == 0 && s.pictures == NULL);
        return;
    }
    ++*kept;
    float *tiles = mem_alloc((s.n_tiles * 3 * 32 * 32 + 1) * sizeof *tiles);
    expect(sample_tiles(tiles, &s, &o->rules, &err), &err);
    assert_int_equal(s.ids.count, s.labels.count);
    free(tiles);
    sample_free(&s);
}

static void random_text(char *text, size_t most, Random *r) {
    static const char *const parts[] = {"<|image|>",
                                        "<|im_end|>",
                                        "<|im_start|>",
                                        "<image: 0>",
                                        "<row_1_col_1>",
                                        "\n",
                                        "<|im",
                                        "age|>",
                                        "\xc3\xa4",
                                        "1",
                                        " ",
                                        "a",
                                        "\xf0\x9f\x99\x82",
                                        "'s"};
    size_t used = 0, n = (size_t)random_below(r, 20);
    for (size_t i = 0; i < n; i++) {
        const char *part = parts[random_below(r, sizeof parts / sizeof *parts)];
        if (used + strlen(part) >= most) break;
        memcpy(text + used, part, strlen(part));
        used += strlen(part);
    }
    text[used] = '\0';
}

static void test_random_rows(void **state) {
    (void)state;
    Random r = random_stream(11, RANDOM_TEST, 0);
    size_t kept = 0, rounds = 400;
    for (size_t k = 0; k < rounds; k++) {
        size_t size;
        unsigned char *png = make_png(&size, 1 + k % 50, 1 + k % 31, k);
        size_t changes = (size_t)random_below(&r, 4);
        for (size_t i = 0; i < changes; i++)
            png[random_below(&r, size)] ^= (unsigned char)(1 + random_below(&r, 255));
        if (random_below(&r, 4) == 0) size = (size_t)random_below(&r, size + 1);
        char user[256], assistant[256];
        random_text(user, sizeof user, &r);
        random_text(assistant, sizeof assistant, &r);
        FineVisionTurn turns[2] = {{user, assistant, (int64_t)random_below(&r, 6), 5, 5, 5},
                                   {assistant, user, 5, 5, (int64_t)random_below(&r, 6), 1}};
        FineVisionImage images[2] = {{png, size, NULL}, {png, size, "x"}};
        OneRow o;
        one_row_begin(&o, &(FineVisionRow){images, random_below(&r, 3), turns, random_below(&r, 3), NULL});
        build_and_drop(&o, &kept);
        one_row_end(&o);
        free(png);
    }
    print_message("%zu of %zu random rows are samples\n", kept, rounds);
    assert_true(kept > 20 && kept < rounds - 20);
}

int main(void) {
    log_set_level(LOG_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_default_minima),
        cmocka_unit_test(test_strict_minima),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_image_tokens_in_text),
        cmocka_unit_test(test_large_pictures_wait_resized),
        cmocka_unit_test(test_random_rows),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    print_worst_shares();
    return failed;
}
