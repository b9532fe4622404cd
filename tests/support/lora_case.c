#include "support/lora_case.h"
#include "support/golden.h"
#include "support/guard_backend.h"

#include "base/memory.h"
#include "base/random.h"
#include "ops/cpu/cpu.h"
#include "train/trainer.h"

#include <stdlib.h>

enum { B = 2, T = 40, TILES = 2, TARGETS = 19, IMAGE_TOKEN = 5, SECOND = 30 };

static void set_config(Config *c, const LoraKind *k) {
    Error err;
    config_init(c);
    if (!config_apply_preset(c, "tiny", &err)) fail_msg("%s", err.text);
    c->vlm.vit_n_blocks = k->blocks ? k->blocks : 1, c->vlm.lm_n_blocks = k->blocks ? k->blocks : 2;
    c->train.gradient_accumulation_steps = 2;
    c->options.lora_rank = k->rank;
    c->options.lr_lora.value = 0.01;
    const struct {
        char **field;
        const char *text;
    } texts[] = {{&c->options.lora_targets, k->targets},
                 {&c->options.freeze, k->freeze},
                 {&c->options.train_only, k->train_only},
                 {&c->options.lora_base, k->base}};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        if (!texts[i].text) continue;
        free(*texts[i].field);
        *texts[i].field = mem_strdup(texts[i].text);
    }
}

bool lora_try_open(LoraCase *c, const LoraKind *k, Error *err) {
    *c = (LoraCase){0};
    set_config(&c->config, k);
    VlmPlan plan = {.max_batch = B,
                    .max_positions = T,
                    .max_tiles = TILES,
                    .training = true,
                    .image_token_id = IMAGE_TOKEN,
                    .documents = true,
                    .dtype = k->dtype,
                    .recompute = k->recompute};
    trainer_plan(&plan, &c->config);
    const bool ok = k->guard ? backend_guard_create(&c->be, err) : backend_cpu_create(&c->be, 1, err);
    if (!ok || !vlm_create(&c->model, c->be, &c->config.vlm, &plan, err)) return false;
    params_initialise(&c->model.params, c->be, &c->config.vlm, "scaled", 3);
    c->batch = random_batch((BatchShape){B, T, TILES, TARGETS, IMAGE_TOKEN, SECOND}, &c->config.vlm);
    return true;
}

void lora_open(LoraCase *c, const LoraKind *k) {
    Error err;
    if (!lora_try_open(c, k, &err)) fail_msg("%s", err.text);
}

void lora_close(LoraCase *c) {
    random_batch_free(&c->batch);
    vlm_free(&c->model);
    backend_destroy(c->be);
    config_free(&c->config);
}

float *lora_values(LoraCase *c, Tensor t) {
    float *x = mem_alloc(tensor_bytes(t));
    tensor_download(c->be, STREAM_COMPUTE, x, t);
    backend_sync(c->be);
    return x;
}

void lora_set_values(LoraCase *c, const Param *p, const float *x) {
    tensor_upload(c->be, STREAM_COMPUTE, p->w, x);
    backend_sync(c->be);
    param_refresh(p, c->be);
}

void lora_randomise(LoraCase *c) {
    for (size_t i = 0; i < c->model.params.count; i++) {
        const Param *p = &c->model.params.items[i];
        if (!param_is_adapter(p)) continue;
        const size_t n = tensor_count(p->w);
        float *x = mem_alloc(n * sizeof *x);
        Random r = random_stream(11, RANDOM_TEST, i);
        for (size_t k = 0; k < n; k++) x[k] = (float)(0.05 * random_normal(&r));
        lora_set_values(c, p, x);
        free(x);
    }
}

float lora_loss(LoraCase *c, float dscale) {
    Error err;
    if (!vlm_forward(&c->model, &c->batch, dscale, &err)) fail_msg("%s", err.text);
    return vlm_loss(&c->model);
}
