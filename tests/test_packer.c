// LINK: data
// LABELS: parity
// The packers against nanoVLM's own packs, collated batches against its collator, and how full our sequences
// are.
#include "support/golden.h"

#include "base/batch.h"
#include "base/random.h"
#include "data/collate.h"
#include "data/packer_nanovlm.h"
#include "data/python_random.h"

#include <jansson.h>
#include <string.h>

#define PAD 2

// ---- reading the cases ----

static json_t *read_lines(const char *name) { // array of the file's objects
    Error err;
    char *bytes, *path = golden_path("packing/%s", name);
    size_t size;
    if (!file_read(&bytes, &size, path, &err)) fail_msg("%s", err.text);
    json_t *all = json_array();
    for (char *line = strtok(bytes, "\n"); line; line = strtok(NULL, "\n")) {
        json_t *row = json_loads(line, JSON_ALLOW_NUL, NULL);
        assert_non_null(row);
        json_array_append_new(all, row);
    }
    assert_true(json_array_size(all) > 0);
    free(path);
    free(bytes);
    return all;
}

static void expect_true(bool ok, const Error *err) {
    if (!ok) fail_msg("%s", err->text);
}

static size_t number(const json_t *object, const char *key) {
    const json_t *v = json_object_get(object, key);
    assert_true(json_is_integer(v));
    return (size_t)json_integer_value(v);
}

static size_t entry(const json_t *array, size_t i) {
    return (size_t)json_integer_value(json_array_get(array, i));
}

static PackItem item_of(const json_t *pair, size_t id, size_t pads) {
    return (PackItem){
        .sample = (void *)(uintptr_t)id, .length = entry(pair, 0) + pads, .images = entry(pair, 1)};
}

static size_t id_of(const PackItem *item) {
    return (size_t)(uintptr_t)item->sample;
}

static void each_of_kind(const char *kind, void (*check)(const json_t *)) {
    json_t *rows = read_lines("packing.jsonl"), *row;
    size_t i, cases = 0;
    json_array_foreach(rows, i, row) {
        if (strcmp(json_string_value(json_object_get(row, "kind")), kind) != 0) continue;
        check(row);
        cases++;
    }
    assert_true(cases > 0);
    print_message("%zu cases of %s\n", cases, kind);
    json_decref(rows);
}

// ---- Python's shuffle ----

static void check_shuffle(const json_t *row) {
    size_t n = number(row, "n"), values[128];
    const json_t *want = json_object_get(row, "result");
    assert_true(n <= 128 && json_array_size(want) == n);
    PythonRandom r;
    python_random_seed(&r, number(row, "seed"));
    for (size_t i = 0; i < n; i++) values[i] = i;
    python_random_shuffle(&r, values, n);
    for (size_t i = 0; i < n; i++) assert_int_equal(values[i], entry(want, i));
}

static void test_shuffle(void **state) {
    (void)state;
    each_of_kind("shuffle", check_shuffle);
}

static void
test_python_words(void **state) { // random.seed(2**40 + 7); [random.getrandbits(32) for _ in range(3)]
    (void)state;
    PythonRandom r;
    python_random_seed(&r, ((uint64_t)1 << 40) + 7);
    const uint32_t want[] = {2635837658u, 3209733218u, 3500038837u};
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) assert_int_equal(python_random_u32(&r), want[i]);
}

// ---- knapsacks ----

static int longer_first(const void *a, const void *b) {
    const PackItem *x = a, *y = b;
    if (x->length != y->length) return x->length > y->length ? -1 : 1;
    return id_of(x) < id_of(y) ? -1 : 1;
}

// groups: arrays of item numbers; bag order[k] must be groups[k], empty ones left out when skip_empty.
static void check_groups(const json_t *groups, const PackItem *items, const size_t *bag_of, size_t n,
                         const size_t *order, size_t bags, bool skip_empty) {
    size_t g = 0;
    for (size_t k = 0; k < bags; k++) {
        const json_t *group = json_array_get(groups, g);
        size_t at = 0;
        for (size_t i = 0; i < n; i++)
            if (bag_of[i] == order[k]) assert_int_equal(id_of(&items[i]), entry(group, at++));
        if (skip_empty && at == 0) continue;
        assert_int_equal(at, json_array_size(group));
        g++;
    }
    assert_int_equal(g, json_array_size(groups));
}

static void check_knapsack(const json_t *row) {
    const json_t *pairs = json_object_get(row, "items"), *most = json_object_get(row, "max_images");
    size_t n = json_array_size(pairs), bag_of[64], order[256];
    PackItem items[64];
    assert_true(n <= 64);
    for (size_t i = 0; i < n; i++) items[i] = item_of(json_array_get(pairs, i), i, 0);
    qsort(items, n, sizeof *items, longer_first);
    PackLimits limits = {number(row, "L"), json_is_null(most) ? PACK_NO_LIMIT : number(row, "max_images"),
                         PACK_NO_LIMIT};
    size_t bags = nanovlm_knapsacks(bag_of, items, n, &limits, number(row, "delta"));
    assert_true(bags <= 256);
    for (size_t i = 0; i < bags; i++) order[i] = i;
    check_groups(json_object_get(row, "before_shuffle"), items, bag_of, n, order, bags, false);
    PythonRandom r;
    python_random_seed(&r, number(row, "seed"));
    python_random_shuffle(&r, order, bags);
    check_groups(json_object_get(row, "groups"), items, bag_of, n, order, bags, true);
}

static void test_knapsacks(void **state) {
    (void)state;
    each_of_kind("knapsack", check_knapsack);
}

// ---- the whole stream ----

typedef struct StreamCase {
    size_t seq_length, max_sample_length, max_images_per_example;
    const json_t *samples; // [length, images] or null
} StreamCase;

// The filters of the stage before the packer.
static bool kept(const StreamCase *c, size_t i) {
    const json_t *pair = json_array_get(c->samples, i);
    return json_is_array(pair) && entry(pair, 0) < c->max_sample_length &&
           entry(pair, 1) <= c->max_images_per_example;
}

// Ids, mask and labels of a sample as the reference made them: all ids 1000 + i, the last label ignored.
static void append_sample(Sequence *s, const StreamCase *c, size_t i) {
    Int32Vec ids = {0}, labels = {0};
    size_t length = entry(json_array_get(c->samples, i), 0);
    for (size_t k = 0; k < length; k++) {
        vec_push(&ids, 1000 + (int32_t)i);
        vec_push(&labels, k + 1 < length ? 1000 + (int32_t)i : IGNORE_INDEX);
    }
    sequence_append(s, &ids, &labels, entry(json_array_get(c->samples, i), 1), 0, PAD);
    vec_free(&ids);
    vec_free(&labels);
}

static void check_values(const Int32Vec *got, const json_t *want) {
    assert_int_equal(got->count, json_array_size(want));
    for (size_t i = 0; i < got->count; i++)
        assert_int_equal(got->items[i], json_integer_value(json_array_get(want, i)));
}

static void check_pack(const StreamCase *c, const Pack *pack, const json_t *want, const json_t *first_pack) {
    const json_t *samples = json_object_get(want, "samples");
    Sequence s = {0};
    size_t masked = 0, targets = 0;
    assert_int_equal(pack->count, json_array_size(samples));
    for (size_t i = 0; i < pack->count; i++) {
        assert_int_equal(id_of(&pack->items[i]), entry(samples, i));
        append_sample(&s, c, id_of(&pack->items[i]));
    }
    for (size_t i = 0; i < s.ids.count; i++)
        masked += s.mask.items[i] == 1, targets += s.labels.items[i] != IGNORE_INDEX;
    assert_int_equal(s.ids.count, number(want, "length"));
    assert_int_equal(s.n_images, json_array_size(json_object_get(want, "images")));
    assert_int_equal(masked, number(want, "masked"));
    assert_int_equal(targets, number(want, "targets"));
    if (first_pack) {
        check_values(&s.ids, json_object_get(first_pack, "input_ids"));
        check_values(&s.labels, json_object_get(first_pack, "labels"));
        check_values(&s.mask, json_object_get(first_pack, "attention_mask"));
    }
    sequence_free(&s);
}

static void check_stream(const json_t *row) {
    const json_t *set = json_object_get(row, "settings"), *packs = json_object_get(row, "packs");
    StreamCase c = {number(set, "seq_length"), number(set, "max_sample_length"),
                    number(set, "max_images_per_example"), json_object_get(row, "samples")};
    PackLimits limits = {c.seq_length, number(set, "max_images_per_knapsack"), PACK_NO_LIMIT};
    Packer *p = packer_new("nanovlm", limits, 1, c.seq_length * number(set, "num_of_sequences"));
    packer_reset(p, number(set, "seed"), 0, NULL);
    Pack pack;
    size_t n = json_array_size(c.samples), k = 0;
    for (size_t i = 0; i <= n; i++) {
        if (i == n)
            packer_finish(p);
        else if (kept(&c, i))
            packer_add(p, item_of(json_array_get(c.samples, i), i, 1));
        for (; packer_take(p, &pack); k++)
            check_pack(&c, &pack, json_array_get(packs, k),
                       k == 0 ? json_object_get(row, "first_pack") : NULL);
    }
    assert_int_equal(k, json_array_size(packs));
    packer_free(p);
}

static void test_streams(void **state) {
    (void)state;
    each_of_kind("stream", check_stream);
}

// ---- nanoVLM's loader: workers take the samples in turn, batches come from the workers in turn ----

static void check_batch(const Pack packs[2], const json_t *want) {
    for (size_t s = 0; s < 2; s++) {
        const json_t *samples = json_array_get(want, s);
        assert_int_equal(packs[s].count, json_array_size(samples));
        for (size_t i = 0; i < packs[s].count; i++)
            assert_int_equal(id_of(&packs[s].items[i]), entry(samples, i));
    }
}

static void check_loader(const json_t *row) {
    enum { WORKERS = 3 };
    assert_int_equal(number(row, "workers"), WORKERS);
    assert_int_equal(number(row, "batch_size"), 2);
    size_t L = number(row, "seq_length"), b = 0;
    const json_t *samples = json_object_get(row, "samples"), *batches = json_object_get(row, "batches");
    Packer *packers[WORKERS];
    for (size_t w = 0; w < WORKERS; w++) {
        packers[w] = packer_new("nanovlm", (PackLimits){L, 18, PACK_NO_LIMIT}, 2, 0);
        packer_reset(packers[w], entry(json_object_get(row, "worker_python_seeds"), w), 0, NULL);
        for (size_t i = w; i < json_array_size(samples); i += WORKERS)
            if (entry(json_array_get(samples, i), 0) < L)
                packer_add(packers[w], item_of(json_array_get(samples, i), i, 1));
        packer_finish(packers[w]);
    }
    for (size_t turn = 0, idle = 0; idle < WORKERS; turn++) {
        Packer *p = packers[turn % WORKERS];
        Pack pair[2];
        if (packer_take(p, &pair[0]) && packer_take(p, &pair[1]))
            check_batch(pair, json_array_get(batches, b++)), idle = 0;
        else
            idle++;
    }
    assert_int_equal(b, json_array_size(batches));
    for (size_t w = 0; w < WORKERS; w++) packer_free(packers[w]);
}

static void test_loader(void **state) {
    (void)state;
    each_of_kind("loader", check_loader);
}

// ---- collate ----

static void read_values(Int32Vec *v, const json_t *array) {
    for (size_t i = 0; i < json_array_size(array); i++)
        vec_push(v, (int32_t)json_integer_value(json_array_get(array, i)));
}

static void check_rows(const int32_t *got, size_t B, size_t T, const json_t *want) {
    assert_int_equal(B, json_array_size(want));
    for (size_t b = 0; b < B; b++) {
        Int32Vec row = {(int32_t *)got + b * T, T, T};
        check_values(&row, json_array_get(want, b));
    }
}

static void check_collate(const json_t *row) {
    enum { ROWS = 8, MOST = 32 };
    const json_t *batch = json_object_get(row, "batch"), *want = json_object_get(row, "output"), *item;
    size_t n = json_array_size(batch), T = number(row, "max_length"), images = 0;
    Sequence sequences[ROWS] = {0};
    const Sequence *pointers[ROWS] = {0};
    int32_t ids[ROWS * MOST], mask[ROWS * MOST], labels[ROWS * MOST], starts[ROWS * MOST];
    assert_true(n <= ROWS && T <= MOST);
    for (size_t i = 0; i < n; i++) {
        item = json_array_get(batch, i);
        if (json_is_null(item)) continue;
        read_values(&sequences[i].ids, json_object_get(item, "input_ids"));
        read_values(&sequences[i].mask, json_object_get(item, "attention_mask"));
        read_values(&sequences[i].labels, json_object_get(item, "labels"));
        for (size_t k = 0; k < sequences[i].ids.count; k++) vec_push(&sequences[i].starts, 0);
        sequences[i].n_images = json_array_size(json_object_get(item, "images"));
        sequences[i].n_samples = 1;
        pointers[i] = &sequences[i];
    }
    memset(ids, 0x5a, sizeof ids), memset(mask, 0x5a, sizeof mask), memset(labels, 0x5a, sizeof labels);
    Batch b = {.input_ids = ids, .attention_mask = mask, .labels = labels, .starts = starts};
    collate(&b, pointers, n, T, (int32_t)number(row, "pad_token_id"));
    check_rows(ids, b.B, T, json_object_get(want, "input_ids"));
    check_rows(mask, b.B, T, json_object_get(want, "attention_mask"));
    check_rows(labels, b.B, T, json_object_get(want, "labels"));
    for (size_t i = 0; i < json_array_size(json_object_get(want, "images")); i++)
        images += json_array_size(json_array_get(json_object_get(want, "images"), i));
    assert_int_equal(b.n_images, images);
    assert_int_equal(b.n_samples, b.B);
    for (size_t i = 0; i < n; i++) sequence_free(&sequences[i]);
}

static void test_collate(void **state) {
    (void)state;
    json_t *rows = read_lines("collate.jsonl"), *row;
    size_t i;
    json_array_foreach(rows, i, row) check_collate(row);
    print_message("%zu batches\n", json_array_size(rows));
    json_decref(rows);
}

// ---- the packer `best` ----

typedef struct Packed {
    size_t packs, samples, tokens; // tokens without pads
    uint64_t hash;                 // of everything in order
    size_t longest_wait;           // greatest number of samples that came between a sample and its departure
} Packed;

// Takes what is ready, checking the limits and that each sample leaves once. seen: times each sample has
// left.
static void take_all(Packed *r, Packer *p, PackLimits limits, unsigned char *seen, size_t arrived) {
    Pack pack;
    while (packer_take(p, &pack)) {
        size_t length = 0, images = 0, tiles = 0;
        assert_true(pack.count > 0);
        for (size_t i = 0; i < pack.count; i++) {
            const PackItem *item = &pack.items[i];
            length += item->length, images += item->images, tiles += item->tiles;
            assert_int_equal(seen[id_of(item)]++, 0);
            r->hash = (r->hash ^ id_of(item)) * 0x100000001b3u;
            r->tokens += item->length - 1;
            if (arrived - id_of(item) > r->longest_wait) r->longest_wait = arrived - id_of(item);
        }
        r->hash = (r->hash ^ 0xabcdef) * 0x100000001b3u;
        assert_true(length <= limits.length && images <= limits.images && tiles <= limits.tiles);
        r->packs++;
        r->samples += pack.count;
    }
}

// buffer: tokens, 0: the strategy's own
static Packed pack_all(const char *strategy, const PackItem *items, size_t n, PackLimits limits,
                       uint64_t seed, size_t buffer) {
    Packer *p = packer_new(strategy, limits, 2, buffer);
    packer_reset(p, seed, 0, NULL);
    Packed r = {0};
    unsigned char *seen = mem_zeroed(n + 1, 1);
    for (size_t i = 0; i < n; i++) {
        packer_add(p, items[i]);
        take_all(&r, p, limits, seen, i);
    }
    packer_finish(p);
    take_all(&r, p, limits, seen, n);
    assert_false(packer_ready(p));
    assert_int_equal(r.samples, n);
    packer_free(p);
    free(seen);
    return r;
}

// lengths_NAME_LENGTH.json. Wanted: 98%, or within 1% of best-fit decreasing over the whole mix at once.
static void check_fill(const char *name) {
    const size_t length = strtoul(strrchr(name, '_') + 1, NULL, 10);
    char *path = golden_path("packing/%s", name);
    json_t *all = json_load_file(path, 0, NULL), *pair;
    assert_true(all && length > 0);
    PackItem *items = mem_zeroed(json_array_size(all), sizeof *items);
    size_t i, n = 0;
    json_array_foreach(all, i, pair) if (entry(pair, 0) < length) items[n] = item_of(pair, n, 1), n++;
    const PackLimits limits = {length, 18, PACK_NO_LIMIT};
    const struct {
        const char *strategy;
        size_t buffer;
    } ways[] = {{"best", 0}, {"best", SIZE_MAX}, {"nanovlm", 0}};
    double fill[3];
    for (size_t s = 0; s < 3; s++) {
        Packed r = pack_all(ways[s].strategy, items, n, limits, 0, ways[s].buffer);
        fill[s] = (double)r.tokens / (double)(r.packs * length);
    }
    print_message("%s: best %.2f%%, over all at once %.2f%%, nanovlm %.2f%%\n", name, 100 * fill[0],
                  100 * fill[1], 100 * fill[2]);
    assert_true(fill[0] >= 0.98 || fill[0] >= fill[1] - 0.01);
    json_decref(all);
    free(items);
    free(path);
}

static void test_best_fill(void **state) {
    (void)state;
    Error err;
    StringList list;
    size_t mixes = 0;
    char *folder = golden_path("packing");
    expect_true(file_list(&list, folder, &err), &err);
    for (size_t i = 0; i < list.count; i++)
        if (strncmp(list.items[i], "lengths_", 8) == 0) check_fill(list.items[i]), mixes++;
    assert_true(mixes > 0);
    string_list_free(&list);
    free(folder);
}

static PackItem *random_items(size_t n, PackLimits limits, unsigned shape, Random *r) {
    PackItem *items = mem_zeroed(n, sizeof *items);
    for (size_t i = 0; i < n; i++) {
        size_t most = shape == 0   ? limits.length
                      : shape == 1 ? (limits.length + 7) / 8
                                   : (limits.length * 6 + 9) / 10;
        items[i] = (PackItem){.sample = (void *)(uintptr_t)i,
                              .length = 1 + (size_t)random_below(r, most),
                              .images = (size_t)random_below(r, limits.images + 1),
                              .tiles = (size_t)random_below(r, limits.tiles + 1)};
    }
    return items;
}

static void test_best_limits(void **state) { // and that the same items give the same packs
    (void)state;
    Random r = random_stream(7, RANDOM_TEST, 0);
    const size_t lengths[] = {1, 2, 63, 64, 65, 127, 128, 500};
    for (size_t k = 0; k < 200; k++) {
        PackLimits limits = {lengths[k % 8], 1 + (size_t)random_below(&r, 4),
                             1 + (size_t)random_below(&r, 9)};
        size_t n = 1 + (size_t)random_below(&r, 700);
        PackItem *items = random_items(n, limits, k % 3, &r);
        Packed a = pack_all("best", items, n, limits, 5, 0), b = pack_all("best", items, n, limits, 5, 0);
        assert_true(a.hash == b.hash && a.packs == b.packs);
        free(items);
    }
}

// When pictures or tiles are what sequences run out of, those are filled. bound: packs that all need at
// least.
static void check_scarce(const char *name, PackLimits limits, size_t images, size_t tiles, double wanted) {
    enum { N = 20000 };
    Random r = random_stream(9, RANDOM_TEST, images);
    PackItem *items = mem_zeroed(N, sizeof *items);
    size_t total[3] = {0};
    for (size_t i = 0; i < N; i++) {
        items[i] = (PackItem){.sample = (void *)(uintptr_t)i,
                              .length = 10 + (size_t)random_below(&r, 90),
                              .images = (size_t)random_below(&r, images + 1),
                              .tiles = (size_t)random_below(&r, tiles + 1)};
        total[0] += items[i].length, total[1] += items[i].images, total[2] += items[i].tiles;
    }
    double bound = (double)total[0] / (double)limits.length,
           shares[] = {(double)limits.images, (double)limits.tiles};
    for (size_t k = 0; k < 2; k++)
        if ((double)total[k + 1] / shares[k] > bound) bound = (double)total[k + 1] / shares[k];
    Packed packed = pack_all("best", items, N, limits, 0, 0);
    print_message("%s: %zu packs, none could do with fewer than %.0f (%.2f%%)\n", name, packed.packs, bound,
                  100 * bound / (double)packed.packs);
    assert_true(bound >= wanted * (double)packed.packs);
    free(items);
}

static void test_best_fills_what_is_scarce(void **state) {
    (void)state;
    check_scarce("scarce pictures", (PackLimits){4096, 18, PACK_NO_LIMIT}, 4, 0, 0.99);
    check_scarce("scarcer pictures", (PackLimits){4096, 18, PACK_NO_LIMIT}, 18, 0, 0.98);
    check_scarce("scarce tiles", (PackLimits){4096, 1000, 100}, 1, 17, 0.99);
    check_scarce("plenty of both", (PackLimits){4096, 400, 1000}, 4, 8, 0.98);
}

// ---- saving and restoring ----

static size_t dropped;
static void count_drop(void *sample) {
    (void)sample;
    dropped++;
}

enum { SAVED_ITEMS = 6000 };

// A packer that has been given items [0, at) and whose packs but for `left` of the last ones have been taken.
static Packer *packer_at(const char *strategy, const PackItem *items, size_t at, PackLimits limits,
                         unsigned char *seen) {
    Packer *p = packer_new(strategy, limits, 2, 0);
    Packed r = {0};
    packer_reset(p, 3, 1, NULL);
    for (size_t i = 0; i < at; i++) {
        take_all(&r, p, limits, seen, i);
        packer_add(p, items[i]);
    }
    Pack pack; // some of what is ready now
    for (size_t k = 0; k < at % 5 && packer_take(p, &pack); k++)
        for (size_t i = 0; i < pack.count; i++) seen[id_of(&pack.items[i])]++;
    return p;
}

// Hash of all that comes from here on.
static uint64_t pack_rest(Packer *p, const PackItem *items, size_t at, PackLimits limits,
                          const unsigned char *gone) {
    unsigned char seen[SAVED_ITEMS];
    Packed r = {0};
    memcpy(seen, gone, sizeof seen);
    for (size_t i = at; i < SAVED_ITEMS; i++) {
        take_all(&r, p, limits, seen, i);
        packer_add(p, items[i]);
    }
    packer_finish(p);
    take_all(&r, p, limits, seen, SAVED_ITEMS);
    for (size_t i = 0; i < SAVED_ITEMS; i++) assert_int_equal(seen[i], 1);
    return r.hash;
}

static bool supply_all(Packer *p, const PackItem *items, Error *err) {
    while (packer_missing(p) > 0) {
        assert_false(packer_ready(p));
        PackItem item = items[*packer_missing_rows(p) / 3];
        item.row = *packer_missing_rows(p);
        if (!packer_supply(p, item, err)) return false;
    }
    return true;
}

static PackItem *saved_items(PackLimits limits, unsigned shape) { // rows 0, 3, 6, …
    Random r = random_stream(11, RANDOM_TEST, 0);
    PackItem *items = random_items(SAVED_ITEMS, limits, shape, &r);
    for (size_t i = 0; i < SAVED_ITEMS; i++) items[i].row = 3 * i;
    return items;
}

static void check_restore(unsigned shape) {
    Error err;
    const PackLimits limits = {400, 6, 60};
    const char *strategies[] = {"best", "nanovlm"};
    PackItem *items = saved_items(limits, shape);
    Random r = random_stream(12, RANDOM_TEST, 0);
    for (size_t k = 0; k < 40; k++) {
        const char *strategy = strategies[k % 2];
        const size_t at = k < 2 ? 0 : k < 4 ? SAVED_ITEMS : (size_t)random_below(&r, SAVED_ITEMS);
        unsigned char seen[SAVED_ITEMS] = {0};
        CharVec saved = {0}, again = {0};
        Packer *p = packer_at(strategy, items, at, limits, seen), *q = packer_new(strategy, limits, 2, 0);
        packer_reset(q, 3, 1, NULL);
        packer_save(p, &saved);
        ByteReader in = byte_reader(saved.items, saved.count);
        expect_true(packer_restore(q, &in, 3 * SAVED_ITEMS, NULL, &err), &err);
        assert_int_equal(byte_reader_left(&in), 0);
        expect_true(supply_all(q, items, &err), &err);
        packer_save(q, &again);
        assert_int_equal(again.count, saved.count);
        assert_memory_equal(again.items, saved.items, saved.count);
        assert_true(pack_rest(p, items, at, limits, seen) == pack_rest(q, items, at, limits, seen));
        vec_free(&saved), vec_free(&again);
        packer_free(p), packer_free(q);
    }
    free(items);
}

static void test_restore(void **state) {
    (void)state;
    check_restore(1);
    check_restore(2); // many wait, because two are too long for a sequence
}

// Like one in the middle of its work, but empty: it gives what a new one of this seed and epoch gives.
static void test_like(void **state) {
    (void)state;
    const PackLimits limits = {400, 6, 60};
    PackItem *items = saved_items(limits, 1);
    for (size_t k = 0; k < 2; k++) {
        const char *strategy = k ? "nanovlm" : "best";
        const unsigned char none[SAVED_ITEMS] = {0};
        unsigned char seen[SAVED_ITEMS] = {0};
        Packer *p = packer_at(strategy, items, SAVED_ITEMS / 2, limits, seen), *like = packer_like(p),
               *new = packer_at(strategy, items, 0, limits, seen);
        assert_true(pack_rest(like, items, 0, limits, none) == pack_rest(new, items, 0, limits, none));
        packer_free(p), packer_free(like), packer_free(new);
    }
    free(items);
}

static void test_restore_too_full(void **state) { // a state that only a mistake or malice can make
    (void)state;
    Error err;
    const PackLimits limits = {400, 6, 60};
    for (size_t length = 200; length <= 201; length++) {
        const PackItem pair[2] = {{.length = length}, {.length = length, .row = 3}};
        const uint8_t bytes[] = {0, 1, 2, 0, 1, 3, 1}; // no round; one pack of two: rows 0 and 3
        CharVec state_bytes = {0};
        vec_extend(&state_bytes, (const char *)bytes, sizeof bytes);
        uint64_t hash = BYTES_HASH;
        for (size_t i = 0; i < 6; i++) hash = bytes_hash_u64(hash, i % 3 ? 0 : length);
        bytes_put_u64(&state_bytes, hash);
        Packer *p = packer_new("best", limits, 2, 0);
        ByteReader in = byte_reader(state_bytes.items, state_bytes.count);
        expect_true(packer_restore(p, &in, 4, NULL, &err), &err);
        expect_true(packer_supply(p, pair[0], &err), &err);
        assert_int_equal(packer_supply(p, pair[1], &err), length == 200);
        assert_int_equal(packer_ready(p), length == 200);
        if (length > 200) assert_non_null(strstr(err.text, "limits"));
        packer_free(p);
        vec_free(&state_bytes);
    }
}

static void test_restore_other_samples(void **state) { // one of them is longer than it was
    (void)state;
    Error err;
    const PackLimits limits = {400, 6, 60};
    PackItem *items = saved_items(limits, 1);
    unsigned char seen[SAVED_ITEMS] = {0};
    CharVec saved = {0};
    Packer *p = packer_at("best", items, 1002, limits, seen);
    packer_save(p, &saved);
    ByteReader in = byte_reader(saved.items, saved.count);
    expect_true(packer_restore(p, &in, 3 * SAVED_ITEMS, NULL, &err), &err);
    items[*packer_missing_rows(p) / 3].length++;
    const size_t missing = packer_missing(p);
    assert_false(supply_all(p, items, &err));
    assert_non_null(strstr(err.text, "changed"));
    assert_false(packer_ready(p));
    dropped = 0;
    packer_reset(p, 0, 0, count_drop);
    assert_int_equal(dropped, missing); // none is lost
    vec_free(&saved);
    packer_free(p);
    free(items);
}

static void test_restore_fuzz(void **state) { // no checksum here: whatever is accepted must be possible
    (void)state;
    Error err;
    const PackLimits limits = {400, 6, 60};
    PackItem *items = saved_items(limits, 1);
    Random r = random_stream(13, RANDOM_TEST, 0);
    for (size_t k = 0; k < 3000; k++) {
        unsigned char seen[SAVED_ITEMS] = {0};
        static CharVec saved[2];
        const char *strategy = k % 2 ? "nanovlm" : "best";
        if (saved[k % 2].count == 0) {
            Packer *p = packer_at(strategy, items, 1003, limits, seen);
            packer_save(p, &saved[k % 2]);
            packer_free(p);
        }
        CharVec bad = {0};
        vec_extend(&bad, saved[k % 2].items, saved[k % 2].count);
        if (k % 3 == 0)
            bad.count = (size_t)random_below(&r, bad.count);
        else
            bad.items[random_below(&r, bad.count)] ^= (char)(1 + random_below(&r, 255));
        Packer *p = packer_new(strategy, limits, 2, 0);
        ByteReader in = byte_reader(bad.items, bad.count);
        if (packer_restore(p, &in, 3 * 1003, NULL, &err)) {
            assert_int_not_equal(k % 3, 0);
            if (supply_all(p, items, &err)) {
                for (size_t i = 1003; i < 1500; i++) packer_add(p, items[i]);
                Pack pack;
                while (packer_take(p, &pack)) assert_true(pack.count > 0);
            }
        }
        packer_free(p);
        vec_free(&bad);
        if (k + 2 >= 3000) vec_free(&saved[k % 2]);
    }
    free(items);
}

static void test_best_order_is_random(void **state) {
    (void)state;
    Random r = random_stream(8, RANDOM_TEST, 0);
    PackLimits limits = {100, 5, 5};
    PackItem *items = random_items(2000, limits, 1, &r);
    assert_true(pack_all("best", items, 2000, limits, 1, 0).hash !=
                pack_all("best", items, 2000, limits, 2, 0).hash);
    free(items);
}

static void
test_best_starves_nobody(void **state) { // one item that fits with nothing, in an endless flow of halves
    (void)state;
    enum { N = 20000, L = 100 };
    PackItem *items = mem_zeroed(N, sizeof *items);
    for (size_t i = 0; i < N; i++)
        items[i] = (PackItem){.sample = (void *)(uintptr_t)i, .length = i == 10 ? 80 : 50, .tiles = 1};
    Packed r = pack_all("best", items, N, (PackLimits){L, 18, 2}, 0, 0);
    print_message("longest wait: %zu samples\n", r.longest_wait);
    assert_true(r.longest_wait < 2000); // of 20000
    free(items);
}

static void test_memory_bounds_the_buffer(void **state) {
    (void)state;
    Packer *p = packer_new("best", (PackLimits){1000, 18, PACK_NO_LIMIT}, 2, 0);
    size_t waiting = 0;
    Pack pack;
    for (size_t i = 0; i < 100; i++) {
        packer_add(p, (PackItem){.sample = p, .length = 10, .bytes = (size_t)100 << 20});
        waiting++;
        while (packer_take(p, &pack)) waiting -= pack.count;
        assert_true(waiting <= 10); // 1 GiB of waiting pictures
    }
    packer_free(p);
}

static void test_reset_hands_back(void **state) {
    (void)state;
    Packer *p = packer_new("nanovlm", (PackLimits){10, 18, PACK_NO_LIMIT}, 1, 40);
    Pack pack;
    for (size_t i = 0; i < 10; i++) packer_add(p, (PackItem){.sample = p, .length = 5});
    assert_true(packer_take(p, &pack));
    size_t given = pack.count;
    dropped = 0;
    packer_reset(p, 0, 1, count_drop);
    assert_int_equal(dropped + given, 10);
    assert_false(packer_ready(p));
    packer_free(p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shuffle),
        cmocka_unit_test(test_python_words),
        cmocka_unit_test(test_knapsacks),
        cmocka_unit_test(test_streams),
        cmocka_unit_test(test_loader),
        cmocka_unit_test(test_collate),
        cmocka_unit_test(test_best_fill),
        cmocka_unit_test(test_best_limits),
        cmocka_unit_test(test_best_fills_what_is_scarce),
        cmocka_unit_test(test_restore),
        cmocka_unit_test(test_like),
        cmocka_unit_test(test_restore_too_full),
        cmocka_unit_test(test_restore_other_samples),
        cmocka_unit_test(test_restore_fuzz),
        cmocka_unit_test(test_best_order_is_random),
        cmocka_unit_test(test_best_starves_nobody),
        cmocka_unit_test(test_memory_bounds_the_buffer),
        cmocka_unit_test(test_reset_hands_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
