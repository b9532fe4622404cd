// LINK: format
// Parquet: what is written is read again the same, every kind of column is understood, damaged files are
// refused.
#include "support/folders.h"
#include "support/golden.h"
#include "base/memory.h"
#include "base/random.h"
#include "format/arrow.h"
#include "format/arrow_batch.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static void expect(bool ok, const Error *err) {
    if (!ok) fail_msg("%s", err->text);
}

static Column column(const RecordBatch *batch, const char *name) {
    Column c;
    if (!record_batch_column(&c, batch, name)) fail_msg("column %s is absent", name);
    return c;
}

static Column field(Column c, const char *name) {
    Column child;
    if (!column_field(&child, c, name)) fail_msg("field %s is absent", name);
    return child;
}

static void expect_bytes(Column c, size_t i, const char *expected, size_t n) {
    const uint8_t *bytes;
    size_t size;
    column_bytes(&bytes, &size, c, i);
    assert_int_equal(size, n);
    if (n) assert_memory_equal(bytes, expected, n);
    assert_false(column_is_null(c, i));
}

static void expect_text(Column c, size_t i, const char *format, ...) {
    char expected[256];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(expected, sizeof expected, format, args);
    va_end(args);
    expect_bytes(c, i, expected, (size_t)n);
}

// ---- what we write ----

#define ROWS           25
#define ROWS_PER_GROUP 10

// Row i has i % 4 pictures of i + 300 bytes and i % 3 turns.
static bool write_row(ParquetWriter *w, size_t i, Error *err) {
    char bytes[400], user[32], assistant[32];
    memset(bytes, (int)i, sizeof bytes);
    FineVisionImage images[4];
    FineVisionTurn turns[3];
    for (size_t k = 0; k < 4; k++) images[k] = (FineVisionImage){bytes, i + 300 * k, k % 2 ? "a.png" : NULL};
    snprintf(user, sizeof user, "question %zu \xc3\xa4", i);
    snprintf(assistant, sizeof assistant, "answer %zu", i);
    for (int64_t k = 0; k < 3; k++)
        turns[k] = (FineVisionTurn){user, k == 1 ? "" : assistant, (int64_t)i + k, -k, 5, INT64_MIN};
    FineVisionRow row = {images, i % 4 > 1 ? 2 : i % 4, turns, i % 3, i % 5 ? "tests" : NULL};
    return parquet_write_row(w, &row, err);
}

static bool write_rows(const char *path, Error *err) {
    ParquetWriter *w;
    if (!parquet_create(&w, path, ROWS_PER_GROUP, err)) return false;
    for (size_t i = 0; i < ROWS; i++) {
        if (write_row(w, i, err)) continue;
        parquet_abandon(w);
        return false;
    }
    return parquet_finish(w, err);
}

static void expect_row(const RecordBatch *batch, size_t at, size_t i) {
    static const char *names[] = {"relevance_ratings", "image_correspondence_ratings",
                                  "visual_dependency_ratings", "formatting_ratings"};
    char bytes[400];
    memset(bytes, (int)i, sizeof bytes);
    size_t first, count;
    Column images = column(batch, "images"), texts = column(batch, "texts"), source = column(batch, "source");
    column_list_range(&first, &count, images, at);
    assert_int_equal(count, i % 4 > 1 ? 2 : i % 4);
    for (size_t k = 0; k < count; k++) {
        Column path = field(column_items(images), "path");
        expect_bytes(field(column_items(images), "bytes"), first + k, bytes, i + 300 * k);
        if (k % 2)
            expect_text(path, first + k, "a.png");
        else
            assert_true(column_is_null(path, first + k));
    }
    column_list_range(&first, &count, texts, at);
    assert_int_equal(count, i % 3);
    for (size_t k = 0; k < count; k++) {
        expect_text(field(column_items(texts), "user"), first + k, "question %zu \xc3\xa4", i);
        expect_text(field(column_items(texts), "assistant"), first + k, k == 1 ? "" : "answer %zu", i);
    }
    if (i % 5)
        expect_text(source, at, "tests");
    else
        assert_true(column_is_null(source, at));
    for (int r = 0; r < 4; r++) {
        column_list_range(&first, &count, column(batch, names[r]), at);
        assert_int_equal(count, i % 3);
        for (size_t k = 0; k < count; k++) {
            int64_t expected[] = {(int64_t)(i + k), -(int64_t)k, 5, INT64_MIN};
            assert_int_equal(column_int(column_items(column(batch, names[r])), first + k), expected[r]);
        }
    }
}

static void test_written_and_read(void **state) {
    (void)state;
    Error err;
    char *path = path_join(test_folder, "rows.parquet"),
         *temporary = path_join(test_folder, "rows.parquet.tmp");
    expect(write_rows(path, &err), &err);
    assert_false(file_exists(temporary));
    ParquetReader *r;
    RecordBatch *batch;
    expect(parquet_open(&r, path, &err), &err);
    assert_int_equal(parquet_row_groups(r), 3);
    for (size_t g = 0; g < 3; g++) {
        expect(parquet_read(&batch, r, g, NULL, 0, &err), &err);
        assert_int_equal(record_batch_rows(batch), g < 2 ? 10 : 5);
        assert_int_equal(parquet_rows(r, g), g < 2 ? 10 : 5);
        for (size_t i = 0; i < record_batch_rows(batch); i++) expect_row(batch, i, g * ROWS_PER_GROUP + i);
        record_batch_free(batch);
    }
    assert_false(parquet_read(&batch, r, 3, NULL, 0, &err));
    assert_null(batch);
    parquet_close(r);
    free(path);
    free(temporary);
}

static void test_only_the_columns_asked_for(void **state) {
    (void)state;
    Error err;
    char *path = path_join(test_folder, "some.parquet");
    expect(write_rows(path, &err), &err);
    ParquetReader *r;
    RecordBatch *batch;
    Column c;
    expect(parquet_open(&r, path, &err), &err);
    expect(parquet_read(&batch, r, 0, (const char *[]){"texts", "no such column"}, 2, &err), &err);
    assert_true(record_batch_column(&c, batch, "texts"));
    assert_false(record_batch_column(&c, batch, "images"));
    assert_false(record_batch_column(&c, batch, "no such column"));
    record_batch_free(batch);
    expect(parquet_read(&batch, r, 2, (const char *[]){"no such column"}, 1, &err), &err);
    assert_int_equal(record_batch_rows(batch), 5);
    record_batch_free(batch);
    parquet_close(r);
    free(path);
}

static void test_same_rows_same_bytes(void **state) {
    (void)state;
    Error err;
    char *a = path_join(test_folder, "a.parquet"), *b = path_join(test_folder, "b.parquet"), *x, *y;
    size_t n, m;
    expect(write_rows(a, &err) && write_rows(b, &err), &err);
    expect(file_read(&x, &n, a, &err) && file_read(&y, &m, b, &err), &err);
    assert_int_equal(n, m);
    assert_memory_equal(x, y, n);
    free(a), free(b), free(x), free(y);
}

// A file size limit stands for the full disk.
static int write_under_limit(const char *path) {
    Error err;
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &(struct rlimit){1000, 1000});
    return !write_rows(path, &err) && strstr(err.text, "File too large") ? 0 : 1;
}

static void test_failed_write_leaves_the_old_file(void **state) {
    (void)state;
    Error err;
    char *path = path_join(test_folder, "old.parquet"),
         *temporary = path_join(test_folder, "old.parquet.tmp"), *bytes;
    size_t size;
    expect(file_write_text(path, "old", 3, &err), &err);
    pid_t child = fork();
    if (child == 0) _exit(write_under_limit(path));
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    ParquetWriter *w;
    assert_true(parquet_create(&w, path, 5, &err));
    assert_true(write_row(w, 1, &err));
    parquet_abandon(w);
    FineVisionRow bad = {.source = "\xff"};
    assert_true(parquet_create(&w, path, 1, &err));
    assert_false(parquet_write_row(w, &bad, &err));
    parquet_abandon(w);
    assert_false(parquet_create(&w, "/nowhere/file.parquet", 5, &err));
    expect(file_read(&bytes, &size, path, &err), &err);
    assert_string_equal(bytes, "old");
    assert_false(file_exists(temporary));
    free(bytes), free(path), free(temporary);
}

// ---- what pyarrow wrote: tests/golden/parquet/make.py ----

static void expect_numbers(const RecordBatch *batch, size_t at, size_t i) {
    static const char *names[] = {"int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"};
    for (size_t k = 0; k < 8; k++) {
        Column c = column(batch, names[k]);
        assert_int_equal(column_type(c), COLUMN_INT);
        assert_int_equal(column_is_null(c, at), i == 5);
        int64_t expected = k % 2 ? (int64_t)i : -(int64_t)i;
        if (i != 5) assert_int_equal(column_int(c, at), expected);
    }
}

static void expect_word(Column c, size_t at, size_t i) {
    assert_int_equal(column_type(c), COLUMN_STRING);
    if (i % 3 == 2)
        assert_true(column_is_null(c, at));
    else
        expect_text(c, at, i % 3 ? "green" : "red");
}

static void expect_lists(const RecordBatch *batch, size_t at, size_t i) {
    size_t first, count;
    Column words = column(batch, "dictionaries"), fixed = column(batch, "fixed_list"),
           large = column(batch, "large_list");
    column_list_range(&first, &count, words, at);
    assert_int_equal(count, 2);
    expect_word(column_items(words), first + 1, i);
    column_list_range(&first, &count, fixed, at);
    assert_int_equal(count, 2);
    assert_int_equal(column_int(column_items(fixed), first + 1), -(int64_t)i);
    column_list_range(&first, &count, large, at);
    assert_int_equal(count, i);
    for (size_t k = 0; k < count; k++) assert_int_equal(column_int(column_items(large), first + k), k);
}

static void expect_structs(const RecordBatch *batch, size_t at, size_t i) {
    size_t first, count;
    Column one = column(batch, "struct"), images = column(batch, "images"), missing;
    assert_int_equal(column_is_null(one, at), i % 4 == 3);
    assert_false(column_field(&missing, one, "no such field"));
    if (i % 4 != 3) expect_text(field(one, "bytes"), at, "%zu", i);
    assert_int_equal(column_is_null(images, at), i == 4);
    column_list_range(&first, &count, images, at);
    assert_int_equal(count, i == 4 ? 0 : i % 3);
    for (size_t k = 0; k < count; k++) {
        Column path = field(column_items(images), "path");
        expect_bytes(field(column_items(images), "bytes"), first + k, (char[]){(char)i, (char)k}, 2);
        if (k == 1)
            assert_true(column_is_null(path, first + k));
        else
            expect_text(path, first + k, "p%zu%zu", i, k);
    }
}

static void expect_types_row(const RecordBatch *batch, size_t at, size_t i) {
    expect_numbers(batch, at, i);
    expect_word(column(batch, "dictionary"), at, i);
    expect_text(column(batch, "large_string"), at, "text %zu", i);
    expect_text(column(batch, "string_view"), at, "a text long enough to lie outside of the view %zu", i);
    expect_bytes(column(batch, "fixed_binary"), at, (char[]){(char)i, (char)i, (char)i}, 3);
    expect_lists(batch, at, i);
    expect_structs(batch, at, i);
    assert_int_equal(column_type(column(batch, "nothing")), COLUMN_NULL);
    assert_true(column_is_null(column(batch, "nothing"), at));
    assert_int_equal(column_type(column(batch, "float")), COLUMN_FLOAT);
    assert_true(column_number(column(batch, "float"), at) == 0.5 * (double)i);
    if (i != 5) assert_true(column_number(column(batch, "int16"), at) == -(double)i);
}

static void test_every_kind_of_column(void **state) {
    (void)state;
    Error err;
    char *path = golden_path("parquet/types.parquet");
    ParquetReader *r;
    RecordBatch *batch;
    expect(parquet_open(&r, path, &err), &err);
    assert_int_equal(parquet_row_groups(r), 2);
    for (size_t g = 0; g < 2; g++) {
        expect(parquet_read(&batch, r, g, NULL, 0, &err), &err);
        assert_int_equal(record_batch_rows(batch), g ? 4 : 6);
        for (size_t i = 0; i < record_batch_rows(batch); i++) expect_types_row(batch, i, 6 * g + i);
        record_batch_free(batch);
    }
    parquet_close(r);
    free(path);
}

// The columns that only Arrow's own files have.
static void expect_more_types(const RecordBatch *batch, size_t at) {
    size_t first, count;
    Column views = column(batch, "views");
    assert_true(column_number(column(batch, "half"), at) == 0.5);
    assert_int_equal(column_int(column(batch, "bool"), at), 1);
    column_list_range(&first, &count, views, at);
    assert_int_equal(count, 2);
    expect_text(column_items(views), first, "a");
    expect_text(column_items(views), first + 1, "long enough to lie outside of the view");
}

static void check_arrow_file(const char *path) {
    Error err;
    ArrowReader *r;
    RecordBatch *batch;
    expect(arrow_open(&r, path, &err), &err);
    assert_int_equal(arrow_batches(r), 2);
    for (size_t k = 0; k < 4; k++) { // in another order than they lie there, and the first one twice
        size_t b = (k + 1) % 2;
        assert_int_equal(arrow_rows(r, b), b ? 4 : 6);
        assert_true(arrow_bytes(r, b) > 0);
        expect(arrow_read(&batch, r, b, NULL, 0, &err), &err);
        assert_int_equal(record_batch_rows(batch), b ? 4 : 6);
        assert_string_equal(record_batch_path(batch), path);
        for (size_t i = 0; i < record_batch_rows(batch); i++) {
            expect_types_row(batch, i, 6 * b + i);
            expect_more_types(batch, i);
        }
        record_batch_free(batch);
    }
    assert_false(arrow_read(&batch, r, 2, NULL, 0, &err));
    assert_null(batch);
    expect(arrow_schema(&batch, r, (const char *[]){"half", "texts"}, 2, &err), &err);
    assert_int_equal(record_batch_rows(batch), 0);
    assert_int_equal(column_type(column(batch, "half")), COLUMN_FLOAT);
    record_batch_free(batch);
    expect(arrow_read(&batch, r, 1, (const char *[]){"no such column"}, 1, &err), &err);
    assert_int_equal(record_batch_rows(batch), 4);
    record_batch_free(batch);
    arrow_close(r);
}

static void test_arrow_files(void **state) { // streams and files, plain and compressed
    (void)state;
    Error err;
    StringList files;
    char *types = golden_path("sources/types");
    expect(file_list(&files, types, &err), &err);
    assert_true(files.count >= 5);
    for (size_t i = 0; i < files.count; i++) {
        char *path = path_join(types, files.items[i]);
        check_arrow_file(path);
        free(path);
    }
    string_list_free(&files);
    free(types);
}

// Where a text of the first batch lies.
static const uint8_t *place_of_text(ArrowReader *r) {
    Error err;
    RecordBatch *batch;
    const uint8_t *bytes;
    size_t size;
    expect(arrow_read(&batch, r, 0, NULL, 0, &err), &err);
    column_bytes(&bytes, &size, column(batch, "large_string"), 1);
    record_batch_free(batch);
    return bytes;
}

static void test_mapped_files_are_not_copied(void **state) {
    (void)state;
    Error err;
    ArrowReader *r, *other;
    RecordBatch *batch;
    char *path = golden_path("sources/types/stream.arrow");
    expect(arrow_open(&r, path, &err) && arrow_open(&other, path, &err), &err);
    const uint8_t *first = place_of_text(r), *map = place_of_text(other);
    assert_ptr_equal(place_of_text(r), first);
    assert_ptr_not_equal(map, first);
    expect(arrow_read(&batch, r, 1, NULL, 0, &err), &err);
    arrow_close(r); // the batch keeps the map
    for (size_t i = 0; i < 4; i++) expect_types_row(batch, i, 6 + i);
    record_batch_free(batch);
    arrow_close(other);
    free(path);
}

// Row groups in parts, in order and in others.
static void test_parts(void **state) {
    (void)state;
    Error err;
    ParquetReader *r;
    RecordBatch *batch;
    char *path = path_join(test_folder, "parts.parquet");
    expect(write_rows(path, &err), &err);
    expect(parquet_open_in_parts(&r, path, 1000, &err), &err);
    size_t n = parquet_row_groups(r), total = 0, first[ROWS];
    assert_true(n > 6 && n < ROWS);
    for (size_t g = 0; g < n; g++) {
        assert_true(parquet_rows(r, g) > 0 && parquet_rows(r, g) < ROWS_PER_GROUP);
        first[g] = total;
        total += parquet_rows(r, g);
    }
    assert_int_equal(total, ROWS);
    const size_t steps[] = {1, n - 1, 2}; // in order, backwards, every second one
    for (size_t s = 0; s < 3; s++)
        for (size_t k = 0, g = 0; k < n; k++, g = (g + steps[s]) % n) {
            expect(parquet_read(&batch, r, g, NULL, 0, &err), &err);
            assert_int_equal(record_batch_rows(batch), parquet_rows(r, g));
            for (size_t i = 0; i < record_batch_rows(batch); i++) expect_row(batch, i, first[g] + i);
            record_batch_free(batch);
        }
    expect(parquet_read(&batch, r, 0, (const char *[]){"texts"}, 1, &err), &err);
    record_batch_free(batch);
    expect(parquet_read(&batch, r, 1, NULL, 0, &err), &err); // with other columns than the part before
    expect_row(batch, 0, first[1]);
    record_batch_free(batch);
    parquet_close(r);
    free(path);
}

// ---- bytes from elsewhere ----

// A file in memory that keeps count of what was asked of it.
typedef struct Counted {
    char *bytes;
    size_t size, asked, closed;
    bool broken;
} Counted;

static bool read_counted(void *state, void *out, size_t offset, size_t n, Error *err) {
    Counted *c = state;
    if (c->broken) return error_set(err, "the network is down");
    assert_true(offset <= c->size && n <= c->size - offset);
    memcpy(out, c->bytes + offset, n);
    c->asked += n;
    return true;
}

static void close_counted(void *state) {
    ((Counted *)state)->closed++;
}

static ByteRanges counted(Counted *c) {
    return (ByteRanges){c, c->size, read_counted, close_counted};
}

static void test_arrow_by_ranges(void **state) {
    (void)state;
    Error err;
    Counted c = {0};
    ArrowReader *r;
    RecordBatch *batch;
    char *path = golden_path("sources/types/stream.arrow");
    expect(file_read(&c.bytes, &c.size, path, &err), &err);
    expect(arrow_open_ranges(&r, "far", counted(&c), &err), &err);
    size_t heads = c.size - arrow_bytes(r, 0) - arrow_bytes(r, 1);
    assert_true(c.asked <= heads + 6); // the first bytes are looked at twice
    c.asked = 0;
    expect(arrow_read(&batch, r, 1, NULL, 0, &err), &err);
    assert_true(c.asked >= arrow_bytes(r, 1) && c.asked <= heads + arrow_bytes(r, 1));
    for (size_t i = 0; i < 4; i++) expect_types_row(batch, i, 6 + i);
    record_batch_free(batch);
    c.broken = true;
    assert_false(arrow_read(&batch, r, 1, NULL, 0, &err));
    assert_string_equal(err.text, "far: record batch 1: the network is down");
    assert_int_equal(c.closed, 0);
    arrow_close(r);
    assert_int_equal(c.closed, 1);
    assert_false(arrow_open_ranges(&r, "far", counted(&c), &err));
    assert_int_equal(c.closed, 2);
    free(c.bytes), free(path);
}

static void write_large_rows(const char *path) {
    Error err;
    ParquetWriter *w;
    Random random = random_stream(3, RANDOM_TEST, 0);
    static char noise[40000];
    expect(parquet_create(&w, path, 4, &err), &err);
    for (size_t i = 0; i < 20; i++) {
        for (size_t k = 0; k < sizeof noise; k++) noise[k] = (char)random_u32(&random);
        FineVisionImage image = {noise, sizeof noise, NULL};
        expect(parquet_write_row(w, &(FineVisionRow){.images = &image, .n_images = 1}, &err), &err);
    }
    expect(parquet_finish(w, &err), &err);
}

static void test_parquet_by_ranges(void **state) {
    (void)state;
    Error err;
    Counted c = {0};
    ParquetReader *r;
    RecordBatch *batch;
    char *path = path_join(test_folder, "large.parquet");
    write_large_rows(path);
    expect(file_read(&c.bytes, &c.size, path, &err), &err);
    expect(parquet_open_ranges(&r, "far", counted(&c), &err), &err);
    assert_int_equal(parquet_row_groups(r), 5);
    assert_true(c.asked < c.size / 6);
    c.asked = 0;
    expect(parquet_read(&batch, r, 2, (const char *[]){"texts"}, 1, &err), &err);
    assert_true(c.asked < c.size / 20);
    record_batch_free(batch);
    expect(parquet_read(&batch, r, 2, NULL, 0, &err), &err);
    assert_true(c.asked > c.size / 6 && c.asked < c.size / 4); // one group of five
    record_batch_free(batch);
    c.broken = true;
    assert_false(parquet_read(&batch, r, 3, NULL, 0, &err));
    assert_string_equal(err.text, "far: row group 3: the network is down");
    parquet_close(r);
    assert_int_equal(c.closed, 1);
    free(c.bytes), free(path);
}

// A batch as another producer may give it: struct, child and items all begin at offsets of their own.
// Row i is {numbers: [10 i, 10 i + 1]}, row 1 is null.
static void test_offsets(void **state) {
    (void)state;
    int16_t values[] = {-1, -1, -1, -1, 0, 1, 10, 11, 20, 21}; // items begin at 4
    int32_t starts[] = {99, 99, 99, 0, 2, 4, 6};               // lists begin at 1 + 2
    uint8_t valid = 0x2f;                                      // bit 4: row 1
    struct ArrowArray items = {6, 0, 4, 2, 0, (const void *[]){NULL, values}, NULL, NULL, NULL, NULL};
    struct ArrowArray *list_children[] = {&items}, *children[1];
    struct ArrowArray lists = {5,    1,    1,   2, 1, (const void *[]){&valid, starts}, list_children,
                               NULL, NULL, NULL};
    struct ArrowSchema item_schema = {.format = "s", .name = "item"}, *list_schemas[] = {&item_schema};
    struct ArrowSchema list_schema = {
        .format = "+l", .name = "numbers", .n_children = 1, .children = list_schemas};
    struct ArrowSchema *schemas[] = {&list_schema};
    children[0] = &lists;
    RecordBatch batch = {{.format = "+s", .name = "", .n_children = 1, .children = schemas},
                         {3, 0, 2, 1, 1, (const void *[]){NULL}, children, NULL, NULL, NULL},
                         NULL,
                         NULL};
    assert_int_equal(record_batch_rows(&batch), 3);
    for (int compact = 0; compact < 2; compact++) {
        if (compact) record_batch_compact(&batch);
        Column numbers = column(&batch, "numbers");
        for (size_t i = 0; i < 3; i++) {
            size_t first, count;
            column_list_range(&first, &count, numbers, i);
            assert_int_equal(column_is_null(numbers, i), i == 1);
            assert_int_equal(count, i == 1 ? 0 : 2);
            for (size_t k = 0; k < count; k++)
                assert_int_equal(column_int(column_items(numbers), first + k), 10 * i + k);
        }
    }
    record_batch_release(&batch);
}

// ---- damaged files ----

static void touch(Column c, size_t i) {
    const uint8_t *bytes;
    volatile uint8_t sum = 0;
    size_t n;
    if (column_is_null(c, i)) return;
    switch (column_type(c)) {
    case COLUMN_BINARY:
    case COLUMN_STRING:
        column_bytes(&bytes, &n, c, i);
        for (size_t k = 0; k < n; k++) sum ^= bytes[k];
        break;
    case COLUMN_INT:
        sum ^= (uint8_t)column_int(c, i);
        break;
    case COLUMN_LIST: {
        size_t first;
        column_list_range(&first, &n, c, i);
        for (size_t k = 0; k < n; k++) touch(column_items(c), first + k);
        break;
    }
    case COLUMN_STRUCT: {
        Column child;
        if (column_field(&child, c, "bytes")) touch(child, i);
        if (column_field(&child, c, "path")) touch(child, i);
        break;
    }
    default:
        break;
    }
}

// Reads every value of every group; what Arrow lets through must be safe to touch.
static bool read_all(const char *path) {
    static const char *names[] = {"images",       "struct",      "dictionary", "dictionaries", "large_list",
                                  "fixed_binary", "string_view", "texts",      "source",       "int16"};
    Error err;
    ParquetReader *r;
    bool ok = parquet_open(&r, path, &err);
    if (!ok) return false;
    for (size_t g = 0; g < parquet_row_groups(r); g++) {
        RecordBatch *batch;
        bool read = parquet_read(&batch, r, g, NULL, 0, &err);
        ok = ok && read;
        if (!read) continue;
        Column c;
        for (size_t k = 0; k < sizeof names / sizeof *names; k++)
            if (record_batch_column(&c, batch, names[k]))
                for (size_t i = 0; i < record_batch_rows(batch); i++) touch(c, i);
        record_batch_free(batch);
    }
    parquet_close(r);
    return ok;
}

static void test_damaged_files(void **state) {
    (void)state;
    Error err;
    char *rows = path_join(test_folder, "rows2.parquet"), *types = golden_path("parquet/types.parquet"),
         *path = path_join(test_folder, "damaged.parquet"), *bytes;
    const char *sources[] = {rows, types};
    expect(write_rows(rows, &err), &err);
    Random random = random_stream(2, RANDOM_TEST, 0);
    size_t accepted = 0;
    for (int s = 0; s < 2; s++) {
        size_t size;
        expect(file_read(&bytes, &size, sources[s], &err), &err);
        for (size_t k = 0; k < 60; k++) {
            expect(file_write_text(path, bytes, size * k / 60, &err), &err);
            assert_false(read_all(path));
        }
        for (int k = 0; k < 400; k++) {
            char *mutant = mem_alloc(size);
            memcpy(mutant, bytes, size);
            for (uint64_t n = 1 + random_below(&random, 4); n > 0; n--)
                mutant[random_below(&random, size)] = (char)random_u32(&random);
            expect(file_write_text(path, mutant, size, &err), &err);
            accepted += read_all(path);
            free(mutant);
        }
        free(bytes);
    }
    printf("800 mutants: %zu readable, the rest refused\n", accepted);
    free(rows), free(types), free(path);
}

static void test_text_that_is_not_utf8(void **state) { // it comes as it is; the rows beside it as well
    (void)state;
    Error err;
    Column column;
    const uint8_t *found;
    size_t found_size, as_written = 0, damaged = 0;
    char *source = golden_path("parquet/types.parquet"), *path = path_join(test_folder, "utf8.parquet"),
         *bytes;
    size_t size;
    expect(file_read(&bytes, &size, source, &err), &err);
    char *text = memmem(bytes, size, "text 1", 6);
    assert_non_null(text);
    *text = '\xff';
    expect(file_write_text(path, bytes, size, &err), &err);
    ParquetReader *r;
    RecordBatch *batch;
    expect(parquet_open(&r, path, &err), &err);
    expect(parquet_read(&batch, r, 0, NULL, 0, &err), &err);
    assert_true(record_batch_column(&column, batch, "large_string"));
    for (size_t i = 0; i < record_batch_rows(batch); i++) {
        column_bytes(&found, &found_size, column, i);
        if (found_size != 6) continue;
        as_written += memcmp(found, "text ", 5) == 0;
        damaged += memcmp(found,
                          "\xff"
                          "ext 1",
                          6) == 0;
    }
    assert_true(damaged == 1 && as_written > 1);
    record_batch_free(batch);
    parquet_close(r);
    free(bytes), free(source), free(path);
}

static void test_messages(void **state) {
    (void)state;
    Error err;
    ParquetReader *r;
    char *path = path_join(test_folder, "text.parquet");
    expect(file_write_text(path, "this is not Parquet", 19, &err), &err);
    assert_false(parquet_open(&r, path, &err));
    assert_null(r);
    assert_non_null(strstr(err.text, "text.parquet: "));
    assert_false(parquet_open(&r, "/nowhere.parquet", &err));
    assert_non_null(strstr(err.text, "/nowhere.parquet"));
    printf("Arrow %s says: %s\n", arrow_version(), err.text);
    free(path);
}

// ---- where rows lie ----

// Sanitizers have a heap of their own, of which the C library's says nothing.
#ifdef __SANITIZE_ADDRESS__
enum { SANITIZED = true };
#else
enum { SANITIZED = false };
#endif

static void test_chosen_rows(void **state) { // also of those chosen before, and none
    (void)state;
    Error err;
    ParquetReader *r;
    RecordBatch *batch;
    char *path = golden_path("parquet/types.parquet");
    expect(parquet_open(&r, path, &err), &err);
    expect(parquet_read(&batch, r, 0, NULL, 0, &err), &err);
    assert_true(record_batch_select(batch, (const size_t[]){0, 2, 3, 4, 5}, 5));
    assert_int_equal(record_batch_rows(batch), 5);
    for (size_t i = 0; i < 5; i++) expect_types_row(batch, i, i ? i + 1 : 0);
    assert_true(record_batch_select(batch, (const size_t[]){1, 4}, 2));
    assert_int_equal(record_batch_rows(batch), 2);
    expect_types_row(batch, 0, 2);
    expect_types_row(batch, 1, 5);
    assert_true(record_batch_select(batch, NULL, 0));
    assert_int_equal(record_batch_rows(batch), 0);
    record_batch_free(batch);
    parquet_close(r);
    free(path);
}

enum { PICTURE = 50000, PICTURES = 40 };

static void expect_picture(const RecordBatch *batch, size_t at, size_t i) {
    char *bytes = mem_alloc(PICTURE);
    size_t first, count;
    memset(bytes, (int)i, PICTURE);
    column_list_range(&first, &count, column(batch, "images"), at);
    assert_int_equal(count, 1);
    expect_bytes(field(column_items(column(batch, "images")), "bytes"), first, bytes, PICTURE);
    free(bytes);
}

// In a process of its own, so that what writing takes is not counted here.
static void write_pictures(const char *path) {
    const pid_t child = fork();
    int status;
    if (child != 0) {
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_int_equal(status, 0);
        return;
    }
    Error err;
    ParquetWriter *w;
    char *bytes = mem_alloc(PICTURE);
    bool ok = parquet_create(&w, path, PICTURES, &err);
    for (size_t i = 0; ok && i < PICTURES; i++) {
        memset(bytes, (int)i, PICTURE);
        const FineVisionImage image = {bytes, PICTURE, NULL};
        ok = parquet_write_row(w, &(FineVisionRow){.images = &image, .n_images = 1}, &err);
    }
    _exit(ok && parquet_finish(w, &err) ? 0 : 1);
}

// Pictures are a buffer that is left with Arrow, in pages that were moved as it grew; chosen ones are not.
// Reading takes a decoded page and the column.
static void test_large_columns(void **state) {
    (void)state;
    enum { ALL = PICTURES * PICTURE, REST = 128 << 10 };
    Error err;
    ParquetReader *r;
    RecordBatch *batch;
    char *path = path_join(test_folder, "large.parquet");
    size_t most;
    write_pictures(path);
    const size_t before = arrow_memory(&most);
    assert_true(most < before + ALL);
    expect(parquet_open(&r, path, &err), &err);
    expect(parquet_read(&batch, r, 0, NULL, 0, &err), &err);
    assert_in_range(arrow_memory(&most), before + ALL, before + ALL + REST);
    assert_in_range(most, before + ALL, before + 2 * ALL + REST);
    for (size_t i = 0; i < PICTURES; i++) expect_picture(batch, i, i);
    assert_in_range(record_batch_bytes(batch), ALL, ALL + 8000);
    assert_true(record_batch_select(batch, (const size_t[]){7, 8, 31}, 3));
    for (size_t i = 0; i < 3; i++) expect_picture(batch, i, (const size_t[]){7, 8, 31}[i]);
    assert_in_range(record_batch_bytes(batch), 3 * PICTURE, 3 * PICTURE + 8000);
    record_batch_free(batch);
    parquet_close(r);
    assert_int_equal(arrow_memory(&most), before);
    free(path);
}

// What groups of short rows say that they take is what the heap grows by, and little more than the rows are.
static void test_bytes_of_rows(void **state) {
    (void)state;
    enum { GROUPS = 30, ROWS_EACH = 100, LENGTH = 600 };
    Error err;
    ParquetReader *r;
    ParquetWriter *w;
    RecordBatch *batches[GROUPS];
    char *path = path_join(test_folder, "short.parquet"), bytes[LENGTH];
    expect(parquet_create(&w, path, ROWS_EACH, &err), &err);
    for (size_t i = 0; i < GROUPS * ROWS_EACH; i++) {
        memset(bytes, (int)i, LENGTH);
        const FineVisionImage image = {bytes, LENGTH, "a.png"};
        const FineVisionTurn turn = {"a question", "and an answer", 5, 5, 5, 5};
        const FineVisionRow row = {&image, 1, &turn, 1, "tests"};
        expect(parquet_write_row(w, &row, &err), &err);
    }
    expect(parquet_finish(w, &err), &err);
    expect(parquet_open(&r, path, &err), &err);
    for (size_t g = 0; g < 2; g++) { // what is made at the first use
        expect(parquet_read(&batches[0], r, g, NULL, 0, &err), &err);
        record_batch_free(batches[0]);
    }
    const size_t before = mem_heap();
    size_t said = 0;
    for (size_t g = 0; g < GROUPS; g++) {
        expect(parquet_read(&batches[g], r, g, NULL, 0, &err), &err);
        said += record_batch_bytes(batches[g]);
    }
    const double taken = (double)(mem_heap() - before);
    assert_in_range(said, GROUPS * ROWS_EACH * LENGTH, GROUPS * ROWS_EACH * (LENGTH + 160));
    if (!SANITIZED && (taken > 1.02 * (double)said || taken < 0.98 * (double)said))
        fail_msg("%zu bytes are said, the heap grew by %.0f", said, taken);
    for (size_t g = 0; g < GROUPS; g++) record_batch_free(batches[g]);
    parquet_close(r);
    free(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chosen_rows),
        cmocka_unit_test(test_large_columns),
        cmocka_unit_test(test_bytes_of_rows),
        cmocka_unit_test(test_written_and_read),
        cmocka_unit_test(test_only_the_columns_asked_for),
        cmocka_unit_test(test_same_rows_same_bytes),
        cmocka_unit_test(test_failed_write_leaves_the_old_file),
        cmocka_unit_test(test_every_kind_of_column),
        cmocka_unit_test(test_arrow_files),
        cmocka_unit_test(test_mapped_files_are_not_copied),
        cmocka_unit_test(test_parts),
        cmocka_unit_test(test_arrow_by_ranges),
        cmocka_unit_test(test_parquet_by_ranges),
        cmocka_unit_test(test_offsets),
        cmocka_unit_test(test_damaged_files),
        cmocka_unit_test(test_text_that_is_not_utf8),
        cmocka_unit_test(test_messages),
    };
    return cmocka_run_group_tests(tests, make_test_folder, remove_test_folder);
}
