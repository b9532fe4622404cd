// LINK: train ops_cpu config
// COST: 22
// Batches that bring the features of tiles: loss and gradients to the bit as if each had been encoded,
// whichever of them are known and whatever batch they were encoded in. At each level of instructions.
#include "support/golden.h"
#include "support/guard_backend.h"
#include "support/op_case.h"
#include "support/random_batch.h"

#include "base/memory.h"
#include "base/vec.h"
#include "ops/cpu/cpu.h"
#include "train/vision_cache.h"

#include <stdlib.h>
#include <string.h>

enum { B = 2, T = 64, TILES = 6, TARGETS = 10, IMAGE_TOKEN = 5, FIRST_IMAGE = 3 };

typedef struct Fixture {
    Config config;
    Backend *be;
    Vlm m;
    Batch batch;
    TileFeatures features;
} Fixture;

static size_t tile_values(const Fixture *f) {
    return 3 * f->config.vlm.vit_img_size * f->config.vlm.vit_img_size;
}

// Three tiles a sequence, and targets behind them.
static const BatchShape shape = {
    .B = B, .T = T, .tiles = TILES, .targets = TARGETS, .image_token = IMAGE_TOKEN};

static void open_fixture(Fixture *f, Backend *be, const char *preset, Dtype dtype, bool tile_features) {
    Error err;
    *f = (Fixture){.be = be};
    VLMConfig *c = &f->config.vlm;
    config_init(&f->config);
    if (!config_apply_preset(&f->config, preset, &err)) fail_msg("%s", err.text);
    c->vit_n_blocks = c->lm_n_blocks = 1, c->lm_base_vocab_size = 320, c->lm_vocab_size = 386;
    const VlmPlan plan = {.max_batch = B,
                          .max_positions = T,
                          .max_tiles = TILES,
                          .training = true,
                          .trained = {true, false, true},
                          .image_token_id = IMAGE_TOKEN,
                          .tile_features = tile_features,
                          .dtype = dtype};
    if (!vlm_create(&f->m, be, c, &plan, &err)) fail_msg("%s", err.text);
    params_initialise(&f->m.params, be, c, "scaled", 3);
    f->batch = random_batch(shape, c);
    const size_t bytes = modality_projector_tile_bytes(c, dtype);
    f->features = (TileFeatures){.tile_bytes = bytes,
                                 .keys = mem_zeroed(TILES, sizeof *f->features.keys),
                                 .known = mem_zeroed(TILES, sizeof *f->features.known),
                                 .bytes = mem_zeroed(TILES, bytes)};
}

static void close_fixture(Fixture *f) {
    vlm_free(&f->m);
    free(f->batch.input_ids), free(f->batch.labels), free(f->batch.images);
    free(f->features.keys), free(f->features.known), free(f->features.bytes);
    config_free(&f->config);
}

// Loss and all gradients of the batch as bytes; caller frees.
static char *step(Fixture *f, size_t *size) {
    Error err;
    CharVec out = {0};
    params_zero_gradients(&f->m.params, f->be);
    if (!vlm_forward(&f->m, &f->batch, 1.0f, &err)) fail_msg("%s", err.text);
    vlm_backward(&f->m);
    const float loss = vlm_loss(&f->m);
    vec_extend(&out, (const char *)&loss, sizeof loss);
    for (size_t i = 0; i < f->m.params.count; i++) {
        const Tensor d = f->m.params.items[i].d;
        if (!tensor_exists(d)) continue;
        vec_reserve(&out, out.count + tensor_bytes(d));
        tensor_download(f->be, STREAM_COMPUTE, out.items + out.count, d);
        out.count += tensor_bytes(d);
    }
    backend_sync(f->be);
    *size = out.count;
    return out.items;
}

static void expect_step(Fixture *f, const char *expected, size_t size) {
    size_t n;
    char *got = step(f, &n);
    assert_int_equal(n, size);
    assert_memory_equal(got, expected, size);
    free(got);
}

// What the batch before left where features lie must not help.
static void forget(const Fixture *f) {
    const size_t bytes = TILES * f->features.tile_bytes;
    char *garbage = memset(mem_alloc(bytes), 0xff, bytes);
    tensor_upload(f->be, STREAM_COMPUTE, f->m.projector.shuffled, garbage);
    backend_sync(f->be);
    free(garbage);
}

static void take_features(const Fixture *f) {
    for (size_t i = 0; i < f->batch.n_tiles; i++)
        vlm_tile_features(&f->m, i, f->features.bytes + i * f->features.tile_bytes);
}

// expected: of a model that encodes all of them.
static void check_known_tiles(Fixture *f, const char *expected, size_t size) {
    f->batch.features = &f->features;
    expect_step(f, expected, size);
    take_features(f);
    for (unsigned set = 0; set < 1 << TILES; set += set < 3 || set > 58 ? 1 : 7) {
        const size_t known = (size_t)__builtin_popcount(set);
        for (size_t i = 0; i < TILES; i++) f->features.known[i] = set >> i & 1;
        if (known == TILES) memset(f->batch.images, 0xff, TILES * tile_values(f) * 4); // NaN: nobody looks
        forget(f);
        expect_step(f, expected, size);
        assert_int_equal(f->m.n_encoded, TILES - known);
    }
}

static void known_tiles_give_the_same_bits(void **state) {
    (void)state;
    for (int i = 0; i < 4; i++) {
        Error err;
        Fixture f;
        Backend *be;
        if (!(i < 2 ? backend_cpu_create(&be, 1, &err) : backend_guard_create(&be, &err)))
            fail_msg("%s", err.text);
        const Dtype dtype = i % 2 ? DTYPE_BF16 : DTYPE_F32;
        open_fixture(&f, be, "tiny", dtype, false);
        size_t size;
        char *expected = step(&f, &size);
        float loss;
        memcpy(&loss, expected, sizeof loss);
        assert_true(loss > 1 && loss < 20);
        close_fixture(&f);
        open_fixture(&f, be, "tiny", dtype, true);
        check_known_tiles(&f, expected, size);
        close_fixture(&f);
        free(expected);
        backend_destroy(be);
    }
}

// One sequence of the first tiles, of which `n` are there.
static void embed(Fixture *f, size_t first, size_t n) {
    Error err;
    const size_t L = f->config.vlm.mp_image_token_length;
    Batch b = f->batch;
    b.B = 1, b.T = n * L < T ? n * L : T, b.n_tiles = n, b.labels = NULL, b.features = NULL;
    b.B = n * L / b.T;
    b.images += first * tile_values(f);
    int32_t *ids = mem_alloc(b.B * b.T * sizeof *ids);
    for (size_t i = 0; i < b.B * b.T; i++) ids[i] = IMAGE_TOKEN;
    b.input_ids = ids;
    if (!vlm_set_batch(&f->m, &b, &err)) fail_msg("%s", err.text);
    vlm_embed(&f->m);
    free(ids);
}

// Each tile of a batch against the same tile in a batch of its own, or of two, at other places; and against
// what an earlier call left in *first, which the first one makes.
static void check_company(Fixture *f, unsigned char **first) {
    unsigned char *alone = mem_alloc(f->features.tile_bytes);
    static const struct { size_t first, n; } batches[] = {{0, 1}, {3, 1}, {2, 2}};
    embed(f, 0, 4);
    for (size_t i = 0; i < 4; i++)
        vlm_tile_features(&f->m, i, f->features.bytes + i * f->features.tile_bytes);
    if (!*first)
        *first = memcpy(mem_alloc(4 * f->features.tile_bytes), f->features.bytes, 4 * f->features.tile_bytes);
    if (f->be->rows_alone) assert_memory_equal(f->features.bytes, *first, 4 * f->features.tile_bytes);
    for (size_t k = 0; k < sizeof batches / sizeof *batches; k++) {
        embed(f, batches[k].first, batches[k].n);
        for (size_t i = 0; i < batches[k].n; i++) {
            vlm_tile_features(&f->m, i, alone);
            assert_memory_equal(alone, f->features.bytes + (batches[k].first + i) * f->features.tile_bytes,
                                f->features.tile_bytes);
        }
    }
    free(alone);
}

// The cache knows a tile by its pixels alone: it must not matter which tiles are encoded beside it, nor how
// many threads there are, unless that is part of the arithmetic the cache goes by.
static void company_does_not_matter(void **state) {
    (void)state;
    unsigned char *first[4] = {0};
    for (size_t threads = 1; threads <= 2; threads++)
        for (int i = 0; i < 4; i++) {
            Error err;
            Fixture f;
            Backend *be;
            if (!backend_cpu_create(&be, threads, &err)) fail_msg("%s", err.text);
            if (i < 2 || be->rows_alone) { // else tiles are encoded one by one, whatever their size
                open_fixture(&f, be, i < 2 ? "tiny" : "small", i % 2 ? DTYPE_BF16 : DTYPE_F32, false);
                check_company(&f, &first[i]);
                close_fixture(&f);
            }
            backend_destroy(be);
        }
    for (int i = 0; i < 4; i++) free(first[i]);
}

static int run(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_tiles_give_the_same_bits),
        cmocka_unit_test(company_does_not_matter),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

int main(int argc, char **argv) {
    (void)argc;
    return run_at_each_level(argv, run);
}
