#include "train/trainer.h"
#include "base/check.h"
#include "train/moment_shares.h"
#include "train/schedule.h"

#include <math.h>
#include <string.h>

static double peak_learning_rate(const TrainConfig *c, const Adaptation *a, int group) {
    const double rates[GROUP_TRAINED] = {
        [GROUP_MP] = c->lr_mp.value,
        [GROUP_VISION] = c->lr_vision_backbone.value,
        [GROUP_LANGUAGE] = c->lr_language_backbone.value,
        [GROUP_LORA_VISION] = a->lora_learning_rate,
        [GROUP_LORA_LANGUAGE] = a->lora_learning_rate,
    };
    return rates[group];
}

void trainer_plan(VlmPlan *plan, const Config *config) {
    const TrainOptions *o = &config->options;
    plan->adaptation = (Adaptation){.lora_rank = o->lora_rank,
                                    .lora_alpha = o->lora_alpha.value,
                                    .lora_rslora = o->lora_rslora,
                                    .lora_targets = o->lora_targets,
                                    .lora_learning_rate = o->lr_lora.value,
                                    .freeze = o->freeze,
                                    .train_only = o->train_only};
    for (int g = 0; g < GROUP_TRAINED; g++)
        plan->trained[g] = peak_learning_rate(&config->train, &plan->adaptation, g) > 0;
    if (o->lora_rank == 0 || strcmp(o->lora_base, "frozen")) return;
    plan->trained[GROUP_VISION] = plan->trained[GROUP_LANGUAGE] = false;
}

bool trainer_create(Trainer *t, Vlm *model, const TrainConfig *config, OptimizerForm form, Error *err) {
    CHECK(model->plan.training, "the model was not created for training");
    *t = (Trainer){.model = model, .config = config};
    optimizer_plan(&t->optimizer, model->be, &model->params, form);
    if (optimizer_allocate(&t->optimizer, err)) return true;
    trainer_free(t);
    return false;
}

void trainer_free(Trainer *t) {
    gradient_sync_close(&t->sync);
    optimizer_free(&t->optimizer);
    *t = (Trainer){0};
}

// A step forward, and what it tells of the largest batch.
static bool forward(Trainer *t, const Batch *batch, float dscale, Error *err) {
    if (!vlm_forward(t->model, batch, dscale, err)) return false;
    if (batch->n_tiles > t->most_tiles) t->most_tiles = batch->n_tiles;
    if (t->model->n_targets > t->most_targets) t->most_targets = t->model->n_targets;
    return true;
}

bool trainer_micro_step(Trainer *t, const Batch *batch, float *loss, Error *err) {
    const float dscale = 1.0f / (float)t->config->gradient_accumulation_steps;
    if (!forward(t, batch, dscale, err)) return false;
    const bool is_last = t->accumulated + 1 == t->config->gradient_accumulation_steps;
    if (is_last) gradient_sync_begin(&t->sync);
    vlm_backward(t->model);
    *loss = vlm_loss(t->model);
    for (int g = 0; g < GROUP_TRAINED; g++)
        if (t->model->plan.trained[g] &&
            (g == GROUP_LANGUAGE || g == GROUP_LORA_LANGUAGE || batch->n_tiles > 0))
            t->received[g] = true;
    t->accumulated++;
    return !is_last || gradient_sync_end(&t->sync, t->received, err);
}

static void begin_accumulation(Trainer *t) {
    memset(t->received, 0, sizeof t->received);
    t->accumulated = 0;
    t->is_spoiled = false;
}

void trainer_update(Trainer *t) {
    for (int g = 0; g < GROUP_TRAINED; g++)
        t->lr[g] = t->model->plan.trained[g]
                       ? schedule_learning_rate(t->updates,
                                                peak_learning_rate(t->config, &t->model->plan.adaptation, g),
                                                t->config->max_training_steps)
                       : 0.0;
    optimizer_clip(&t->optimizer, (float)t->config->max_grad_norm.value);
    t->grad_norm = optimizer_gradient_norm(&t->optimizer);
    t->skipped =
        t->is_spoiled || !isfinite(t->grad_norm) || (t->norm_limit > 0 && t->grad_norm > t->norm_limit);
    if (t->skipped) {
        trainer_drop_accumulation(t);
    } else {
        optimizer_update(&t->optimizer, t->lr, t->received);
        t->is_torn = !moment_shares_spread(&t->optimizer, t->sync.comm);
        begin_accumulation(t); // the update left all gradients at 0
    }
    t->updates++;
}

void trainer_drop_accumulation(Trainer *t) {
    params_zero_gradients(&t->model->params, t->model->be);
    begin_accumulation(t);
}

bool trainer_evaluate(Trainer *t, const Batch *batch, float *loss, Error *err) {
    if (!forward(t, batch, 0.0f, err)) return false;
    *loss = vlm_loss(t->model);
    return true;
}

bool trainer_join(Trainer *t, Comm *comm, size_t bucket_bytes, Error *err) {
    return gradient_sync_open(&t->sync, comm, &t->model->params, bucket_bytes, err);
}
