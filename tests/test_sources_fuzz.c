// LINK: data
// Damaged Parquet and Arrow files through open, read, bind and the making of samples: no crash, no read
// outside of memory (under the sanitizers), every value that comes through can be touched, and every sample
// is one. VLM_FUZZ_SECONDS sets how long; by default a few seconds.
#include "support/data_case.h"
#include "support/fuzz.h"

#include "base/clock.h"
#include "base/log.h"
#include "data/dataset.h"
#include "data/sample.h"

static Config config;
static SampleRules rules;

typedef struct Tally {
    size_t mutants, opened, rows, pictures, samples;
    volatile uint8_t sum; // of all bytes seen, so that they are
} Tally;

static void touch(Tally *t, const uint8_t *bytes, size_t size) {
    for (size_t i = 0; i < size; i++) t->sum ^= bytes[i];
}

static void touch_text(Tally *t, Column c, size_t i) {
    const uint8_t *bytes;
    size_t size;
    if (column_type(c) == COLUMN_NULL || column_is_null(c, i)) return;
    column_bytes(&bytes, &size, c, i);
    touch(t, bytes, size);
}

// What training would make of the row: a sample whose parts agree, or a reason.
static void make_sample(Tally *t, const RowColumns *c, size_t row) {
    Sample sample;
    Error err = {""};
    if (sample_build(&sample, &rules, c, row, &err) != SAMPLE_KEPT) {
        assert_true(strlen(err.text) > 0);
        return;
    }
    const size_t vocabulary = tokenizer_vocab_size(rules.chat.tokenizer);
    assert_int_equal(sample.ids.count, sample.labels.count);
    assert_true(sample.ids.count > 0 && sample.ids.count < config.train.max_sample_length);
    for (size_t i = 0; i < sample.ids.count; i++)
        assert_true(sample.ids.items[i] >= 0 && (size_t)sample.ids.items[i] < vocabulary);
    sample_free(&sample);
    t->samples++;
}

static void touch_row(Tally *t, const RowColumns *c, size_t row) {
    Error err;
    RowImage image;
    size_t first, count;
    const int minima[N_RATINGS] = {1, 1, 1, 1};
    row_images(&first, &count, c, row);
    for (size_t i = first; i < first + count; i++, t->pictures++) {
        if (row_image_open(&image, c, i, &err)) touch(t, image.bytes, image.size);
        row_image_close(&image);
    }
    if (!row_turns(&first, &count, c, row, &err)) return;
    for (size_t i = 0; i < count; i++) {
        t->sum ^= (uint8_t)row_turn_passes(c, row, i, minima);
        if (column_is_null(c->turn, first + i)) continue;
        touch_text(t, c->user, first + i);
        touch_text(t, c->assistant, first + i);
    }
    make_sample(t, c, row);
}

static void touch_group(Tally *t, Dataset *d, size_t g) {
    Error err;
    RecordBatch *batch;
    RowColumns c;
    if (!dataset_select(d, g, &err) || !dataset_read(&batch, d, g, &err)) return;
    if (row_columns_bind(&c, batch, &err))
        for (size_t i = 0; i < record_batch_rows(batch); i++, t->rows++) touch_row(t, &c, i);
    record_batch_free(batch);
}

static void read_all(Tally *t, const char *path) {
    Error err = {""};
    Dataset *d;
    char *name = mem_strdup("default");
    if (dataset_open(&d, path, &(StringList){1, &name}, &err)) {
        for (size_t g = 0; g < dataset_group_count(d); g++) touch_group(t, d, g);
        t->opened++;
        dataset_close(d);
    } else {
        assert_true(strlen(err.text) > 0);
    }
    free(name);
}

// Changes bytes anywhere, or numbers of 4 bytes where the heads of messages and footers lie, or cuts the end
// off.
static size_t mutate(char *bytes, size_t size, Random *r) {
    static const uint32_t numbers[] = {0, 1, 7, 0x7f, 0xff, 0x7fffffff, 0x80000000, 0xffffffff};
    if (random_below(r, 10) == 0) return (size_t)random_below(r, size);
    for (uint64_t n = 1 + random_below(r, 4); n > 0; n--) {
        size_t near = size < 1500 ? size : 1500, at = (size_t)random_below(r, near - 3);
        if (random_below(r, 2)) at = size - near + at;
        if (random_below(r, 2))
            bytes[random_below(r, size)] = (char)random_u32(r);
        else if (random_below(r, 2))
            bytes[at] = (char)random_u32(r);
        else
            memcpy(bytes + at, &numbers[random_below(r, 8)], 4);
    }
    return size;
}

static void fuzz_file(Tally *t, const char *folder, const char *name, Random *r) {
    Error err;
    char *from = path_join(folder, name), *f = make_folder(), *to = path_join(f, name), *bytes;
    size_t size;
    expect(file_read(&bytes, &size, from, &err), &err);
    if (size > 100) {
        fuzz_write(to, bytes, mutate(bytes, size, r));
        read_all(t, to);
        t->mutants++;
    }
    free(from), free(to), free(bytes);
    remove_folder(f);
}

// One of the indexed folder's files is damaged.
static void fuzz_indexed(Tally *t, Random *r) {
    static const char *const names[] = {"data0.arrow", "data1.arrow", "indices.arrow", "state.json"};
    Error err;
    char *f = make_folder(), *from = golden_path("sources/indexed");
    size_t damaged = (size_t)random_below(r, 4);
    for (size_t i = 0; i < 4; i++) {
        char *in = path_join(from, names[i]), *to = path_join(f, names[i]), *bytes;
        size_t size;
        expect(file_read(&bytes, &size, in, &err), &err);
        if (i == damaged) size = mutate(bytes, size, r);
        fuzz_write(to, bytes, size);
        free(in), free(to), free(bytes);
    }
    read_all(t, f);
    t->mutants++;
    free(from);
    remove_folder(f);
}

static bool is_source(const char *name) {
    return strstr(name, ".parquet") || strstr(name, ".arrow");
}

// Round after round over all files of the folder.
static void fuzz_folder(const char *name, double seconds) {
    Error err;
    Tally t = {0};
    StringList files;
    char *folder = golden_path(name);
    expect(file_list(&files, folder, &err), &err);
    Random r = random_stream(31, RANDOM_TEST, strlen(name));
    double end = clock_seconds() + seconds;
    do
        for (size_t i = 0; i < files.count; i++)
            if (is_source(files.items[i])) fuzz_file(&t, folder, files.items[i], &r);
    while (clock_seconds() < end && t.mutants > 0);
    printf("%s: %zu mutants, %zu opened, %zu rows and %zu pictures read, %zu samples\n", name, t.mutants,
           t.opened, t.rows, t.pictures, t.samples);
    assert_true(t.mutants > 0 && t.opened > 0 && t.opened < t.mutants && t.samples > 0 && t.samples < t.rows);
    string_list_free(&files);
    free(folder);
}

static void test_parquet(void **state) {
    (void)state;
    fuzz_folder("data/parquet", fuzz_seconds(4) / 4);
}

static void test_arrow(void **state) {
    (void)state;
    fuzz_folder("data/arrow", fuzz_seconds(4) / 4);
}

static void test_pictures(void **state) { // Parquet and Arrow, with all their types
    (void)state;
    fuzz_folder("sources/pictures", fuzz_seconds(4) / 4);
}

static void test_indexed(void **state) {
    (void)state;
    Tally t = {0};
    Random r = random_stream(32, RANDOM_TEST, 0);
    double end = clock_seconds() + fuzz_seconds(4) / 4;
    do fuzz_indexed(&t, &r);
    while (clock_seconds() < end);
    printf("indexed: %zu mutants, %zu opened, %zu rows read\n", t.mutants, t.opened, t.rows);
    assert_true(t.opened > 0 && t.opened < t.mutants && t.rows > 0);
}

int main(void) {
    Error err;
    log_set_level(LOG_ERROR);
    data_config(&config, "", "default");
    Tokenizer *tokenizer = data_tokenizer(&config);
    expect(sample_rules_init(&rules, &config, tokenizer, &err), &err);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parquet),
        cmocka_unit_test(test_arrow),
        cmocka_unit_test(test_pictures),
        cmocka_unit_test(test_indexed),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    tokenizer_free(tokenizer);
    config_free(&config);
    return failed;
}
