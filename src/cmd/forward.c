// `vlm forward`: one pass of a model over given tokens and tiles, from a safetensors file into another: the
// door through which other programs compare their numbers with ours.
#include "cmd/backbones.h"
#include "cmd/cmd.h"
#include "cmd/session.h"
#include "format/safetensors.h"
#include "hub/hub.h"
#include "model/checkpoint.h"
#include "ops/cpu/cpu.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

typedef struct ForwardFlags {
    char *checkpoint, *inputs, *out, *adapter;
    int image_token_id;
    size_t threads;
    bool hidden;
} ForwardFlags;

#define AT(field) offsetof(ForwardFlags, field)
static const Field forward_fields[] = {
    {"checkpoint", FIELD_STRING, AT(checkpoint), NULL, 0, 0, NULL,
     "folder with config.json and model.safetensors, or a decoder alone: a GGUF file or a Llama folder"},
    {"adapter", FIELD_STRING, AT(adapter), NULL, 0, 0, NULL,
     "folder with PEFT's adapter_config.json and adapter_model.safetensors, merged into the weights"},
    {"inputs", FIELD_STRING, AT(inputs), NULL, 0, 0, NULL,
     "safetensors file with input_ids [B, T] and, if wanted, attention_mask [B, T] and images [I, 3, Y, X]"},
    {"out", FIELD_STRING, AT(out), NULL, 0, 0, NULL, "safetensors file for logits [B, T, V]"},
    {"hidden", FIELD_BOOL, AT(hidden), "false", 0, 0, NULL,
     "write hidden [B, T, C], the last norm's output, too"},
    {"image_token_id", FIELD_INT, AT(image_token_id), "-1", -1, INT_MAX, NULL,
     "token whose places the pictures take; -1: ask the checkpoint's tokenizer"},
    {"threads", FIELD_SIZE, AT(threads), "0", 0, 4096, NULL,
     "threads of the model; 0: one per physical core"},
};
static const FieldTable forward_table = {"Forward pass", forward_fields,
                                         sizeof forward_fields / sizeof *forward_fields};

typedef struct ForwardRun {
    char *path; // where the checkpoint lies
    VLMConfig config;
    Backbone backbone; // zeroed for a checkpoint of a whole model
    bool decoder_alone;
    Safetensors *inputs;
    Batch batch;
    Backend *be;
    Vlm model;
    Arena arena; // of the three below
    Tensor rows, hidden, logits;
    float *host_logits; // [B*T, V]
    size_t vocabulary;  // logits of a position that are written
} ForwardRun;

static FieldSet config_set(ForwardRun *r) {
    return (FieldSet){&vlm_config_table, &r->config};
}

// ---- the model ----

// The tower in front of a decoder alone: as small as there is, for no picture goes through it.
static void configure_no_tower(VLMConfig *c) {
    c->vit_hidden_dim = c->vit_inter_dim = c->vit_n_heads = c->vit_n_blocks = 1;
    c->vit_patch_size = c->vit_img_size = 1;
    c->mp_pixel_shuffle_factor = c->mp_image_token_length = 1;
}

static bool configure_decoder(ForwardRun *r, const char *path, Error *err) {
    if (!backbone_open(&r->backbone, BACKBONE_LANGUAGE, path, err)) return false;
    const json_t *vocabulary = json_object_get(r->backbone.config, "vocab_size");
    const json_int_t size = json_integer_value(vocabulary);
    if (size < 1 || size > INT_MAX / 2)
        return error_set(err, "%s: vocab_size is missing or no number of tokens", path);
    VLMConfig *c = &r->config;
    configure_no_tower(c);
    r->vocabulary = c->lm_base_vocab_size = (size_t)size;
    c->lm_vocab_size = c->lm_base_vocab_size + c->extra_token_amount;
    c->lm_tie_weights = json_is_true(json_object_get(r->backbone.config, "tie_word_embeddings")) ||
                        !weights_find(r->backbone.weights, "lm_head.weight");
    return backbone_configure(&r->backbone, c, err);
}

static bool configure(ForwardRun *r, const char *path, Error *err) {
    fields_set_defaults(config_set(r));
    if (!hub_resolve(&r->path, path, err)) return error_prefix(err, "--checkpoint");
    r->decoder_alone = is_decoder_alone(r->path);
    if (r->decoder_alone) return configure_decoder(r, r->path, err);
    if (!checkpoint_load_config(&r->config, r->path, err)) return false;
    r->vocabulary = r->config.lm_vocab_size;
    return true;
}

static bool find_image_token(int32_t *id, const ForwardRun *r, int flag, Error *err) {
    *id = flag;
    if (flag >= 0 || r->batch.n_tiles == 0) return true;
    Tokenizer *t;
    if (!tokenizer_open(&t, r->config.lm_tokenizer, &r->config.vlm_extra_tokens, err))
        return error_prefix(err, "--image_token_id is not given, so the tokenizer is asked");
    *id = tokenizer_extra_id(t, "image_token");
    tokenizer_free(t);
    return true;
}

static bool load_weights(ForwardRun *r, Error *err) {
    if (!r->decoder_alone) return checkpoint_load_weights(&r->model, r->path, err);
    const SourceRules more_vocabulary = {true, "none", 0}; // rows for the extra tokens, which are cut off
    return backbone_load(&r->backbone, &r->model.params, r->be, &r->config, &more_vocabulary, err);
}

static bool create_model(ForwardRun *r, const ForwardFlags *f, Error *err) {
    VlmPlan plan = {.max_batch = r->batch.B, .max_positions = r->batch.T, .max_tiles = r->batch.n_tiles};
    if (!find_image_token(&plan.image_token_id, r, f->image_token_id, err) ||
        !backend_cpu_create(&r->be, f->threads, err) || !vlm_create(&r->model, r->be, &r->config, &plan, err))
        return false;
    return load_weights(r, err) && session_merge(&r->model.params, r->be, r->path, f->adapter, err);
}

// ---- what goes in ----

// [B, T] integers that fit 32 bits. *values stays NULL when the tensor is absent.
static bool read_integers(int32_t **values, const ForwardRun *r, const char *name, Error *err) {
    const SafetensorsEntry *e = safetensors_find(r->inputs, name);
    const char *path = safetensors_path(r->inputs);
    if (!e) return true;
    if (e->ndim != 2 || (e->dtype != DTYPE_I64 && e->dtype != DTYPE_I32))
        return error_set(err, "%s: %s is a %s tensor of %d dimensions; expected I64 or I32 of two, [B, T]",
                         path, name, dtype_name(e->dtype), e->ndim);
    *values = mem_zeroed(e->count + 1, sizeof **values);
    for (size_t i = 0; i < e->count; i++) {
        int64_t wide = 0;
        int32_t narrow;
        memcpy(&narrow, (const char *)e->data + i * dtype_size(e->dtype), sizeof narrow);
        if (e->dtype == DTYPE_I64) memcpy(&wide, (const char *)e->data + i * sizeof wide, sizeof wide);
        if (e->dtype == DTYPE_I32) wide = narrow;
        if (wide < INT32_MIN || wide > INT32_MAX)
            return error_set(err, "%s: %s[%zu] is %lld, which is no token", path, name, i, (long long)wide);
        (*values)[i] = (int32_t)wide;
    }
    return true;
}

static bool read_images(ForwardRun *r, Error *err) {
    const SafetensorsEntry *e = safetensors_find(r->inputs, "images");
    const char *path = safetensors_path(r->inputs);
    const size_t side = r->config.vit_img_size;
    if (!e) return true;
    if (r->decoder_alone) return error_set(err, "%s: has images, but the model is a decoder alone", path);
    if (e->ndim != 4 || e->shape[1] != 3 || e->shape[2] != side || e->shape[3] != side)
        return error_set(err, "%s: images does not have the shape [I, 3, %zu, %zu] of the model's tiles",
                         path, side, side);
    r->batch.images = mem_alloc(e->count * sizeof(float) + 1);
    r->batch.n_tiles = e->shape[0];
    return safetensors_to_f32(r->batch.images, e, err) || error_prefix(err, "%s", path);
}

static bool read_inputs(ForwardRun *r, const char *path, Error *err) {
    Batch *b = &r->batch;
    if (!safetensors_open(&r->inputs, path, err)) return false;
    if (!read_integers(&b->input_ids, r, "input_ids", err) ||
        !read_integers(&b->attention_mask, r, "attention_mask", err) || !read_images(r, err))
        return false;
    const SafetensorsEntry *ids = safetensors_find(r->inputs, "input_ids");
    const SafetensorsEntry *mask = safetensors_find(r->inputs, "attention_mask");
    if (!ids || ids->count == 0) return error_set(err, "%s: input_ids is missing or empty", path);
    b->B = ids->shape[0];
    b->T = ids->shape[1];
    if (mask && (mask->shape[0] != b->B || mask->shape[1] != b->T))
        return error_set(err, "%s: attention_mask is [%zu, %zu], input_ids [%zu, %zu]", path, mask->shape[0],
                         mask->shape[1], b->B, b->T);
    return true;
}

// ---- the pass ----

enum { HEAD_ROWS = 64 }; // positions that the head takes at a time

static bool plan_head(ForwardRun *r, size_t n, Error *err) {
    r->arena = arena_measure(r->be, "logits");
    for (int run = 0; run < 2; run++) {
        r->rows = arena_take(&r->arena, DTYPE_I32, SHAPE(n));
        r->hidden = arena_take(&r->arena, DTYPE_F32, SHAPE(n, r->config.lm_hidden_dim));
        r->logits = arena_take(&r->arena, DTYPE_F32, SHAPE(n, r->config.lm_vocab_size));
        if (run == 0 && !arena_commit(&r->arena, err)) return false;
    }
    return true;
}

// Positions [first, first + n): their logits, of which a decoder alone has fewer than the model has rows.
static void take_logits(ForwardRun *r, size_t first, size_t n, float *chunk) {
    int32_t rows[HEAD_ROWS];
    const size_t V = r->config.lm_vocab_size;
    for (size_t i = 0; i < n; i++) rows[i] = (int32_t)(first + i);
    Tensor some = tensor_head(r->rows, n), logits = tensor_head(r->logits, n);
    tensor_upload(r->be, STREAM_COMPUTE, some, rows);
    vlm_head(&r->model, logits, tensor_head(r->hidden, n), some);
    tensor_download(r->be, STREAM_COMPUTE, chunk, logits);
    backend_sync(r->be);
    for (size_t i = 0; i < n; i++)
        memcpy(r->host_logits + (first + i) * r->vocabulary, chunk + i * V, r->vocabulary * sizeof *chunk);
}

static bool run_model(ForwardRun *r, Error *err) {
    const size_t M = r->batch.B * r->batch.T, most = M < HEAD_ROWS ? M : HEAD_ROWS;
    if (!vlm_forward(&r->model, &r->batch, 0, err) || !plan_head(r, most, err)) return false;
    r->host_logits = mem_zeroed(M, r->vocabulary * sizeof *r->host_logits);
    float *chunk = mem_zeroed(most, r->config.lm_vocab_size * sizeof *chunk);
    for (size_t first = 0; first < M; first += most)
        take_logits(r, first, M - first < most ? M - first : most, chunk);
    free(chunk);
    return true;
}

static bool fill_output(void *context, size_t i, void *dst) {
    ForwardRun *r = context;
    if (i == 0) {
        memcpy(dst, r->host_logits, r->batch.B * r->batch.T * r->vocabulary * sizeof(float));
    } else {
        tensor_download(r->be, STREAM_COMPUTE, dst, r->model.decoder.out);
        backend_sync(r->be);
    }
    return true;
}

static bool write_output(ForwardRun *r, const ForwardFlags *f, Error *err) {
    const size_t B = r->batch.B, T = r->batch.T;
    const SafetensorsSpec specs[] = {{"logits", DTYPE_F32, 3, {B, T, r->vocabulary}},
                                     {"hidden", DTYPE_F32, 3, {B, T, r->config.lm_hidden_dim}}};
    return safetensors_write(f->out, specs, f->hidden ? 2 : 1, NULL, 0, fill_output, r, err);
}

static void run_free(ForwardRun *r) {
    free(r->host_logits);
    if (r->be) arena_release(&r->arena);
    vlm_free(&r->model);
    backend_destroy(r->be);
    free(r->batch.input_ids);
    free(r->batch.attention_mask);
    free(r->batch.images);
    safetensors_close(r->inputs);
    backbone_close(&r->backbone);
    fields_free(config_set(r));
    free(r->path);
}

static bool forward(const void *flags, Error *err) {
    const ForwardFlags *f = flags;
    ForwardRun r = {0};
    const bool ok = configure(&r, f->checkpoint, err) && read_inputs(&r, f->inputs, err) &&
                    create_model(&r, f, err) && run_model(&r, err) && write_output(&r, f, err);
    run_free(&r);
    return ok;
}

static bool check_flags(const void *flags, Error *err) {
    const ForwardFlags *f = flags;
    const char *missing = !f->checkpoint ? "checkpoint" : !f->inputs ? "inputs" : !f->out ? "out" : NULL;
    if (!missing) return true;
    return error_set(err, "--%s: not given; forward needs --checkpoint, --inputs and --out", missing);
}

int cmd_forward(int argc, char **argv) {
    ForwardFlags f;
    return command_run((FieldSet){&forward_table, &f}, argc, argv, check_flags, forward);
}
