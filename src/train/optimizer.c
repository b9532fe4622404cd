#include "train/optimizer.h"
#include "base/check.h"
#include "base/memory.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

// ---- shares ----

bool optimizer_is_shared(const Optimizer *o) {
    return o->form.ranks > 1;
}

// Where in parameter i, which has n values, the share of a rank begins.
static size_t begin_of(const Optimizer *o, size_t rank, size_t i, size_t n) {
    enum { MULTIPLE = 64 };
    const size_t total = o->offsets[o->params->count], ranks = optimizer_is_shared(o) ? o->form.ranks : 1;
    const size_t cut = total / ranks * rank + total % ranks * rank / ranks;
    if (cut <= o->offsets[i]) return 0;
    const size_t at = cut - o->offsets[i];
    if (at >= n) return n;
    return o->form.moments == DTYPE_F32 ? at / MULTIPLE * MULTIPLE : (2 * at < n ? 0 : n);
}

Slice optimizer_slice(const Optimizer *o, size_t rank, size_t i) {
    const size_t n = o->offsets[i + 1] - o->offsets[i];
    const size_t first = begin_of(o, rank, i, n);
    return (Slice){first, begin_of(o, rank + 1, i, n) - first};
}

// As a list; a tensor that is absent stays so.
static Tensor slice_of(Tensor t, Slice s) {
    return tensor_exists(t) ? tensor_slice(tensor_reshape(t, SHAPE(tensor_count(t))), s.first, s.n) : t;
}

static void set_offsets(Optimizer *o) {
    o->offsets = mem_zeroed(o->params->count + 1, sizeof *o->offsets);
    for (size_t i = 0; i < o->params->count; i++) {
        const Param *p = &o->params->items[i];
        o->offsets[i + 1] = o->offsets[i] + (p->trained ? tensor_count(p->w) : 0);
    }
}

// ---- memory ----

size_t optimizer_moment_bytes(Dtype moments, size_t values) {
    return moments == DTYPE_U8 ? moment_blocks(values) * MOMENT_ROW : dtype_bytes(moments, values);
}

static Tensor take_moment(Optimizer *o, size_t values) {
    return o->form.moments == DTYPE_U8
               ? arena_take(&o->arena, DTYPE_U8, SHAPE(moment_blocks(values), MOMENT_ROW))
               : arena_take(&o->arena, o->form.moments, SHAPE(values));
}

static void take_all(Optimizer *o) {
    size_t n_trained = 0;
    for (size_t i = 0; i < o->params->count; i++) {
        const Param *p = &o->params->items[i];
        if (!p->trained) continue;
        n_trained++;
        const Slice s = optimizer_slice(o, o->form.rank, i);
        if (s.n == 0) continue;
        o->m[i] = take_moment(o, s.n);
        o->v[i] = take_moment(o, s.n);
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

OptimizerForm optimizer_form(const TrainOptions *options, size_t rank, size_t ranks) {
    const bool shared = options->zero > 0;
    return (OptimizerForm){optimizer_moments(options), shared ? rank : 0, shared ? ranks : 1};
}

void optimizer_plan(Optimizer *o, Backend *be, Params *params, OptimizerForm form) {
    *o = (Optimizer){.be = be, .params = params, .form = form, .arena = arena_measure(be, "optimizer")};
    set_offsets(o);
    for (int g = 0; g < GROUP_TRAINED; g++) o->begins[g] = mem_zeroed(form.ranks + 2, sizeof *o->begins[g]);
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
    free(o->offsets);
    for (int g = 0; g < GROUP_TRAINED; g++) free(o->begins[g]);
    free(o->m);
    free(o->v);
    *o = (Optimizer){0};
}

bool optimizer_measure(size_t *bytes, Backend *be, const VLMConfig *config, const VlmPlan *plan,
                       OptimizerForm form, Error *err) {
    if (!vlm_config_check(config, err)) return false;
    Params params;
    Optimizer o;
    params_plan(&params, be, config, plan->trained);
    const bool ok = params_adapt(&params, be, &plan->adaptation, err);
    if (ok) {
        optimizer_plan(&o, be, &params, form);
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
        if (p->trained) sum_of_squares(o->be, tensor_slice(o->squares, k++, 1), p->d);
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

// Of this rank's slice; what is left of the gradient becomes 0 as well.
static void update_slice(Optimizer *o, size_t i, Slice s) {
    const Param *p = &o->params->items[i];
    const size_t n = tensor_count(p->d), end = s.first + s.n;
    const Tensor copy = param_has_copy(p) ? p->product : TENSOR_NONE;
    if (s.n)
        adamw(o->be, slice_of(p->w, s), o->m[i], o->v[i], slice_of(copy, s), slice_of(p->d, s),
              o->hyper[p->group], o->clip, ADAMW_BETA1, ADAMW_BETA2, ADAMW_EPS, true);
    if (s.first) fill(o->be, slice_of(p->d, (Slice){0, s.first}), 0.0f);
    if (end < n) fill(o->be, slice_of(p->d, (Slice){end, n - end}), 0.0f);
}

void optimizer_update(Optimizer *o, const double lr[GROUP_TRAINED], const bool received[GROUP_TRAINED]) {
    backend_sync(o->be); // the last step's upload may still be reading the staging memory
    for (int g = 0; g < GROUP_TRAINED; g++)
        if (received[g]) set_hyper(o, g, lr[g]);
    for (size_t i = 0; i < o->params->count; i++) {
        const Param *p = &o->params->items[i];
        if (p->trained && received[p->group]) update_slice(o, i, optimizer_slice(o, o->form.rank, i));
    }
}
