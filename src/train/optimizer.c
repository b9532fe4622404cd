#include "train/optimizer.h"
#include "base/check.h"
#include "base/memory.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

// Planned gradients show in the shape, also while nothing is allocated yet.
static bool is_trained(const Param *p) {
    return p->d.ndim > 0;
}

static Tensor take_moment(Optimizer *o, const Param *p) {
    if (o->moments != DTYPE_U8) return arena_take(&o->arena, o->moments, p->ndim, p->shape);
    const size_t n = tensor_count(tensor_at(NULL, DTYPE_F32, p->ndim, p->shape));
    return arena_take(&o->arena, DTYPE_U8, SHAPE(moment_blocks(n), MOMENT_ROW));
}

size_t optimizer_moment_bytes(Dtype moments, size_t values) {
    return moments == DTYPE_U8 ? moment_blocks(values) * MOMENT_ROW : dtype_bytes(moments, values);
}

static void take_all(Optimizer *o) {
    size_t n_trained = 0;
    for (size_t i = 0; i < o->params->count; i++) {
        const Param *p = &o->params->items[i];
        if (!is_trained(p)) continue;
        o->m[i] = take_moment(o, p);
        o->v[i] = take_moment(o, p);
        n_trained++;
    }
    o->squares = arena_take(&o->arena, DTYPE_F32, SHAPE(n_trained));
    o->clip = arena_take(&o->arena, DTYPE_F32, SHAPE(2));
    for (int g = 0; g < GROUP_TRAINED; g++)
        o->hyper[g] = arena_take(&o->arena, DTYPE_F32, SHAPE(HYPER_COUNT));
}

Dtype optimizer_moments(const TrainOptions *options) {
    if (!strcmp(options->moments, "int8")) return DTYPE_U8;
    return strcmp(options->moments, "bf16") ? DTYPE_F32 : DTYPE_BF16;
}

void optimizer_plan(Optimizer *o, Backend *be, Params *params, Dtype moments) {
    *o = (Optimizer){.be = be, .params = params, .moments = moments, .arena = arena_measure(be, "optimizer")};
    o->m = mem_zeroed(params->count, sizeof *o->m);
    o->v = mem_zeroed(params->count, sizeof *o->v);
    take_all(o);
}

static const size_t staging_bytes = GROUP_TRAINED * HYPER_COUNT * sizeof(float);

bool optimizer_allocate(Optimizer *o, Error *err) {
    if (!arena_commit(&o->arena, err)) return false;
    take_all(o);
    o->staging = o->be->device->host_alloc(o->be, staging_bytes);
    return o->staging || error_set(err, "no host memory for the optimizer's %zu bytes", staging_bytes);
}

void optimizer_free(Optimizer *o) {
    if (!o->be) return;
    if (o->staging) o->be->device->host_release(o->be, o->staging, staging_bytes);
    arena_release(&o->arena);
    free(o->m);
    free(o->v);
    *o = (Optimizer){0};
}

bool optimizer_measure(size_t *bytes, Backend *be, const VLMConfig *config, const VlmPlan *plan,
                       Dtype moments, Error *err) {
    if (!vlm_config_check(config, err)) return false;
    Params params;
    Optimizer o;
    params_plan(&params, be, config, plan->trained);
    const bool ok = params_adapt(&params, be, &plan->adaptation, err);
    if (ok) {
        optimizer_plan(&o, be, &params, moments);
        *bytes = o.arena.used;
        optimizer_free(&o);
    }
    params_free(&params);
    return ok;
}

void optimizer_clip(Optimizer *o, float max_norm) {
    size_t k = 0;
    for (size_t i = 0; i < o->params->count; i++) {
        const Param *p = &o->params->items[i];
        if (is_trained(p)) sum_of_squares(o->be, tensor_slice(o->squares, k++, 1), p->d);
    }
    clip_factor(o->be, o->clip, o->squares, max_norm);
}

float optimizer_gradient_norm(Optimizer *o) {
    return tensor_read_f32(o->be, tensor_head(o->clip, 1));
}

// The numbers of this step's formula that depend on the step, in double as PyTorch has them.
static void set_hyper(Optimizer *o, int group, double lr) {
    const double t = (double)++o->steps[group];
    float *hyper = o->staging + group * HYPER_COUNT;
    hyper[0] = (float)(1.0 - lr * ADAMW_WEIGHT_DECAY);
    hyper[1] = (float)(lr / (1.0 - pow(ADAMW_BETA1, t)));
    hyper[2] = (float)sqrt(1.0 - pow(ADAMW_BETA2, t));
    tensor_upload(o->be, STREAM_COMPUTE, o->hyper[group], hyper);
}

void optimizer_update(Optimizer *o, const double lr[GROUP_TRAINED], const bool received[GROUP_TRAINED]) {
    backend_sync(o->be); // the last step's upload may still be reading the staging memory
    for (int g = 0; g < GROUP_TRAINED; g++)
        if (received[g]) set_hyper(o, g, lr[g]);
    for (size_t i = 0; i < o->params->count; i++) {
        const Param *p = &o->params->items[i];
        if (!is_trained(p) || !received[p->group]) continue;
        adamw(o->be, p->w, o->m[i], o->v[i], param_has_copy(p) ? p->product : TENSOR_NONE, p->d,
              o->hyper[p->group], o->clip, ADAMW_BETA1, ADAMW_BETA2, ADAMW_EPS, true);
    }
}
