// llama.cpp's two files of a vision-language model: the text model, of the architecture llama, and the vision
// side, of the architecture clip with the projector idefics3.
#include "base/log.h"
#include "export/tensors.h"
#include "model/rope_scaling.h"
#include "text/tokenizer_gguf_write.h"

#include <ctype.h>
#include <stdio.h>

// general.file_type
static uint32_t file_type(GgufType type) {
    return type == GGUF_TYPE_F16 ? 1 : type == GGUF_TYPE_Q8_0 ? 7 : type == GGUF_TYPE_BF16 ? 32 : 0;
}

static void put_size(GgufMetadata *m, const char *key, size_t value) {
    gguf_put_u32(m, key, (uint32_t)value);
}

// ---- tokens ----

#define LINE_BREAK "\xC4\x8A" // "Ċ", which stands for the byte 10

// Tokens that llama.cpp's multimodal part looks up and writes around pictures; one that is missing it would
// write as the token -1. like: the token whose row of the embedding a new one gets.
static const struct {
    const char *text;
    const char *instead; // of this extra token, which is renamed; NULL: a new one
    bool control;
} picture_tokens[] = {
    {LINE_BREAK, NULL, false},
    {LINE_BREAK LINE_BREAK, NULL, false},
    {"<global-img>", "global_image_token", true},
    {"<fake_token_around_image>", NULL, true},
};
enum { N_PICTURE_TOKENS = sizeof picture_tokens / sizeof *picture_tokens };

typedef struct TokenPlan {
    GgufToken changes[N_PICTURE_TOKENS];
    size_t n;
} TokenPlan;

static void plan_tokens(TokenPlan *plan, ExportTensors *t, const ExportSource *s) {
    const int32_t line_break = tokenizer_token_id(s->tokenizer, LINE_BREAK);
    for (size_t i = 0; i < N_PICTURE_TOKENS && s->part == EXPORT_ALL; i++) {
        const char *text = picture_tokens[i].text, *instead = picture_tokens[i].instead;
        if (tokenizer_token_id(s->tokenizer, text) >= 0) continue;
        int32_t id = instead ? tokenizer_extra_id(s->tokenizer, instead) : -1;
        if (id < 0) {
            id = (int32_t)(s->config->lm_vocab_size + t->more_rows.count);
            vec_push(&t->more_rows, line_break);
        }
        plan->changes[plan->n++] = (GgufToken){id, text, picture_tokens[i].control};
    }
}

// ---- the text model ----

static void put_llama(GgufMetadata *m, const ExportSource *s, const char *name, size_t rows) {
    const VLMConfig *c = s->config;
    gguf_put_string(m, "general.architecture", "llama");
    gguf_put_string(m, "general.type", "model");
    gguf_put_string(m, "general.name", name);
    gguf_put_u32(m, "general.file_type", file_type(s->type));
    put_size(m, "llama.vocab_size", rows);
    put_size(m, "llama.context_length", c->lm_max_position_embeddings);
    put_size(m, "llama.embedding_length", c->lm_hidden_dim);
    put_size(m, "llama.block_count", c->lm_n_blocks);
    put_size(m, "llama.feed_forward_length", c->lm_inter_dim);
    put_size(m, "llama.attention.head_count", c->lm_n_heads);
    put_size(m, "llama.attention.head_count_kv", c->lm_n_kv_heads);
    put_size(m, "llama.rope.dimension_count", vlm_config_head_dim(c));
    gguf_put_f32(m, "llama.rope.freq_base", (float)c->lm_re_base.value);
    gguf_put_f32(m, "llama.attention.layer_norm_rms_epsilon", (float)c->lm_rms_eps.value);
}

static void add_factors(ExportTensors *t, const float *factors) {
    ExportTensor e = {.made = factors, .ndim = 1, .type = GGUF_TYPE_F32};
    e.shape[0] = vlm_config_head_dim(t->source->config) / 2;
    snprintf(e.name, sizeof e.name, "%s", rope_factors_name);
    if (factors) vec_push(&t->list, e);
}

static bool write_llama(const ExportSource *s, const char *path, const char *name, Error *err) {
    ExportTensors t = {0};
    TokenPlan plan = {0};
    GgufMetadata m = {0};
    float *factors = export_frequency_factors(s);
    plan_tokens(&plan, &t, s);
    export_list_llama(&t, s);
    add_factors(&t, factors);
    const size_t rows = s->config->lm_vocab_size + t.more_rows.count;
    put_llama(&m, s, name, rows);
    const char *template =
        s->config->lm_chat_template ? s->config->lm_chat_template : tokenizer_chat_template(s->tokenizer);
    const bool ok =
        tokenizer_put_gguf(s->tokenizer, &m, rows, plan.changes, plan.n, template ? template : "", err) &&
        export_check_types(&t, err) && export_write_gguf(&t, &m, path, err);
    if (ok && t.more_rows.count)
        log_info("%s: %zu rows of vocabulary more than the model, for tokens that llama.cpp writes around "
                 "pictures",
                 path, t.more_rows.count);
    free(factors);
    gguf_metadata_free(&m);
    export_tensors_free(&t);
    return ok;
}

// ---- the vision side ----

static void put_clip(GgufMetadata *m, const ExportSource *s, const char *name) {
    const VLMConfig *c = s->config;
    gguf_put_string(m, "general.architecture", "clip");
    gguf_put_string(m, "general.type", "mmproj");
    gguf_put_string(m, "general.name", name);
    gguf_put_u32(m, "general.file_type", file_type(s->type));
    gguf_put_bool(m, "clip.has_vision_encoder", true);
    gguf_put_string(m, "clip.projector_type", "idefics3");
    gguf_put_bool(m, "clip.use_gelu", true);
    put_size(m, "clip.vision.projection_dim", c->lm_hidden_dim);
    put_size(m, "clip.vision.image_size", c->vit_img_size);
    put_size(m, "clip.vision.patch_size", c->vit_patch_size);
    put_size(m, "clip.vision.embedding_length", c->vit_hidden_dim);
    put_size(m, "clip.vision.feed_forward_length", c->vit_inter_dim);
    put_size(m, "clip.vision.block_count", c->vit_n_blocks);
    put_size(m, "clip.vision.attention.head_count", c->vit_n_heads);
    gguf_put_f32(m, "clip.vision.attention.layer_norm_epsilon", (float)c->vit_ln_eps.value);
    gguf_put_f32s(m, "clip.vision.image_mean", (const float[]){0, 0, 0}, 3);
    gguf_put_f32s(m, "clip.vision.image_std", (const float[]){1, 1, 1}, 3);
    put_size(m, "clip.vision.projector.scale_factor", c->mp_pixel_shuffle_factor);
    put_size(m, "clip.vision.preproc_image_size", c->max_img_size);
}

static bool write_clip(const ExportSource *s, const char *path, const char *name, Error *err) {
    ExportTensors t;
    GgufMetadata m = {0};
    export_list_clip(&t, s);
    put_clip(&m, s, name);
    const bool ok = export_check_types(&t, err) && export_write_gguf(&t, &m, path, err);
    gguf_metadata_free(&m);
    export_tensors_free(&t);
    return ok;
}

// ---- what llama.cpp cannot express ----

static bool check(const ExportSource *s, Error *err) {
    const VLMConfig *c = s->config;
    if (s->part != EXPORT_VISION && c->lm_attn_scaling.value != 1)
        return error_set(err,
                         "lm_attn_scaling is %g: llama.cpp's llama has no such factor; only 1 can be "
                         "exported",
                         c->lm_attn_scaling.value);
    if (s->part != EXPORT_DECODER && c->vit_img_size % c->vit_patch_size)
        return error_set(err,
                         "vit_img_size %zu is no multiple of vit_patch_size %zu: llama.cpp has no "
                         "pictures with a remainder",
                         c->vit_img_size, c->vit_patch_size);
    return true;
}

static void warn(const ExportSource *s) {
    if (s->part != EXPORT_ALL) return;
    log_warning(
        "llama.cpp writes pictures otherwise than nanoVLM: tiles first, the global tile last and also "
        "for a picture of one tile, tokens between them that this model has not seen in training "
        "(docs/export.md)");
}

bool export_gguf(const ExportSource *s, const char *folder, const char *name, Error *err) {
    char type[8];
    snprintf(type, sizeof type, "%s", gguf_type_name(s->type));
    for (char *p = type; *p; p++) *p = (char)tolower((unsigned char)*p);
    char *text = mem_printf("%s/%s-%s.gguf", folder, name, type),
         *vision = mem_printf("%s/mmproj-%s-%s.gguf", folder, name, type);
    bool ok = check(s, err);
    if (ok) warn(s);
    ok = ok && (s->part == EXPORT_VISION || write_llama(s, text, name, err)) &&
         (s->part == EXPORT_DECODER || write_clip(s, vision, name, err));
    free(text);
    free(vision);
    return ok;
}
