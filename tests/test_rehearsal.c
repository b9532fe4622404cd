// LINK: model ops_cpu config
// A rehearsal of a step finds out what the step itself takes: the same scratch, the same code, and nothing
// more.
#include "support/golden.h"

#include "base/memory.h"
#include "model/rehearse.h"
#include "ops/cpu/cpu.h"

#include <stdlib.h>
#include <string.h>

enum { B = 2, T = 512, TILES = 8, TARGETS = 300, IMAGE_TOKEN = 0, PAGE = 4096 };

static Batch make_batch(const VLMConfig *c) {
    Batch b = {.B = B, .T = T, .n_tiles = TILES};
    b.input_ids = mem_zeroed(B * T, sizeof *b.input_ids);
    b.labels = mem_zeroed(B * T, sizeof *b.labels);
    b.starts = mem_zeroed(B * T, sizeof *b.starts);
    b.images = mem_zeroed(TILES * 3 * c->vit_img_size * c->vit_img_size, sizeof *b.images);
    for (size_t i = 0; i < B * T; i++) {
        b.input_ids[i] = i < TILES * c->mp_image_token_length ? IMAGE_TOKEN : 1 + (int32_t)(i % 300);
        b.labels[i] = i < TARGETS ? 1 : IGNORE_INDEX;
    }
    return b;
}

static void run_step(Backend *be, const VLMConfig *config, const VlmPlan *plan) {
    Error err;
    Vlm m;
    Batch batch = make_batch(config);
    if (!vlm_create(&m, be, config, plan, &err)) fail_msg("%s", err.text);
    params_initialise(&m.params, be, config, "scaled", 3);
    if (!vlm_forward(&m, &batch, 1.0f, &err)) fail_msg("%s", err.text);
    vlm_backward(&m);
    vlm_free(&m);
    free(batch.input_ids);
    free(batch.labels);
    free(batch.starts);
    free(batch.images);
}

// Scratch of the library is in whole pages, and one for all steps of the process: the largest comes first.
static void check(const VLMConfig *config, Dtype dtype, Recompute recompute, size_t lora_rank, bool vision) {
    Error err;
    Backend *be;
    const VlmPlan plan = {
        .max_batch = B,
        .max_positions = T,
        .max_tiles = TILES,
        .max_targets = TARGETS,
        .training = true,
        .trained = {true, vision, true, true, true},
        .image_token_id = IMAGE_TOKEN,
        .documents = true,
        .dtype = dtype,
        .recompute = recompute,
        .adaptation = {.lora_rank = lora_rank, .lora_alpha = 8, .lora_learning_rate = 1e-4}};
    size_t scratch, most;
    if (!backend_cpu_create(&be, 1, &err)) fail_msg("%s", err.text);
    if (!vlm_rehearse(&scratch, be, config, &plan, &err)) fail_msg("%s", err.text);
    const size_t pieces = backend_pieces(be, &most);
    run_step(be, config, &plan);
    const size_t taken = be->device->workspace(be);
    if (taken < scratch || taken >= scratch + PAGE)
        fail_msg("%s, recompute %d, rank %zu: %zu bytes of scratch, rehearsed %zu", dtype_name(dtype),
                 recompute, lora_rank, taken, scratch);
    assert_int_equal(backend_pieces(be, &most), pieces);
    backend_destroy(be);
}

static void a_step_takes_what_was_rehearsed(void **state) {
    (void)state;
    Config config;
    Error err;
    config_init(&config);
    if (!config_apply_preset(&config, "tiny", &err)) fail_msg("%s", err.text);
    config.vlm.lm_n_blocks = config.vlm.vit_n_blocks = 2;
    check(&config.vlm, DTYPE_F32, RECOMPUTE_NORMS, 0, true);
    check(&config.vlm, DTYPE_BF16, RECOMPUTE_NORMS, 0, true);
    check(&config.vlm, DTYPE_BF16, RECOMPUTE_NONE, 0, true);
    check(&config.vlm, DTYPE_BF16, RECOMPUTE_BLOCK, 0, true);
    check(&config.vlm, DTYPE_BF16, RECOMPUTE_NORMS, 8, true);
    check(&config.vlm, DTYPE_BF16, RECOMPUTE_NORMS, 0, false);
    config_free(&config);
}

// Batches of many shapes leave no more code than is kept, and the newest batch's is there.
static void code_of_many_batches(void **state) {
    (void)state;
    Config config;
    Error err;
    Backend *be;
    size_t scratch, most, largest = 0;
    config_init(&config);
    if (!config_apply_preset(&config, "tiny", &err)) fail_msg("%s", err.text);
    assert_true(backend_cpu_create(&be, 1, &err));
    VlmPlan plan = {.max_batch = B,
                    .max_positions = T,
                    .max_targets = TARGETS,
                    .training = true,
                    .trained = {true, true, true},
                    .dtype = DTYPE_BF16};
    for (size_t i = 0; i < 12; i++) {
        plan.max_tiles = 1 + i;
        plan.max_targets++;
        if (!vlm_rehearse(&scratch, be, &config.vlm, &plan, &err)) fail_msg("%s", err.text);
        const size_t pieces = backend_pieces(be, &most);
        if (pieces > largest) largest = pieces;
        if (!vlm_rehearse(&scratch, be, &config.vlm, &plan, &err)) fail_msg("%s", err.text);
        assert_int_equal(backend_pieces(be, &most), pieces);
    }
    assert_true(largest <= most && (most == 0 || largest > 3 * most / 4));
    backend_destroy(be);
    config_free(&config);
}

// Addresses for a model of 20 GB and more, on any machine.
static void no_memory_of_the_model_is_taken(void **state) {
    (void)state;
    Config config;
    Error err;
    Backend *be;
    size_t scratch;
    config_init(&config);
    if (!config_apply_preset(&config, "nanovlm-460m", &err)) fail_msg("%s", err.text);
    const VlmPlan plan = {.max_batch = 4,
                          .max_positions = 4096,
                          .max_tiles = 40,
                          .training = true,
                          .trained = {true, true, true},
                          .dtype = DTYPE_BF16};
    assert_true(backend_cpu_create(&be, 1, &err));
    const size_t before = mem_resident_peak();
    if (!vlm_rehearse(&scratch, be, &config.vlm, &plan, &err)) fail_msg("%s", err.text);
    if (mem_resident_peak() > before + (64 << 20))
        fail_msg("%zu MiB were taken", (mem_resident_peak() - before) >> 20);
    backend_destroy(be);
    config_free(&config);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_step_takes_what_was_rehearsed),
        cmocka_unit_test(code_of_many_batches),
        cmocka_unit_test(no_memory_of_the_model_is_taken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
