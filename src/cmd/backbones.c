#include "cmd/backbones.h"
#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "cmd/continue_line.h"
#include "hub/hub.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static SourceRules rules_of(const Config *c) {
    return (SourceRules){true, c->options.interpolate_positions, c->options.seed};
}

// ---- fields ----

static json_t *field_value(const VLMConfig *c, const char *name) {
    const FieldSet set = {&vlm_config_table, (VLMConfig *)c};
    return fields_get_json(set, fields_find(set.table, name, strlen(name)));
}

static bool may_differ(const Config *c, const char *name) {
    return !strcmp(name, "vit_img_size") && strcmp(c->options.interpolate_positions, "none");
}

// A field that both a flag and the backbone give.
static bool check_flag(const char *name, const VLMConfig *asked, const Backbone *b, const Config *c,
                       Error *err) {
    json_t *flag = field_value(asked, name), *file = field_value(&c->vlm, name);
    const double a = json_number_value(flag), f = json_number_value(file);
    json_decref(flag);
    json_decref(file);
    if (a == f || may_differ(c, name)) return true;
    return error_set(
        err,
        "--%s %.10g: %s is a backbone with %.10g; leave the flag out, give other weights, or start from "
        "fresh ones (--vlm_load_backbone_weights false)%s",
        name, a, weights_path(b->weights), f,
        strcmp(name, "vit_img_size") ? "" : ", or carry positions over (--interpolate_positions bicubic)");
}

static void log_fields(const Backbone *b, const VLMConfig *c) {
    char text[700] = "";
    const char *name;
    for (size_t i = 0, used = 0; (name = backbone_field(b->kind, i)) && used < sizeof text; i++) {
        json_t *value = field_value(c, name);
        used += (size_t)snprintf(text + used, sizeof text - used, "%s%s %.10g", i ? ", " : "", name,
                                 json_number_value(value));
        json_decref(value);
    }
    log_info("from %s: %s", weights_path(b->weights), text);
}

static bool configure(const Backbone *b, Config *c, int argc, char **argv, Error *err) {
    const char *name;
    VLMConfig asked = {0};
    const FieldSet set = {&vlm_config_table, &asked};
    bool ok = fields_copy(set, &c->vlm) && backbone_configure(b, &c->vlm, err);
    for (size_t i = 0; ok && (name = backbone_field(b->kind, i)); i++) {
        if (!has_flag(argc, argv, name)) continue;
        ok = check_flag(name, &asked, b, c, err);
        if (ok && may_differ(c, name)) c->vlm.vit_img_size = asked.vit_img_size;
    }
    if (ok) log_fields(b, &c->vlm);
    fields_free(set);
    return ok;
}

// ---- opening ----

static bool open_one(Backbones *b, BackboneKind kind, Config *c, int argc, char **argv, Error *err) {
    const char *name = kind == BACKBONE_VISION ? c->vlm.vit_model_type : c->vlm.lm_model_type;
    char *path;
    if (!hub_resolve(&path, name, err)) {
        const Error why = *err;
        return error_set(err, "%s: %s, or start from fresh weights (--vlm_load_backbone_weights false)",
                         kind == BACKBONE_VISION ? "--vit_model_type" : "--lm_model_type", why.text);
    }
    const bool ok =
        backbone_open(&b->of[kind], kind, path, err) && configure(&b->of[kind], c, argc, argv, err);
    free(path);
    return ok;
}

// With a language model of one's own choice its own tokenizer goes, if it brings one.
static void choose_tokenizer(const Backbones *b, Config *c, int argc, char **argv) {
    if (!has_flag(argc, argv, "lm_model_type") || has_flag(argc, argv, "lm_tokenizer")) return;
    const char *path = weights_path(b->of[BACKBONE_LANGUAGE].weights);
    char *tokenizer = path_join(path, "tokenizer.json");
    if (!file_is_folder(path) || file_exists(tokenizer)) {
        free(c->vlm.lm_tokenizer);
        c->vlm.lm_tokenizer = mem_strdup(c->vlm.lm_model_type);
    }
    free(tokenizer);
}

bool backbones_open(Backbones *b, Config *c, int argc, char **argv, Error *err) {
    for (int kind = 0; kind < BACKBONE_COUNT; kind++)
        if (!open_one(b, (BackboneKind)kind, c, argc, argv, err)) return false;
    choose_tokenizer(b, c, argc, argv);
    return true;
}

void backbones_close(Backbones *b) {
    for (int kind = 0; kind < BACKBONE_COUNT; kind++) backbone_close(&b->of[kind]);
}

bool backbones_check(const Backbones *b, Backend *be, const Config *c, Error *err) {
    const SourceRules rules = rules_of(c);
    for (int kind = 0; kind < BACKBONE_COUNT; kind++)
        if (b->of[kind].weights && !backbone_check(&b->of[kind], be, &c->vlm, &rules, err)) return false;
    return true;
}

bool backbones_load(const Backbones *b, Vlm *m, const Config *c, Error *err) {
    const SourceRules rules = rules_of(c);
    for (size_t i = 0; i < m->params.count; i++)
        if (!m->params.items[i].backbone_name[0])
            param_initialise(&m->params, i, m->be, &c->vlm, c->options.init, c->options.seed);
    for (int kind = 0; kind < BACKBONE_COUNT; kind++)
        if (!backbone_load(&b->of[kind], &m->params, m->be, &c->vlm, &rules, err)) return false;
    return true;
}

bool tokenizer_open(Tokenizer **t, const char *name, const TokenMap *extra_tokens, Error *err) {
    char *path;
    if (!hub_resolve(&path, name, err)) return error_prefix(err, "--lm_tokenizer");
    const bool ok = tokenizer_load(t, path, extra_tokens, err);
    free(path);
    return ok;
}
