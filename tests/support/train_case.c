#include "support/train_case.h"
#include "base/memory.h"
#include "model/checkpoint.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static Batch *read_batches(const char *what, size_t n) {
    Safetensors *file = reference_open("train/batches.safetensors");
    Batch *batches = mem_zeroed(n, sizeof *batches);
    for (size_t i = 0; i < n; i++) {
        char prefix[64];
        snprintf(prefix, sizeof prefix, "%s.%zu.", what, i);
        batches[i] = reference_batch(file, prefix);
    }
    safetensors_close(file);
    return batches;
}

static size_t get_size(const json_t *object, const char *key) {
    return (size_t)json_integer_value(json_object_get(object, key));
}

// images of each sequence are listed with their tiles.
static void count_images(Batch *batches, size_t n, const json_t *tiles_per_image) {
    for (size_t i = 0; i < n; i++) {
        size_t index;
        json_t *sequence;
        json_array_foreach(json_array_get(tiles_per_image, i), index, sequence) batches[i].n_images +=
            json_array_size(sequence);
        batches[i].n_samples = batches[i].B;
    }
}

static void read_config(TrainCase *c, const json_t *meta) {
    static const char *const rates[] = {"lr_mp", "lr_vision_backbone", "lr_language_backbone"};
    Error err;
    char *start = golden_path("train/start");
    config_init(&c->config);
    if (!checkpoint_load_config(&c->config.vlm, start, &err)) fail_msg("%s", err.text);
    free(start);
    TrainConfig *t = &c->config.train;
    const json_t *variant = json_object_get(c->reference, "variant");
    for (int g = GROUP_MP; g <= GROUP_LANGUAGE; g++) {
        Number *rate = (Number *[]){&t->lr_mp, &t->lr_vision_backbone, &t->lr_language_backbone}[g];
        rate->value = json_number_value(json_object_get(variant, rates[g]));
    }
    t->batch_size = c->micro[0].B;
    t->gradient_accumulation_steps = get_size(meta, "gradient_accumulation_steps");
    t->eval_interval = get_size(meta, "eval_interval");
    t->max_training_steps = get_size(meta, "max_training_steps");
    t->max_grad_norm.value = json_number_value(json_object_get(meta, "max_grad_norm"));
}

static const bool full_attention = false; // VlmPlan.documents: nanoVLM has no other

static void open_model(TrainCase *c, int32_t image_token_id) {
    VlmPlan plan = {.max_batch = c->micro[0].B,
                    .max_positions = c->micro[0].T,
                    .training = true,
                    .image_token_id = image_token_id,
                    .documents = full_attention,
                    .dtype = c->dtype};
    for (size_t i = 0; i < c->n_micro; i++)
        if (c->micro[i].n_tiles > plan.max_tiles) plan.max_tiles = c->micro[i].n_tiles;
    trainer_plan(&plan, &c->config);
    Error err;
    char *start = golden_path("train/start");
    if (!vlm_create(&c->model, c->be, &c->config.vlm, &plan, &err) ||
        !trainer_create(&c->trainer, &c->model, &c->config.train, c->form, &err) ||
        !checkpoint_load_weights(&c->model, start, &err))
        fail_msg("%s", err.text);
    params_initialise_adapters(&c->model.params, c->be, &c->config.vlm, 5);
    free(start);
}

void train_case_open(TrainCase *c, Backend *be, const char *variant) {
    train_case_open_form(c, be, variant, (OptimizerForm){.moments = DTYPE_F32});
}

void train_case_open_form(TrainCase *c, Backend *be, const char *variant, OptimizerForm form) {
    train_case_open_lora(c, be, variant, form, 0);
}

void train_case_open_lora(TrainCase *c, Backend *be, const char *variant, OptimizerForm form, size_t rank) {
    *c = (TrainCase){.variant = variant,
                     .be = be,
                     .form = form,
                     .reference = reference_json("train/%s/steps.json", variant)};
    json_t *meta = reference_json("train/meta.json");
    c->dtype = json_is_true(json_object_get(json_object_get(c->reference, "variant"), "bf16")) ? DTYPE_BF16
                                                                                               : DTYPE_F32;
    c->n_micro = get_size(meta, "micro_batches");
    c->n_validation = get_size(meta, "validation_batches");
    c->micro = read_batches("micro", c->n_micro);
    c->validation = read_batches("validation", c->n_validation);
    count_images(c->micro, c->n_micro, json_object_get(meta, "micro_tiles_per_image"));
    count_images(c->validation, c->n_validation, json_object_get(meta, "validation_tiles_per_image"));
    read_config(c, meta);
    c->config.options.lora_rank = rank;
    open_model(c, (int32_t)get_size(meta, "image_token_id"));
    json_decref(meta);
}

void train_case_close(TrainCase *c) {
    trainer_free(&c->trainer);
    vlm_free(&c->model);
    for (size_t i = 0; i < c->n_micro; i++) reference_batch_free(&c->micro[i]);
    for (size_t i = 0; i < c->n_validation; i++) reference_batch_free(&c->validation[i]);
    free(c->micro);
    free(c->validation);
    config_free(&c->config);
    json_decref(c->reference);
}

size_t train_keep_comparable(float *x, size_t n, const char *name) {
    static const char suffix[] = "qkv_proj.bias";
    size_t length = strlen(name), C = n / 3;
    if (length < sizeof suffix - 1 || strcmp(name + length - (sizeof suffix - 1), suffix) != 0) return n;
    memmove(x + C, x + 2 * C, C * sizeof *x);
    return 2 * C;
}

// Adam divides by |gradient| + 1e-8, so an entry whose clipped gradient is below that moves by rounding noise
// in its first update; it counts as not moved on both sides.
static void leave_out_noise(const TrainCase *c, float *x, float *ref, size_t n, const char *name) {
    const double norm = json_number_value(
        json_object_get(json_array_get(json_object_get(c->reference, "steps"), 0), "grad_norm"));
    const double clip = fmin(1.0, c->config.train.max_grad_norm.value / (norm + 1e-6));
    Safetensors *file = reference_open("train/%s/grads_update0.safetensors", c->variant);
    float *gradient = reference_f32(file, name);
    if (!gradient) fail_msg("%s: no gradient of %s", c->variant, name);
    assert_true(train_keep_comparable(gradient, safetensors_find(file, name)->count, name) == n);
    for (size_t k = 0; k < n; k++)
        if (fabs(gradient[k] * clip) < 1e-8) x[k] = ref[k] = 0.0f;
    free(gradient);
    safetensors_close(file);
}

void train_compare_weights(TrainCase *c, const char *file, const char *kind, double limit) {
    Safetensors *after = reference_open("train/%s/%s", c->variant, file);
    Safetensors *before = reference_open("train/start/model.safetensors");
    for (size_t i = 0; i < c->model.params.count; i++) {
        const Param *p = &c->model.params.items[i];
        if (p->group == GROUP_BUFFER) continue;
        float *x = tensor_values(c->be, p->w), *ref = reference_f32(after, p->name);
        float *start = reference_f32(before, p->file_name);
        if (!ref || !start) fail_msg("%s: no reference for %s", c->variant, p->name);
        size_t n = tensor_count(p->w);
        if (c->model.plan.trained[p->group]) {
            train_keep_comparable(x, n, p->name), train_keep_comparable(start, n, p->name);
            n = train_keep_comparable(ref, n, p->name);
            for (size_t k = 0; k < n; k++) x[k] -= start[k], ref[k] -= start[k];
            if (strstr(file, "step1")) leave_out_noise(c, x, ref, n, p->name);
            expect_within(kind, relative_l2(x, ref, n), limit, "%s %s (%s)", c->variant, p->name,
                          c->be->name);
        } else {
            assert_memory_equal(x, start, n * sizeof *x); // frozen: the very bits it began with
        }
        free(x);
        free(ref);
        free(start);
    }
    safetensors_close(after);
    safetensors_close(before);
}
