// LINK: data
// Sources of rows: codecs, ways to hold pictures and ratings, folders of save_to_disk, shards, and what is
// damaged, missing or of a wrong type among them. The files are made by tests/golden/sources/make.py.
#include "support/data_case.h"

#include "base/log.h"
#include "data/row_stream.h"

static Dataset *open_named(const char *path, const char *name) {
    Error err;
    Dataset *d;
    char *copy = mem_strdup(name);
    expect(dataset_open(&d, path, &(StringList){1, &copy}, &err), &err);
    free(copy);
    return d;
}

static void check_refused(const char *path, const char *name, const char *part) {
    Error err;
    Dataset *d;
    char *copy = mem_strdup(name);
    assert_false(dataset_open(&d, path, &(StringList){1, &copy}, &err));
    if (!strstr(err.text, "No valid datasets were loaded.") || !strstr(err.text, part))
        fail_msg("%s: expected a word of '%s', got: %s", path, part, err.text);
    free(copy);
}

// The rows of group g, with their columns.
static RecordBatch *read_group(Dataset *d, size_t g, RowColumns *c) {
    Error err;
    RecordBatch *batch;
    expect(dataset_select(d, g, &err) && dataset_read(&batch, d, g, &err), &err);
    expect(row_columns_bind(c, batch, &err), &err);
    assert_int_equal(record_batch_rows(batch), dataset_group(d, g)->rows);
    return batch;
}

// The number that the first user text of a row begins with.
static size_t row_number(const RowColumns *c, size_t row) {
    Error err;
    const uint8_t *bytes;
    size_t first, count, size;
    expect(row_turns(&first, &count, c, row, &err), &err);
    assert_true(count > 0);
    column_bytes(&bytes, &size, c->user, first);
    return strtoul((const char *)bytes, NULL, 10);
}

// Rows first, first + step, … modulo the modulus are all there, in this order.
static void check_rows(Dataset *d, size_t rows, size_t first, size_t step, size_t modulus) {
    size_t n = 0;
    assert_int_equal(dataset_rows(d), rows);
    for (size_t g = 0; g < dataset_group_count(d); g++) {
        RowColumns c;
        RecordBatch *batch = read_group(d, g, &c);
        assert_true(dataset_group(d, g)->bytes > 0);
        for (size_t i = 0; i < record_batch_rows(batch); i++, n++)
            assert_int_equal(row_number(&c, i), (first + n * step) % modulus);
        record_batch_free(batch);
    }
    assert_int_equal(n, rows);
}

static void put(const char *folder, const char *name, const char *text) {
    Error err;
    char *path = path_join(folder, name), *slash = strrchr(path, '/');
    *slash = '\0';
    expect(file_make_folders(path, &err), &err);
    *slash = '/';
    expect(file_write_text(path, text, strlen(text), &err), &err);
    free(path);
}

// Copies at most `most` bytes of a file of tests/golden/sources.
static void put_copy(const char *folder, const char *name, const char *source, size_t most) {
    put(folder, name, "");
    char *to = path_join(folder, name), *in = path_join("sources", source), *from = golden_path(in);
    copy_file(to, from, most);
    free(to), free(in), free(from);
}

// Calls check with every .arrow and .parquet file of a folder of tests/golden/sources; at least `least` of
// them.
static void each_file(const char *folder, size_t least, void (*check)(const char *path, const char *name)) {
    Error err;
    StringList files;
    size_t n = 0;
    char *in = path_join("sources", folder), *root = golden_path(in);
    expect(file_list(&files, root, &err), &err);
    for (size_t i = 0; i < files.count; i++) {
        if (!strstr(files.items[i], ".arrow") && !strstr(files.items[i], ".parquet")) continue;
        char *path = path_join(root, files.items[i]);
        check(path, files.items[i]);
        free(path);
        n++;
    }
    assert_true(n >= least);
    string_list_free(&files);
    free(in), free(root);
}

// ---- what files may hold ----

static void check_codec(const char *path, const char *name) {
    (void)name;
    Dataset *d = open_named(path, "default");
    assert_int_equal(dataset_group_count(d), 3);
    check_rows(d, 20, 0, 1, 100);
    dataset_close(d);
}

static void test_codecs(void **state) {
    (void)state;
    each_file("codecs", 6, check_codec);
}

static void check_pictures(const char *path, const char *name) {
    Dataset *d = open_named(path, "default");
    bool single = strncmp(name, "one_", 4) == 0;
    size_t row = 0;
    for (size_t g = 0; g < dataset_group_count(d); g++) {
        RowColumns c;
        RecordBatch *batch = read_group(d, g, &c);
        for (size_t i = 0; i < record_batch_rows(batch); i++, row++) {
            size_t first, count, expected = row % 3;
            row_images(&first, &count, &c, i);
            if (single && expected > 1) expected = 1;
            if (count != expected)
                fail_msg("%s: row %zu has %zu pictures, not %zu", path, row, count, expected);
            for (size_t k = 0; k < count; k++) {
                Error err;
                RowImage image;
                char text[32];
                snprintf(text, sizeof text, "picture %zu.%zu", row, k);
                expect(row_image_open(&image, &c, first + k, &err), &err);
                assert_int_equal(image.size, strlen(text));
                assert_memory_equal(image.bytes, text, image.size);
                assert_int_equal(image.owned != NULL, strstr(name, "path") != NULL);
                row_image_close(&image);
            }
        }
        record_batch_free(batch);
    }
    assert_int_equal(row, 7);
    dataset_close(d);
}

static void test_pictures(void **state) {
    (void)state;
    each_file("pictures", 26, check_pictures);
}

static void test_a_picture_file_that_is_missing(void **state) { // an error of its picture, not of its file
    (void)state;
    Error err;
    char *f = make_folder();
    put_copy(f, "rows.arrow", "pictures/list_path.arrow", SIZE_MAX);
    put_copy(f, "files/1.0", "pictures/files/1.0", SIZE_MAX);
    Dataset *d = open_named(f, "default");
    RowColumns c;
    RowImage image;
    size_t first, count;
    RecordBatch *batch = read_group(d, 0, &c);
    row_images(&first, &count, &c, 1);
    expect(row_image_open(&image, &c, first, &err), &err);
    row_image_close(&image);
    row_images(&first, &count, &c, 2);
    assert_false(row_image_open(&image, &c, first, &err));
    assert_non_null(strstr(err.text, f));
    assert_non_null(strstr(err.text, "files/2.0: cannot open"));
    record_batch_free(batch);
    dataset_close(d);
    remove_folder(f);
}

static void check_ratings(const char *path, const char *name) {
    (void)name;
    Dataset *d = open_named(path, "default");
    RowColumns c;
    RecordBatch *batch = read_group(d, 0, &c);
    static const struct {
        int minimum;
        bool first, second;
    } cases[] = {{0, true, true}, {1, true, true}, {2, false, true}, {4, false, true}, {5, false, false}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const int minima[N_RATINGS] = {cases[i].minimum, 9, 9, 9};
        assert_int_equal(row_turn_passes(&c, 0, 0, minima), cases[i].first);
        assert_int_equal(row_turn_passes(&c, 0, 1, minima), cases[i].second);
        assert_true(row_turn_passes(&c, 0, 2, minima));
    }
    record_batch_free(batch);
    dataset_close(d);
}

static void test_ratings(void **state) {
    (void)state;
    each_file("ratings", 6, check_ratings);
}

static void check_wrong_type(const char *path, const char *name) {
    char *column = mem_strndup(name, (size_t)(strchr(name, '-') - name));
    check_refused(path, "default", column);
    check_refused(path, "default", name);
    free(column);
}

static void test_wrong_types(void **state) {
    (void)state;
    each_file("wrong", 24, check_wrong_type);
}

static void check_no_row(const char *path, const char *name) {
    (void)name;
    check_refused(path, "default", "holds no row");
}

static void test_no_rows(void **state) {
    (void)state;
    each_file("empty", 3, check_no_row);
}

// ---- where rows lie ----

static void put_saved(const char *folder, const char *name) {
    char *path = path_join(folder, name);
    put_copy(path, "data-0.arrow", "indexed/data0.arrow", SIZE_MAX);
    put_copy(path, "data-1.arrow", "indexed/data1.arrow", SIZE_MAX);
    put_copy(path, "forgotten.arrow", "indexed/data1.arrow", SIZE_MAX);
    put(path, "dataset_info.json", "{}");
    put(path, "state.json",
        "{\"_data_files\": [{\"filename\": \"data-0.arrow\"}, {\"filename\": \"data-1.arrow\"}],"
        " \"_indices_files\": null}");
    free(path);
}

static void test_saved_folders(void **state) { // as the path, as a configuration, as a DatasetDict
    (void)state;
    char *f = make_folder(), *a = path_join(f, "a"), *dict = path_join(f, "dict");
    put_saved(f, "a");
    put_saved(f, "dict/train");
    put_saved(f, "dict/test");
    put(dict, "dataset_dict.json", "{\"splits\": [\"train\", \"test\"]}");
    const char *const cases[][2] = {{a, "default"}, {f, "a"}, {f, "dict"}, {dict, "default"}, {dict, "all"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Dataset *d = open_named(cases[i][0], cases[i][1]);
        assert_int_equal(dataset_group_count(d), 3);
        check_rows(d, 250, 0, 1, 1000);
        dataset_close(d);
    }
    Dataset *d = open_named(f, "all");
    assert_int_equal(dataset_rows(d), 500);
    dataset_close(d);
    free(a), free(dict);
    remove_folder(f);
}

static void test_indices(void **state) {
    (void)state;
    char *path = golden_path("sources/indexed");
    Dataset *d = open_named(path, "default");
    assert_int_equal(dataset_group_count(d), 3);
    check_rows(d, 240, 0, 77, 250);
    for (size_t g = 3; g-- > 0;) { // backwards
        RowColumns c;
        RecordBatch *batch = read_group(d, g, &c);
        assert_int_equal(row_number(&c, 7), (100 * g + 7) * 77 % 250);
        record_batch_free(batch);
    }
    dataset_close(d);
    free(path);
}

static void put_number(char *folder, size_t shard) {
    char *name = mem_printf("shard_%zu", shard), *path = path_join(folder, name), *file;
    put(path, "state.json", "{\"_data_files\": [{\"filename\": \"data.parquet\"}]}");
    file = path_join(path, "data.parquet");
    write_rows(file, shard, 1, 10);
    free(name), free(path), free(file);
}

static void test_shards(void **state) { // by number, gaps allowed, more than nanoVLM's 56
    (void)state;
    char *f = make_folder(), *names[] = {mem_strdup("other"), mem_strdup("shards")};
    const size_t shards[] = {0, 2, 10, 101};
    Error err;
    Dataset *d;
    check_refused(f, "shards", "holds no folder shard_0");
    for (size_t i = 4; i-- > 0;) put_number(f, shards[i]);
    put(f, "shard_x/state.json", "{}");
    put(f, "shard_3/state.json", "{}"); // damaged
    expect(dataset_open(&d, f, &(StringList){2, names}, &err), &err);
    assert_int_equal(dataset_rows(d), 4);
    for (size_t g = 0; g < 4; g++) {
        RowColumns c;
        RecordBatch *batch = read_group(d, g, &c);
        assert_int_equal(row_number(&c, 0), shards[g]);
        record_batch_free(batch);
    }
    dataset_close(d);
    free(names[0]), free(names[1]);
    remove_folder(f);
}

// ---- damaged folders ----

static void test_bad_state(void **state) {
    (void)state;
    static const struct {
        const char *state, *part;
    } cases[] = {
        {"", "not a JSON object"},
        {"[1]", "not a JSON object"},
        {"{\"_data_files\": [", "not a JSON object"},
        {"{}", "_data_files names no file"},
        {"{\"_data_files\": 3}", "_data_files is not a list"},
        {"{\"_data_files\": [{\"filename\": 3}]}", "_data_files[0] has no filename"},
        {"{\"_data_files\": [\"x.arrow\"]}", "_data_files[0] has no filename"},
        {"{\"_data_files\": [{\"filename\": \"../data0.arrow\"}]}", "expected a file of the same folder"},
        {"{\"_data_files\": [{\"filename\": \"/etc/passwd\"}]}", "expected a file of the same folder"},
        {"{\"_data_files\": [{\"filename\": \"gone.arrow\"}]}", "gone.arrow: cannot open"},
        {"{\"_data_files\": [{\"filename\": \"..\"}]}", "neither a .parquet nor an .arrow file"},
        {"{\"_data_files\": [{\"filename\": \"state.json\"}]}", "expected an Arrow stream or file"},
        {"{\"_data_files\": [{\"filename\": \"data0.arrow\"}, {\"filename\": \"gone.arrow\"}],"
         " \"_indices_files\": [{\"filename\": \"indices.arrow\"}]}",
         "gone.arrow: cannot open"},
        {"{\"_data_files\": [{\"filename\": \"data0.arrow\"}],"
         " \"_indices_files\": [{\"filename\": \"indices.arrow\"}]}",
         "beyond the 150 rows"},
        {"{\"_data_files\": [{\"filename\": \"data0.arrow\"}],"
         " \"_indices_files\": [{\"filename\": \"data0.arrow\"}]}",
         "expected one column of indices"},
        {"{\"_data_files\": [{\"filename\": \"data0.arrow\"}],"
         " \"_indices_files\": [{\"filename\": \"../indices.arrow\"}]}",
         "expected a file of the same folder"},
    };
    char *f = make_folder();
    put_copy(f, "data0.arrow", "indexed/data0.arrow", SIZE_MAX);
    put_copy(f, "indices.arrow", "indexed/indices.arrow", SIZE_MAX);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        put(f, "state.json", cases[i].state);
        check_refused(f, "default", cases[i].part);
    }
    remove_folder(f);
}

static void test_damaged_among_good(void **state) { // each is skipped, the others are read
    (void)state;
    char *f = make_folder(), *last = path_join(f, "z.parquet");
    put_copy(f, "a.arrow", "indexed/data0.arrow", SIZE_MAX);
    put_copy(f, "b_cut.arrow", "indexed/data0.arrow", 3000);
    put_copy(f, "c_cut.parquet", "codecs/zstd.parquet", 700);
    put_copy(f, "d_cut.arrow", "types/file.arrow", 2000);
    put(f, "e_empty.arrow", "");
    put(f, "f_empty.parquet", "");
    put(f, "g_text.arrow", "this is not Arrow at all");
    put_copy(f, "h_wrong.arrow", "wrong/texts-list.arrow", SIZE_MAX);
    put_copy(f, "i_none.arrow", "empty/no_message.arrow", SIZE_MAX);
    write_rows(last, 150, 10, 4); // with ratings, which the first has not
    Dataset *d = open_named(f, "default");
    check_rows(d, 160, 0, 1, 1000);
    dataset_close(d);
    free(last);
    remove_folder(f);
}

static void test_first_rows_that_cannot_be_read(void **state) { // nor can the rest, most likely
    (void)state;
    Error err;
    char *f = make_folder(), *path = path_join(f, "a.parquet"), *bytes;
    size_t size;
    write_rows(path, 0, 20, 10);
    expect(file_read(&bytes, &size, path, &err), &err);
    memset(bytes + 4, 0x55, size / 4);
    expect(file_write_text(path, bytes, size, &err), &err);
    check_refused(f, "default", "a.parquet: row group 0: ");
    free(bytes), free(path);
    remove_folder(f);
}

static void test_files_without_ratings_among_others(void **state) {
    (void)state;
    char *f = make_folder(), *last = path_join(f, "z.parquet");
    put_copy(f, "a.arrow", "indexed/data1.arrow", SIZE_MAX);
    write_rows(last, 0, 4, 4);
    Dataset *d = open_named(f, "default");
    const int minima[N_RATINGS] = {6, 0, 0, 0}; // the ratings that are there are 5
    for (size_t g = 0; g < 2; g++) {
        RowColumns c;
        RecordBatch *batch = read_group(d, g, &c);
        assert_int_equal(row_turn_passes(&c, 0, 0, minima), g == 0);
        record_batch_free(batch);
    }
    dataset_close(d);
    free(last);
    remove_folder(f);
}

static void test_more_rows_than_there_can_be(void **state) { // nothing is set aside for them
    (void)state;
    Error err;
    char *f = make_folder(), *path = path_join(f, "a.arrow"), *bytes;
    size_t size;
    int64_t rows = 70; // of the first batch: in its head
    put_copy(f, "a.arrow", "indexed/data0.arrow", SIZE_MAX);
    expect(file_read(&bytes, &size, path, &err), &err);
    char *length = memmem(bytes, size, &rows, sizeof rows);
    assert_non_null(length);
    const struct {
        int64_t rows;
        const char *part;
    } cases[] = {{(int64_t)1 << 40, "rows are announced for"},
                 {-1, "rows are announced for"},
                 {INT64_MAX, "rows are announced for"},
                 {71, "a.arrow: record batch 0: "}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        memcpy(length, &cases[i].rows, sizeof rows);
        expect(file_write_text(path, bytes, size, &err), &err);
        check_refused(f, "default", cases[i].part);
    }
    free(bytes), free(path);
    remove_folder(f);
}

// The place in an Arrow stream of what says where the header of its second message lies (a flatbuffers
// table).
static char *second_header(char *stream) {
    uint32_t length, root;
    int32_t back;
    memcpy(&length, stream + 4, sizeof length);
    char *metadata = stream + 8 + length + 8; // behind the schema, which has no body
    memcpy(&root, metadata, sizeof root);
    memcpy(&back, metadata + root, sizeof back);
    return metadata + root - back + 4 + 2 * 2; // Message.header is field 2 (format/Message.fbs)
}

static void test_rows_without_a_header(void **state) {
    (void)state;
    Error err;
    char *f = make_folder(), *path = path_join(f, "a.arrow"), *bytes;
    size_t size;
    put_copy(f, "a.arrow", "indexed/data0.arrow", SIZE_MAX);
    expect(file_read(&bytes, &size, path, &err), &err);
    memset(second_header(bytes), 0, 2);
    expect(file_write_text(path, bytes, size, &err), &err);
    check_refused(f, "default", "says nothing of its rows");
    free(bytes), free(path);
    remove_folder(f);
}

// What becomes of the group of a file that was opened before: vanished, another, or cut short.
static void check_change(const char *name, void (*change)(const char *path), const char *part) {
    Error err;
    RecordBatch *batch;
    char *f = make_folder(), *path = path_join(f, name), *source = path_join("indexed", "data0.arrow");
    put_copy(f, name, source, SIZE_MAX);
    put_copy(f, "z.arrow", source, SIZE_MAX);
    Dataset *d = open_named(f, "default");
    expect(dataset_select(d, 2, &err), &err); // z.arrow: the other file is closed
    change(path);
    bool ok = dataset_select(d, 0, &err) && dataset_read(&batch, d, 0, &err);
    if (ok || !strstr(err.text, part) || !strstr(err.text, path)) fail_msg("%s", ok ? "no error" : err.text);
    expect(dataset_select(d, 3, &err) && dataset_read(&batch, d, 3, &err), &err); // the others go on
    record_batch_free(batch);
    dataset_close(d);
    free(path), free(source);
    remove_folder(f);
}

static void vanish(const char *path) {
    unlink(path);
}
static void become_another(const char *path) {
    char *other = golden_path("sources/indexed/data1.arrow");
    copy_file(path, other, SIZE_MAX);
    free(other);
}
static void be_cut(const char *path) {
    assert_int_equal(truncate(path, 2000), 0);
}

static void test_changed_files(void **state) {
    (void)state;
    check_change("a.arrow", vanish, "cannot open");
    check_change("a.arrow", become_another, "changed while it was being read");
    check_change("a.arrow", be_cut, "truncated");
}

static void test_a_mapped_file_cut_short(void **state) { // an error, not a bus error
    (void)state;
    Error err;
    RecordBatch *batch;
    char *f = make_folder(), *path = path_join(f, "a.arrow");
    put_copy(f, "a.arrow", "indexed/data0.arrow", SIZE_MAX);
    Dataset *d = open_named(path, "default");
    expect(dataset_select(d, 1, &err), &err);
    be_cut(path);
    assert_false(dataset_read(&batch, d, 1, &err));
    assert_non_null(strstr(err.text, "bytes when it was opened and now has 2000"));
    dataset_close(d);
    free(path);
    remove_folder(f);
}

int main(void) {
    log_set_level(LOG_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_codecs),
        cmocka_unit_test(test_pictures),
        cmocka_unit_test(test_a_picture_file_that_is_missing),
        cmocka_unit_test(test_ratings),
        cmocka_unit_test(test_wrong_types),
        cmocka_unit_test(test_no_rows),
        cmocka_unit_test(test_saved_folders),
        cmocka_unit_test(test_indices),
        cmocka_unit_test(test_shards),
        cmocka_unit_test(test_bad_state),
        cmocka_unit_test(test_damaged_among_good),
        cmocka_unit_test(test_first_rows_that_cannot_be_read),
        cmocka_unit_test(test_files_without_ratings_among_others),
        cmocka_unit_test(test_more_rows_than_there_can_be),
        cmocka_unit_test(test_rows_without_a_header),
        cmocka_unit_test(test_changed_files),
        cmocka_unit_test(test_a_mapped_file_cut_short),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
