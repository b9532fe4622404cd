#include "support/backbone_case.h"
#include "base/memory.h"
#include "support/reference.h"

#include <stdlib.h>
#include <string.h>

static FieldSet config_set(BackboneCase *c) {
    return (FieldSet){&vlm_config_table, &c->config};
}

static void set(BackboneCase *c, const char *name, const char *value) {
    const FieldSet s = config_set(c);
    Error err;
    if (!fields_set_text(s, fields_find(s.table, name, strlen(name)), value, &err)) fail_msg("%s", err.text);
}

void case_prepare(BackboneCase *c, Backend *be, BackboneKind kind, const char *path, size_t vocab_size,
                  bool tied) {
    static const char *const vision[][2] = {{"vit_hidden_dim", "8"}, {"vit_inter_dim", "8"},
                                            {"vit_patch_size", "4"}, {"vit_img_size", "16"},
                                            {"vit_n_heads", "2"},    {"vit_n_blocks", "1"}};
    static const char *const language[][2] = {{"lm_hidden_dim", "8"},
                                              {"lm_inter_dim", "8"},
                                              {"lm_n_heads", "2"},
                                              {"lm_n_kv_heads", "1"},
                                              {"lm_n_blocks", "1"}};
    *c = (BackboneCase){.kind = kind, .path = path, .be = be};
    fields_set_defaults(config_set(c));
    for (size_t i = 0; kind == BACKBONE_LANGUAGE && i < sizeof vision / sizeof *vision; i++)
        set(c, vision[i][0], vision[i][1]);
    for (size_t i = 0; kind == BACKBONE_VISION && i < sizeof language / sizeof *language; i++)
        set(c, language[i][0], language[i][1]);
    set(c, "mp_image_token_length", "1");
    set(c, "vlm_extra_tokens", "{\"image_token\": \"<|image|>\"}");
    c->config.extra_token_amount = 1;
    c->config.lm_tie_weights = tied;
    c->config.lm_vocab_size = vocab_size;
    c->config.lm_base_vocab_size = vocab_size - 1;
}

bool case_open(BackboneCase *c, const SourceRules *given, Error *err) {
    const SourceRules rules = given ? *given : (SourceRules){true, "none", 1};
    const VlmPlan plan = {.max_batch = 2, .max_positions = 64, .max_tiles = 8};
    const size_t img_size = c->config.vit_img_size;
    if (!backbone_open(&c->backbone, c->kind, c->path, err) ||
        !backbone_configure(&c->backbone, &c->config, err))
        return false;
    if (strcmp(rules.interpolate, "none")) c->config.vit_img_size = img_size;
    return backbone_check(&c->backbone, c->be, &c->config, &rules, err) &&
           vlm_create(&c->model, c->be, &c->config, &plan, err) &&
           backbone_load(&c->backbone, &c->model.params, c->be, &c->config, &rules, err);
}

void case_close(BackboneCase *c) {
    vlm_free(&c->model);
    backbone_close(&c->backbone);
    fields_free(config_set(c));
}

float *case_logits(const BackboneCase *c) {
    const size_t M = c->model.B * c->model.T, V = c->config.lm_vocab_size, C = c->config.lm_hidden_dim;
    Arena a = arena_measure(c->be, "logits");
    Tensor rows = {0}, hidden = {0}, logits = {0};
    Error err;
    for (int run = 0; run < 2; run++) {
        rows = arena_take(&a, DTYPE_I32, SHAPE(M));
        hidden = arena_take(&a, DTYPE_F32, SHAPE(M, C));
        logits = arena_take(&a, DTYPE_F32, SHAPE(M, V));
        if (run == 0 && !arena_commit(&a, &err)) fail_msg("%s", err.text);
    }
    int32_t *all = mem_alloc(M * sizeof *all);
    for (size_t i = 0; i < M; i++) all[i] = (int32_t)i;
    tensor_upload(c->be, STREAM_COMPUTE, rows, all);
    backend_sync(c->be);
    free(all);
    vlm_head((Vlm *)&c->model, logits, hidden, rows);
    float *values = tensor_values(c->be, logits);
    arena_release(&a);
    return values;
}
