// The parameter table and model.safetensors.
#include "base/memory.h"
#include "format/safetensors.h"
#include "model/params.h"

#include <stdio.h>
#include <string.h>

static const char *const embedding_name = "decoder.token_embedding.weight", *const head_name =
                                                                                "decoder.head.weight";

static void shape_text(char *text, size_t size, int ndim, const size_t *shape) {
    size_t used = (size_t)snprintf(text, size, "[");
    for (int i = 0; i < ndim && used < size; i++)
        used += (size_t)snprintf(text + used, size - used, "%s%zu", i ? ", " : "", shape[i]);
    if (used < size) snprintf(text + used, size - used, "]");
}

static bool check_shape(const Param *p, const SafetensorsEntry *e, const char *path, Error *err) {
    bool same = p->ndim == e->ndim;
    for (int i = 0; same && i < p->ndim; i++) same = p->shape[i] == e->shape[i];
    if (same) return true;
    char found[128], expected[128];
    shape_text(found, sizeof found, e->ndim, e->shape);
    shape_text(expected, sizeof expected, p->ndim, p->shape);
    return error_set(
        err,
        "%s: tensor %s has shape %s, the configuration expects %s; use the config.json it was saved with",
        path, e->name, found, expected);
}

// The tied weight may stand under either of its names, but not under both (safetensors.torch.load_model).
static const SafetensorsEntry *find_entry(const Params *params, const Param *p, const Safetensors *st,
                                          Error *err) {
    const SafetensorsEntry *e = safetensors_find(st, p->file_name);
    if (params->tied && p == params->decoder.embedding) {
        const SafetensorsEntry *other = safetensors_find(st, embedding_name);
        if (e && other) {
            error_set(err,
                      "%s: holds both %s and %s, but lm_tie_weights is true; remove one, or set it to false",
                      safetensors_path(st), head_name, embedding_name);
            return NULL;
        }
        if (!e) e = other;
    }
    if (!e)
        error_set(err, "%s: tensor %s is missing; the file is no checkpoint of this configuration",
                  safetensors_path(st), p->file_name);
    return e;
}

static bool check_no_unknown(Params *p, const Safetensors *st, Error *err) {
    for (size_t i = 0; i < safetensors_count(st); i++) {
        const char *name = safetensors_entry(st, i)->name;
        if (!params_find(p, name))
            return error_set(
                err, "%s: tensor %s is unknown to this configuration; use the config.json it was saved with",
                safetensors_path(st), name);
    }
    return true;
}

bool params_load(Params *p, Backend *be, const char *path, Error *err) {
    Safetensors *st;
    if (!safetensors_open(&st, path, err)) return false;
    bool ok = check_no_unknown(p, st, err);
    // Everything is checked before the first value is replaced, so that a refused file leaves the model as it
    // was.
    for (size_t i = 0; ok && i < p->count; i++) {
        const SafetensorsEntry *e = find_entry(p, &p->items[i], st, err);
        ok = e && check_shape(&p->items[i], e, path, err);
    }
    for (size_t i = 0; ok && i < p->count; i++) {
        const SafetensorsEntry *e = find_entry(p, &p->items[i], st, err);
        float *values = mem_alloc(e->count * sizeof *values);
        ok = safetensors_to_f32(values, e, err);
        if (ok) tensor_upload(be, STREAM_COMPUTE, p->items[i].w, values);
        backend_sync(be);
        free(values);
    }
    safetensors_close(st);
    return ok;
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

bool params_save(const Params *p, Backend *be, const char *path, Error *err) {
    SafetensorsSpec *specs = mem_zeroed(p->count, sizeof *specs);
    for (size_t i = 0; i < p->count; i++) {
        const Param *q = &p->items[i];
        specs[i] = (SafetensorsSpec){.name = q->file_name, .dtype = DTYPE_F32, .ndim = q->ndim};
        for (int d = 0; d < q->ndim; d++) specs[i].shape[d] = q->shape[d];
    }
    const char *const tie[1][2] = {{embedding_name, head_name}};
    Saving s = {p, be};
    bool ok = safetensors_write(path, specs, p->count, tie, p->tied ? 1 : 0, download_param, &s, err);
    free(specs);
    return ok;
}
