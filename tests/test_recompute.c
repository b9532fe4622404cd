// LINK: model ops_cpu config
// Activations that backward makes again: gradients of the same bits, in less memory.
#include "support/golden.h"
#include "support/random_batch.h"

#include "base/memory.h"
#include "model/vlm.h"
#include "ops/cpu/cpu.h"

#include <stdlib.h>
#include <string.h>

enum { B = 2, T = 48, TILES = 2, TARGETS = 20, IMAGE_TOKEN = 5 };

typedef struct Step {
    float loss;
    float *gradients; // all of them, one after the other
    size_t bytes, activations;
} Step;

// A packed batch: two samples a sequence, one tile each sequence.
static const BatchShape shape = {
    .B = B, .T = T, .tiles = TILES, .targets = TARGETS, .image_token = IMAGE_TOKEN, .second = 30};

static Step step(const Config *config, Recompute recompute, Dtype dtype, bool vision) {
    Error err;
    Backend *be;
    Vlm m;
    Step s = {0};
    const VlmPlan plan = {.max_batch = B,
                          .max_positions = T,
                          .max_tiles = TILES,
                          .training = true,
                          .trained = {true, vision, true},
                          .image_token_id = IMAGE_TOKEN,
                          .documents = true,
                          .dtype = dtype,
                          .recompute = recompute};
    Batch batch = random_batch(shape, &config->vlm);
    if (!backend_cpu_create(&be, 1, &err) || !vlm_create(&m, be, &config->vlm, &plan, &err))
        fail_msg("%s", err.text);
    params_initialise(&m.params, be, &config->vlm, "scaled", 3);
    for (int i = 0; i < 2; i++) { // the second adds to the first's gradients over used memory
        if (!vlm_forward(&m, &batch, 1.0f, &err)) fail_msg("%s", err.text);
        vlm_backward(&m);
    }
    s.loss = vlm_loss(&m);
    s.bytes = m.params.gradients.size;
    s.activations = vlm_activation_bytes(&m);
    s.gradients = mem_alloc(s.bytes);
    memcpy(s.gradients, m.params.gradients.base, s.bytes);
    vlm_free(&m);
    backend_destroy(be);
    random_batch_free(&batch);
    return s;
}

static void gradients_have_the_same_bits(void **state) {
    (void)state;
    Config config;
    Error err;
    config_init(&config);
    if (!config_apply_preset(&config, "tiny", &err)) fail_msg("%s", err.text);
    for (int i = 0; i < 4; i++) {
        const Dtype dtype = i & 1 ? DTYPE_BF16 : DTYPE_F32;
        const bool vision = i & 2;
        Step kept = step(&config, RECOMPUTE_NONE, dtype, vision);
        for (int how = RECOMPUTE_NORMS; how <= RECOMPUTE_BLOCK; how++) {
            Step s = step(&config, (Recompute)how, dtype, vision);
            assert_int_equal(s.bytes, kept.bytes);
            assert_memory_equal(&s.loss, &kept.loss, sizeof s.loss);
            assert_memory_equal(s.gradients, kept.gradients, s.bytes);
            const double share = (double)s.activations / (double)kept.activations;
            if (share > (how == RECOMPUTE_BLOCK ? 0.55 : how == RECOMPUTE_ATTENTION ? 0.8 : 0.85))
                fail_msg("%g of the memory is left", share);
            free(s.gradients);
        }
        free(kept.gradients);
    }
    config_free(&config);
}

static void a_batch_of_too_many_targets_is_refused(void **state) {
    (void)state;
    Config config;
    Error err;
    Backend *be;
    Vlm m;
    config_init(&config);
    assert_true(config_apply_preset(&config, "tiny", &err));
    VlmPlan plan = {.max_batch = B, .max_positions = T, .max_tiles = TILES, .image_token_id = IMAGE_TOKEN};
    Batch batch = random_batch(shape, &config.vlm);
    assert_true(backend_cpu_create(&be, 1, &err));
    for (size_t more = 0; more < 2; more++) {
        plan.max_targets = B * TARGETS - 1 + more;
        assert_true(vlm_create(&m, be, &config.vlm, &plan, &err));
        assert_int_equal(vlm_set_batch(&m, &batch, &err), more);
        if (!more) assert_non_null(strstr(err.text, "40 targets exceeds the plan of 39"));
        vlm_free(&m);
    }
    backend_destroy(be);
    random_batch_free(&batch);
    config_free(&config);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gradients_have_the_same_bits),
        cmocka_unit_test(a_batch_of_too_many_targets_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
