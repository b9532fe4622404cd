#include "model/rope_scaling.h"
#include "base/memory.h"

#include <math.h>
#include <string.h>

const char *const rope_factors_name = "rope_freqs.weight";

static const float pi = 3.14159265358979323846f;

typedef struct Scaling {
    float factor, low, high, context;
} Scaling;

// linear: all positions count less.
static float scale_linear(float frequency, const Scaling *s) {
    return frequency / s->factor;
}

// llama3 (Llama 3.1): long waves are stretched by factor, short ones stay, those between are blended
// (transformers, _compute_llama3_parameters).
static float scale_llama3(float frequency, const Scaling *s) {
    const float wave = 2 * pi / frequency;
    if (wave < s->context / s->high) return frequency;
    if (wave > s->context / s->low) return frequency / s->factor;
    const float smooth = (s->context / wave - s->low) / (s->high - s->low);
    return (1 - smooth) * frequency / s->factor + smooth * frequency;
}

static const char *const linear_fields[] = {"factor", NULL};
static const char *const llama3_fields[] = {"factor", "low_freq_factor", "high_freq_factor",
                                            "original_max_position_embeddings", NULL};

static const struct Kind {
    const char *name;
    const char *const *fields; // that config.json must give
    float (*scale)(float frequency, const Scaling *s);
} kinds[] = {{"default", NULL, NULL},
             {"linear", linear_fields, scale_linear},
             {"llama3", llama3_fields, scale_llama3}};

// transformers 4 calls it rope_scaling, 5 rope_parameters.
static const json_t *find_scaling(const json_t *config) {
    const json_t *scaling = json_object_get(config, "rope_scaling");
    return json_is_object(scaling) ? scaling : json_object_get(config, "rope_parameters");
}

static const char *kind_name(const json_t *scaling) {
    const json_t *type = json_object_get(scaling, "rope_type");
    if (!type) type = json_object_get(scaling, "type"); // older files
    if (!type) return "default";
    return json_is_string(type) ? json_string_value(type) : "no text";
}

static const struct Kind *find_kind(const json_t *scaling) {
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (!strcmp(kind_name(scaling), kinds[i].name)) return &kinds[i];
    return NULL;
}

static float number(const json_t *scaling, const char *field) {
    return (float)json_number_value(json_object_get(scaling, field));
}

static Scaling read_scaling(const json_t *scaling) {
    return (Scaling){number(scaling, llama3_fields[0]), number(scaling, llama3_fields[1]),
                     number(scaling, llama3_fields[2]), number(scaling, llama3_fields[3])};
}

const json_t *rope_theta(const json_t *config) {
    const json_t *theta = json_object_get(config, "rope_theta");
    return theta && !json_is_null(theta) ? theta : json_object_get(find_scaling(config), "rope_theta");
}

void rope_scaling_check(Misfits *m, const json_t *config) {
    const json_t *scaling = find_scaling(config);
    const struct Kind *kind = find_kind(scaling);
    if (!kind) {
        misfit(m, "rope_type is \"%.60s\", expected default, linear or llama3", kind_name(scaling));
        return;
    }
    const json_t *part = json_object_get(scaling, "partial_rotary_factor");
    if (part && json_number_value(part) != 1) misfit(m, "partial_rotary_factor is not 1");
    for (size_t i = 0; kind->fields && kind->fields[i]; i++) {
        const float value = number(scaling, kind->fields[i]);
        if (!(value > 0 && isfinite(value)))
            misfit(m, "rope_scaling.%s is missing or no number above 0, %s needs it", kind->fields[i],
                   kind->name);
    }
    const Scaling s = read_scaling(scaling);
    if (kind->scale == scale_llama3 && s.high <= s.low)
        misfit(m, "rope_scaling: high_freq_factor %g is not above low_freq_factor %g", (double)s.high,
               (double)s.low);
}

// What a file gives as divisors, if it does.
static bool divide_by_factors(float *x, size_t n, const Backbone *b, Error *err) {
    const WeightsEntry *e = weights_find(b->weights, rope_factors_name);
    if (!e) return true;
    if (e->count != n)
        return error_set(err, "%s: tensor %s has %zu values, expected %zu, half a head",
                         weights_entry_path(e), e->name, e->count, n);
    float *factors = mem_alloc(n * sizeof *factors);
    bool ok = weights_read_f32(factors, e, 0, n, err);
    for (size_t i = 0; ok && i < n; i++) {
        if (!(factors[i] > 0))
            ok = error_set(err, "%s: tensor %s: value %zu is %g, expected above 0", weights_entry_path(e),
                           e->name, i, (double)factors[i]);
        x[i] /= factors[i];
    }
    free(factors);
    return ok;
}

bool rope_scaling_apply(Params *p, Backend *be, const VLMConfig *config, const Backbone *b, Error *err) {
    const Param *inv_freq = p->decoder.inv_freq;
    const size_t n = tensor_count(inv_freq->w);
    const json_t *scaling = find_scaling(b->config);
    const struct Kind *kind = find_kind(scaling);
    const Scaling s = read_scaling(scaling);
    float *x = mem_alloc(n * sizeof *x);
    param_initialise(p, (size_t)(inv_freq - p->items), be, config, "nanovlm", 0);
    tensor_download(be, STREAM_COMPUTE, x, inv_freq->w);
    backend_sync(be);
    for (size_t i = 0; kind && kind->scale && i < n; i++) x[i] = kind->scale(x[i], &s);
    const bool ok = divide_by_factors(x, n, b, err);
    if (ok) tensor_upload(be, STREAM_COMPUTE, inv_freq->w, x);
    backend_sync(be);
    free(x);
    return ok;
}
