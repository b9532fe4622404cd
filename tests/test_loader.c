// LINK: data
// COST: 15
// The loader: batches that do not depend on the number of threads, epochs and splits, rows that are skipped
// and counted, shutdown at any time.
#include "support/loader_case.h"

#include "base/log.h"

#include <pthread.h>

// ---- tests ----

static void check_thread_counts(Case *k) {
    const size_t threads[] = {0, 1, 2, 7};
    Seen first = {0};
    for (size_t i = 0; i < 4; i++) {
        k->config.options.num_workers = threads[i];
        Seen s = one_epoch(k, LOADER_TRAIN, 0);
        assert_true(s.batches > 5);
        if (i == 0)
            first = s;
        else
            expect_same(&first, &s), free(s.hashes);
    }
    print_message("%s, %s: %zu batches, %zu samples, %zu images, %zu tiles, %.1f%% full\n",
                  k->config.options.packing, k->config.train.stream_dataset ? "streamed" : "shuffled",
                  first.batches, first.samples, first.images, first.tiles,
                  100.0 * (double)first.tokens / (double)(first.batches * 2 * k->config.vlm.lm_max_length));
    free(first.hashes);
}

static void test_threads_do_not_matter(void **state) {
    (void)state;
    Case k;
    begin(&k);
    for (size_t i = 0; i < 4; i++) {
        k.config.train.stream_dataset = i % 2;
        set_text(&k.config.options.packing, i < 2 ? "best" : "nanovlm");
        check_thread_counts(&k);
    }
    end(&k);
}

static void
test_epochs(void **state) { // each epoch by its number alone, in whatever order and after whatever part
    (void)state;
    Error err;
    Case k;
    begin(&k);
    k.config.train.stream_dataset = false;
    Seen want[3], got;
    for (uint64_t e = 0; e < 3; e++) want[e] = one_epoch(&k, LOADER_TRAIN, e);
    assert_true(differ(&want[0], &want[1]) && differ(&want[1], &want[2]));
    k.config.options.num_workers = 2;
    Loader *l = open_split(&k, LOADER_TRAIN);
    const uint64_t epochs[] = {2, 0, 1, 1};
    for (size_t i = 0; i < 4; i++) {
        const Batch *b;
        for (size_t part = 0; part < i * 3; part++) expect(loader_next(l, &b, &err), &err);
        usleep(50000); // let the threads run ahead
        LoaderCounts before = loader_counts(l);
        expect(loader_restart(l, epochs[i], &err), &err);
        got = take_epoch(l, &k.config, k.tokenizer);
        assert_int_equal(got.counts.rows - before.rows, GOOD_ROWS); // rows read ahead do not count twice
        assert_int_equal(got.counts.batches - before.batches, want[epochs[i]].batches);
        assert_false(differ(&got, &want[epochs[i]]));
        free(got.hashes);
        expect(loader_next(l, &b, &err), &err); // the end stays the end
        assert_null(b);
    }
    loader_close(l);
    for (size_t e = 0; e < 3; e++) free(want[e].hashes);
    end(&k);
}

// Marks in `rows` the numbers that the answers of a batch begin with, which must be the rows it names.
static void mark_rows(unsigned *rows, const Batch *b, const Tokenizer *t) {
    char *text = tokenizer_decode(t, b->input_ids, b->B * b->T, false);
    size_t n = 0;
    for (const char *at = text; (at = strstr(at, "<|im_start|>assistant\n")); at++) {
        unsigned long row = strtoul(at + strlen("<|im_start|>assistant\n"), NULL, 10);
        assert_true(row < GOOD_ROWS && n < b->n_samples);
        assert_int_equal(b->rows[n++], row);
        rows[row]++;
    }
    assert_int_equal(n, b->n_samples);
    free(text);
}

static size_t rows_of_split(unsigned *rows, const Case *k, LoaderSplit split) {
    Error err;
    Loader *l = open_split(k, split);
    size_t samples = 0;
    for (const Batch *b;;) {
        expect(loader_next(l, &b, &err), &err);
        if (!b) break;
        mark_rows(rows, b, k->tokenizer);
        samples += b->n_samples;
    }
    loader_close(l);
    return samples;
}

static void test_splits(void **state) {
    (void)state;
    Case k;
    begin(&k);
    k.config.train.val_size = 120;
    for (int shuffled = 0; shuffled < 2; shuffled++) {
        unsigned train[GOOD_ROWS] = {0}, val[GOOD_ROWS] = {0};
        k.config.train.stream_dataset = !shuffled;
        k.config.options.num_workers = 1 + (size_t)shuffled;
        size_t n_train = rows_of_split(train, &k, LOADER_TRAIN),
               n_val = rows_of_split(val, &k, LOADER_VALIDATION);
        assert_true(n_train > 250 && n_train <= 280 && n_val > 90 && n_val <= 120);
        for (size_t i = 0; i < GOOD_ROWS; i++) {
            assert_true(train[i] + val[i] <= 1);
            if (!shuffled) assert_int_equal(i < 120 ? train[i] : val[i], 0);
        }
        Seen a = one_epoch(&k, LOADER_VALIDATION, 0), b = one_epoch(&k, LOADER_VALIDATION, 5);
        expect_same(&a, &b); // validation is the same in every epoch
        free(a.hashes), free(b.hashes);
    }
    end(&k);
}

static void test_val_size_too_large(void **state) {
    (void)state;
    Error err;
    Loader *l;
    Case k;
    begin(&k);
    k.config.train.val_size = GOOD_ROWS;
    assert_false(loader_open(&l, &k.config, k.tokenizer, LOADER_TRAIN, &err));
    assert_non_null(strstr(err.text, "lower --val_size"));
    end(&k);
}

// ---- a validation data set of its own ----

static void test_val_dataset(void **state) { // training keeps all its rows, validation has val_size others
    (void)state;
    Case k;
    begin(&k);
    char *other = make_folder(), *path = path_join(other, "validation.parquet");
    write_rows(path, 1000, 200, 32);
    set_text(&k.config.options.val_dataset_path, path);
    const size_t val_sizes[] = {0, 90, 1000}, want[] = {200, 90, 200};
    for (size_t i = 0; i < 3; i++) {
        k.config.train.val_size = val_sizes[i];
        k.config.train.stream_dataset = i % 2;
        Seen train = one_epoch(&k, LOADER_TRAIN, 0), val = one_epoch(&k, LOADER_VALIDATION, 0);
        assert_int_equal(train.counts.rows, GOOD_ROWS);
        assert_int_equal(val.counts.rows, want[i]);
        assert_true(val.batches > 5);
        free(train.hashes), free(val.hashes);
    }
    Error err;
    Loader *l;
    set_text(&k.config.options.val_dataset_path, "/nowhere/at.parquet");
    assert_false(loader_open(&l, &k.config, k.tokenizer, LOADER_VALIDATION, &err));
    assert_non_null(strstr(err.text, "val_dataset_path"));
    free(path);
    remove_folder(other);
    end(&k);
}

// ---- pictures stand where their tokens are ----

enum { COLOURED_ROWS = 120 };

// Row i has i % 3 pictures, all of one colour that tells i.
static void write_coloured_rows(const char *folder) {
    Error err;
    ParquetWriter *w;
    char *path = path_join(folder, "coloured.parquet"), text[16];
    expect(parquet_create(&w, path, 16, &err), &err);
    for (size_t i = 0; i < COLOURED_ROWS; i++) {
        Image image = {10 + i % 17, 10 + i % 7, NULL};
        image.rgb = mem_alloc(image.width * image.height * 3);
        memset(image.rgb, (int)(2 * i), image.width * image.height * 3);
        unsigned char *png;
        size_t size;
        expect(image_encode_png(&png, &size, &image, &err), &err);
        snprintf(text, sizeof text, "%zu", i);
        FineVisionImage images[2] = {{png, size, NULL}, {png, size, NULL}};
        FineVisionTurn turn = {"u", text, 5, 5, 5, 5};
        expect(parquet_write_row(w, &(FineVisionRow){images, i % 3, &turn, 1, NULL}, &err), &err);
        image_free(&image);
        free(png);
    }
    expect(parquet_finish(w, &err), &err);
    free(path);
}

// Tiles of the sample whose text begins at `sample`; *row becomes its number.
static size_t sample_tile_count(const char *sample, size_t tile_tokens, unsigned long *row) {
    const char *answer = strstr(sample, "<|im_start|>assistant\n");
    assert_non_null(answer);
    *row = strtoul(answer + strlen("<|im_start|>assistant\n"), NULL, 10);
    size_t tokens = 0;
    for (const char *at = sample; (at = strstr(at, "<|image|>")) && at < answer; at++) tokens++;
    return tokens / tile_tokens;
}

static size_t check_colours(const Batch *b, const Config *c, const Tokenizer *t) {
    char *text = tokenizer_decode(t, b->input_ids, b->B * b->T, false);
    size_t tile = 0, samples = 0, values = 3 * c->vlm.vit_img_size * c->vlm.vit_img_size;
    for (const char *at = text; (at = strstr(at, "<|im_start|>user\n")); at++, samples++) {
        unsigned long row;
        size_t n = sample_tile_count(at, c->vlm.mp_image_token_length, &row);
        assert_true(row % 3 ? n >= row % 3 : n == 0);
        for (size_t i = 0; i < n * values; i++)
            assert_float_equal(b->images[tile * values + i], (float)(2 * row) / 255, 1e-6);
        tile += n;
    }
    assert_int_equal(tile, b->n_tiles);
    assert_int_equal(samples, b->n_samples);
    free(text);
    return samples;
}

static void test_pictures_and_tokens_agree(void **state) {
    (void)state;
    Error err;
    Case k = {.folder = make_folder()};
    write_coloured_rows(k.folder);
    data_config(&k.config, k.folder, "default");
    k.config.options.num_workers = 2;
    k.tokenizer = data_tokenizer(&k.config);
    Loader *l = open_split(&k, LOADER_TRAIN);
    size_t samples = 0;
    for (const Batch *b;;) {
        expect(loader_next(l, &b, &err), &err);
        if (!b) break;
        samples += check_colours(b, &k.config, k.tokenizer);
    }
    assert_true(samples > COLOURED_ROWS * 8 / 10);
    loader_close(l);
    end(&k);
}

// ---- rows that are skipped ----

typedef struct BadRows {
    ParquetWriter *writer;
    unsigned char *png;
    size_t png_size;
} BadRows;

static void put(BadRows *w, size_t n_images, const void *bytes, size_t size, const char *answer,
                int64_t rating) {
    Error err;
    FineVisionImage images[8];
    for (size_t i = 0; i < n_images; i++) images[i] = (FineVisionImage){bytes, size, NULL};
    FineVisionTurn turn = {"question", answer, rating, 5, 5, 5};
    expect(parquet_write_row(w->writer, &(FineVisionRow){images, n_images, &turn, 1, NULL}, &err), &err);
}

static void put_good(BadRows *w, size_t n) {
    for (size_t i = 0; i < n; i++) put(w, 1, w->png, w->png_size, "answer", 5);
}

// 203 rows: 193 good, 3 broken, 2 filtered, 1 with too many pictures, 4 too long; a cut file and a good one
// beside it.
static void write_bad_rows(const char *folder) {
    Error err;
    char *path = path_join(folder, "bad.parquet"), *cut = path_join(folder, "cut.parquet");
    char *more = path_join(folder, "more.parquet"), long_answer[1000];
    memset(long_answer, 'x', sizeof long_answer);
    long_answer[sizeof long_answer - 1] = '\0';
    BadRows w = {0};
    w.png = make_png(&w.png_size, 40, 30, 1);
    expect(parquet_create(&w.writer, path, 10, &err), &err);
    put_good(&w, 90);
    put(&w, 1, w.png, w.png_size / 2, "cut", 5);
    put(&w, 1, "no picture", 10, "text", 5);
    put(&w, 2, "", 0, "empty", 5);
    put(&w, 1, w.png, w.png_size, "filtered", 0);
    put(&w, 1, w.png, w.png_size, "filtered", 0);
    put(&w, 5, w.png, w.png_size, "many", 5);
    for (size_t i = 0; i < 4; i++) put(&w, 1, w.png, w.png_size, long_answer, 5);
    put_good(&w, 103);
    expect(parquet_finish(w.writer, &err), &err);
    copy_file(cut, path, 3000);
    write_rows(more, 0, 20, 10);
    free(w.png);
    free(path), free(cut), free(more);
}

static void test_skipped_rows(void **state) {
    (void)state;
    for (size_t threads = 0; threads < 3; threads += 2) {
        Case k = {.folder = make_folder()};
        write_bad_rows(k.folder);
        data_config(&k.config, k.folder, "default");
        k.config.options.num_workers = threads;
        k.tokenizer = data_tokenizer(&k.config);
        Seen s = one_epoch(&k, LOADER_TRAIN, 0);
        assert_int_equal(s.counts.rows, 223);
        assert_int_equal(s.counts.skipped_unreadable, 3);
        assert_int_equal(s.counts.skipped_ratings, 2);
        assert_int_equal(s.counts.skipped_images, 1);
        assert_int_equal(s.counts.skipped_too_long, 4);
        assert_int_equal(s.counts.samples, 213);
        assert_int_equal(s.counts.batches, s.batches);
        assert_true(s.batches > 5 && s.samples <= 213 && s.samples > 200);
        free(s.hashes);
        end(&k);
    }
}

static void test_unreadable_groups(void **state) {
    (void)state;
    Error err;
    Case k;
    begin(&k);
    char *a = path_join(k.folder, "a.parquet"), *bytes;
    size_t size;
    expect(file_read(&bytes, &size, a, &err), &err);
    memset(bytes + size * 4 / 10, 0x55, size * 4 / 10);
    expect(file_write_text(a, bytes, size, &err), &err);
    k.config.options.num_workers = 2;
    Seen s = one_epoch(&k, LOADER_TRAIN, 0);
    print_message("%llu rows in damaged groups\n", (unsigned long long)s.counts.skipped_unreadable);
    assert_int_equal(s.counts.rows, GOOD_ROWS);
    assert_true(s.counts.skipped_unreadable >= 32 && s.counts.skipped_unreadable <= 118);
    assert_int_equal(s.counts.samples + s.counts.skipped_unreadable, GOOD_ROWS);
    free(s.hashes), free(bytes), free(a);
    end(&k);
}

static void
test_no_pictures(void **state) { // all batches are skipped: an error, for the trainer would turn for ever
    (void)state;
    Error err;
    const Batch *b;
    Case k;
    begin(&k);
    k.config.train.max_images_per_example = 0;
    Loader *l = open_split(&k, LOADER_TRAIN);
    assert_false(loader_next(l, &b, &err));
    assert_non_null(strstr(err.text, "no batch"));
    LoaderCounts c = loader_counts(l);
    assert_int_equal(c.skipped_images, GOOD_ROWS * 3 / 4);
    assert_true(c.skipped_no_image > 0 && c.batches == 0);
    assert_false(loader_next(l, &b, &err)); // and stays one
    loader_close(l);
    end(&k);
}

static void test_text_only(void **state) { // a data set without any picture: the error says so
    (void)state;
    Error err;
    const Batch *b;
    Case k = {.folder = make_folder()};
    char *path = path_join(k.folder, "a.parquet");
    BadRows w = {0};
    expect(parquet_create(&w.writer, path, 10, &err), &err);
    for (size_t i = 0; i < 100; i++) put(&w, 0, NULL, 0, "answer", 5);
    expect(parquet_finish(w.writer, &err), &err);
    data_config(&k.config, k.folder, "default");
    k.tokenizer = data_tokenizer(&k.config);
    Loader *l = open_split(&k, LOADER_TRAIN);
    assert_false(loader_next(l, &b, &err));
    assert_non_null(strstr(err.text, "100 are samples"));
    assert_non_null(strstr(err.text, "batches have no picture"));
    assert_true(loader_counts(l).skipped_no_image > 0);
    loader_close(l);
    l = open_split(&k, LOADER_VALIDATION); // no rows: no batch, no error
    expect(loader_next(l, &b, &err), &err);
    assert_null(b);
    loader_close(l);
    free(path);
    end(&k);
}

static void
test_nothing_fits(void **state) { // a sequence shorter than any sample, or room for no tile of one
    (void)state;
    for (size_t i = 0; i < 4; i++) {
        Error err;
        const Batch *b;
        Case k;
        begin(&k);
        set_text(&k.config.options.packing, i % 2 ? "nanovlm" : "best");
        k.config.options.num_workers = i;
        if (i < 2)
            k.config.vlm.lm_max_length = 10;
        else
            k.config.options.max_tiles = 2;
        Loader *l = open_split(&k, LOADER_TRAIN);
        assert_false(loader_next(l, &b, &err));
        assert_non_null(strstr(err.text, "no batch"));
        LoaderCounts c = loader_counts(l);
        assert_int_equal(c.rows, GOOD_ROWS);
        if (i < 2) assert_int_equal(c.skipped_too_long, GOOD_ROWS);
        if (i >= 2) assert_true(c.skipped_images > 0 && c.skipped_images + c.samples == GOOD_ROWS);
        loader_close(l);
        end(&k);
    }
}

// The data set gets out of reach: the batches before that come, then the error. The restart stands behind it,
// or threads would race to read the file while it is still there.
static void test_vanished_file(void **state) {
    (void)state;
    size_t batches[2] = {0};
    for (size_t i = 0; i < 2; i++) {
        Error err;
        Case k;
        begin(&k);
        k.config.options.num_workers = 2 * i;
        k.config.train.stream_dataset = true;
        Loader *l = open_split(&k, LOADER_TRAIN);
        char *b_path = path_join(k.folder, "b.parquet");
        unlink(b_path);
        free(b_path);
        expect(loader_restart(l, 0, &err), &err);
        const Batch *b;
        while (loader_next(l, &b, &err) && b) batches[i]++;
        print_message("%zu batches, then: %s\n", batches[i], b ? "" : err.text);
        assert_non_null(strstr(err.text, "b.parquet"));
        assert_false(loader_next(l, &b, &err));
        loader_close(l);
        end(&k);
    }
    assert_true(batches[0] > 0 && batches[1] == batches[0]);
}

// ---- ranks ----

enum { RANKS = 3 };

// What stands for the processes' agreement: everybody says whether it has a batch, and waits for the others.
typedef struct Agreement {
    pthread_barrier_t barrier;
    size_t having; // atomic
} Agreement;

static bool agree(void *state, bool has_batch) {
    Agreement *a = state;
    if (has_batch) __atomic_add_fetch(&a->having, 1, __ATOMIC_SEQ_CST);
    pthread_barrier_wait(&a->barrier);
    const bool all = __atomic_load_n(&a->having, __ATOMIC_SEQ_CST) == RANKS;
    if (pthread_barrier_wait(&a->barrier) == PTHREAD_BARRIER_SERIAL_THREAD) a->having = 0;
    pthread_barrier_wait(&a->barrier);
    return all;
}

typedef struct Rank {
    const Case *k;
    LoaderRanks ranks;
    size_t batches[3]; // of each epoch
    LoaderCounts counts[3];
    bool failed[3], stays_ended;
    Error err;
} Rank;

// No assertions here: cmocka's leave only the main thread.
static void *run_rank(void *state) {
    Rank *r = state;
    Loader *l;
    r->failed[0] = !loader_open_rank(&l, &r->k->config, r->k->tokenizer, LOADER_TRAIN, r->ranks, &r->err);
    if (r->failed[0]) return NULL;
    for (size_t e = 0; e < 3; e++) {
        const Batch *b;
        if (e > 0) loader_restart(l, e, &r->err);
        for (;;) {
            r->failed[e] = !loader_next(l, &b, &r->err);
            if (r->failed[e] || !b) break;
            r->batches[e]++;
        }
        r->counts[e] = loader_counts(l);
        r->stays_ended = loader_next(l, &b, NULL) == !r->failed[e] && !b; // asks nobody again
    }
    loader_close(l);
    return NULL;
}

static void run_ranks(Rank *r, const Case *k, bool agreeing) {
    Agreement a = {.having = 0};
    pthread_t threads[RANKS];
    pthread_barrier_init(&a.barrier, NULL, RANKS);
    for (size_t i = 0; i < RANKS; i++) {
        r[i] = (Rank){.k = k, .ranks = {i, RANKS, agreeing ? agree : NULL, &a}};
        assert_int_equal(pthread_create(&threads[i], NULL, run_rank, &r[i]), 0);
    }
    for (size_t i = 0; i < RANKS; i++) pthread_join(threads[i], NULL);
    pthread_barrier_destroy(&a.barrier);
}

// n rows, of which the last n/3 lose `lost` in 10 by their rating.
static void begin_uneven(Case *k, size_t n, size_t lost) {
    Error err;
    k->folder = make_folder();
    char *path = path_join(k->folder, "a.parquet");
    BadRows w = {0};
    w.png = make_png(&w.png_size, 40, 30, 1);
    expect(parquet_create(&w.writer, path, 10, &err), &err);
    for (size_t i = 0; i < n; i++)
        put(&w, 1, w.png, w.png_size, "answer", i >= n - n / 3 && i % 10 < lost ? 0 : 5);
    expect(parquet_finish(w.writer, &err), &err);
    data_config(&k->config, k->folder, "default");
    k->tokenizer = data_tokenizer(&k->config);
    free(w.png), free(path);
}

static void test_ranks_end_together(void **state) {
    (void)state;
    Rank alone[RANKS], together[RANKS];
    Case k;
    begin_uneven(&k, 300, 8);
    for (size_t i = 0; i < 2; i++) {
        bool differ = false;
        k.config.train.stream_dataset = i == 0;
        k.config.options.num_workers = 1 + i;
        run_ranks(alone, &k, false);
        run_ranks(together, &k, true);
        for (size_t e = 0; e < 3; e++) {
            size_t fewest = SIZE_MAX;
            for (size_t r = 0; r < RANKS; r++) {
                if (alone[r].batches[e] < fewest) fewest = alone[r].batches[e];
                differ |= alone[r].batches[e] != alone[0].batches[e];
            }
            for (size_t r = 0; r < RANKS; r++) {
                assert_false(together[r].failed[e]);
                assert_int_equal(together[r].batches[e], fewest);
                assert_int_equal(together[r].counts[e].batches, fewest * (e + 1));
                assert_true(together[r].stays_ended);
            }
            const LoaderCounts *c = together[0].counts;
            assert_true(e == 0 || c[e].rows > c[e - 1].rows);
        }
        assert_true(differ); // else there was nothing to agree on
    }
    end(&k);
}

static void test_a_rank_without_batches(void **state) { // ends the others' epoch, which is an error for all
    (void)state;
    Rank r[RANKS];
    Case k;
    begin_uneven(&k, 60, 10);
    run_ranks(r, &k, false);
    size_t without = 0, with = 0;
    for (size_t i = 0; i < RANKS; i++) without += r[i].batches[0] == 0, with += r[i].batches[0] > 0;
    print_message("%zu ranks have batches, %zu none\n", with, without);
    assert_true(with > 0 && without > 0);
    run_ranks(r, &k, true);
    for (size_t i = 0; i < RANKS; i++) {
        assert_true(r[i].failed[0] && r[i].batches[0] == 0 && r[i].stays_ended);
        assert_non_null(strstr(r[i].err.text, "no"));
    }
    end(&k);
}

// ---- limits and shutdown ----

static void test_max_tiles(void **state) {
    (void)state;
    Case k;
    Error err;
    Loader *l;
    begin(&k);
    for (size_t i = 0; i < 2; i++) {
        set_text(&k.config.options.packing, i ? "nanovlm" : "best");
        k.config.options.max_tiles = 0;
        assert_int_equal(loader_max_tiles(&k.config), 2 * (256 / 5));
        k.config.options.max_tiles = 13;
        assert_int_equal(loader_max_tiles(&k.config), 12);
        Seen s = one_epoch(&k, LOADER_TRAIN, 0); // checks each batch
        assert_true(s.counts.samples == GOOD_ROWS && s.batches > 0);
        free(s.hashes);
    }
    k.config.options.max_tiles = 8; // 4 a sequence: too few for the pictures of 5 tiles
    Seen s = one_epoch(&k, LOADER_TRAIN, 0);
    assert_true(s.counts.skipped_images > 0 && s.counts.samples + s.counts.skipped_images == GOOD_ROWS);
    free(s.hashes);
    k.config.options.max_tiles = 1;
    assert_false(loader_open(&l, &k.config, k.tokenizer, LOADER_TRAIN, &err));
    end(&k);
}

static void test_close_anywhere(void **state) {
    (void)state;
    Error err;
    Case k;
    begin(&k);
    for (size_t i = 0; i < 60; i++) {
        const Batch *b;
        k.config.options.num_workers = i % 4;
        k.config.options.prefetch_factor = 1 + i % 3;
        Loader *l = open_split(&k, i % 7 ? LOADER_TRAIN : LOADER_VALIDATION);
        for (size_t n = 0; n < i / 4; n++) expect(loader_next(l, &b, &err), &err);
        if (i % 5 == 0) expect(loader_restart(l, i, &err), &err);
        loader_close(l);
    }
    loader_close(NULL);
    end(&k);
}

// A picture without compression, which is decoded as a whole.
static unsigned char *make_bmp(size_t *size, unsigned width, unsigned height) {
    const unsigned stride = (3 * width + 3) / 4 * 4;
    *size = 54 + stride * height;
    unsigned char *bytes = mem_zeroed(*size, 1);
    memcpy(bytes, "BM", 2);
    const struct {
        size_t at;
        unsigned value;
    } fields[] = {{10, 54}, {14, 40}, {18, width}, {22, height}, {26, 1}, {28, 24}};
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        bytes[fields[i].at] = (unsigned char)fields[i].value;
        bytes[fields[i].at + 1] = (unsigned char)(fields[i].value >> 8);
    }
    return bytes;
}

// What decoding takes counts once for each thread: here of every second picture its pixels, because it is
// made smaller; and a batch of 6 pictures of 3 or 5 tiles has 24 of them, though there is room for more
// tokens.
static void test_memory_of_building(void **state) {
    (void)state;
    Error err;
    Config c;
    ParquetWriter *w;
    char *folder = make_folder(), *path = path_join(folder, "train.parquet");
    expect(parquet_create(&w, path, 10, &err), &err);
    for (size_t i = 0; i < 40; i++) {
        size_t size;
        unsigned char *bmp = make_bmp(&size, i % 2 ? 200 : 20, i % 2 ? 100 : 20);
        const FineVisionImage image = {bmp, size, NULL};
        const FineVisionTurn turn = {"what?", "this", 5, 5, 5, 5};
        expect(parquet_write_row(w, &(FineVisionRow){&image, 1, &turn, 1, NULL}, &err), &err);
        free(bmp);
    }
    expect(parquet_finish(w, &err), &err);
    data_config(&c, folder, "default");
    Tokenizer *t = data_tokenizer(&c);
    for (size_t workers = 0; workers < 4; workers += 3) {
        Loader *l;
        c.options.num_workers = workers;
        c.options.prefetch_factor = 1;
        c.train.max_images_per_knapsack = 3;
        expect(loader_open(&l, &c, t, LOADER_TRAIN, &err), &err);
        const LoaderMemory m = loader_memory(l);
        const double mean = (double)m.building / (double)(workers ? workers : 1);
        assert_in_range(m.mean_tiles, 20, 28);
        if (mean < 0.7 * 30000 || mean > 1.3 * 30000) fail_msg("%g bytes for each thread", mean);
        loader_close(l);
    }
    tokenizer_free(t);
    config_free(&c);
    remove_folder(folder);
    free(path);
}

// Of 16 rows 8 fit a sequence, which together give one batch of two: no more samples wait, and no more slots
// are filled, than that.
static void test_memory_of_few_rows(void **state) {
    (void)state;
    enum { ROWS = 16, LONG = 1000 };
    Error err;
    Config c;
    ParquetWriter *w;
    Loader *l;
    char *folder = make_folder(), *path = path_join(folder, "train.parquet"), text[LONG + 1] = "";
    memset(text, 'a', LONG);
    expect(parquet_create(&w, path, 10, &err), &err);
    for (size_t i = 0; i < ROWS; i++) {
        size_t size;
        unsigned char *bmp = make_bmp(&size, 20, 20);
        const FineVisionImage image = {bmp, size, NULL};
        const FineVisionTurn turn = {i % 2 ? text : "what?", "this", 5, 5, 5, 5};
        expect(parquet_write_row(w, &(FineVisionRow){&image, 1, &turn, 1, NULL}, &err), &err);
        free(bmp);
    }
    expect(parquet_finish(w, &err), &err);
    data_config(&c, folder, "default");
    c.train.max_sample_length = 2 * LONG;
    c.options.prefetch_factor = 2;
    Tokenizer *t = data_tokenizer(&c);
    expect(loader_open(&l, &c, t, LOADER_TRAIN, &err), &err);
    const LoaderMemory m = loader_memory(l);
    assert_int_equal(m.slots, 1);
    assert_in_range(m.busy.samples, ROWS / 2 * 20 * 20 * 3, ROWS / 2 * 4000);
    loader_close(l);
    tokenizer_free(t);
    config_free(&c);
    remove_folder(folder);
    free(path);
}

int main(void) {
    log_set_level(LOG_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_threads_do_not_matter),
        cmocka_unit_test(test_epochs),
        cmocka_unit_test(test_splits),
        cmocka_unit_test(test_val_size_too_large),
        cmocka_unit_test(test_val_dataset),
        cmocka_unit_test(test_ranks_end_together),
        cmocka_unit_test(test_a_rank_without_batches),
        cmocka_unit_test(test_pictures_and_tokens_agree),
        cmocka_unit_test(test_skipped_rows),
        cmocka_unit_test(test_unreadable_groups),
        cmocka_unit_test(test_no_pictures),
        cmocka_unit_test(test_text_only),
        cmocka_unit_test(test_nothing_fits),
        cmocka_unit_test(test_vanished_file),
        cmocka_unit_test(test_max_tiles),
        cmocka_unit_test(test_close_anywhere),
        cmocka_unit_test(test_memory_of_building),
        cmocka_unit_test(test_memory_of_few_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
