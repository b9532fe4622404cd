// LINK: data
// Data sets on disk: where files are looked for, damaged files among good ones, the order of rows and the
// validation split.
#include "support/data_case.h"

#include "base/log.h"
#include "data/dataset_find.h"
#include "data/row_stream.h"

// ---- where files are looked for ----

static void touch(const char *folder, const char *name) {
    Error err;
    char *path = path_join(folder, name), *slash = strrchr(path, '/');
    *slash = '\0';
    expect(file_make_folders(path, &err), &err);
    *slash = '/';
    expect(file_write_text(path, "x", 1, &err), &err);
    free(path);
}

// names: expected tails of the found files, in order; NULL ends.
static void check_found(const char *path, const char *name, const char *const *tails) {
    Error err;
    StringList files = {0};
    size_t n = 0;
    bool found = dataset_find(&files, path, name, &err);
    for (; tails[n]; n++) {
        assert_true(n < files.count);
        assert_true(strlen(files.items[n]) > strlen(tails[n]));
        assert_string_equal(files.items[n] + strlen(files.items[n]) - strlen(tails[n]), tails[n]);
    }
    assert_int_equal(n, files.count);
    assert_int_equal(found, n > 0);
    string_list_free(&files);
}

#define FOUND(path, name, ...) check_found(path, name, (const char *const[]){__VA_ARGS__, NULL})

static void test_find(void **state) {
    (void)state;
    Error err;
    char *f = make_folder();
    touch(f, "b/y.parquet"), touch(f, "b/x.parquet"), touch(f, "b/test-0.parquet"), touch(f, "b/readme.md");
    touch(f, "c/train-1.parquet"), touch(f, "c/train-0.parquet"), touch(f, "c/other.parquet");
    touch(f, "data/e-0.parquet"), touch(f, "data/e-1.parquet"), touch(f, "data/f-0.parquet");
    touch(f, "g/notes.txt");
    FOUND(f, "b", "b/x.parquet", "b/y.parquet");
    FOUND(f, "c", "c/train-0.parquet", "c/train-1.parquet");
    FOUND(f, "e", "data/e-0.parquet", "data/e-1.parquet");
    FOUND(f, "default", "data/e-0.parquet", "data/e-1.parquet", "data/f-0.parquet");
    check_found(f, "g", (const char *const[]){NULL});
    check_found("/nowhere", "default", (const char *const[]){NULL});
    StringList all = {0};
    char *name = mem_strdup("all");
    expect(dataset_configurations(&all, f, &(StringList){1, &name}, &err), &err);
    free(name);
    assert_int_equal(all.count, 3);
    assert_string_equal(all.items[0], "default");
    assert_string_equal(all.items[1], "b");
    assert_string_equal(all.items[2], "c");
    string_list_free(&all);
    touch(f, "z.parquet");
    FOUND(f, "default", "/z.parquet");
    char *file = path_join(f, "z.parquet");
    FOUND(file, "anything", "/z.parquet");
    free(file);
    remove_folder(f);
}

static void check_open_fails(const char *path, const char *name, const char *part) {
    Error err;
    Dataset *d;
    char *copy = mem_strdup(name);
    StringList names = {1, &copy};
    assert_false(dataset_open(&d, path, &names, &err));
    if (!strstr(err.text, "No valid datasets were loaded.") || !strstr(err.text, part))
        fail_msg("%s", err.text);
    free(copy);
}

static void test_nothing_to_open(void **state) {
    (void)state;
    char *f = make_folder(), *file = path_join(f, "broken.parquet");
    check_open_fails(f, "default", "holds no Parquet or Arrow file");
    check_open_fails("/nowhere", "default", "no such file or folder");
    check_open_fails(f, "all", "holds no configuration");
    touch(f, "broken.parquet");
    check_open_fails(f, "default", "broken.parquet");
    check_open_fails(file, "default", "broken.parquet");
    free(file);
    remove_folder(f);
}

static void test_truncated_among_good(void **state) {
    (void)state;
    Error err;
    char *f = make_folder(), *name = mem_strdup("all");
    char *a = path_join(f, "a.parquet"), *b = path_join(f, "b.parquet"), *c = path_join(f, "c.parquet");
    write_rows(a, 0, 10, 4);
    write_rows(c, 10, 5, 4);
    copy_file(b, a, 500);
    Dataset *d;
    expect(dataset_open(&d, f, &(StringList){1, &name}, &err), &err);
    assert_int_equal(dataset_rows(d), 15);
    assert_int_equal(dataset_group_count(d), 5);
    assert_string_equal(dataset_path(d, 4), c);
    assert_int_equal(dataset_group(d, 4)->first, 14);
    assert_int_equal(dataset_group(d, 4)->first_in_file, 4);
    dataset_close(d);
    free(a), free(b), free(c), free(name);
    remove_folder(f);
}

// Sanitizers have a heap of their own, of which the C library's says nothing.
#ifdef __SANITIZE_ADDRESS__
enum { SANITIZED = true };
#else
enum { SANITIZED = false };
#endif

// What is said of the largest file is what opening it takes, and what closing it gives back.
static void test_bytes_of_an_open_file(void **state) {
    (void)state;
    Error err;
    char *f = make_folder(), *name = mem_strdup("default");
    char *a = path_join(f, "a.parquet"), *b = path_join(f, "b.parquet");
    write_rows(a, 0, 300, 100);
    write_rows(b, 300, 400, 1);
    Dataset *d;
    expect(dataset_open(&d, f, &(StringList){1, &name}, &err), &err);
    const double said = (double)dataset_file_bytes(d), before = (double)mem_heap();
    expect(dataset_select(d, 100, &err), &err);
    const double open = (double)mem_heap() - before;
    dataset_unselect(d);
    const double left = (double)mem_heap() - before;
    if (!SANITIZED && (said < 400 * 1000 || open < 0.95 * said || open > 1.05 * said || left > 0.05 * said))
        fail_msg("%.0f bytes are said, %.0f were taken and %.0f not given back", said, open, left);
    dataset_close(d);
    free(a), free(b), free(name);
    remove_folder(f);
}

// ---- the order of rows ----

enum { ROWS = 90 };

// The row numbers of an epoch, through their texts. out holds ROWS.
static size_t row_numbers(size_t *out, Dataset *d, RowStreamSettings settings, uint64_t epoch) {
    Error err;
    RowStream *s;
    size_t n = 0;
    expect(row_stream_open(&s, d, settings, &err), &err);
    row_stream_restart(s, epoch);
    for (RowRef ref;; n++) {
        expect(row_stream_next(s, &ref, &err), &err);
        if (!ref.group) break;
        const uint8_t *bytes;
        size_t first, count, size;
        expect(row_turns(&first, &count, &ref.group->columns, ref.row, &err), &err);
        column_bytes(&bytes, &size, ref.group->columns.user, first);
        assert_true(n < ROWS);
        out[n] = strtoul((const char *)bytes, NULL, 10);
        row_release(&ref);
    }
    row_stream_close(s);
    return n;
}

static void check_split(Dataset *d, bool shuffle, size_t val_size, uint64_t seed) {
    size_t train[3][ROWS], val[2][ROWS], seen[ROWS] = {0};
    RowStreamSettings settings = {.shuffle = shuffle, .seed = seed, .val_size = val_size};
    for (size_t e = 0; e < 3; e++)
        assert_int_equal(row_numbers(train[e], d, settings, e % 2), ROWS - val_size);
    settings.split = ROWS_HELD_OUT;
    for (size_t e = 0; e < 2; e++) assert_int_equal(row_numbers(val[e], d, settings, e), val_size);
    assert_memory_equal(val[0], val[1], val_size * sizeof **val); // the same in all epochs
    assert_memory_equal(train[0], train[2], (ROWS - val_size) * sizeof **train);
    for (size_t i = 0; i < val_size; i++) seen[val[0][i]]++;
    for (size_t i = 0; i < ROWS - val_size; i++) seen[train[0][i]]++;
    for (size_t i = 0; i < ROWS; i++) assert_int_equal(seen[i], 1); // disjoint and complete
    for (size_t i = 0; i < ROWS - val_size; i++) seen[train[1][i]]++;
    for (size_t i = 0; i < val_size; i++) assert_int_equal(seen[val[0][i]], 1);
    bool in_order = true, same = memcmp(train[0], train[1], (ROWS - val_size) * sizeof **train) == 0;
    for (size_t i = 0; i < ROWS - val_size; i++) in_order &= train[0][i] == val_size + i;
    assert_int_equal(in_order, !shuffle);
    assert_int_equal(same, !shuffle);
}

static void test_order_and_split(void **state) {
    (void)state;
    Error err;
    char *f = make_folder(), *name = mem_strdup("default");
    char *a = path_join(f, "a.parquet"), *b = path_join(f, "b.parquet");
    write_rows(a, 0, 50, 7);
    write_rows(b, 50, ROWS - 50, 7);
    Dataset *d;
    RowStream *s;
    expect(dataset_open(&d, f, &(StringList){1, &name}, &err), &err);
    const size_t sizes[] = {0, 1, 7, 20, ROWS - 1};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes - 1; i++) {
        check_split(d, false, sizes[i], 0);
        check_split(d, true, sizes[i], i);
    }
    size_t one[ROWS], other[ROWS];
    row_numbers(one, d, (RowStreamSettings){.shuffle = true, .seed = 1}, 0);
    row_numbers(other, d, (RowStreamSettings){.shuffle = true, .seed = 2}, 0);
    assert_memory_not_equal(one, other, sizeof one);
    assert_false(row_stream_open(&s, d, (RowStreamSettings){.val_size = ROWS}, &err));
    assert_non_null(strstr(err.text, "lower --val_size"));
    dataset_close(d);
    free(a), free(b), free(name);
    remove_folder(f);
}

static void test_unreadable_group(void **state) { // its rows come all the same, to be counted
    (void)state;
    Error err;
    char *f = make_folder(), *name = mem_strdup("default"), *a = path_join(f, "a.parquet"), *bytes;
    write_rows(a, 0, 30, 10);
    size_t size, unreadable = 0, readable = 0;
    expect(file_read(&bytes, &size, a, &err), &err);
    memset(bytes + size * 4 / 10, 0x55, size * 4 / 10); // the last two groups, with headers of pages
    expect(file_write_text(a, bytes, size, &err), &err);
    Dataset *d;
    RowStream *s;
    expect(dataset_open(&d, f, &(StringList){1, &name}, &err), &err);
    expect(row_stream_open(&s, d, (RowStreamSettings){0}, &err), &err);
    for (RowRef ref;;) {
        expect(row_stream_next(s, &ref, &err), &err);
        if (!ref.group) break;
        if (ref.group->batch)
            readable++;
        else
            unreadable++, assert_true(strlen(ref.group->err.text) > 0);
        row_release(&ref);
    }
    assert_int_equal(unreadable, 20);
    assert_int_equal(readable, 10);
    row_stream_restart(s, 0); // a file that vanishes is no data
    unlink(a);
    touch(f, "a.parquet");
    RowRef ref;
    expect(row_stream_next(s, &ref, &err), &err); // still open from before
    row_release(&ref);
    row_stream_close(s);
    dataset_close(d);
    free(bytes), free(a), free(name);
    remove_folder(f);
}

int main(void) {
    log_set_level(LOG_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_find),
        cmocka_unit_test(test_nothing_to_open),
        cmocka_unit_test(test_truncated_among_good),
        cmocka_unit_test(test_bytes_of_an_open_file),
        cmocka_unit_test(test_order_and_split),
        cmocka_unit_test(test_unreadable_group),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
