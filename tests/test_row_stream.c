// LINK: data
// COST: 18
// The order of rows as a function of the place; seeking; shares of ranks; validation rows; windows.
#include "support/data_case.h"
#include "support/sanitized.h"

#include "base/log.h"
#include "data/row_stream.h"

enum { ROWS = 500 };

typedef struct Files {
    char *folder;
    Dataset *data;
} Files;

static void open_files(Files *f) {
    Error err;
    char *name = mem_strdup("default");
    f->folder = make_folder();
    char *a = path_join(f->folder, "a.parquet"), *b = path_join(f->folder, "b.parquet");
    write_rows(a, 0, 333, 17);
    write_rows(b, 333, ROWS - 333, 40);
    expect(dataset_open(&f->data, f->folder, &(StringList){1, &name}, &err), &err);
    free(a), free(b), free(name);
}

static void close_files(Files *f) {
    dataset_close(f->data);
    remove_folder(f->folder);
}

static RowStream *open_rows(const Files *f, RowStreamSettings settings) {
    Error err;
    RowStream *s;
    expect(row_stream_open(&s, f->data, settings, &err), &err);
    return s;
}

// The number its text begins with.
static size_t row_number(const RowRef *ref) {
    Error err;
    const uint8_t *bytes;
    size_t first, count, size;
    expect(row_turns(&first, &count, &ref->group->columns, ref->row, &err), &err);
    column_bytes(&bytes, &size, ref->group->columns.user, first);
    return strtoul((const char *)bytes, NULL, 10);
}

// All rows that still come; places[i] (opt) of row out[i].
static size_t take(size_t *out, uint64_t *places, RowStream *s) {
    Error err;
    size_t n = 0;
    for (RowRef ref;; n++) {
        expect(row_stream_next(s, &ref, &err), &err);
        if (!ref.group) return n;
        assert_true(n < ROWS);
        out[n] = row_number(&ref);
        assert_int_equal(ref.number, out[n]);
        if (places) places[n] = ref.place;
        row_release(&ref);
    }
}

static size_t take_epoch(size_t *out, RowStream *s, uint64_t epoch) {
    uint64_t places[ROWS];
    row_stream_restart(s, epoch);
    size_t n = take(out, places, s);
    assert_int_equal(n, row_stream_rows(s));
    for (size_t i = 0; i < n; i++) assert_int_equal(places[i], i);
    return n;
}

// ---- orders ----

static const RowStreamSettings orders[] = {
    {.shuffle = true, .seed = 1, .window_bytes = 1},        // a group a window
    {.shuffle = true, .seed = 2, .window_bytes = 30000},    // several
    {.shuffle = true, .seed = 3, .window_bytes = SIZE_MAX}, // all
    {.val_size = 20},
    {.shuffle_buffer = 1, .seed = 4},
    {.shuffle_buffer = 7, .seed = 5},
    {.shuffle_buffer = 64, .seed = 6},
    {.shuffle_buffer = SIZE_MAX, .seed = 7},
    {.shuffle = true, .seed = 8, .window_bytes = 50000, .val_size = 100, .rank = 1, .world_size = 3},
    {.shuffle_buffer = 30, .seed = 9, .val_size = 100, .rank = 2, .world_size = 3},
};
enum { N_ORDERS = sizeof orders / sizeof *orders };

static void test_windows_are_as_small_as_asked(void **state) {
    (void)state;
    Files f;
    open_files(&f);
    size_t largest = 0, all = 0;
    for (size_t i = 0; i < dataset_group_count(f.data); i++) {
        const size_t bytes = dataset_group(f.data, i)->bytes;
        if (bytes > largest) largest = bytes;
        all += bytes;
    }
    for (size_t n = 1; n <= 3; n++) {
        const size_t window = n * largest;
        RowStream *s = open_rows(&f, (RowStreamSettings){.shuffle = true, .window_bytes = window});
        assert_true(all > 4 * window);
        assert_in_range(row_stream_bytes(s), window, 2 * window); // of two windows
        row_stream_close(s);
    }
    // The second window's group is among the first one's, too, and counts once.
    RowStream *s = open_rows(&f, (RowStreamSettings){.shuffle_buffer = dataset_rows(f.data) - 1});
    assert_int_equal(row_stream_bytes(s), all);
    row_stream_close(s);
    close_files(&f);
}

static void test_any_place(void **state) { // whatever was read before
    (void)state;
    const size_t places = SANITIZED ? 5 : 12; // the first and the last, and random ones
    Files f;
    open_files(&f);
    Random r = random_stream(3, RANDOM_TEST, 0);
    for (size_t k = 0; k < N_ORDERS; k++) {
        RowStream *s = open_rows(&f, orders[k]), *other = open_rows(&f, orders[k]);
        for (uint64_t epoch = 0; epoch < 3; epoch++) {
            size_t want[ROWS], got[ROWS], n = take_epoch(want, s, epoch);
            for (size_t i = 0; i < places; i++) {
                const uint64_t from = i < 2 ? i * n : random_below(&r, n + 1);
                uint64_t single[ROWS], at[ROWS];
                size_t n_single = 0;
                for (uint64_t p = 0; p < from; p++)
                    if (random_below(&r, 9) == 0) single[n_single++] = p;
                row_stream_seek(other, epoch, single, n_single, from);
                assert_int_equal(take(got, at, other), n_single + n - from);
                for (size_t j = 0; j < n_single + n - from; j++) {
                    assert_int_equal(at[j], j < n_single ? single[j] : from + (j - n_single));
                    assert_int_equal(got[j], want[at[j]]);
                }
            }
        }
        row_stream_close(s), row_stream_close(other);
    }
    close_files(&f);
}

static bool is_sorted(const size_t *rows, size_t n) {
    for (size_t i = 1; i < n; i++)
        if (rows[i] < rows[i - 1]) return false;
    return true;
}

static void test_shuffle_buffer(void **state) { // rows stay in their block, and change places there
    (void)state;
    Files f;
    open_files(&f);
    const size_t sizes[] = {2, 7, 100, 499};
    for (size_t k = 0; k < 4; k++) {
        const size_t N = sizes[k];
        RowStream *s = open_rows(&f, (RowStreamSettings){.shuffle_buffer = N, .seed = 3});
        size_t rows[2][ROWS];
        for (uint64_t epoch = 0; epoch < 2; epoch++) {
            assert_int_equal(take_epoch(rows[epoch], s, epoch), ROWS);
            for (size_t i = 0; i < ROWS; i++) assert_int_equal(rows[epoch][i] / N, i / N);
            assert_false(is_sorted(rows[epoch], ROWS));
        }
        assert_memory_not_equal(rows[0], rows[1], sizeof rows[0]); // each epoch in its own order
        row_stream_close(s);
    }
    RowStream *s = open_rows(&f, (RowStreamSettings){.shuffle_buffer = 0});
    size_t rows[ROWS];
    assert_int_equal(take_epoch(rows, s, 1), ROWS);
    assert_true(is_sorted(rows, ROWS));
    row_stream_close(s);
    close_files(&f);
}

static void test_windows_differ(void **state) { // random numbers belong to the window, not to all of them
    (void)state;
    Files f;
    open_files(&f);
    enum { N = 50 };
    RowStream *s = open_rows(&f, (RowStreamSettings){.shuffle_buffer = N, .seed = 3});
    size_t rows[ROWS], same = 0;
    take_epoch(rows, s, 0);
    for (size_t w = 1; w < ROWS / N; w++)
        for (size_t i = 0; i < N; i++) same += rows[w * N + i] % N == rows[i] % N;
    assert_true(same < 50); // by chance 9
    row_stream_close(s);
    close_files(&f);
}

static void test_shuffle_window(void **state) { // rows leave their group only when the window holds several
    (void)state;
    Files f;
    open_files(&f);
    for (size_t k = 0; k < 2; k++) {
        RowStream *s = open_rows(&f, orders[k]);
        size_t rows[ROWS], changes = 0;
        take_epoch(rows, s, 0);
        for (size_t i = 1; i < ROWS; i++) {
            const size_t a = rows[i - 1], b = rows[i];
            changes += (a < 333 ? a / 17 : 100 + (a - 333) / 40) != (b < 333 ? b / 17 : 100 + (b - 333) / 40);
        }
        if (k == 0)
            assert_int_equal(changes, dataset_group_count(f.data) - 1);
        else
            assert_true(changes > 5 * dataset_group_count(f.data));
        row_stream_close(s);
    }
    close_files(&f);
}

// ---- ranks and validation ----

static void check_shares(const Files *f, RowStreamSettings settings) {
    unsigned seen[ROWS] = {0};
    size_t rows[ROWS], smallest = ROWS, largest = 0;
    for (settings.rank = 0; settings.rank < settings.world_size; settings.rank++) {
        size_t total = 0;
        for (int split = 0; split < 2; split++) {
            settings.split = split ? ROWS_HELD_OUT : ROWS_TRAINING;
            RowStream *s = open_rows(f, settings);
            size_t n = take_epoch(rows, s, 5);
            if (split) assert_int_equal(n, settings.val_size / settings.world_size);
            for (size_t i = 0; i < n; i++) seen[rows[i]]++;
            total += n;
            row_stream_close(s);
        }
        if (total < smallest) smallest = total;
        if (total > largest) largest = total;
    }
    for (size_t i = 0; i < ROWS; i++) assert_int_equal(seen[i], 1);
    assert_true(largest - smallest <= 1);
}

static void test_ranks(void **state) { // over all ranks and splits, every row once
    (void)state;
    Files f;
    open_files(&f);
    const size_t worlds[] = {1, 2, 3, 7, 64}, val_sizes[] = {0, 1, 60, 130};
    for (size_t w = 0; w < 5; w++)
        for (size_t v = 0; v < 4; v++)
            for (size_t k = 0; k < 8; k += 2) {
                // 2048 streams of 64 ranks; under the sanitizers each size and each order once
                if (SANITIZED && worlds[w] == 64 && k / 2 != v) continue;
                RowStreamSettings s = orders[k];
                s.world_size = worlds[w], s.val_size = val_sizes[v];
                check_shares(&f, s);
            }
    close_files(&f);
}

static void test_streaming_shares(void **state) { // one behind the other, the first rows are validation
    (void)state;
    Files f;
    open_files(&f);
    size_t rows[ROWS];
    for (size_t rank = 0; rank < 3; rank++) {
        RowStreamSettings settings = {.rank = rank, .world_size = 3, .val_size = 30};
        const size_t first = rank == 0 ? 0 : 167 * rank; // 167 + 167 + 166
        RowStream *train = open_rows(&f, settings);
        settings.split = ROWS_HELD_OUT;
        RowStream *val = open_rows(&f, settings);
        assert_int_equal(take_epoch(rows, val, 0), 10);
        for (size_t i = 0; i < 10; i++) assert_int_equal(rows[i], first + i);
        assert_int_equal(take_epoch(rows, train, 0), rank < 2 ? 157 : 156);
        assert_true(is_sorted(rows, 156) && rows[0] == first + 10);
        row_stream_close(train), row_stream_close(val);
    }
    close_files(&f);
}

// Groups in which validation has few rows take the memory of these alone.
static void test_few_rows_take_little(void **state) {
    (void)state;
    Files f;
    open_files(&f);
    double shares[2]; // of the groups' pages
    for (int split = 0; split < 2; split++) {
        const RowStreamSettings settings = {.split = split ? ROWS_HELD_OUT : ROWS_TRAINING,
                                            .shuffle = true,
                                            .window_bytes = 1 << 20,
                                            .seed = 1,
                                            .val_size = 40};
        RowStream *s = open_rows(&f, settings);
        Error err;
        RowRef ref;
        size_t pages, taken;
        expect(row_stream_next(s, &ref, &err), &err);
        assert_int_equal(ref.group->kept != NULL, split);
        row_stream_held(&pages, &taken, s);
        shares[split] = (double)taken / (double)pages;
        row_release(&ref);
        row_stream_close(s);
    }
    if (shares[1] > shares[0] / 3) fail_msg("%g of the pages, all rows %g", shares[1], shares[0]);
    close_files(&f);
}

static void test_too_many_validation_rows(void **state) {
    (void)state;
    Error err;
    RowStream *s;
    Files f;
    open_files(&f);
    RowStreamSettings settings = {.val_size = ROWS, .rank = 1, .world_size = 4};
    assert_false(row_stream_open(&s, f.data, settings, &err));
    assert_non_null(strstr(err.text, "125 for each of 4 ranks"));
    size_t rows[ROWS];
    settings.split = ROWS_OWN; // of its own data set as many as there are
    const size_t sizes[] = {0, 40, ROWS, 10 * ROWS}, want[] = {125, 10, 125, 125};
    for (size_t i = 0; i < 4; i++) {
        settings.val_size = sizes[i];
        s = open_rows(&f, settings);
        assert_int_equal(take_epoch(rows, s, 0), want[i]);
        row_stream_close(s);
    }
    close_files(&f);
}

// ---- reading ahead ----

static void test_reading_ahead(void **state) { // the window behind the current one, and no more
    (void)state;
    Error err;
    Files f;
    open_files(&f);
    RowStream *s = open_rows(&f, (RowStreamSettings){.shuffle_buffer = 100, .seed = 1});
    size_t want[ROWS], n = 0, reads = 0;
    take_epoch(want, s, 0);
    row_stream_restart(s, 0);
    for (RowRef ref;; row_release(&ref)) {
        if (row_stream_need(s) == ROWS_NEED_NOW) {
            RowWindow *w = row_stream_read(s, &err);
            assert_non_null(w);
            row_stream_put(s, w);
            reads++;
            assert_true(row_stream_need(s) == ROWS_NEED_NOTHING); // none is wanted while one waits
        }
        if (n == 40) assert_int_equal(reads, 1);
        if (n == 60) assert_int_equal(reads, 2); // half of the window has gone
        assert_true(row_stream_ready(s));
        expect(row_stream_next(s, &ref, &err), &err);
        if (!ref.group) break;
        assert_int_equal(row_number(&ref), want[n++]);
    }
    assert_int_equal(n, ROWS);
    assert_int_equal(reads, 5);
    row_stream_close(s);
    close_files(&f);
}

int main(void) {
    log_set_level(LOG_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_windows_are_as_small_as_asked),
        cmocka_unit_test(test_any_place),
        cmocka_unit_test(test_shuffle_buffer),
        cmocka_unit_test(test_windows_differ),
        cmocka_unit_test(test_shuffle_window),
        cmocka_unit_test(test_ranks),
        cmocka_unit_test(test_streaming_shares),
        cmocka_unit_test(test_few_rows_take_little),
        cmocka_unit_test(test_too_many_validation_rows),
        cmocka_unit_test(test_reading_ahead),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
