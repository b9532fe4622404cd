#include "model/backbone.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mib.h"
#include "base/memory.h"
#include "model/rope_scaling.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const options[BACKBONE_COUNT] = {"--vit_model_type", "--lm_model_type"};

// What the tensors' names begin with in most files, and a tensor to tell by; files without the prefix exist.
static const struct {
    const char *prefix, *probe;
    ParamGroup group;
} layouts[BACKBONE_COUNT] = {
    {"vision_model.", "vision_model.post_layernorm.weight", GROUP_VISION},
    {"model.", "model.norm.weight", GROUP_LANGUAGE},
};

static bool read_config(Backbone *b, Error *err) {
    json_t *whole = weights_config(b->weights, err);
    if (!whole) return false;
    json_t *part = b->kind == BACKBONE_VISION ? json_object_get(whole, "vision_config") : NULL;
    const char *type = json_string_value(json_object_get(whole, "model_type"));
    bool ok = true;
    if (part && !json_is_object(part))
        ok = error_set(err, "%s: config.json: vision_config is not an object", weights_path(b->weights));
    else if (part && type && strcmp(type, "siglip"))
        ok = error_set(err, "%s: config.json: model_type is \"%.80s\", expected \"siglip\"",
                       weights_path(b->weights), type);
    if (ok) b->config = json_incref(part ? part : whole);
    json_decref(whole);
    return ok;
}

bool backbone_open(Backbone *b, BackboneKind kind, const char *path, Error *err) {
    return backbone_open_flag(b, kind, path, options[kind], err);
}

bool backbone_open_flag(Backbone *b, BackboneKind kind, const char *path, const char *flag, Error *err) {
    *b = (Backbone){.kind = kind, .flag = flag};
    if (weights_open(&b->weights, path, err) && read_config(b, err)) return true;
    backbone_close(b);
    return error_prefix(err, "%s", flag);
}

void backbone_close(Backbone *b) {
    weights_close(b->weights);
    json_decref(b->config);
    *b = (Backbone){0};
}

// ---- names ----

static size_t prefix_to_skip(const Backbone *b) {
    const char *probe = layouts[b->kind].probe;
    const size_t n = strlen(layouts[b->kind].prefix);
    return !weights_find(b->weights, probe) && weights_find(b->weights, probe + n) ? n : 0;
}

// A parameter's name in this file; part: which of q, k and v a ? stands for.
static void source_name(char name[80], const Backbone *b, const Param *p, size_t part) {
    const char *prefix = layouts[b->kind].prefix;
    const bool prefixed = strncmp(p->backbone_name, prefix, strlen(prefix)) == 0;
    snprintf(name, 80, "%s", p->backbone_name + (prefixed ? prefix_to_skip(b) : 0));
    char *placeholder = strchr(name, '?');
    if (placeholder) *placeholder = "qkv"[part];
}

static size_t parts_of(const Param *p) {
    return strchr(p->backbone_name, '?') ? 3 : 1;
}

static bool begins(const char *text, const char *start) {
    return strncmp(text, start, strlen(start)) == 0;
}

static bool ends(const char *text, const char *end) {
    const size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

// Tensors that files hold beside what the model needs: SigLIP's text side, pooling head and position numbers,
// frequencies that are computed, a head where the embedding serves as one.
static bool is_passed_over(const Backbone *b, const char *name) {
    if (b->kind == BACKBONE_LANGUAGE)
        return ends(name, "rotary_emb.inv_freq") || !strcmp(name, "lm_head.weight") ||
               !strcmp(name, rope_factors_name);
    const char *skipped = name + (begins(name, "vision_model.") ? strlen("vision_model.") : 0);
    return begins(name, "text_model.") || begins(name, "logit_") || begins(skipped, "head.") ||
           !strcmp(skipped, "embeddings.position_ids");
}

// ---- sources ----

static const WeightsEntry *find_source(const Backbone *b, const Params *params, const Param *p, size_t part) {
    char name[80];
    source_name(name, b, p, part);
    const WeightsEntry *e = weights_find(b->weights, name);
    const Param *embedding = params->decoder.embedding;
    if (e || p != params->decoder.head || p == embedding) return e;
    return find_source(b, params, embedding, 0); // no head in the file: the embedding's values
}

static int compare_names(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

// A tensor that nothing asked for (a bias, a block more than the configuration has) would be left out
// silently.
static void find_unknown(ParamSources *s, const Backbone *b) {
    VEC(char *) known = {0};
    for (size_t i = 0; i < s->params->count; i++)
        for (size_t part = 0; part < parts_of(&s->params->items[i]); part++) {
            char name[80];
            source_name(name, b, &s->params->items[i], part);
            vec_push(&known, mem_strdup(name));
        }
    qsort(known.items, known.count, sizeof *known.items, compare_names);
    for (size_t i = 0; i < weights_count(b->weights); i++) {
        const char *name = weights_entry(b->weights, i)->name;
        if (!is_passed_over(b, name) &&
            !bsearch(&name, known.items, known.count, sizeof *known.items, compare_names))
            misfit(&s->misfits, "tensor %.120s has no place in this model", name);
    }
    for (size_t i = 0; i < known.count; i++) free(known.items[i]);
    vec_free(&known);
}

// Where all of the backbone's parameters come from. The new rows of a copied head are those of the embedding.
static bool list_sources(ParamSources *s, const Backbone *b, Error *err) {
    const Params *params = s->params;
    for (size_t i = 0; i < params->count; i++) {
        const Param *p = &params->items[i];
        if (p->group != layouts[b->kind].group || !p->backbone_name[0]) continue;
        for (size_t part = 0; part < parts_of(p); part++) {
            char name[80];
            source_name(name, b, p, part);
            const WeightsEntry *e = find_source(b, params, p, part);
            const bool copied = e && p == params->decoder.head && strcmp(e->name, name);
            const Param *drawn = copied ? params->decoder.embedding : p;
            if (e)
                sources_add(s, p, e, part, parts_of(p), (size_t)(drawn - params->items));
            else
                misfit(&s->misfits, "tensor %s is missing", name);
        }
    }
    find_unknown(s, b);
    if (misfits_none(&s->misfits, weights_path(b->weights), err)) return true;
    return error_prefix(err, "%s", b->flag);
}

bool backbone_check(const Backbone *b, Backend *be, const VLMConfig *config, const SourceRules *rules,
                    Error *err) {
    const bool trained[GROUP_TRAINED] = {false};
    Params planned;
    params_plan(&planned, be, config, trained);
    ParamSources s = sources_begin(&planned, be, rules);
    const bool ok = list_sources(&s, b, err);
    sources_free(&s);
    params_free(&planned);
    return ok;
}

// ---- loading ----

static void warn_of_unused_head(const Backbone *b, const Params *p) {
    if (b->kind == BACKBONE_LANGUAGE && p->tied && weights_find(b->weights, "lm_head.weight") &&
        json_is_false(json_object_get(b->config, "tie_word_embeddings")))
        log_warning(
            "%s has a head of its own, lm_head.weight; lm_tie_weights is true, so the embedding serves as "
            "the head",
            weights_path(b->weights));
}

bool backbone_load(const Backbone *b, Params *p, Backend *be, const VLMConfig *config,
                   const SourceRules *rules, Error *err) {
    const double begin = clock_seconds();
    ParamSources s = sources_begin(p, be, rules);
    bool ok = list_sources(&s, b, err) && sources_load(&s, err);
    if (ok && b->kind == BACKBONE_LANGUAGE) ok = rope_scaling_apply(p, be, config, b, err);
    if (ok) {
        const double seconds = clock_seconds() - begin, mib = in_mib((double)sources_bytes(&s));
        warn_of_unused_head(b, p);
        log_info("loaded %s: %zu tensors, %.1f MiB in %.2f s (%.0f MiB/s)", weights_path(b->weights),
                 s.copies.count, mib, seconds, mib / (seconds > 1e-9 ? seconds : 1e-9));
    }
    sources_free(&s);
    return ok;
}
