// LINK: data
// The loader: batches that do not depend on the number of threads, epochs and splits, rows that are skipped
// and counted, shutdown at any time.
#include "support/data_case.h"

#include "base/log.h"
#include "data/loader.h"

// ---- what came out ----

typedef struct Seen {
    uint64_t *hashes; // one a batch
    size_t batches, samples, images, tiles, tokens;
    LoaderCounts counts;
} Seen;

static uint64_t hash_bytes(uint64_t h, const void *bytes, size_t n) {
    for (size_t i = 0; i < n; i++) h = (h ^ ((const uint8_t *)bytes)[i]) * 0x100000001b3u;
    return h;
}

static uint64_t batch_hash(const Batch *b, size_t tile) {
    size_t positions = b->B * b->T * sizeof(int32_t);
    uint64_t h = hash_bytes(0xcbf29ce484222325u, b->input_ids, positions);
    h = hash_bytes(h, b->attention_mask, positions);
    h = hash_bytes(h, b->labels, positions);
    h = hash_bytes(h, b->starts, positions);
    return hash_bytes(h, b->images, b->n_tiles * tile * sizeof *b->images);
}

static void check_batch(const Batch *b, const Config *c, const Tokenizer *t) {
    size_t image_tokens = 0, samples = 0;
    assert_int_equal(b->B, c->train.batch_size);
    assert_int_equal(b->T, c->vlm.lm_max_length);
    assert_true(b->n_images > 0 && b->n_tiles >= b->n_images && b->n_samples >= b->B);
    assert_true(b->n_tiles <= loader_max_tiles(c));
    for (size_t i = 0; i < b->B * b->T; i++) {
        image_tokens += b->input_ids[i] == tokenizer_extra_id(t, "image_token");
        samples += b->attention_mask[i] && b->starts[i] == (int32_t)(i % b->T);
        if (b->attention_mask[i] == 0) {
            assert_int_equal(b->input_ids[i], tokenizer_eos_id(t));
            assert_int_equal(b->labels[i], IGNORE_INDEX);
        }
    }
    assert_int_equal(image_tokens, b->n_tiles * c->vlm.mp_image_token_length);
    assert_int_equal(samples, b->n_samples);
    size_t P = c->vlm.vit_img_size;
    for (size_t i = 0; i < b->n_tiles * 3 * P * P; i++) assert_true(b->images[i] >= 0 && b->images[i] <= 1);
}

static void take(Seen *s, const Batch *b, const Config *c) {
    s->hashes = mem_resize(s->hashes, (s->batches + 1) * sizeof *s->hashes);
    s->hashes[s->batches++] = batch_hash(b, 3 * c->vlm.vit_img_size * c->vlm.vit_img_size);
    s->samples += b->n_samples, s->images += b->n_images, s->tiles += b->n_tiles;
    for (size_t i = 0; i < b->B * b->T; i++) s->tokens += (size_t)b->attention_mask[i];
}

static Seen take_epoch(Loader *l, const Config *c, const Tokenizer *t) {
    Error err;
    Seen s = {0};
    for (const Batch *b;;) {
        expect(loader_next(l, &b, &err), &err);
        if (!b) break;
        check_batch(b, c, t);
        take(&s, b, c);
    }
    s.counts = loader_counts(l);
    return s;
}

static void expect_same(const Seen *a, const Seen *b) {
    assert_int_equal(a->batches, b->batches);
    assert_memory_equal(a->hashes, b->hashes, a->batches * sizeof *a->hashes);
    assert_memory_equal(&a->counts, &b->counts, sizeof a->counts);
}

static bool differ(const Seen *a, const Seen *b) {
    return a->batches != b->batches || memcmp(a->hashes, b->hashes, a->batches * sizeof *a->hashes) != 0;
}

// ---- a data set of good and bad rows ----

enum { GOOD_ROWS = 400 };

typedef struct Case {
    Config config;
    Tokenizer *tokenizer;
    char *folder;
} Case;

static void begin(Case *k) {
    k->folder = make_folder();
    char *a = path_join(k->folder, "a.parquet"), *b = path_join(k->folder, "b.parquet");
    write_rows(a, 0, 150, 32);
    write_rows(b, 150, GOOD_ROWS - 150, 32);
    data_config(&k->config, k->folder, "default");
    k->tokenizer = data_tokenizer(&k->config);
    free(a), free(b);
}

static void end(Case *k) {
    tokenizer_free(k->tokenizer);
    config_free(&k->config);
    remove_folder(k->folder);
}

static Loader *open_split(const Case *k, LoaderSplit split) {
    Error err;
    Loader *l;
    expect(loader_open(&l, &k->config, k->tokenizer, split, &err), &err);
    return l;
}

static Seen one_epoch(const Case *k, LoaderSplit split, uint64_t epoch) {
    Error err;
    Loader *l = open_split(k, split);
    if (epoch) expect(loader_restart(l, epoch, &err), &err);
    Seen s = take_epoch(l, &k->config, k->tokenizer);
    loader_close(l);
    return s;
}

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

static void test_skip(void **state) { // the batches behind the ones passed over are the same
    (void)state;
    Error err;
    const Batch *b;
    Case k;
    begin(&k);
    for (size_t threads = 0; threads < 3; threads += 2) {
        k.config.options.num_workers = threads;
        Seen all = one_epoch(&k, LOADER_TRAIN, 1);
        Loader *l = open_split(&k, LOADER_TRAIN);
        expect(loader_restart(l, 1, &err), &err);
        expect(loader_skip(l, 3, &err), &err);
        expect(loader_next(l, &b, &err), &err); // number 3 is with us
        expect(loader_skip(l, 4, &err), &err);
        Seen rest = take_epoch(l, &k.config, k.tokenizer);
        assert_int_equal(rest.batches, all.batches - 8);
        assert_memory_equal(rest.hashes, all.hashes + 8, rest.batches * sizeof *rest.hashes);
        assert_memory_equal(&rest.counts, &all.counts, sizeof all.counts);
        expect(loader_restart(l, 1, &err), &err);
        assert_false(loader_skip(l, all.batches + 1, &err));
        assert_non_null(strstr(err.text, "fewer"));
        loader_close(l);
        free(all.hashes), free(rest.hashes);
    }
    end(&k);
}

// Marks in `rows` the numbers that the user messages of a batch begin with ("<|im_start|>user\n…17?").
static void mark_rows(unsigned *rows, const Batch *b, const Tokenizer *t) {
    char *text = tokenizer_decode(t, b->input_ids, b->B * b->T, false);
    for (const char *at = text; (at = strstr(at, "<|im_start|>assistant\n")); at++) {
        unsigned long row = strtoul(at + strlen("<|im_start|>assistant\n"), NULL, 10);
        assert_true(row < GOOD_ROWS);
        rows[row]++;
    }
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

static void
test_vanished_file(void **state) { // the data set is out of reach: batches before that come, then the error
    (void)state;
    for (size_t threads = 0; threads < 3; threads += 2) {
        Error err;
        Case k;
        begin(&k);
        k.config.options.num_workers = threads;
        k.config.train.stream_dataset = true;
        Loader *l = open_split(&k, LOADER_TRAIN);
        expect(loader_restart(l, 0, &err), &err);
        char *b_path = path_join(k.folder, "b.parquet");
        unlink(b_path);
        free(b_path);
        const Batch *b;
        size_t batches = 0;
        while (loader_next(l, &b, &err) && b) batches++;
        print_message("%zu batches, then: %s\n", batches, b ? "" : err.text);
        assert_non_null(strstr(err.text, "b.parquet"));
        assert_false(loader_next(l, &b, &err));
        loader_close(l);
        end(&k);
    }
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

int main(void) {
    log_set_level(LOG_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_threads_do_not_matter),
        cmocka_unit_test(test_epochs),
        cmocka_unit_test(test_skip),
        cmocka_unit_test(test_splits),
        cmocka_unit_test(test_val_size_too_large),
        cmocka_unit_test(test_pictures_and_tokens_agree),
        cmocka_unit_test(test_skipped_rows),
        cmocka_unit_test(test_unreadable_groups),
        cmocka_unit_test(test_no_pictures),
        cmocka_unit_test(test_vanished_file),
        cmocka_unit_test(test_max_tiles),
        cmocka_unit_test(test_close_anywhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
