// The parameter table and model.safetensors.
#include "base/memory.h"
#include "format/safetensors.h"
#include "model/lora.h"
#include "model/params.h"
#include "model/params_source.h"

static const char *const embedding_name = "decoder.token_embedding.weight", *const head_name =
                                                                                "decoder.head.weight";

// The tied weight may stand under either of its names, but not under both (safetensors.torch.load_model).
static const WeightsEntry *find_entry(ParamSources *s, const Param *p, const Weights *w) {
    const WeightsEntry *e = weights_find(w, p->file_name);
    if (s->params->tied && p == s->params->decoder.embedding) {
        const WeightsEntry *other = weights_find(w, embedding_name);
        if (e && other) {
            misfit(&s->misfits,
                   "holds both %s and %s, but lm_tie_weights is true; remove one, or set it to false",
                   head_name, embedding_name);
            return NULL;
        }
        if (!e) e = other;
    }
    if (!e) misfit(&s->misfits, "tensor %s is missing", p->file_name);
    return e;
}

static bool list_sources(ParamSources *s, const Weights *w, Error *err) {
    for (size_t i = 0; i < weights_count(w); i++) {
        const char *name = weights_entry(w, i)->name;
        const Param *q = params_find(s->params, name);
        if (!q || param_is_adapter(q))
            misfit(&s->misfits, "tensor %.120s is unknown to this configuration", name);
    }
    for (size_t i = 0; i < s->params->count; i++) {
        if (param_is_adapter(&s->params->items[i])) continue;
        const WeightsEntry *e = find_entry(s, &s->params->items[i], w);
        if (e) sources_add(s, &s->params->items[i], e, 0, 1, i);
    }
    if (s->misfits.count) misfit(&s->misfits, "use the config.json the weights were saved with");
    return misfits_none(&s->misfits, weights_path(w), err);
}

// Names and shapes are all checked before the first value is replaced.
static bool load(Params *p, Backend *be, const char *path, const SourceRules *rules, Error *err) {
    Weights *w;
    if (!weights_open(&w, path, err)) return false;
    ParamSources s = sources_begin(p, be, rules);
    const bool ok = list_sources(&s, w, err) && sources_load(&s, err);
    sources_free(&s);
    weights_close(w);
    return ok;
}

bool params_load(Params *p, Backend *be, const char *path, Error *err) {
    return load(p, be, path, &(SourceRules){0}, err);
}

bool params_load_changed(Params *p, Backend *be, const char *path, const char *interpolate, uint64_t seed,
                         Error *err) {
    return load(p, be, path, &(SourceRules){true, interpolate, seed}, err);
}

typedef struct Saving {
    const Params *params;
    Backend *be;
} Saving;

static bool download_param(void *context, size_t i, void *dst) {
    const Saving *s = context;
    tensor_download(s->be, STREAM_COMPUTE, dst, s->params->items[i].w);
    backend_sync(s->be);
    return true;
}

// The values of all but adapters, merged.
typedef struct Merging {
    const Params *params;
    bool (*fill)(void *context, size_t i, void *dst);
    void *context;
} Merging;

static bool fill_merged(void *context, size_t i, void *dst) {
    const Merging *m = context;
    const Param *w = &m->params->items[i];
    if (!m->fill(m->context, i, dst)) return false;
    if (!w->lora_a) return true;
    float *a = mem_alloc(tensor_bytes(w->lora_a->w)), *b = mem_alloc(tensor_bytes(w->lora_b->w));
    const bool ok = m->fill(m->context, (size_t)(w->lora_a - m->params->items), a) &&
                    m->fill(m->context, (size_t)(w->lora_b - m->params->items), b);
    if (ok) lora_merge(dst, a, b, w->shape[0], w->shape[1], m->params->lora_rank, m->params->lora_scale);
    free(a);
    free(b);
    return ok;
}

bool params_save_from(const Params *p, const char *path, bool (*fill)(void *context, size_t i, void *dst),
                      void *context, Error *err) {
    SafetensorsSpec *specs = mem_zeroed(p->count, sizeof *specs);
    Merging merging = {p, fill, context};
    size_t n = 0; // adapters stand behind all others
    for (size_t i = 0; i < p->count && !param_is_adapter(&p->items[i]); i++, n++) {
        const Param *q = &p->items[i];
        specs[i] = (SafetensorsSpec){.name = q->file_name, .dtype = DTYPE_F32, .ndim = q->ndim};
        for (int d = 0; d < q->ndim; d++) specs[i].shape[d] = q->shape[d];
    }
    const char *const tie[1][2] = {{embedding_name, head_name}};
    bool ok = safetensors_write(path, specs, n, tie, p->tied ? 1 : 0, fill_merged, &merging, err);
    free(specs);
    return ok;
}

bool params_save(const Params *p, Backend *be, const char *path, Error *err) {
    Saving s = {p, be};
    return params_save_from(p, path, download_param, &s, err);
}
