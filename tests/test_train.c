// LINK: train
// LABELS: parity
// The trainer against the real nanoVLM: twenty updates on the same micro-batches, with every loss, the
// accumulated gradients, norms, learning rates, moments and weights, on the CPU backend at each level of
// instructions and under the guard.
#include "base/memory.h"
#include "ops/cpu/cpu.h"
#include "support/guard_backend.h"
#include "support/op_case.h"
#include "support/train_case.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Adam divides by the size of the gradient, so that rounding grows from step to step: what another float32
// implementation may differ by, about ten times what nanoVLM's own attention paths and float64 differ by.
static const double loss_limit = 5e-4, norm_limit = 5e-4, gradient_limit = 1e-4, moment_limit = 2e-3;
static const double bf16_loss_limit = 0.02, bf16_norm_limit = 0.15; // what BF16 itself does to nanoVLM's run
static const double movement_limit = 1e-2, adamw_limit = 5e-7;

// ---- comparisons ----

static double number(const json_t *object, const char *key) {
    const json_t *value = json_object_get(object, key);
    if (!json_is_number(value)) fail_msg("the reference has no number %s", key);
    return json_number_value(value);
}

static void compare_first_gradients(TrainCase *c) {
    Safetensors *file = reference_open("train/%s/grads_update0.safetensors", c->variant);
    size_t compared = 0;
    for (size_t i = 0; i < c->model.params.count; i++) {
        const Param *p = &c->model.params.items[i];
        float *ref = reference_f32(file, p->name);
        assert_int_equal(ref != NULL, tensor_exists(p->d)); // a frozen group has none
        if (!ref) continue;
        float *x = tensor_values(c->be, p->d);
        expect_within("accumulated gradient, relative", relative_l2(x, ref, tensor_count(p->d)),
                      gradient_limit, "%s %s (%s)", c->variant, p->name, c->be->name);
        free(x);
        free(ref);
        compared++;
    }
    assert_int_equal(compared, safetensors_count(file));
    safetensors_close(file);
}

static void compare_moment(TrainCase *c, const Safetensors *file, size_t i, const char *kind, Tensor moment,
                           size_t *compared) {
    char name[128];
    const Param *p = &c->model.params.items[i];
    snprintf(name, sizeof name, "%s.%s", kind, p->name);
    float *ref = reference_f32(file, name);
    if (!ref) return;
    float *x = tensor_values(c->be, moment);
    expect_within("moments after 3 updates, relative", relative_l2(x, ref, tensor_count(moment)),
                  moment_limit, "%s %s (%s)", c->variant, name, c->be->name);
    free(x);
    free(ref);
    ++*compared;
}

static void compare_moments(TrainCase *c) {
    Safetensors *file = reference_open("train/%s/moments_step3.safetensors", c->variant);
    size_t compared = 0;
    for (size_t i = 0; i < c->model.params.count; i++) {
        compare_moment(c, file, i, "exp_avg", c->trainer.optimizer.m[i], &compared);
        compare_moment(c, file, i, "exp_avg_sq", c->trainer.optimizer.v[i], &compared);
    }
    assert_int_equal(compared, safetensors_count(file));
    safetensors_close(file);
}

static void compare_update(TrainCase *c, const json_t *step, size_t at) {
    const json_t *rates = json_object_get(step, "lr");
    expect_within("gradient norm, relative", fabs(c->trainer.grad_norm / number(step, "grad_norm") - 1),
                  norm_limit, "%s step %zu (%s)", c->variant, at, c->be->name);
    for (int g = 0; g < GROUP_TRAINED; g++) {
        if (!c->model.plan.trained[g]) {
            assert_null(json_object_get(rates, param_group_names[g]));
            assert_true(c->trainer.lr[g] == 0);
            continue;
        }
        expect_within("learning rate, relative",
                      fabs(c->trainer.lr[g] / number(rates, param_group_names[g]) - 1), 1e-15,
                      "%s step %zu %s", c->variant, at, param_group_names[g]);
    }
}

static void compare_validation(TrainCase *c, double ref, size_t at) {
    double sum = 0;
    for (size_t i = 0; i < c->n_validation; i++) {
        Error err;
        float loss;
        if (!trainer_evaluate(&c->trainer, &c->validation[i], &loss, &err)) fail_msg("%s", err.text);
        sum += loss;
    }
    expect_within("validation loss, absolute", fabs(sum / (double)c->n_validation - ref), loss_limit,
                  "%s step %zu (%s)", c->variant, at, c->be->name);
}

// ---- runs ----

static float micro_step(TrainCase *c, size_t at) {
    Error err;
    float loss;
    if (!trainer_micro_step(&c->trainer, &c->micro[at % c->n_micro], &loss, &err)) fail_msg("%s", err.text);
    return loss;
}

static void run_reference(TrainCase *c, size_t n_steps) {
    const json_t *steps = json_object_get(c->reference, "steps");
    const size_t per_update = c->config.train.gradient_accumulation_steps;
    for (size_t at = 0; at < n_steps; at++) {
        const json_t *step = json_array_get(steps, at), *losses = json_object_get(step, "micro_losses");
        for (size_t i = 0; i < per_update; i++) {
            const double loss = micro_step(c, at * per_update + i);
            expect_within("micro-batch loss, absolute",
                          fabs(loss - json_number_value(json_array_get(losses, i))), loss_limit,
                          "%s step %zu (%s)", c->variant, at, c->be->name);
        }
        if (at == 0) compare_first_gradients(c);
        trainer_update(&c->trainer);
        compare_update(c, step, at);
        if (at == 0)
            train_compare_weights(c, "weights_step1.safetensors", "weights after 1 update, of the movement",
                                  movement_limit);
        if (at == 2) compare_moments(c);
        if (json_object_get(step, "val_loss")) compare_validation(c, number(step, "val_loss"), at);
    }
    if (n_steps == json_array_size(steps))
        train_compare_weights(c, "weights_final.safetensors", "weights after 20 updates, of the movement",
                              movement_limit);
}

// In BF16 the reference has losses and norms alone.
static void run_losses(TrainCase *c, size_t n_steps) {
    const json_t *steps = json_object_get(c->reference, "steps");
    const size_t per_update = c->config.train.gradient_accumulation_steps;
    assert_int_equal(c->dtype, DTYPE_BF16);
    for (size_t at = 0; at < n_steps; at++) {
        const json_t *step = json_array_get(steps, at), *losses = json_object_get(step, "micro_losses");
        for (size_t i = 0; i < per_update; i++) {
            const double ref = json_number_value(json_array_get(losses, i));
            expect_within("micro-batch loss in BF16, relative",
                          fabs(micro_step(c, at * per_update + i) / ref - 1), bf16_loss_limit,
                          "%s step %zu (%s)", c->variant, at, c->be->name);
        }
        trainer_update(&c->trainer);
        expect_within("gradient norm in BF16, relative",
                      fabs(c->trainer.grad_norm / number(step, "grad_norm") - 1), bf16_norm_limit,
                      "%s step %zu (%s)", c->variant, at, c->be->name);
    }
}

// Every variant; one with weights to compare is of float32.
static void run_variants(Backend *be, size_t max_steps) {
    StringList all = golden_cases("train", "steps.json");
    for (size_t i = 0; i < all.count; i++) {
        TrainCase c;
        train_case_open(&c, be, all.items[i]);
        const size_t n = json_array_size(json_object_get(c.reference, "steps"));
        (c.dtype == DTYPE_BF16 ? run_losses : run_reference)(&c, n < max_steps ? n : max_steps);
        train_case_close(&c);
    }
    printf("%s: %zu training runs compared\n", be->name, all.count);
    string_list_free(&all);
    backend_destroy(be);
}

static Backend *cpu(void) {
    Backend *be;
    Error err;
    if (!backend_cpu_create(&be, 0, &err)) fail_msg("%s", err.text);
    return be;
}

static void test_cpu(void **state) {
    (void)state;
    run_variants(cpu(), SIZE_MAX);
}

static void test_guard(void **state) {
    (void)state;
    Backend *be;
    Error err;
    if (!backend_guard_create(&be, &err)) fail_msg("%s", err.text);
    run_variants(be, 4);
}

// AdamW and the clipping alone: nanoVLM's own first gradients must give nanoVLM's weights.
static void test_adamw_alone(void **state) {
    (void)state;
    Backend *be = cpu();
    TrainCase c;
    train_case_open(&c, be, "three_groups");
    Safetensors *grads = reference_open("train/three_groups/grads_update0.safetensors");
    Safetensors *after = reference_open("train/three_groups/weights_step1.safetensors");
    for (size_t i = 0; i < c.model.params.count; i++) {
        const Param *p = &c.model.params.items[i];
        if (!tensor_exists(p->d)) continue;
        float *g = reference_f32(grads, p->name);
        tensor_upload(be, STREAM_COMPUTE, p->d, g);
        free(g);
    }
    for (int g = 0; g < GROUP_TRAINED; g++) c.trainer.received[g] = true;
    trainer_update(&c.trainer);
    for (size_t i = 0; i < c.model.params.count; i++) {
        const Param *p = &c.model.params.items[i];
        float *ref = reference_f32(after, p->name), *x = tensor_values(be, p->w);
        if (ref)
            expect_within("AdamW on the reference's gradients, absolute",
                          largest_difference(x, ref, tensor_count(p->w)), adamw_limit, "%s", p->name);
        free(ref);
        free(x);
    }
    safetensors_close(grads);
    safetensors_close(after);
    train_case_close(&c);
    backend_destroy(be);
}

// Losses and weights of a few updates, as bits.
static void run_bits(Backend *be, float *losses, size_t n, float **embedding, size_t *count) {
    TrainCase c;
    train_case_open(&c, be, "three_groups");
    for (size_t i = 0; i < n; i++) {
        losses[i] = micro_step(&c, i);
        if (i % 2 == 1) trainer_update(&c.trainer);
    }
    *embedding = tensor_values(be, c.model.params.decoder.embedding->w);
    *count = tensor_count(c.model.params.decoder.embedding->w);
    train_case_close(&c);
}

static void test_same_bits_twice(void **state) {
    (void)state;
    enum { N = 12 };
    float losses[2][N], *embedding[2];
    size_t count;
    for (int i = 0; i < 2; i++) {
        Backend *be = cpu();
        run_bits(be, losses[i], N, &embedding[i], &count);
        backend_destroy(be);
    }
    assert_memory_equal(losses[0], losses[1], sizeof losses[0]);
    assert_memory_equal(embedding[0], embedding[1], count * sizeof(float));
    free(embedding[0]);
    free(embedding[1]);
}

// ---- groups ----

static void test_frozen_group_has_no_memory(void **state) {
    (void)state;
    Backend *be = cpu();
    TrainCase all, frozen;
    train_case_open(&all, be, "three_groups");
    train_case_open(&frozen, be, "vision_frozen");
    const VlmPlan plan = {.trained = {true, false, true}};
    size_t planned;
    Error err;
    assert_true(optimizer_measure(&planned, be, &frozen.config.vlm, &plan,
                                  (OptimizerForm){.moments = DTYPE_F32}, &err));
    assert_int_equal(planned, frozen.trainer.optimizer.arena.size);
    size_t halved;
    assert_true(optimizer_measure(&halved, be, &frozen.config.vlm, &plan,
                                  (OptimizerForm){.moments = DTYPE_BF16}, &err));
    // a few values stay F32, and each tensor begins at a multiple of 64 bytes
    assert_true(2 * halved >= planned && 2 * halved <= planned + 256 * frozen.model.params.count);
    assert_true(frozen.model.params.gradients.size < all.model.params.gradients.size);
    assert_true(planned < all.trainer.optimizer.arena.size);
    for (size_t i = 0; i < frozen.model.params.count; i++) {
        const Param *p = &frozen.model.params.items[i];
        const bool has = p->group < GROUP_TRAINED && plan.trained[p->group];
        assert_int_equal(tensor_exists(p->d), has);
        assert_int_equal(tensor_exists(frozen.trainer.optimizer.m[i]), has);
        assert_int_equal(tensor_exists(frozen.trainer.optimizer.v[i]), has);
    }
    train_case_close(&all);
    train_case_close(&frozen);
    backend_destroy(be);
}

static bool moved(TrainCase *c, Safetensors *start, const Param *p) {
    float *x = tensor_values(c->be, p->w), *ref = reference_f32(start, p->file_name);
    const bool differs = memcmp(x, ref, tensor_count(p->w) * sizeof *x) != 0;
    free(x);
    free(ref);
    return differs;
}

// An update whose micro-batches had no picture leaves vision and projector alone: no decay, no count.
static void test_update_without_pictures(void **state) {
    (void)state;
    Backend *be = cpu();
    TrainCase c;
    train_case_open(&c, be, "three_groups");
    Safetensors *start = reference_open("train/start/model.safetensors");
    Batch text = c.micro[0];
    text.n_tiles = 0;
    Error err;
    float loss;
    for (int i = 0; i < 2; i++)
        if (!trainer_micro_step(&c.trainer, &text, &loss, &err)) fail_msg("%s", err.text);
    trainer_update(&c.trainer);
    for (size_t i = 0; i < c.model.params.count; i++) {
        const Param *p = &c.model.params.items[i];
        assert_int_equal(moved(&c, start, p), p->group == GROUP_LANGUAGE);
    }
    micro_step(&c, 0);
    trainer_update(&c.trainer);
    assert_int_equal(c.trainer.optimizer.steps[GROUP_MP], 1);
    assert_int_equal(c.trainer.optimizer.steps[GROUP_VISION], 1);
    assert_int_equal(c.trainer.optimizer.steps[GROUP_LANGUAGE], 2);
    assert_true(moved(&c, start, c.model.params.projector));
    safetensors_close(start);
    train_case_close(&c);
    backend_destroy(be);
}

static int all_tests(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cpu),
        cmocka_unit_test(test_guard),
        cmocka_unit_test(test_adamw_alone),
        cmocka_unit_test(test_same_bits_twice),
        cmocka_unit_test(test_frozen_group_has_no_memory),
        cmocka_unit_test(test_update_without_pictures),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    print_worst_shares();
    return failed;
}

// Each level must pass: training multiplies what a level rounds otherwise.
int main(int argc, char **argv) {
    (void)argc;
    return run_at_each_level(argv, all_tests);
}
