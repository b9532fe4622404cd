// Tensors for `vlm inspect`: what the headers say, and with --stats what the values are, from the map and by
// all threads.
#include "base/memory.h"
#include "cmd/inspect.h"
#include "format/gguf.h"
#include "format/safetensors.h"
#include "format/weights.h"
#include "model/checkpoint.h"
#include "ops/cpu/cpu.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK = 1 << 16, SHOWN_VALUES = 8 };

typedef struct Stats {
    double min, max, sum, squares; // of the finite values
    size_t finite, nans, infinities;
    bool failed;
    Error err;
} Stats;

// One tensor as the two readers show it.
typedef struct TensorView {
    const char *name, *type;
    int ndim;
    const size_t *shape;
    size_t count, bytes;
    const WeightsEntry *entry; // one of these two
    const GgufTensor *gguf;
} TensorView;

static TensorView view_entry(const WeightsEntry *e) {
    return (TensorView){e->name, e->type, e->ndim, e->shape, e->count, e->bytes, e, NULL};
}

static TensorView view_gguf(const GgufTensor *t) {
    return (TensorView){t->name, gguf_type_name(t->type), t->ndim, t->shape, t->count, t->bytes, NULL, t};
}

static bool read_values(float *out, const TensorView *t, size_t first, size_t n, Error *err) {
    return t->entry ? weights_read_f32(out, t->entry, first, n, err)
                    : gguf_read_f32(out, t->gguf, first, n, err);
}

static void add_values(Stats *s, const float *x, size_t n) {
    for (size_t i = 0; i < n; i++) {
        const double v = x[i];
        if (!isfinite(v)) {
            s->nans += isnan(v) != 0;
            s->infinities += isinf(v) != 0;
            continue;
        }
        s->min = s->finite == 0 || v < s->min ? v : s->min;
        s->max = s->finite == 0 || v > s->max ? v : s->max;
        s->sum += v;
        s->squares += v * v;
        s->finite++;
    }
}

static void take_stats(Stats *s, const TensorView *t) {
    float *x = mem_alloc(CHUNK * sizeof *x);
    for (size_t first = 0; !s->failed && first < t->count; first += CHUNK) {
        const size_t n = t->count - first < CHUNK ? t->count - first : CHUNK;
        s->failed = !read_values(x, t, first, n, &s->err);
        if (!s->failed) add_values(s, x, n);
    }
    free(x);
}

static json_t *stats_json(const Stats *s) {
    if (s->failed) return json_pack("{s:s}", "not_read", s->err.text);
    json_t *o = json_pack("{s:I, s:I}", "nan", (json_int_t)s->nans, "infinite", (json_int_t)s->infinities);
    if (s->finite == 0) return o;
    const double n = (double)s->finite, mean = s->sum / n, variance = s->squares / n - mean * mean;
    json_object_set_new(o, "min", json_real(s->min));
    json_object_set_new(o, "max", json_real(s->max));
    json_object_set_new(o, "mean", json_real(mean));
    json_object_set_new(o, "std", json_real(sqrt(variance > 0 ? variance : 0)));
    return o;
}

// JSON has no NaN and no infinity: they stand as null, and the counts tell of them.
static json_t *first_values(const TensorView *t) {
    float x[SHOWN_VALUES];
    const size_t n = t->count < SHOWN_VALUES ? t->count : SHOWN_VALUES;
    json_t *list = json_array();
    if (!read_values(x, t, 0, n, NULL)) return list;
    for (size_t i = 0; i < n; i++)
        json_array_append_new(list, isfinite(x[i]) ? json_real(x[i]) : json_null());
    return list;
}

// Names in GGUF files may be any bytes; JSON texts are UTF-8.
static json_t *text_json(const char *text) {
    json_t *o = json_string(text);
    return o ? o : json_string("(no UTF-8)");
}

static json_t *describe(const TensorView *t) {
    json_t *o = json_object(), *shape = json_array();
    for (int d = 0; d < t->ndim; d++) json_array_append_new(shape, json_integer((json_int_t)t->shape[d]));
    json_object_set_new(o, "name", text_json(t->name));
    json_object_set_new(o, "type", json_string(t->type));
    json_object_set_new(o, "shape", shape);
    json_object_set_new(o, "values", json_integer((json_int_t)t->count));
    json_object_set_new(o, "bytes", json_integer((json_int_t)t->bytes));
    return o;
}

static void put_totals(json_t *about, const TensorView *views, size_t n) {
    size_t values = 0, bytes = 0;
    for (size_t i = 0; i < n; i++) values += views[i].count, bytes += views[i].bytes;
    json_object_set_new(about, "totals",
                        json_pack("{s:I, s:I, s:I}", "tensors", (json_int_t)n, "values", (json_int_t)values,
                                  "bytes", (json_int_t)bytes));
}

static void put_tensors(json_t *about, const TensorView *views, size_t n, const InspectFlags *f) {
    Stats *stats = mem_zeroed(n + 1, sizeof *stats);
    if (f->stats || f->tensor) {
#pragma omp parallel for schedule(dynamic)
        for (size_t i = 0; i < n; i++) take_stats(&stats[i], &views[i]);
    }
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++) {
        json_t *o = describe(&views[i]);
        if (f->stats || f->tensor) json_object_set_new(o, "stats", stats_json(&stats[i]));
        if (f->tensor) json_object_set_new(o, "first_values", first_values(&views[i]));
        json_array_append_new(list, o);
    }
    json_object_set_new(about, "tensors", list);
    put_totals(about, views, n);
    free(stats);
}

// Keeps the one that --tensor names, if it names one.
static bool put_chosen(json_t *about, TensorView *views, size_t n, const InspectFlags *f, const char *path,
                       Error *err) {
    for (size_t i = 0; f->tensor && i < n; i++) {
        if (strcmp(views[i].name, f->tensor)) continue;
        put_tensors(about, &views[i], 1, f);
        return true;
    }
    if (f->tensor)
        return error_set(err, "%s: has no tensor %.200s; without --tensor all names are listed", path,
                         f->tensor);
    put_tensors(about, views, n, f);
    return true;
}

// The free texts in the header of a safetensors file.
static void put_metadata(json_t *about, const char *path) {
    Safetensors *st;
    if (gguf_is_file(path) || !safetensors_open(&st, path, NULL)) return;
    const json_t *metadata = safetensors_all_metadata(st);
    if (json_object_size(metadata)) json_object_set_new(about, "metadata", json_deep_copy(metadata));
    safetensors_close(st);
}

static void put_files(json_t *about, const Weights *w) {
    json_t *files = json_array();
    const char *last = "";
    for (size_t i = 0; i < weights_count(w); i++) {
        const char *path = weights_entry_path(weights_entry(w, i));
        bool known = strcmp(path, last) == 0;
        size_t k;
        json_t *file;
        json_array_foreach(files, k, file) known = known || strcmp(json_string_value(file), path) == 0;
        if (!known) json_array_append_new(files, text_json(path));
        if (!known) put_metadata(about, path);
        last = path;
    }
    json_object_set_new(about, "files", files);
}

bool inspect_weights(json_t *about, const char *path, const InspectFlags *f, Error *err) {
    Weights *w;
    if (!weights_open(&w, path, err)) return false;
    const size_t n = weights_count(w);
    TensorView *views = mem_zeroed(n + 1, sizeof *views);
    for (size_t i = 0; i < n; i++) views[i] = view_entry(weights_entry(w, i));
    put_files(about, w);
    const bool ok = put_chosen(about, views, n, f, path, err);
    json_object_set_new(about, "kind", json_string("weights"));
    free(views);
    weights_close(w);
    return ok;
}

// ---- GGUF ----

static json_t *gguf_scalar(const GgufValue *v) {
    GgufString s;
    int64_t i;
    double d;
    bool b;
    if (gguf_value_string(v, &s)) {
        json_t *text = json_stringn(s.text, s.size);
        return text ? text : json_string("(no UTF-8)");
    }
    if (gguf_value_bool(v, &b)) return json_boolean(b);
    if (gguf_value_i64(v, &i)) return json_integer(i);
    json_t *number = gguf_value_f64(v, &d) ? json_real(d) : NULL;
    return number ? number : json_null();
}

static json_t *gguf_metadata(const Gguf *g) {
    json_t *o = json_object();
    for (size_t i = 0; i < gguf_pair_count(g); i++) {
        const GgufPair *p = gguf_pair(g, i);
        json_t *value = p->value.type == GGUF_ARRAY ? json_sprintf("%zu of %s", p->value.count,
                                                                   gguf_value_type_name(p->value.item_type))
                                                    : gguf_scalar(&p->value);
        json_object_set_new(o, p->key, value);
    }
    return o;
}

bool inspect_gguf(json_t *about, const char *path, const InspectFlags *f, Error *err) {
    Gguf *g;
    if (!gguf_open(&g, path, err)) return false;
    const size_t n = gguf_tensor_count(g);
    TensorView *views = mem_zeroed(n + 1, sizeof *views);
    for (size_t i = 0; i < n; i++) views[i] = view_gguf(gguf_tensor(g, i));
    Error why;
    if (gguf_find_value(g, "tokenizer.ggml.model") && !inspect_tokenizer(about, path, &why))
        json_object_set_new(about, "tokenizer", text_json(why.text));
    json_object_set_new(about, "kind", json_string("GGUF"));
    json_object_set_new(about, "version", json_integer(gguf_version(g)));
    json_object_set_new(about, "alignment", json_integer((json_int_t)gguf_alignment(g)));
    json_object_set_new(about, "metadata", gguf_metadata(g));
    const bool ok = put_chosen(about, views, n, f, path, err);
    free(views);
    gguf_close(g);
    return ok;
}

// ---- checkpoints ----

static json_t *groups_json(const Params *p) {
    json_t *o = json_object();
    for (int g = 0; g < GROUP_COUNT; g++)
        json_object_set_new(o, param_group_names[g], json_integer((json_int_t)params_total(p, g)));
    return o;
}

static bool put_groups(json_t *about, const VLMConfig *c, Error *err) {
    Backend *be = NULL;
    Params p;
    if (!vlm_config_check(c, err) || !backend_cpu_create(&be, 1, err)) return false;
    params_plan(&p, be, c, (const bool[GROUP_TRAINED]){0});
    json_object_set_new(about, "groups", groups_json(&p));
    params_free(&p);
    backend_destroy(be);
    return true;
}

bool inspect_checkpoint(json_t *about, const char *path, const InspectFlags *f, Error *err) {
    VLMConfig c;
    FieldSet set = {&vlm_config_table, &c};
    fields_set_defaults(set);
    bool ok = checkpoint_load_config(&c, path, err) && put_groups(about, &c, err);
    if (ok) {
        json_object_set_new(about, "config", fields_to_json(set));
        json_object_set_new(about, "tokenizer", json_string(c.lm_tokenizer));
    }
    ok = ok && inspect_weights(about, path, f, err);
    json_object_set_new(about, "kind", json_string("checkpoint"));
    fields_free(set);
    return ok;
}
