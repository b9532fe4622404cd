// The weights of an imported folder.
#include "base/memory.h"
#include "export/import_parts.h"
#include "model/params_source.h"
#include "model/positions.h"
#include "model/rope_scaling.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define NAME 128

// ---- names ----

// A parameter's name in the folder; part: which of q, k and v a ? stands for.
static void source_name(char name[NAME], const Param *p, size_t part) {
    if (p->group == GROUP_MP)
        snprintf(name, NAME, "model.connector.modality_projection.proj.weight");
    else if (p->group == GROUP_VISION)
        snprintf(name, NAME, "model.%s", p->backbone_name);
    else if (!strncmp(p->backbone_name, "model.", 6))
        snprintf(name, NAME, "model.text_model.%s", p->backbone_name + 6);
    else
        snprintf(name, NAME, "%s", p->backbone_name);
    char *placeholder = strchr(name, '?');
    if (placeholder) *placeholder = "qkv"[part];
}

static size_t parts_of(const Param *p) {
    return strchr(p->backbone_name, '?') ? 3 : 1;
}

// A tied model's head may stand in the file beside its embedding.
static bool is_passed_over(const Params *p, const char *name) {
    const size_t n = strlen(name), m = strlen("rotary_emb.inv_freq");
    return (p->tied && !strcmp(name, "lm_head.weight")) ||
           (n > m && !strcmp(name + n - m, "rotary_emb.inv_freq"));
}

static bool is_known(const Params *p, const char *name) {
    for (size_t i = 0; i < p->count; i++)
        for (size_t part = 0; part < parts_of(&p->items[i]); part++) {
            char known[NAME];
            source_name(known, &p->items[i], part);
            if (p->items[i].group != GROUP_BUFFER && !strcmp(known, name)) return true;
        }
    return is_passed_over(p, name);
}

// The table of positions may be of a larger grid (load_positions).
static const WeightsEntry *take_positions(ParamSources *s, const WeightsEntry *e, const Param *p) {
    const size_t n = positions_side(p->shape[1]), N = e->ndim == 2 ? positions_side(e->shape[0]) : 0;
    if (N < n || N == 0 || e->shape[1] != p->shape[2])
        misfit(&s->misfits, "tensor %.120s: expected [N, %zu], N a square of at least %zu patches a side",
               e->name, p->shape[2], n);
    return e;
}

static bool list_sources(ParamSources *s, const ImportSource *from, const WeightsEntry **positions,
                         Error *err) {
    const Params *params = s->params;
    for (size_t i = 0; i < params->count; i++) {
        const Param *p = &params->items[i];
        for (size_t part = 0; part < parts_of(p) && p->group != GROUP_BUFFER; part++) {
            char name[NAME];
            source_name(name, p, part);
            const WeightsEntry *e = weights_find(from->weights, name);
            if (!e)
                misfit(&s->misfits, "tensor %s is missing", name);
            else if (p == params->vision.position)
                *positions = take_positions(s, e, p);
            else
                sources_add(s, p, e, part, parts_of(p), i);
        }
    }
    for (size_t i = 0; i < weights_count(from->weights); i++) {
        const char *name = weights_entry(from->weights, i)->name;
        if (!is_known(params, name)) misfit(&s->misfits, "tensor %.120s has no place in this model", name);
    }
    return misfits_none(&s->misfits, from->path, err);
}

// ---- positions ----

// Patch i of n in a row has the position floor(i · N / n) of the N that the table has (Idefics3's fractional
// coordinates): itself when N is n, and when it is n + 1.
static bool load_positions(const WeightsEntry *e, const Param *p, Backend *be, Error *err) {
    const size_t C = p->shape[2], n = positions_side(p->shape[1]), N = positions_side(e->shape[0]);
    float *table = mem_alloc(e->count * sizeof *table), *out = mem_alloc(tensor_bytes(p->w));
    bool ok = weights_read_f32(table, e, 0, e->count, err);
    for (size_t i = 0; ok && i < n * n; i++) {
        const size_t row = i / n * N / n, col = i % n * N / n;
        memcpy(out + i * C, table + (row * N + col) * C, C * sizeof *out);
    }
    for (size_t i = 0; ok && i < n * n * C; i++)
        if (!isfinite(out[i]))
            ok = error_set(err, "%s: tensor %s holds NaN or infinite values", weights_entry_path(e), e->name);
    if (ok) tensor_upload(be, STREAM_COMPUTE, p->w, out);
    backend_sync(be);
    free(table);
    free(out);
    return ok;
}

// ---- pixels ----

typedef struct PixelScale {
    double mean[3], std[3];
} PixelScale;

static bool read_three(double out[3], const json_t *pixels, const char *key, bool positive, Error *err) {
    const json_t *list = json_object_get(pixels, key);
    for (size_t i = 0; i < 3; i++) {
        const json_t *value = json_array_get(list, i);
        if (!list || json_is_null(list)) {
            out[i] = 0.5; // IMAGENET_STANDARD_MEAN and _STD
        } else {
            out[i] = json_number_value(value);
            if (!json_is_number(value) || json_array_size(list) != 3 || !isfinite(out[i]) ||
                (positive && !(out[i] > 0)))
                return error_set(err, "preprocessor_config.json: field %s: expected three numbers%s", key,
                                 positive ? " above 0" : "");
        }
    }
    return true;
}

// Means too small for any pixel to show them count as none.
static bool read_scale(PixelScale *s, bool *plain, const json_t *pixels, Error *err) {
    *plain = json_is_false(json_object_get(pixels, "do_normalize"));
    if (*plain) return true;
    if (!read_three(s->mean, pixels, "image_mean", false, err) ||
        !read_three(s->std, pixels, "image_std", true, err))
        return error_prefix(err, "image processor");
    *plain = true;
    for (size_t i = 0; i < 3; i++) *plain = *plain && fabs(s->mean[i]) < 1e-20 && s->std[i] == 1;
    return true;
}

// w · ((x − mean) / std) + b = (w / std) · x + (b − Σ w · mean / std)
static void fold(const Params *p, Backend *be, const PixelScale *s) {
    const Param *weight = p->vision.patch_w, *bias = p->vision.patch_b;
    const size_t C = weight->shape[0], area = weight->shape[2] * weight->shape[3];
    float *w = mem_alloc(tensor_bytes(weight->w)), *b = mem_alloc(tensor_bytes(bias->w));
    tensor_download(be, STREAM_COMPUTE, w, weight->w);
    tensor_download(be, STREAM_COMPUTE, b, bias->w);
    backend_sync(be);
    for (size_t c = 0; c < C; c++) {
        double moved = 0;
        for (size_t i = 0; i < 3 * area; i++) {
            float *value = w + c * 3 * area + i;
            const double scaled = (double)*value / s->std[i / area];
            moved += scaled * s->mean[i / area];
            *value = (float)scaled;
        }
        b[c] = (float)((double)b[c] - moved);
    }
    tensor_upload(be, STREAM_COMPUTE, weight->w, w);
    tensor_upload(be, STREAM_COMPUTE, bias->w, b);
    backend_sync(be);
    free(w);
    free(b);
}

bool import_check(const ImportSource *from, Backend *be, const VLMConfig *config, Error *err) {
    Params planned;
    const WeightsEntry *positions;
    params_plan(&planned, be, config, (const bool[GROUP_TRAINED]){false});
    ParamSources s = sources_begin(&planned, be, &(SourceRules){0});
    const bool ok = list_sources(&s, from, &positions, err);
    sources_free(&s);
    params_free(&planned);
    return ok;
}

bool import_load(const ImportSource *from, Params *p, Backend *be, const VLMConfig *config, Error *err) {
    PixelScale scale;
    bool plain;
    const WeightsEntry *positions = NULL;
    const SourceRules rules = {0};
    if (!read_scale(&scale, &plain, from->pixels, err)) return false;
    ParamSources s = sources_begin(p, be, &rules);
    Backbone text = import_half(from, BACKBONE_LANGUAGE);
    const bool ok = list_sources(&s, from, &positions, err) && sources_load(&s, err) &&
                    load_positions(positions, p->vision.position, be, err) &&
                    rope_scaling_apply(p, be, config, &text, err);
    if (ok && !plain) fold(p, be, &scale);
    json_decref(text.config);
    sources_free(&s);
    return ok;
}
