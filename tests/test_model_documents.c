// LINK: model data
// Samples that attend only to themselves: a packed batch gives the loss and the gradients of its samples run
// one by one, weighted by their targets.
#include "base/memory.h"
#include "base/random.h"
#include "data/collate.h"
#include "model/checkpoint.h"
#include "ops/cpu/cpu.h"
#include "support/guard_backend.h"
#include "support/reference.h"

#include <math.h>
#include <stdlib.h>

enum { B = 3, T = 230, MOST_SAMPLES = 80, MOST_TILES = 40, IMAGE = 276, PAD = 2 };
static const double loss_limit = 1e-6, gradient_limit = 1e-5; // another order of summation, nothing else

// Samples of random tokens, and what they are as a batch.
typedef struct Packed {
    Backend *be;
    VLMConfig config;
    Int32Vec ids[MOST_SAMPLES], labels[MOST_SAMPLES];
    size_t tiles[MOST_SAMPLES], samples, pixels; // pixels of a tile
    Batch batch;
} Packed;

// Its length, its pictures and where they stand, what is trained.
static void draw_sample(Packed *p, Random *r, size_t length) {
    size_t i = p->samples++, L = p->config.mp_image_token_length;
    size_t tiles = length > 3 * L ? random_below(r, 3) : 0, first = random_below(r, length - tiles * L + 1);
    p->tiles[i] = tiles;
    p->batch.n_tiles += tiles;
    for (size_t k = 0; k < length; k++)
        vec_push(&p->ids[i], k >= first && k < first + tiles * L ? IMAGE : (int32_t)random_below(r, 270) + 3);
    for (size_t k = 0; k < length; k++) {
        bool trained = k + 1 < length && p->ids[i].items[k + 1] != IMAGE && random_below(r, 3) > 0;
        vec_push(&p->labels[i], trained ? p->ids[i].items[k + 1] : IGNORE_INDEX);
    }
}

// Fills a sequence, with samples of one position among them, and long ones.
static void draw_sequence(Packed *p, Random *r, Sequence *s, size_t most) {
    for (;;) {
        size_t length = 1 + random_below(r, random_below(r, 3) ? 12 : most);
        if (s->ids.count + length + 1 > T || p->batch.n_tiles + 2 > MOST_TILES) return;
        size_t i = p->samples;
        draw_sample(p, r, length);
        sequence_append(s, &p->ids[i], &p->labels[i], p->tiles[i] > 0, p->tiles[i], PAD);
    }
}

static void alloc_batch(Batch *b, size_t pixels) {
    b->input_ids = mem_zeroed(B * T, sizeof *b->input_ids);
    b->attention_mask = mem_zeroed(B * T, sizeof *b->attention_mask);
    b->labels = mem_zeroed(B * T, sizeof *b->labels);
    b->starts = mem_zeroed(B * T, sizeof *b->starts);
    b->images = mem_zeroed(MOST_TILES * pixels, sizeof *b->images);
}

// The last sequence holds nothing but padding.
static void packed_open(Packed *p, Backend *be, uint64_t seed, size_t most) {
    Error err;
    char *folder = golden_path("model/a_base");
    *p = (Packed){.be = be};
    fields_set_defaults((FieldSet){&vlm_config_table, &p->config});
    if (!checkpoint_load_config(&p->config, folder, &err)) fail_msg("%s", err.text);
    free(folder);
    p->pixels = 3 * p->config.vit_img_size * p->config.vit_img_size;
    alloc_batch(&p->batch, p->pixels);
    Random r = random_stream(seed, RANDOM_TEST, 0);
    Sequence sequences[B] = {0};
    for (size_t i = 0; i + 1 < B; i++) draw_sequence(p, &r, &sequences[i], most);
    size_t n_tiles = p->batch.n_tiles;
    for (size_t i = 0; i < n_tiles * p->pixels; i++) p->batch.images[i] = (float)random_uniform(&r);
    const Sequence *all[B];
    for (size_t i = 0; i < B; i++) all[i] = &sequences[i];
    collate(&p->batch, all, B, T, PAD);
    assert_int_equal(p->batch.n_tiles, n_tiles);
    assert_int_equal(p->batch.n_samples, p->samples);
    for (size_t i = 0; i < B; i++) sequence_free(&sequences[i]);
}

static void packed_close(Packed *p) {
    for (size_t i = 0; i < p->samples; i++) {
        vec_free(&p->ids[i]);
        vec_free(&p->labels[i]);
    }
    reference_batch_free(&p->batch);
    fields_free((FieldSet){&vlm_config_table, &p->config});
}

static void open_model(Vlm *m, const Packed *p, bool documents) {
    Error err;
    VlmPlan plan = {.max_batch = B,
                    .max_positions = T,
                    .max_tiles = MOST_TILES,
                    .training = true,
                    .trained = {true, true, true},
                    .image_token_id = IMAGE,
                    .documents = documents,
                    .dtype = DTYPE_F32};
    char *folder = golden_path("model/a_base");
    if (!vlm_create(m, p->be, &p->config, &plan, &err)) fail_msg("%s", err.text);
    if (!checkpoint_load_weights(m, folder, &err)) fail_msg("%s", err.text);
    free(folder);
}

static double run(Vlm *m, const Batch *b, float dscale) {
    Error err;
    if (!vlm_forward(m, b, dscale, &err)) fail_msg("%s", err.text);
    vlm_backward(m);
    return (double)vlm_loss(m);
}

static size_t targets(const Int32Vec *labels) {
    size_t n = 0;
    for (size_t i = 0; i < labels->count; i++) n += labels->items[i] != IGNORE_INDEX;
    return n;
}

// Every sample by itself, without mask, padding or starts: the loss, and the gradients summed in m.
static double run_alone(Vlm *m, const Packed *p) {
    size_t all = 0, tile = 0;
    double loss = 0;
    for (size_t i = 0; i < p->samples; i++) all += targets(&p->labels[i]);
    for (size_t i = 0; i < p->samples; tile += p->tiles[i++]) {
        size_t n = targets(&p->labels[i]);
        Batch alone = {.B = 1,
                       .T = p->ids[i].count,
                       .input_ids = p->ids[i].items,
                       .labels = p->labels[i].items,
                       .n_tiles = p->tiles[i],
                       .images = p->batch.images + tile * p->pixels};
        double weight = (double)n / (double)all;
        if (n) loss += weight * run(m, &alone, (float)weight);
    }
    return loss;
}

static void compare(const Packed *p, const Vlm *packed, const Vlm *alone) {
    for (size_t i = 0; i < packed->params.count; i++) {
        const Param *a = &packed->params.items[i], *b = &alone->params.items[i];
        if (a->group == GROUP_BUFFER) continue;
        float *x = tensor_values(p->be, a->d), *ref = tensor_values(p->be, b->d);
        expect_within("gradient, relative", relative_l2(x, ref, tensor_count(a->d)), gradient_limit,
                      "%s (%s)", a->name, p->be->name);
        free(x);
        free(ref);
    }
}

static void check_finite(const Packed *p, Tensor t) {
    float *x = tensor_values(p->be, t);
    for (size_t i = 0; i < tensor_count(t); i++)
        if (!isfinite(x[i])) fail_msg("value %zu is %g", i, (double)x[i]);
    free(x);
}

static void check_positions(const Packed *p, const Vlm *m) {
    int32_t *x = (int32_t *)tensor_values(p->be, m->decoder.positions);
    for (size_t i = 0; i < B * T; i++) assert_int_equal(x[i], (int32_t)(i % T) - p->batch.starts[i]);
    free(x);
}

// most: length of the longest sample; limit: lm_max_position_embeddings, 0 the model's own.
static void check_packed(Backend *be, uint64_t seed, size_t most, size_t limit) {
    Packed p;
    Vlm packed, alone;
    packed_open(&p, be, seed, most);
    if (limit) p.config.lm_max_position_embeddings = limit;
    open_model(&packed, &p, true);
    open_model(&alone, &p, false);
    double loss = run(&packed, &p.batch, 1), expected = run_alone(&alone, &p);
    expect_within("loss, relative", fabs(loss - expected) / expected, loss_limit, "seed %llu (%s)",
                  (unsigned long long)seed, be->name);
    compare(&p, &packed, &alone);
    check_positions(&p, &packed);         // the loss says little of them, because rotary angles are relative
    check_finite(&p, packed.decoder.out); // of padding too
    check_finite(&p, packed.decoder.dx);
    vlm_free(&packed);
    vlm_free(&alone);
    packed_close(&p);
}

static Backend *open_cpu(void) {
    Backend *be;
    Error err;
    if (!backend_cpu_create(&be, 0, &err)) fail_msg("%s", err.text);
    return be;
}

static void test_packed_is_alone(void **state) {
    (void)state;
    Backend *be = open_cpu();
    for (uint64_t seed = 1; seed <= 6; seed++) check_packed(be, seed, seed % 2 ? 60 : 180, 0);
    backend_destroy(be);
}

static void test_guard(void **state) {
    (void)state;
    Backend *be;
    Error err;
    if (!backend_guard_create(&be, &err)) fail_msg("%s", err.text);
    check_packed(be, 7, 150, 0);
    backend_destroy(be);
}

// Sequences are longer than lm_max_position_embeddings, but no sample is: no angle is rescaled. (A sample
// that is longer would rescale the others of its batch, as the longest row does in nanoVLM.)
static void test_long_sequence(void **state) {
    (void)state;
    Backend *be = open_cpu();
    check_packed(be, 8, 60, 61);
    backend_destroy(be);
}

// Without starts, or with `full`, the batch is nanoVLM's; with both it is another one.
static void test_modes(void **state) {
    (void)state;
    Packed p;
    Vlm documents, full;
    Backend *be = open_cpu();
    packed_open(&p, be, 9, 60);
    open_model(&documents, &p, true);
    open_model(&full, &p, false);
    double apart = run(&documents, &p.batch, 1), together = run(&full, &p.batch, 1);
    assert_true(fabs(apart - together) > 1e-3);
    int32_t *starts = p.batch.starts;
    p.batch.starts = NULL;
    assert_true(run(&documents, &p.batch, 1) == together);
    p.batch.starts = starts;
    assert_true(run(&documents, &p.batch, 1) == apart); // the plan's memory is laid out for each batch
    vlm_free(&documents);
    vlm_free(&full);
    packed_close(&p);
    backend_destroy(be);
}

static void append(Sequence *s, size_t length) {
    Int32Vec ids = {0}, labels = {0};
    for (size_t i = 0; i < length; i++) {
        vec_push(&ids, 7);
        vec_push(&labels, 8);
    }
    sequence_append(s, &ids, &labels, 0, 0, PAD);
    vec_free(&ids);
    vec_free(&labels);
}

// A sample's pad is its own; padding in front begins at itself.
static void test_starts(void **state) {
    (void)state;
    static const int32_t expected[2][9] = {{0, 1, 2, 2, 2, 2, 6, 6, 8}, {0, 1, 2, 3, 4, 5, 6, 7, 7}};
    Sequence s[2] = {0};
    Packed p = {0};
    alloc_batch(&p.batch, 1);
    append(&s[0], 3), append(&s[0], 1), append(&s[0], 0), append(&s[1], 1);
    collate(&p.batch, (const Sequence *const[]){&s[0], &s[1]}, 2, 9, PAD);
    assert_memory_equal(p.batch.starts, expected, sizeof expected);
    sequence_clear(&s[0]);
    append(&s[0], 8);
    collate(&p.batch, (const Sequence *const[]){&s[0]}, 1, 9, PAD);
    for (size_t i = 0; i < 9; i++) assert_int_equal(p.batch.starts[i], 0);
    sequence_free(&s[0]);
    sequence_free(&s[1]);
    reference_batch_free(&p.batch);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_starts), cmocka_unit_test(test_packed_is_alone),
        cmocka_unit_test(test_guard),  cmocka_unit_test(test_long_sequence),
        cmocka_unit_test(test_modes),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    print_worst_shares();
    return failed;
}
