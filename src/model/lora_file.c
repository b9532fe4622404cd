#include "model/lora_file.h"
#include "base/file.h"
#include "base/memory.h"
#include "base/pyjson.h"
#include "format/safetensors.h"
#include "model/lora.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char prefix[] = "base_model.model.", projector_name[] = "base_model.model.MP.proj.weight";
static const char *const suffixes[2] = {".lora_A.weight", ".lora_B.weight"};

// ---- writing ----

static bool saves_projector(const Params *p) {
    return p->projector && p->projector->trained;
}

static json_t *config_of(const Params *p, const Adaptation *a) {
    json_t *targets = json_array();
    for (size_t i = 0; i < p->count; i++) {
        const char *name = p->items[i].name;
        if (p->items[i].lora_a) // without ".weight"
            json_array_append_new(targets, json_stringn(name, strlen(name) - strlen(".weight")));
    }
    json_t *saved = saves_projector(p) ? json_pack("[s]", "MP") : json_null();
    return json_pack("{s:s, s:i, s:f, s:b, s:o, s:o, s:s, s:b, s:f, s:b, s:n, s:n}", "peft_type", "LORA", "r",
                     (int)p->lora_rank, "lora_alpha", a->lora_alpha, "use_rslora", (int)a->lora_rslora,
                     "target_modules", targets, "modules_to_save", saved, "bias", "none", "fan_in_fan_out", 0,
                     "lora_dropout", 0.0, "inference_mode", 1, "base_model_name_or_path", "task_type");
}

// What of the table the file holds, in its order.
typedef struct Saving {
    const Params *params;
    const Param **list;
    bool (*fill)(void *context, size_t i, void *dst);
    void *context;
} Saving;

static bool is_b(const Param *q) {
    return param_is_adapter(q) && strstr(q->name, suffixes[1]);
}

static bool fill_entry(void *saving, size_t k, void *dst) {
    const Saving *s = saving;
    const Param *q = s->list[k];
    const size_t i = (size_t)(q - s->params->items), r = q->shape[0], O = q->shape[1];
    if (!is_b(q)) return s->fill(s->context, i, dst);
    float *b = mem_alloc(r * O * sizeof *b), *out = dst; // lies as [r, O]
    const bool ok = s->fill(s->context, i, b);
    for (size_t o = 0; ok && o < O; o++)
        for (size_t j = 0; j < r; j++) out[o * r + j] = b[j * O + o];
    free(b);
    return ok;
}

static bool write_weights(Saving *s, const char *path, Error *err) {
    const Params *p = s->params;
    SafetensorsSpec *specs = mem_zeroed(p->count, sizeof *specs);
    char(*names)[112] = mem_zeroed(p->count, sizeof *names);
    size_t n = 0;
    for (size_t i = 0; i < p->count; i++) {
        const Param *q = &p->items[i];
        if (!param_is_adapter(q) && !(q == p->projector && saves_projector(p))) continue;
        snprintf(names[n], sizeof names[n], "%s%s", prefix, q->name);
        const int first = is_b(q);
        specs[n] = (SafetensorsSpec){names[n], DTYPE_F32, 2, {q->shape[first], q->shape[1 - first]}};
        s->list[n++] = q;
    }
    const char *const format[1][2] = {{"format", "pt"}};
    const bool ok = safetensors_write(path, specs, n, format, 1, fill_entry, s, err);
    free(names);
    free(specs);
    return ok;
}

bool lora_save(const Params *p, const Adaptation *a, const char *folder,
               bool (*fill)(void *context, size_t i, void *dst), void *context, Error *err) {
    Saving s = {p, mem_zeroed(p->count, sizeof(Param *)), fill, context};
    char *config = path_join(folder, LORA_CONFIG_FILE), *weights = path_join(folder, LORA_WEIGHTS_FILE);
    json_t *json = config_of(p, a);
    char *text = pyjson_dump(json, 2);
    const bool ok = file_write_text(config, text, strlen(text), err) && write_weights(&s, weights, err);
    free(text);
    json_decref(json);
    free(weights);
    free(config);
    free(s.list);
    return ok;
}

// ---- reading ----

typedef struct AdapterFile {
    char *config_path, *weights_path;
    json_t *config;
    Safetensors *st;
    size_t rank;
    double alpha;
    float scale;
} AdapterFile;

static void adapter_close(AdapterFile *f) {
    safetensors_close(f->st);
    json_decref(f->config);
    free(f->config_path);
    free(f->weights_path);
    *f = (AdapterFile){0};
}

static bool is_empty(const json_t *value) {
    return !value || json_is_null(value) || json_is_false(value) ||
           (json_is_object(value) && json_object_size(value) == 0) ||
           (json_is_array(value) && json_array_size(value) == 0);
}

// What PEFT can do besides and this program can't.
static bool check_kind(const AdapterFile *f, Error *err) {
    static const char *const must_be_empty[] = {
        "use_dora",   "fan_in_fan_out",          "rank_pattern",     "alpha_pattern", "lora_bias",
        "use_qalora", "alora_invocation_tokens", "target_parameters"};
    const char *kind = json_string_value(json_object_get(f->config, "peft_type")),
               *bias = json_string_value(json_object_get(f->config, "bias"));
    if (!kind || strcmp(kind, "LORA"))
        return error_set(err, "%s: peft_type is %.40s, only LORA can be read", f->config_path,
                         kind ? kind : "missing");
    if (bias && strcmp(bias, "none"))
        return error_set(err, "%s: bias is %.40s, only none can be read: adapters have no biases",
                         f->config_path, bias);
    for (size_t i = 0; i < sizeof must_be_empty / sizeof *must_be_empty; i++) {
        const json_t *value = json_object_get(f->config, must_be_empty[i]);
        if (is_empty(value)) continue;
        return error_set(err, "%s: %s is set, which this program does not know; merge this adapter with PEFT",
                         f->config_path, must_be_empty[i]);
    }
    return true;
}

static bool read_config(AdapterFile *f, Error *err) {
    char *text;
    size_t size;
    json_error_t where;
    if (!file_read(&text, &size, f->config_path, err)) return false;
    f->config = json_loadb(text, size, 0, &where);
    free(text);
    if (!json_is_object(f->config))
        return error_set(err, "%s: no JSON object: %s in line %d", f->config_path, where.text, where.line);
    if (!check_kind(f, err)) return false;
    const json_t *r = json_object_get(f->config, "r"), *alpha = json_object_get(f->config, "lora_alpha");
    const double value = json_number_value(alpha);
    if (!json_is_integer(r) || json_integer_value(r) < 1 || json_integer_value(r) > 65536)
        return error_set(err, "%s: r is missing or no rank of 1 to 65536", f->config_path);
    if (!json_is_number(alpha) || !(value > 0) || value > 1e9)
        return error_set(err, "%s: lora_alpha is missing or no positive number", f->config_path);
    f->rank = (size_t)json_integer_value(r);
    f->alpha = value;
    const bool root = json_is_true(json_object_get(f->config, "use_rslora"));
    f->scale = (float)(value / (root ? sqrt((double)f->rank) : (double)f->rank));
    return true;
}

static bool adapter_open(AdapterFile *f, const char *folder, Error *err) {
    *f = (AdapterFile){.config_path = path_join(folder, LORA_CONFIG_FILE),
                       .weights_path = path_join(folder, LORA_WEIGHTS_FILE)};
    if (read_config(f, err) && safetensors_open(&f->st, f->weights_path, err)) return true;
    adapter_close(f);
    return false;
}

static bool is_module(const char *name, const char *module, size_t n) {
    return strlen(name) == n + strlen(".weight") && !strncmp(name, module, n) && !strcmp(name + n, ".weight");
}

// The matrix that a tensor adapts, and which of A (0) and B (1) it is; NULL when there is none.
static Param *find_matrix(Params *p, const char *name, int *which) {
    if (strncmp(name, prefix, sizeof prefix - 1)) return NULL;
    const char *module = name + sizeof prefix - 1;
    for (int k = 0; k < 2; k++) {
        const size_t end = strlen(suffixes[k]), length = strlen(module);
        if (length <= end || strcmp(module + length - end, suffixes[k])) continue;
        *which = k;
        for (size_t i = 0; i < p->count; i++) {
            Param *q = &p->items[i];
            const bool matrix = q->ndim == 2 && (q->init == INIT_WEIGHT || q->init == INIT_RESIDUAL);
            if (matrix && (is_module(q->name, module, length - end) ||
                           is_module(q->backbone_name, module, length - end)))
                return q;
        }
    }
    return NULL;
}

static bool is_projector(const Params *p, const char *name) {
    return p->projector && !strcmp(name, projector_name);
}

static bool check_shape(const AdapterFile *f, const SafetensorsEntry *e, size_t rows, size_t cols,
                        Error *err) {
    if (e->ndim == 2 && e->shape[0] == rows && e->shape[1] == cols) return true;
    return error_set(
        err, "%s: %.120s has shape [%zu, %zu] in %d dimensions, r %zu of %s and the model give [%zu, %zu]",
        f->weights_path, e->name, e->ndim > 0 ? e->shape[0] : 0, e->ndim > 1 ? e->shape[1] : 0, e->ndim,
        f->rank, LORA_CONFIG_FILE, rows, cols);
}

// Every tensor of the file has its place, its shape and its other half.
static bool check_tensors(const AdapterFile *f, Params *p, Error *err) {
    char other[160];
    size_t adapters = 0;
    for (size_t i = 0; i < safetensors_count(f->st); i++) {
        const SafetensorsEntry *e = safetensors_entry(f->st, i);
        int which = 0;
        const Param *w = is_projector(p, e->name) ? p->projector : find_matrix(p, e->name, &which);
        if (!w)
            return error_set(err, "%s: %.120s belongs to no matrix of this model; names are %s<module>%s",
                             f->weights_path, e->name, prefix, suffixes[0]);
        const bool whole = w == p->projector && is_projector(p, e->name);
        const size_t rows = whole   ? w->shape[0]
                            : which ? w->shape[0]
                                    : f->rank,
                     cols = whole   ? w->shape[1]
                            : which ? f->rank
                                    : w->shape[1];
        if (!check_shape(f, e, rows, cols, err)) return false;
        if (whole) continue;
        const size_t n = strlen(e->name) - strlen(suffixes[which]);
        snprintf(other, sizeof other, "%.*s%s", (int)n, e->name, suffixes[1 - which]);
        if (!safetensors_find(f->st, other))
            return error_set(err, "%s: %s is missing, but %.120s is there", f->weights_path, other, e->name);
        adapters++;
    }
    return adapters > 0 || error_set(err, "%s: it holds no adapter", f->weights_path);
}

static bool read_finite(float *out, const AdapterFile *f, const SafetensorsEntry *e, Error *err) {
    if (!safetensors_to_f32(out, e, err)) return false;
    for (size_t i = 0; i < e->count; i++)
        if (!isfinite(out[i]))
            return error_set(err, "%s: %s holds NaN or infinite values; this adapter cannot be used",
                             f->weights_path, e->name);
    return true;
}

// The values of an entry, a B of the file turned to [r, O]; caller frees, NULL after an error.
static float *read_values(const AdapterFile *f, const SafetensorsEntry *e, bool is_b, Error *err) {
    float *x = mem_alloc(e->count * sizeof *x + 1);
    if (!read_finite(x, f, e, err)) {
        free(x);
        return NULL;
    }
    if (!is_b) return x;
    float *turned = mem_alloc(e->count * sizeof *x + 1);
    const size_t O = e->shape[0], r = e->shape[1];
    for (size_t o = 0; o < O; o++)
        for (size_t k = 0; k < r; k++) turned[k * O + o] = x[o * r + k];
    free(x);
    return turned;
}

static bool check_values(const AdapterFile *f, Error *err) {
    for (size_t i = 0; i < safetensors_count(f->st); i++) {
        float *x = read_values(f, safetensors_entry(f->st, i), false, err);
        if (!x) return false;
        free(x);
    }
    return true;
}

static void upload(Param *q, Backend *be, const float *values) {
    tensor_upload(be, STREAM_COMPUTE, q->w, values);
    backend_sync(be);
    param_refresh(q, be);
}

// ---- into adapters ----

static const SafetensorsEntry *entry_of(const AdapterFile *f, const Param *w, int which) {
    char name[160];
    const char *const names[2] = {w->name, w->backbone_name};
    const SafetensorsEntry *e = NULL;
    for (int k = 0; k < 2 && !e; k++) {
        if (!*names[k]) continue;
        const int n = (int)(strlen(names[k]) - strlen(".weight"));
        snprintf(name, sizeof name, "%s%.*s%s", prefix, n, names[k], suffixes[which]);
        e = safetensors_find(f->st, name);
    }
    return e;
}

static bool check_same_adapters(const AdapterFile *f, Params *p, Error *err) {
    if (f->rank != p->lora_rank || fabsf(f->scale - p->lora_scale) > 1e-6f * f->scale)
        return error_set(err,
                         "%s: rank %zu and scale %g, but the flags give %zu and %g; use --lora_rank %zu "
                         "--lora_alpha %g%s",
                         f->config_path, f->rank, (double)f->scale, p->lora_rank, (double)p->lora_scale,
                         f->rank, f->alpha,
                         json_is_true(json_object_get(f->config, "use_rslora")) ? " --lora_rslora" : "");
    for (size_t i = 0; i < safetensors_count(f->st); i++) {
        int which;
        const char *name = safetensors_entry(f->st, i)->name;
        const Param *w = is_projector(p, name) ? NULL : find_matrix(p, name, &which);
        if (w && !w->lora_a)
            return error_set(err, "%s: %s has an adapter, but --lora_targets does not name its layer",
                             f->weights_path, name);
    }
    for (size_t i = 0; i < p->count; i++)
        if (p->items[i].lora_a && !entry_of(f, &p->items[i], 0))
            return error_set(err, "%s: no adapter of %s, which --lora_targets names", f->weights_path,
                             p->items[i].name);
    return true;
}

static bool load_projector(const AdapterFile *f, Params *p, Backend *be, Error *err) {
    const SafetensorsEntry *e = p->projector ? safetensors_find(f->st, projector_name) : NULL;
    if (!e) return true;
    float *x = read_values(f, e, false, err);
    if (x) upload(p->projector, be, x);
    free(x);
    return x != NULL;
}

static bool load_adapter(const AdapterFile *f, const Param *w, Backend *be, Error *err) {
    for (int which = 0; which < 2; which++) {
        float *x = read_values(f, entry_of(f, w, which), which, err);
        if (!x) return false;
        upload(which ? w->lora_b : w->lora_a, be, x);
        free(x);
    }
    return true;
}

bool lora_load(Params *p, Backend *be, const char *folder, Error *err) {
    AdapterFile f;
    if (!adapter_open(&f, folder, err)) return false;
    bool ok = check_tensors(&f, p, err) && check_same_adapters(&f, p, err) && check_values(&f, err) &&
              load_projector(&f, p, be, err);
    for (size_t i = 0; ok && i < p->count; i++)
        if (p->items[i].lora_a) ok = load_adapter(&f, &p->items[i], be, err);
    adapter_close(&f);
    return ok;
}

// ---- into matrices ----

static bool merge(const AdapterFile *f, Param *w, Backend *be, Error *err) {
    float *a = read_values(f, entry_of(f, w, 0), false, err);
    float *b = a ? read_values(f, entry_of(f, w, 1), true, err) : NULL;
    if (b) {
        float *values = mem_alloc(tensor_bytes(w->w));
        tensor_download(be, STREAM_COMPUTE, values, w->w);
        backend_sync(be);
        lora_merge(values, a, b, w->shape[0], w->shape[1], f->rank, f->scale);
        upload(w, be, values);
        free(values);
    }
    free(a);
    free(b);
    return b != NULL;
}

bool lora_merge_files(Params *p, Backend *be, const char *folder, Error *err) {
    AdapterFile f;
    if (p->weights != DTYPE_F32)
        return error_set(err,
                         "%s: adapters are merged into weights in f32, these are kept in %s; use --weights "
                         "f32, or merge with vlm export",
                         folder, dtype_name(p->weights));
    if (!adapter_open(&f, folder, err)) return false;
    bool ok = check_tensors(&f, p, err) && check_values(&f, err) && load_projector(&f, p, be, err);
    for (size_t i = 0; ok && i < p->count; i++) {
        Param *w = &p->items[i];
        if (w->ndim == 2 && entry_of(&f, w, 0)) ok = merge(&f, w, be, err);
    }
    adapter_close(&f);
    return ok;
}
