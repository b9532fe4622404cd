// Loaders over small data sets for tests: what came out of them, compared by hashes of all bytes of a batch.
#pragma once
#include "support/data_case.h"

#include "base/bytes.h"
#include "data/loader.h"

// ---- what came out ----

typedef struct Seen {
    uint64_t *hashes; // one a batch
    size_t batches, samples, images, tiles, tokens;
    LoaderCounts counts;
} Seen;

// As bytes_hash, but eight bytes at a time: most of a batch is pictures. Any one word that differs changes
// the result.
static inline uint64_t words_hash(uint64_t h, const void *bytes, size_t n) {
    const size_t words = n / sizeof(uint64_t);
    for (size_t i = 0; i < words; i++) {
        uint64_t word;
        memcpy(&word, (const char *)bytes + i * sizeof word, sizeof word);
        h = (h ^ word) * 0x9E3779B97F4A7C15u;
        h ^= h >> 32; // so that high bits come to count for low ones
    }
    return bytes_hash(h, (const char *)bytes + words * sizeof(uint64_t), n % sizeof(uint64_t));
}

static inline uint64_t batch_hash(const Batch *b, size_t tile) {
    size_t positions = b->B * b->T * sizeof(int32_t);
    uint64_t h = bytes_hash(BYTES_HASH, b->input_ids, positions);
    h = bytes_hash(h, b->attention_mask, positions);
    h = bytes_hash(h, b->labels, positions);
    h = bytes_hash(h, b->starts, positions);
    h = bytes_hash(h, (const size_t[]){b->B, b->T, b->n_tiles, b->n_images, b->n_samples},
                   5 * sizeof(size_t));
    return words_hash(h, b->images, b->n_tiles * tile * sizeof *b->images);
}

static inline void check_batch(const Batch *b, const Config *c, const Tokenizer *t) {
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
    bool in_range = true;
    for (size_t i = 0; i < b->n_tiles * 3 * P * P; i++) in_range &= b->images[i] >= 0 && b->images[i] <= 1;
    assert_true(in_range);
}

static inline void take(Seen *s, const Batch *b, const Config *c) {
    s->hashes = mem_resize(s->hashes, (s->batches + 1) * sizeof *s->hashes);
    s->hashes[s->batches++] = batch_hash(b, 3 * c->vlm.vit_img_size * c->vlm.vit_img_size);
    s->samples += b->n_samples, s->images += b->n_images, s->tiles += b->n_tiles;
    for (size_t i = 0; i < b->B * b->T; i++) s->tokens += (size_t)b->attention_mask[i];
}

static inline Seen take_epoch(Loader *l, const Config *c, const Tokenizer *t) {
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

static inline void expect_same(const Seen *a, const Seen *b) {
    assert_int_equal(a->batches, b->batches);
    assert_memory_equal(a->hashes, b->hashes, a->batches * sizeof *a->hashes);
    assert_memory_equal(&a->counts, &b->counts, sizeof a->counts);
}

static inline bool differ(const Seen *a, const Seen *b) {
    return a->batches != b->batches || memcmp(a->hashes, b->hashes, a->batches * sizeof *a->hashes) != 0;
}

// ---- a data set of good and bad rows ----

enum { GOOD_ROWS = 400 };

typedef struct Case {
    Config config;
    Tokenizer *tokenizer;
    char *folder;
} Case;

static inline void begin(Case *k) {
    k->folder = make_folder();
    char *a = path_join(k->folder, "a.parquet"), *b = path_join(k->folder, "b.parquet");
    write_rows(a, 0, 150, 32);
    write_rows(b, 150, GOOD_ROWS - 150, 32);
    data_config(&k->config, k->folder, "default");
    k->tokenizer = data_tokenizer(&k->config);
    free(a), free(b);
}

static inline void end(Case *k) {
    tokenizer_free(k->tokenizer);
    config_free(&k->config);
    remove_folder(k->folder);
}

static inline Loader *open_split(const Case *k, LoaderSplit split) {
    Error err;
    Loader *l;
    expect(loader_open(&l, &k->config, k->tokenizer, split, &err), &err);
    return l;
}

static inline Seen one_epoch(const Case *k, LoaderSplit split, uint64_t epoch) {
    Error err;
    Loader *l = open_split(k, split);
    if (epoch) expect(loader_restart(l, epoch, &err), &err);
    Seen s = take_epoch(l, &k->config, k->tokenizer);
    loader_close(l);
    return s;
}
