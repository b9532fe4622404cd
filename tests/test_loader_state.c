// LINK: train
// COST: 35
// Saving a loader and restoring it elsewhere: the batches behind are the same to the bit, whatever the number
// of threads; bytes that are no state of this data and these settings are errors.
#include "support/loader_case.h"
#include "support/sanitized.h"

#include "base/log.h"
#include "train/batch_source.h"

enum { ROWS = 600, EPOCHS = 3, POINTS = 20, MOST_BATCHES = 600 };

// ---- a run without interruption ----

typedef struct Run {
    uint64_t hashes[EPOCHS][MOST_BATCHES];
    size_t batches[EPOCHS];
    LoaderCounts counts[EPOCHS]; // at the end of each
} Run;

typedef struct Point {
    size_t epoch, given; // given: batches taken before saving; one more than there are: the end was told too
    CharVec state;
} Point;

static size_t tile_values(const Case *k) {
    return 3 * k->config.vlm.vit_img_size * k->config.vlm.vit_img_size;
}

// The next batch's hash; false at the end of the epoch.
static bool next_hash(uint64_t *hash, Loader *l, const Case *k) {
    Error err;
    const Batch *b;
    expect(loader_next(l, &b, &err), &err);
    if (b) *hash = batch_hash(b, tile_values(k));
    return b != NULL;
}

static void save_points(Loader *l, Point *points, size_t n, size_t epoch, size_t given) {
    for (size_t i = 0; i < n; i++)
        if (points[i].epoch == epoch && points[i].given == given) loader_save(l, &points[i].state);
}

// Takes all epochs, and saves at the points on its way.
static void take_run(Run *run, const Case *k, Point *points, size_t n) {
    Error err;
    Loader *l = open_split(k, LOADER_TRAIN);
    for (size_t e = 0; e < EPOCHS; e++) {
        if (e > 0) expect(loader_restart(l, e, &err), &err);
        save_points(l, points, n, e, 0);
        uint64_t hash;
        size_t i = 0;
        for (; next_hash(&hash, l, k); save_points(l, points, n, e, i)) {
            assert_true(i < MOST_BATCHES);
            run->hashes[e][i++] = hash;
        }
        save_points(l, points, n, e, i + 1);
        run->batches[e] = i;
        run->counts[e] = loader_counts(l);
    }
    loader_close(l);
}

// Restores a point and compares what follows: a few batches, or all up to the end and the next epoch's first.
static void check_rest(const Run *want, const Case *k, const Point *p, bool all) {
    Error err;
    Loader *l = open_split(k, LOADER_TRAIN);
    CharVec again = {0};
    uint64_t hash;
    if (p->given % 2) assert_true(next_hash(&hash, l, k)); // whatever it did before
    expect(loader_restore(l, p->state.items, p->state.count, &err), &err);
    loader_save(l, &again);
    assert_int_equal(again.count, p->state.count);
    assert_memory_equal(again.items, p->state.items, again.count);
    size_t i = p->given, end = want->batches[p->epoch], last = all || i + 4 > end ? end : i + 4;
    for (; i < last; i++) {
        assert_true(next_hash(&hash, l, k));
        assert_true(hash == want->hashes[p->epoch][i]);
    }
    if (last == end) {
        assert_false(next_hash(&hash, l, k));
        LoaderCounts counts = loader_counts(l);
        assert_memory_equal(&counts, &want->counts[p->epoch], sizeof counts);
    }
    if (all && p->epoch + 1 < EPOCHS) {
        expect(loader_restart(l, p->epoch + 1, &err), &err);
        for (size_t b = 0; b < 3; b++)
            assert_true(next_hash(&hash, l, k) && hash == want->hashes[p->epoch + 1][b]);
    }
    vec_free(&again);
    loader_close(l);
}

// ---- 20 random points, 1, 2 and 7 threads ----

static void choose_points(Point *points, const Run *run, uint64_t seed) {
    Random r = random_stream(seed, RANDOM_TEST, 0);
    for (size_t i = 0; i < POINTS; i++) {
        const size_t e = i < 4 ? i % 2 + 1 : (size_t)random_below(&r, EPOCHS), n = run->batches[e];
        const size_t at = i == 0 || i == 1 ? 0
                          : i == 2         ? n
                          : i == 3         ? n + 1
                                           : (size_t)random_below(&r, n + 1);
        points[i] = (Point){.epoch = e, .given = at};
    }
}

// every: each point is restored under each number of threads, not (as always under the sanitizers) under one
// of them in turn.
static void check_points(Case *k, uint64_t seed, bool every) {
    const size_t threads[] = {1, 2, 7};
    Run want, run;
    Point points[3][POINTS];
    size_t largest = 0;
    k->config.options.num_workers = 0;
    take_run(&want, k, NULL, 0);
    for (size_t t = 0; t < 3; t++) {
        choose_points(points[t], &want, seed);
        k->config.options.num_workers = threads[t];
        take_run(&run, k, points[t], POINTS);
        assert_memory_equal(run.batches, want.batches, sizeof run.batches);
        for (size_t e = 0; e < EPOCHS; e++)
            assert_memory_equal(run.hashes[e], want.hashes[e], want.batches[e] * sizeof **want.hashes);
    }
    for (size_t i = 0; i < POINTS; i++) {
        for (size_t t = 0; t < 3; t++) { // the same bytes, whoever saved them
            assert_int_equal(points[t][i].state.count, points[0][i].state.count);
            assert_memory_equal(points[t][i].state.items, points[0][i].state.items, points[0][i].state.count);
        }
        if (points[0][i].state.count > largest) largest = points[0][i].state.count;
        for (size_t t = 0; t < (every && !SANITIZED ? 3 : 1); t++) {
            k->config.options.num_workers = threads[(t + i) % 3];
            check_rest(&want, k, &points[t][i], (i + t) % 3 == 0);
        }
    }
    for (size_t t = 0; t < 3; t++)
        for (size_t i = 0; i < POINTS; i++) vec_free(&points[t][i].state);
    print_message(
        "%-7s %s, buffer %4zu, window %zu MiB: %zu + %zu + %zu batches, states of up to %zu bytes\n",
        k->config.options.packing, k->config.train.stream_dataset ? "streamed" : "shuffled",
        k->config.options.shuffle_buffer, k->config.options.shuffle_window, want.batches[0], want.batches[1],
        want.batches[2], largest);
}

static void begin_large(Case *k) {
    k->folder = make_folder();
    char *a = path_join(k->folder, "a.parquet"), *b = path_join(k->folder, "b.parquet");
    write_rows(a, 0, 330, 32);
    write_rows(b, 330, ROWS - 330, 32);
    data_config(&k->config, k->folder, "default");
    k->config.vlm.lm_max_length = k->config.train.max_sample_length = 128; // several rounds of the packer
    k->config.vlm.vit_img_size = 16, k->config.vlm.max_img_size = 32;      // as many tiles, of fewer pixels
    k->tokenizer = data_tokenizer(&k->config);
    free(a), free(b);
}

static void test_best(void **state) {
    (void)state;
    Case k;
    begin_large(&k);
    for (size_t i = 0; i < 3; i++) {
        k.config.train.stream_dataset = i > 0;
        k.config.options.shuffle_buffer = i == 2 ? 50 : 0; // crosses groups of 32
        k.config.options.shuffle_window = 0;               // a group each
        k.config.options.seed = i;
        check_points(&k, i, i == 0);
    }
    end(&k);
}

static void test_nanovlm(void **state) {
    (void)state;
    Case k;
    begin_large(&k);
    set_text(&k.config.options.packing, "nanovlm");
    for (size_t i = 0; i < 2; i++) {
        k.config.train.stream_dataset = i == 1;
        check_points(&k, 10 + i, i == 0);
    }
    end(&k);
}

static void test_validation_and_ranks(void **state) { // their own epochs and shares can be restored too
    (void)state;
    Error err;
    Case k;
    begin_large(&k);
    k.config.train.val_size = 300;
    for (size_t rank = 0; rank < 2; rank++) {
        const LoaderRanks ranks = {.rank = rank, .world_size = 2};
        uint64_t want[5], hash;
        Loader *a, *b;
        CharVec saved = {0};
        expect(loader_open_rank(&a, &k.config, k.tokenizer, LOADER_VALIDATION, ranks, &err), &err);
        expect(loader_open_rank(&b, &k.config, k.tokenizer, LOADER_VALIDATION, ranks, &err), &err);
        for (size_t i = 0; i < 5; i++) {
            if (i == 2) loader_save(a, &saved);
            assert_true(next_hash(&want[i], a, &k));
        }
        expect(loader_restore(b, saved.items, saved.count, &err), &err);
        for (size_t i = 2; i < 5; i++) assert_true(next_hash(&hash, b, &k) && hash == want[i]);
        loader_close(a), loader_close(b);
        vec_free(&saved);
    }
    end(&k);
}

static void test_batch_source(void **state) { // a run does it through its source
    (void)state;
    Error err;
    Case k;
    begin(&k);
    Loader *a = open_split(&k, LOADER_TRAIN), *b = open_split(&k, LOADER_TRAIN);
    const BatchSource from = batch_source_of_loader(a), to = batch_source_of_loader(b);
    CharVec place = {0};
    uint64_t want, got;
    for (size_t i = 0; i < 4; i++) assert_true(next_hash(&want, a, &k));
    from.save(from.state, &place);
    expect(to.restore(to.state, place.items, place.count, &err), &err);
    assert_true(next_hash(&want, a, &k) && next_hash(&got, b, &k) && want == got);
    assert_false(to.restore(to.state, place.items, place.count - 1, &err));
    loader_close(a), loader_close(b);
    vec_free(&place);
    end(&k);
}

// ---- a few kilobytes ----

// Rows of text with the lengths of a mix of golden/packing; every eighth has a small picture.
static void write_lengths(const char *folder, const char *name, size_t most) {
    Error err;
    ParquetWriter *w;
    char *path = path_join(folder, "a.parquet"), *lengths = golden_path("packing/%s", name);
    json_t *all = json_load_file(lengths, 0, NULL);
    assert_non_null(all);
    expect(parquet_create(&w, path, 100, &err), &err);
    for (size_t i = 0; i < json_array_size(all); i++) {
        size_t size, n = (size_t)json_integer_value(json_array_get(json_array_get(all, i), 0));
        n = n < most ? n : most;
        unsigned char *png = make_png(&size, 8, 8, i);
        char *text = mem_zeroed(n + 1, 1);
        memset(text, 'x', n);
        FineVisionImage image = {png, size, NULL};
        FineVisionTurn turn = {"q", text, 5, 5, 5, 5};
        expect(parquet_write_row(w, &(FineVisionRow){&image, i % 8 == 0, &turn, 1, NULL}, &err), &err);
        free(png), free(text);
    }
    expect(parquet_finish(w, &err), &err);
    json_decref(all);
    free(path), free(lengths);
}

static void test_size(void **state) { // sequences of 4096 tokens, samples of 300
    (void)state;
    const char *packings[] = {"best", "nanovlm"};
    for (size_t i = 0; i < 4; i++) {
        Case k = {.folder = make_folder()};
        write_lengths(k.folder, "lengths_text300_4096.json", 3000);
        data_config(&k.config, k.folder, "default");
        k.config.vlm.lm_max_length = k.config.train.max_sample_length = 4096;
        k.config.options.num_workers = 2;
        k.config.train.stream_dataset = i / 2;
        set_text(&k.config.options.packing, packings[i % 2]);
        k.tokenizer = data_tokenizer(&k.config);
        Loader *l = open_split(&k, LOADER_TRAIN);
        CharVec saved = {0};
        size_t largest = 0, batches = 0;
        for (uint64_t hash; next_hash(&hash, l, &k); batches++) {
            vec_clear(&saved);
            loader_save(l, &saved);
            if (saved.count > largest) largest = saved.count;
        }
        print_message("%-7s %s: states of up to %zu bytes in %zu batches\n", packings[i % 2],
                      i / 2 ? "streamed" : "shuffled", largest, batches);
        assert_true(batches > 20 && largest > 200 && largest < 8192);
        vec_free(&saved);
        loader_close(l);
        end(&k);
    }
}

// ---- what is no state of this data and these settings ----

static CharVec state_after(const Case *k, size_t batches) {
    Loader *l = open_split(k, LOADER_TRAIN);
    CharVec saved = {0};
    uint64_t hash;
    for (size_t i = 0; i < batches; i++) assert_true(next_hash(&hash, l, k));
    loader_save(l, &saved);
    loader_close(l);
    return saved;
}

static void expect_refused(const Case *k, const CharVec *state, const char *names) {
    Error err = {""};
    Loader *l = open_split(k, LOADER_TRAIN);
    if (loader_restore(l, state->items, state->count, &err)) fail_msg("%s: was accepted", names);
    if (!strstr(err.text, names)) fail_msg("%s is not named: %s", names, err.text);
    uint64_t hash;
    assert_true(next_hash(&hash, l, k)); // it stands at the beginning
    loader_close(l);
}

static void test_other_settings(void **state) {
    (void)state;
    Case k;
    begin(&k);
    Config *c = &k.config;
    CharVec saved = state_after(&k, 3);
#define REFUSED(field, value, names)                                                                         \
    do {                                                                                                     \
        __typeof__(field) before = field;                                                                    \
        field = value;                                                                                       \
        expect_refused(&k, &saved, names);                                                                   \
        field = before;                                                                                      \
    } while (0)
    REFUSED(c->options.seed, 1, "seed 0, now it is 1");
    REFUSED(c->options.packing, "nanovlm", "packing");
    REFUSED(c->options.shuffle_buffer, 7, "shuffle_buffer 0, now it is 7");
    REFUSED(c->options.max_tiles, 40, "max_tiles");
    REFUSED(c->options.long_samples, "truncate", "long_samples");
    REFUSED(c->options.jpeg_reduced_scale, true, "jpeg_reduced_scale 0, now it is 1");
    REFUSED(c->train.stream_dataset, false, "stream_dataset 1, now it is 0");
    REFUSED(c->train.val_size, 10, "val_size");
    REFUSED(c->train.batch_size, 1, "batch_size");
    REFUSED(c->train.max_sample_length, 100, "max_sample_length 256, now it is 100");
    REFUSED(c->train.max_images_per_example, 2, "max_images_per_example");
    REFUSED(c->train.max_images_per_knapsack, 2, "max_images_per_knapsack");
    REFUSED(c->train.relevance_min_rating, -1, "relevance_min_rating 1, now it is -1");
    REFUSED(c->train.image_correspondence_min_rating, 2, "image_correspondence_min_rating 1, now it is 2");
    REFUSED(c->train.visual_dependency_min_rating, 2, "visual_dependency_min_rating 1, now it is 2");
    REFUSED(c->train.formatting_min_rating, 2, "formatting_min_rating 1, now it is 2");
    REFUSED(c->vlm.vit_img_size, 16, "vit_img_size 32, now it is 16");
    REFUSED(c->vlm.max_img_size, 32, "max_img_size 64, now it is 32");
    REFUSED(c->vlm.lm_max_length, 255, "lm_max_length");
    REFUSED(c->vlm.mp_image_token_length, 5, "mp_image_token_length");
    REFUSED(c->vlm.resize_to_max_side_len, false, "resize_to_max_side_len");
#undef REFUSED
    vec_free(&saved);
    end(&k);
}

static void test_other_rows(void **state) {
    (void)state;
    Case k;
    begin(&k);
    CharVec saved = state_after(&k, 3);
    char *more = path_join(k.folder, "c.parquet");
    write_rows(more, 0, 5, 5);
    expect_refused(&k, &saved, "rows of the data set 400, now it is 405");
    unlink(more);
    char *a = path_join(k.folder, "a.parquet");
    write_rows(a, 0, 150, 33);
    expect_refused(&k, &saved, "files and row groups"); // the same rows, cut otherwise
    expect_refused(&k, &(CharVec){0}, "no saved data position");
    free(more), free(a);
    vec_free(&saved);
    end(&k);
}

static void test_other_rank(void **state) {
    (void)state;
    Error err;
    Case k;
    begin(&k);
    CharVec saved = state_after(&k, 2);
    Loader *l;
    expect(loader_open_rank(&l, &k.config, k.tokenizer, LOADER_TRAIN,
                            (LoaderRanks){.rank = 1, .world_size = 2}, &err),
           &err);
    assert_false(loader_restore(l, saved.items, saved.count, &err));
    assert_non_null(strstr(err.text, "rank 0, now it is 1"));
    loader_close(l);
    vec_free(&saved);
    end(&k);
}

// The same files and groups, but other texts: seen when the samples that wait are built again.
static void test_other_content(void **state) {
    (void)state;
    Error err;
    const Batch *b;
    Case k;
    begin(&k);
    CharVec saved = state_after(&k, 3);
    char *a = path_join(k.folder, "a.parquet"), *b_path = path_join(k.folder, "b.parquet");
    write_rows(a, 7, 150, 32);
    write_rows(b_path, 157, GOOD_ROWS - 150, 32);
    for (size_t threads = 0; threads < 3; threads += 2) {
        k.config.options.num_workers = threads;
        Loader *l = open_split(&k, LOADER_TRAIN);
        expect(loader_restore(l, saved.items, saved.count, &err), &err);
        assert_false(loader_next(l, &b, &err));
        assert_non_null(strstr(err.text, "changed"));
        assert_false(loader_next(l, &b, &err));
        expect(loader_restart(l, 0, &err), &err); // and can begin anew
        expect(loader_next(l, &b, &err), &err);
        assert_non_null(b);
        loader_close(l);
    }
    free(a), free(b_path);
    vec_free(&saved);
    end(&k);
}

static void test_vanished_after_saving(void **state) {
    (void)state;
    Error err;
    const Batch *b;
    Case k;
    begin(&k);
    CharVec saved = state_after(&k, 3);
    Loader *l = open_split(&k, LOADER_TRAIN);
    char *a = path_join(k.folder, "a.parquet");
    unlink(a);
    expect(loader_restore(l, saved.items, saved.count, &err), &err);
    assert_false(loader_next(l, &b, &err));
    assert_non_null(strstr(err.text, "a.parquet"));
    loader_close(l);
    free(a);
    vec_free(&saved);
    end(&k);
}

// ---- bytes that may hold anything ----

static void put_checksum(CharVec *state) {
    const size_t tail = sizeof(uint64_t);
    state->count -= tail;
    bytes_put_u64(state, bytes_hash(BYTES_HASH, state->items, state->count));
}

// Accepted or not, nothing may break. Returns whether it was accepted.
static bool try_state(Loader *l, const CharVec *state, const Case *k) {
    Error err = {""};
    const Batch *b = NULL;
    if (!loader_restore(l, state->items, state->count, &err)) {
        assert_true(strlen(err.text) > 0);
        return false;
    }
    for (size_t i = 0; i < 3; i++) {
        err.text[0] = '\0';
        if (!loader_next(l, &b, &err)) {
            assert_true(strlen(err.text) > 0);
            break;
        }
        if (b) check_batch(b, &k->config, k->tokenizer);
    }
    return true;
}

static void test_fuzz(void **state) {
    (void)state;
    Case k;
    begin(&k);
    k.config.vlm.lm_max_length = k.config.train.max_sample_length = 64;
    for (size_t packing = 0; packing < 2; packing++) {
        set_text(&k.config.options.packing, packing ? "nanovlm" : "best");
        CharVec saved = state_after(&k, 5), bad = {0};
        Loader *l = open_split(&k, LOADER_TRAIN);
        Random r = random_stream(packing, RANDOM_TEST, 3);
        for (size_t n = 0; n < saved.count; n += 1 + n / 200) { // cut anywhere
            assert_false(try_state(l, &(CharVec){saved.items, n, n}, &k));
        }
        size_t accepted = 0, rounds = 600;
        for (size_t i = 0; i < rounds; i++) {
            vec_clear(&bad);
            vec_extend(&bad, saved.items, saved.count);
            const size_t at = i < saved.count ? i : (size_t)random_below(&r, bad.count);
            bad.items[at] ^= (char)(1 + random_below(&r, 255));
            assert_false(try_state(l, &bad, &k)); // the checksum sees it
            put_checksum(&bad);                   // and without its help
            accepted += try_state(l, &bad, &k);
            if (i % 8 == 0) {
                bad.count -= 9 + (size_t)random_below(&r, bad.count / 2);
                bad.count += sizeof(uint64_t);
                put_checksum(&bad);
                try_state(l, &bad, &k);
            }
        }
        print_message("%s: %zu of %zu states with a wrong byte and a right checksum were accepted\n",
                      k.config.options.packing, accepted, rounds);
        assert_true(try_state(l, &saved, &k));
        loader_close(l);
        vec_free(&saved), vec_free(&bad);
    }
    end(&k);
}

int main(void) {
    log_set_level(LOG_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_best),
        cmocka_unit_test(test_nanovlm),
        cmocka_unit_test(test_validation_and_ranks),
        cmocka_unit_test(test_batch_source),
        cmocka_unit_test(test_size),
        cmocka_unit_test(test_other_settings),
        cmocka_unit_test(test_other_rows),
        cmocka_unit_test(test_other_rank),
        cmocka_unit_test(test_other_content),
        cmocka_unit_test(test_vanished_after_saving),
        cmocka_unit_test(test_fuzz),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
