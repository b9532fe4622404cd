// LINK: train ops_cpu config
// Adapters: gradients, equality with merged weights, what training moves, what memory plans say of them.
#include "support/golden.h"
#include "support/lora_case.h"
#include "support/program.h"

#include "base/memory.h"
#include "train/trainer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// ---- gradients ----

static double loss_at(LoraCase *c, const Param *p, const float *from, const float *direction, double step) {
    const size_t n = tensor_count(p->w);
    float *x = mem_alloc(n * sizeof *x);
    for (size_t k = 0; k < n; k++) x[k] = (float)(from[k] + step * direction[k]);
    lora_set_values(c, p, x);
    free(x);
    return lora_loss(c, 0);
}

// Along its own gradient the loss rises by its norm. F32's loss is exact to some 1e-6, the differences are of
// 1e-2 and their error of the fourth order.
static void compare_with_differences(LoraCase *c, const Param *p) {
    const size_t n = tensor_count(p->w);
    float *g = lora_values(c, p->d), *w = lora_values(c, p->w);
    double norm = 0;
    for (size_t k = 0; k < n; k++) norm += (double)g[k] * g[k];
    norm = sqrt(norm);
    if (!(norm > 1e-6)) fail_msg("%s: its gradient's norm is %g", p->name, norm);
    for (size_t k = 0; k < n; k++) g[k] = (float)(g[k] / norm);
    const double h = fmin(0.02 / norm, 0.1);
    const double near = (loss_at(c, p, w, g, h) - loss_at(c, p, w, g, -h)) / (2 * h);
    const double far = (loss_at(c, p, w, g, 2 * h) - loss_at(c, p, w, g, -2 * h)) / (4 * h);
    expect_within("gradient against differences, relative", fabs((4 * near - far) / 3 / norm - 1), 2e-3, "%s",
                  p->name);
    lora_set_values(c, p, w);
    free(g);
    free(w);
}

static void gradients_are_those_of_the_loss(void **state) {
    (void)state;
    LoraCase c;
    lora_open(&c, &(LoraKind){.rank = 3});
    lora_randomise(&c);
    lora_loss(&c, 1.0f);
    vlm_backward(&c.model);
    size_t compared = 0;
    for (size_t i = 0; i < c.model.params.count; i++)
        if (param_is_adapter(&c.model.params.items[i])) {
            compare_with_differences(&c, &c.model.params.items[i]);
            compared++;
        }
    assert_int_equal(compared, 2 * (4 + 2 * 7));
    print_worst_shares();
    lora_close(&c);
}

typedef struct Step {
    float loss;
    float *gradients;
    size_t bytes;
} Step;

static Step step_of(const LoraKind *k) {
    LoraCase c;
    Step s = {0};
    lora_open(&c, k);
    lora_randomise(&c);
    for (int i = 0; i < 2; i++) {
        s.loss = lora_loss(&c, 1.0f);
        vlm_backward(&c.model);
    }
    for (size_t i = 0; i < c.model.params.count; i++) {
        const Param *p = &c.model.params.items[i];
        if (!tensor_exists(p->d)) continue;
        float *x = lora_values(&c, p->d);
        s.gradients = mem_resize(s.gradients, s.bytes + tensor_bytes(p->d));
        memcpy((char *)s.gradients + s.bytes, x, tensor_bytes(p->d));
        s.bytes += tensor_bytes(p->d);
        free(x);
    }
    lora_close(&c);
    return s;
}

static void expect_same_step(const LoraKind *k, const Step *kept) {
    Step s = step_of(k);
    assert_memory_equal(&s.loss, &kept->loss, sizeof s.loss);
    assert_int_equal(s.bytes, kept->bytes);
    assert_memory_equal(s.gradients, kept->gradients, s.bytes);
    free(s.gradients);
}

// Of two blocks, backward makes the first again, whose memory the second has used.
static void recomputing_and_the_guard_change_no_bit(void **state) {
    (void)state;
    LoraKind kinds[] = {
        {.dtype = DTYPE_F32}, {.dtype = DTYPE_BF16}, {.dtype = DTYPE_BF16, .base = "trained"}};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        LoraKind *k = &kinds[i];
        k->rank = 3, k->blocks = 2;
        const Step kept = step_of(k);
        for (int how = RECOMPUTE_NONE; how <= RECOMPUTE_BLOCK; how++) {
            k->recompute = (Recompute)how;
            k->guard = how == RECOMPUTE_NONE;
            expect_same_step(k, &kept);
        }
        free(kept.gradients);
    }
}

// ---- what adapters add ----

static void fresh_adapters_leave_the_model_as_it_is(void **state) {
    (void)state;
    for (int dtype = 0; dtype < 2; dtype++) {
        LoraCase plain, adapted;
        LoraKind k = {.dtype = dtype ? DTYPE_BF16 : DTYPE_F32};
        lora_open(&plain, &k);
        k.rank = 5;
        lora_open(&adapted, &k);
        const float a = lora_loss(&plain, 0), b = lora_loss(&adapted, 0);
        assert_memory_equal(&a, &b, sizeof a);
        for (size_t i = 0; i < adapted.model.params.count; i++) { // A as PEFT draws it, B zeros
            const Param *p = &adapted.model.params.items[i];
            if (!param_is_adapter(p)) continue;
            const float bound = strstr(p->name, "lora_B") ? 0 : 1 / sqrtf((float)p->shape[1]);
            float *x = lora_values(&adapted, p->w), largest = 0;
            for (size_t n = 0; n < tensor_count(p->w); n++) largest = fmaxf(largest, fabsf(x[n]));
            assert_true(largest <= bound && largest >= 0.9f * bound);
            free(x);
        }
        lora_close(&plain);
        lora_close(&adapted);
    }
}

static void merged_weights_give_the_same_loss(void **state) {
    (void)state;
    LoraCase adapted, plain;
    Error err;
    char *path = program_temporary("merged.safetensors");
    lora_open(&adapted, &(LoraKind){.rank = 3});
    lora_open(&plain, &(LoraKind){0});
    lora_randomise(&adapted);
    const float before = lora_loss(&plain, 0), want = lora_loss(&adapted, 0);
    if (!params_save(&adapted.model.params, adapted.be, path, &err) ||
        !params_load(&plain.model.params, plain.be, path, &err))
        fail_msg("%s", err.text);
    const float got = lora_loss(&plain, 0);
    assert_true(fabsf(before - want) > 1e-3f * want);
    expect_within("loss of merged weights, relative", fabs((double)got / want - 1), 2e-6, "merged");
    unlink(path);
    free(path);
    lora_close(&adapted);
    lora_close(&plain);
}

// ---- training ----

static void only_adapters_and_the_projector_move(void **state) {
    (void)state;
    Error err;
    for (int trained = 0; trained < 2; trained++) {
        LoraCase c;
        Trainer t;
        float loss, **start, *now;
        lora_open(&c, &(LoraKind){.rank = 2, .guard = true, .base = trained ? "trained" : "frozen"});
        if (!trainer_create(&t, &c.model, &c.config.train, (OptimizerForm){.moments = DTYPE_F32}, &err))
            fail_msg("%s", err.text);
        const Params *p = &c.model.params;
        start = mem_zeroed(p->count, sizeof *start);
        for (size_t i = 0; i < p->count; i++) start[i] = lora_values(&c, p->items[i].w);
        for (int step = 0; step < 2; step++) { // in the first, A has no gradient yet, because B is 0
            for (int i = 0; i < 2; i++)
                if (!trainer_micro_step(&t, &c.batch, &loss, &err)) fail_msg("%s", err.text);
            trainer_update(&t);
        }
        for (size_t i = 0; i < p->count; i++) {
            const Param *q = &p->items[i];
            const bool wanted =
                q->group == GROUP_MP || param_is_adapter(q) || (trained && q->group != GROUP_BUFFER);
            now = lora_values(&c, q->w);
            if (wanted == !memcmp(now, start[i], tensor_bytes(q->w)))
                fail_msg("%s moved: %d", q->name, !wanted);
            assert_int_equal(wanted, q->d.ndim > 0);
            assert_int_equal(wanted, tensor_exists(t.optimizer.m[i]));
            free(now);
            free(start[i]);
        }
        free(start);
        trainer_free(&t);
        lora_close(&c);
    }
}

static void a_step_without_pictures_leaves_vision_adapters(void **state) {
    (void)state;
    LoraCase c;
    Trainer t;
    Error err;
    float loss;
    lora_open(&c, &(LoraKind){.rank = 2});
    lora_randomise(&c);
    c.batch.n_tiles = 0;
    if (!trainer_create(&t, &c.model, &c.config.train, (OptimizerForm){.moments = DTYPE_F32}, &err))
        fail_msg("%s", err.text);
    for (int i = 0; i < 2; i++) assert_true(trainer_micro_step(&t, &c.batch, &loss, &err));
    trainer_update(&t);
    assert_int_equal(t.optimizer.steps[GROUP_LORA_LANGUAGE], 1);
    assert_int_equal(t.optimizer.steps[GROUP_LORA_VISION], 0);
    assert_true(fabs(t.lr[GROUP_LORA_LANGUAGE] - t.lr[GROUP_LORA_VISION]) == 0 &&
                t.lr[GROUP_LORA_VISION] > 0);
    trainer_free(&t);
    lora_close(&c);
}

static void plans_hold_what_is_taken(void **state) {
    (void)state;
    LoraCase c, plain;
    Trainer t;
    Error err;
    size_t bytes;
    VlmMemory memory;
    lora_open(&c, &(LoraKind){.rank = 2, .freeze = "MP.*", .dtype = DTYPE_BF16});
    lora_open(&plain, &(LoraKind){.dtype = DTYPE_BF16});
    if (!trainer_create(&t, &c.model, &c.config.train, (OptimizerForm){.moments = DTYPE_F32}, &err))
        fail_msg("%s", err.text);
    VlmPlan plan = c.model.plan;
    trainer_plan(&plan, &c.config);
    assert_true(vlm_measure(&memory, c.be, &c.config.vlm, &plan, &err));
    assert_true(
        optimizer_measure(&bytes, c.be, &c.config.vlm, &plan, (OptimizerForm){.moments = DTYPE_F32}, &err));
    assert_int_equal(memory.gradients, c.model.params.gradients.size);
    assert_int_equal(memory.copies, params_bf16_bytes(&c.model.params));
    assert_int_equal(memory.activations + memory.forgotten, vlm_activation_bytes(&c.model));
    assert_int_equal(bytes, t.optimizer.arena.size);
    assert_true(20 * memory.gradients < plain.model.params.gradients.size);
    trainer_free(&t);
    lora_close(&c);
    lora_close(&plain);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gradients_are_those_of_the_loss),
        cmocka_unit_test(recomputing_and_the_guard_change_no_bit),
        cmocka_unit_test(fresh_adapters_leave_the_model_as_it_is),
        cmocka_unit_test(merged_weights_give_the_same_loss),
        cmocka_unit_test(only_adapters_and_the_projector_move),
        cmocka_unit_test(a_step_without_pictures_leaves_vision_adapters),
        cmocka_unit_test(plans_hold_what_is_taken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
