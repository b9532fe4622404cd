// LINK: synth
// The files of the synthetic data set: readable, the same whatever the shards and threads, and never mixed
// with others.
#include "base/memory.h"
#include "format/arrow.h"
#include "image/image.h"
#include "support/folders.h"
#include "support/golden.h"
#include "support/image_case.h"
#include "support/synth_case.h"

#include <stdlib.h>
#include <string.h>

typedef struct ReadBack {
    size_t rows, pairs, turns;
    uint64_t hash; // of all pictures, questions, answers
} ReadBack;

static uint64_t hash_bytes(uint64_t hash, const void *bytes, size_t size) {
    for (size_t i = 0; i < size; i++) hash = (hash ^ ((const uint8_t *)bytes)[i]) * 0x100000001B3u;
    return hash;
}

static void read_images(ReadBack *r, const RecordBatch *batch, size_t row, size_t image_size) {
    Column images, bytes_column;
    size_t first, count;
    assert_true(record_batch_column(&images, batch, "images"));
    assert_true(column_field(&bytes_column, column_items(images), "bytes"));
    column_list_range(&first, &count, images, row);
    assert_in_range(count, 1, 2);
    r->pairs += count == 2;
    for (size_t i = first; i < first + count; i++) {
        const uint8_t *bytes;
        size_t size;
        Image image;
        column_bytes(&bytes, &size, bytes_column, i);
        r->hash = hash_bytes(r->hash, bytes, size);
        assert_true(image_decode(&image, bytes, size, true, NULL));
        assert_int_equal(image.width, image_size);
        assert_int_equal(image.height, image_size);
        image_free(&image);
    }
}

static void read_turns(ReadBack *r, const RecordBatch *batch, size_t row) {
    static const char *const ratings[] = {"relevance_ratings", "image_correspondence_ratings",
                                          "visual_dependency_ratings", "formatting_ratings"};
    Column texts, sides[2], list;
    size_t first, count, first_rating, n_ratings;
    assert_true(record_batch_column(&texts, batch, "texts"));
    assert_true(column_field(&sides[0], column_items(texts), "user"));
    assert_true(column_field(&sides[1], column_items(texts), "assistant"));
    column_list_range(&first, &count, texts, row);
    assert_in_range(count, 1, 3);
    r->turns += count;
    for (size_t i = first; i < first + count; i++)
        for (size_t k = 0; k < 2; k++) {
            const uint8_t *bytes;
            size_t size;
            column_bytes(&bytes, &size, sides[k], i);
            assert_true(size > 0);
            r->hash = hash_bytes(r->hash, bytes, size);
        }
    for (size_t k = 0; k < 4; k++) {
        assert_true(record_batch_column(&list, batch, ratings[k]));
        column_list_range(&first_rating, &n_ratings, list, row);
        assert_int_equal(n_ratings, count);
        for (size_t i = 0; i < n_ratings; i++)
            assert_in_range(column_int(column_items(list), first_rating + i), 1, 5);
    }
}

static void read_file(ReadBack *r, const char *path, size_t image_size) {
    ParquetReader *reader;
    RecordBatch *batch;
    Error err;
    if (!parquet_open(&reader, path, &err)) fail_msg("%s", err.text);
    for (size_t group = 0; group < parquet_row_groups(reader); group++) {
        if (!parquet_read(&batch, reader, group, NULL, 0, &err)) fail_msg("%s", err.text);
        for (size_t row = 0; row < record_batch_rows(batch); row++, r->rows++) {
            read_images(r, batch, row, image_size);
            read_turns(r, batch, row);
        }
        record_batch_free(batch);
    }
    parquet_close(reader);
}

static ReadBack read_split(const char *folder, const char *split, size_t files_expected, size_t image_size) {
    ReadBack r = {.hash = 0xCBF29CE484222325u};
    char *path = path_join(folder, split);
    StringList files;
    assert_true(file_list(&files, path, NULL));
    assert_int_equal(files.count, files_expected);
    for (size_t i = 0; i < files.count; i++) {
        char *file = path_join(path, files.items[i]);
        read_file(&r, file, image_size);
        free(file);
    }
    string_list_free(&files);
    free(path);
    return r;
}

// The same rows in the same order, whatever the shards, groups and threads; every row readable.
static void test_files(void **state) {
    (void)state;
    static const char *const settings[3][3] = {{"1", "1", "100"}, {"3", "4", "7"}, {"2", "2", "1000"}};
    ReadBack first = {0};
    for (size_t i = 0; i < 3; i++) {
        char *folder = make_folder();
        SynthOptions o =
            OPTIONS("out", folder, "rows", "700", "test_rows", "50", "image_size", "32", "shards",
                    settings[i][0], "threads", settings[i][1], "rows_per_group", settings[i][2]);
        Error err;
        if (!synth_write(&o, &err)) fail_msg("%s", err.text);
        ReadBack train = read_split(folder, "train", o.shards, 32), test = read_split(folder, "test", 1, 32);
        assert_int_equal(train.rows, 700);
        assert_int_equal(test.rows, 50);
        assert_true(train.pairs > 20 && train.turns > 1400);
        if (i == 0) first = train;
        assert_true(train.hash == first.hash && test.hash != first.hash);
        remove_folder(folder);
        fields_free(options_set(&o));
    }
}

// The samples are the first test rows: their questions in order, their pictures pixel for pixel.
static void test_samples(void **state) {
    (void)state;
    enum { SAMPLES = 12 };
    char *folder = make_folder(), *path = mem_printf("%s/samples/questions.jsonl", folder), *text;
    SynthOptions o =
        OPTIONS("out", folder, "rows", "4", "test_rows", "4", "samples", "12", "image_size", "32");
    size_t size, lines = 0;
    Error err;
    if (!synth_write(&o, &err) || !file_read(&text, &size, path, &err)) fail_msg("%s", err.text);
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n"), lines++) {
        SynthRow row = row_of(&o, SYNTH_TEST, lines);
        json_t *object = json_loads(line, 0, NULL), *images = json_object_get(object, "images");
        json_t *turns = json_object_get(object, "turns");
        assert_int_equal(json_array_size(turns), row.n_turns);
        for (size_t t = 0; t < row.n_turns; t++) {
            json_t *turn = json_array_get(turns, t);
            assert_string_equal(json_string_value(json_array_get(turn, 0)), row.turns[t].user);
            assert_string_equal(json_string_value(json_array_get(turn, 1)), row.turns[t].assistant);
        }
        assert_int_equal(json_array_size(images), row.n_pictures);
        for (size_t k = 0; k < row.n_pictures; k++) {
            char *file = mem_printf("%s/samples/%s", folder, json_string_value(json_array_get(images, k)));
            uint8_t *rgb;
            Image image;
            if (!load_image(&image, file, false, &err)) fail_msg("%s", err.text);
            assert_true(scene_draw(&rgb, &row.pictures[k], 32, NULL));
            assert_int_equal(image.width * image.height, 32 * 32);
            assert_memory_equal(image.rgb, rgb, 3 * 32 * 32);
            image_free(&image);
            free(rgb);
            free(file);
        }
        json_decref(object);
    }
    assert_int_equal(lines, SAMPLES);
    free(text);
    free(path);
    remove_folder(folder);
    fields_free(options_set(&o));
}

static void expect_refused(const char *const *pairs, const char *part) {
    SynthOptions o = options_unchecked(pairs);
    Error err = {0};
    assert_false(synth_write(&o, &err));
    if (!strstr(err.text, part)) fail_msg("'%s' does not say '%s'", err.text, part);
    fields_free(options_set(&o));
}
#define REFUSED(part, ...) expect_refused((const char *const[]){__VA_ARGS__, NULL}, part)

static void test_errors(void **state) {
    (void)state;
    char *folder = make_folder();
    REFUSED("no kind 'sound'; there are colour, shape", "kinds", "colour,sound", "out", folder);
    REFUSED("relation needs --max_shapes 2", "kinds", "relation", "max_shapes", "1", "out", folder);
    REFUSED("--shards 9 is more than --rows 8", "rows", "8", "shards", "9", "out", folder);
    REFUSED("/dev/null", "rows", "2", "out", "/dev/null/no");
    remove_folder(folder);
}

static void test_foreign_files_are_refused(void **state) {
    (void)state;
    char *folder = make_folder();
    Error err;
    SynthOptions o = OPTIONS("out", folder, "rows", "8", "test_rows", "0", "shards", "2", "image_size", "16");
    assert_true(synth_write(&o, &err));
    assert_true(synth_write(&o, &err)); // the same names: replaced
    REFUSED("already holds train-00000-of-00002.parquet", "out", folder, "rows", "8", "test_rows", "0");
    char *test = path_join(folder, "test");
    assert_false(file_exists(test));
    free(test);
    remove_folder(folder);
    fields_free(options_set(&o));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_samples),
        cmocka_unit_test(test_errors),
        cmocka_unit_test(test_foreign_files_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
