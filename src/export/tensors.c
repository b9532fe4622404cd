#include "export/tensors.h"
#include "base/check.h"
#include "base/half.h"
#include "base/log.h"
#include "format/gguf_llama.h"
#include "format/safetensors.h"

#include <math.h>
#include <stdio.h>

static size_t export_grid(const VLMConfig *c) {
    return c->vit_img_size / c->vit_patch_size;
}

// ---- lists ----

static ExportTensor *add_tensor(ExportTensors *t, const Param *p, size_t part, size_t parts) {
    ExportTensor e = {.param = p, .count = tensor_count(p->w) / parts, .ndim = p->ndim};
    e.first = part * e.count;
    memcpy(e.shape, p->shape, sizeof p->shape);
    e.shape[0] /= parts;
    e.type = p->ndim > 1 ? t->source->type : GGUF_TYPE_F32;
    vec_push(&t->list, e);
    return &t->list.items[t->list.count - 1];
}

// Calls name for each tensor of the groups that backbones have, q, k and v apart.
static void add_all(ExportTensors *t, const bool wanted[GROUP_COUNT],
                    void (*name)(ExportTensors *t, ExportTensor *e, const char *backbone_name)) {
    const Params *p = t->source->params;
    for (size_t i = 0; i < p->count; i++) {
        const Param *q = &p->items[i];
        if (!wanted[q->group]) continue;
        char text[sizeof q->backbone_name];
        snprintf(text, sizeof text, "%s", q->backbone_name);
        char *placeholder = strchr(text, '?');
        for (size_t part = 0; part < (placeholder ? 3u : 1u); part++) {
            if (placeholder) *placeholder = "qkv"[part];
            name(t, add_tensor(t, q, part, placeholder ? 3 : 1), text);
        }
    }
}

static void flatten_positions(ExportTensor *e, size_t positions) {
    e->ndim = 2;
    e->shape[1] = e->shape[2];
    e->shape[0] = positions;
}

static void name_hf(ExportTensors *t, ExportTensor *e, const char *backbone) {
    const bool whole = t->source->part == EXPORT_ALL;
    if (e->param->group == GROUP_MP)
        snprintf(e->name, sizeof e->name, "model.connector.modality_projection.%s",
                 e->param->name + strlen("MP."));
    else if (whole && e->param->group == GROUP_VISION)
        snprintf(e->name, sizeof e->name, "model.%s", backbone);
    else if (whole && !strncmp(backbone, "model.", 6))
        snprintf(e->name, sizeof e->name, "model.text_model.%s", backbone + 6);
    else
        snprintf(e->name, sizeof e->name, "%s", backbone);
    e->type = t->source->type;
    if (e->param != t->source->params->vision.position) return;
    const size_t side = export_grid(t->source->config) + (whole ? 1 : 0);
    flatten_positions(e, side * side);
    if (whole) e->change = EXPORT_WIDER_GRID;
}

void export_list_hf(ExportTensors *t, const ExportSource *s) {
    *t = (ExportTensors){.source = s};
    const bool wanted[GROUP_COUNT] = {[GROUP_MP] = s->part == EXPORT_ALL,
                                      [GROUP_VISION] = s->part != EXPORT_DECODER,
                                      [GROUP_LANGUAGE] = s->part != EXPORT_VISION};
    add_all(t, wanted, name_hf);
}

static void name_llama(ExportTensors *t, ExportTensor *e, const char *backbone) {
    bool rotated;
    CHECK(gguf_llama_name_from_hf(e->name, backbone, &rotated), "%s has no name in GGUF files", backbone);
    if (rotated) e->change = EXPORT_ROTATED;
    const Params *p = t->source->params;
    if (e->param != p->decoder.embedding && e->param != p->decoder.head) return;
    e->change = EXPORT_MORE_ROWS;
    e->shape[0] += t->more_rows.count;
}

void export_list_llama(ExportTensors *t, const ExportSource *s) {
    t->source = s;
    const bool wanted[GROUP_COUNT] = {[GROUP_LANGUAGE] = true};
    add_all(t, wanted, name_llama);
}

// # stands for the number of the block.
static const struct {
    const char *backbone, *clip;
} clip_names[] = {
    {"embeddings.position_embedding.", "v.position_embd."},
    {"embeddings.patch_embedding.", "v.patch_embd."},
    {"post_layernorm.", "v.post_ln."},
    {"encoder.layers.#.layer_norm1.", "v.blk.#.ln1."},
    {"encoder.layers.#.layer_norm2.", "v.blk.#.ln2."},
    {"encoder.layers.#.self_attn.q_proj.", "v.blk.#.attn_q."},
    {"encoder.layers.#.self_attn.k_proj.", "v.blk.#.attn_k."},
    {"encoder.layers.#.self_attn.v_proj.", "v.blk.#.attn_v."},
    {"encoder.layers.#.self_attn.out_proj.", "v.blk.#.attn_out."},
    {"encoder.layers.#.mlp.fc1.", "v.blk.#.ffn_up."},
    {"encoder.layers.#.mlp.fc2.", "v.blk.#.ffn_down."},
};

static bool name_by_row(char *name, const char *from, const char *row, const char *to) {
    const char *mark = strchr(row, '#'), *rest = from;
    size_t digits = 0;
    if (mark) {
        const size_t before = (size_t)(mark - row);
        if (strncmp(from, row, before)) return false;
        digits = strspn(from + before, "0123456789");
        rest = from + before + digits;
        row = mark + 1;
    }
    if (strncmp(rest, row, strlen(row))) return false;
    const char *place = strchr(to, '#');
    if (place)
        snprintf(name, EXPORT_MAX_NAME, "%.*s%.*s%s%s", (int)(place - to), to, (int)digits, rest - digits,
                 place + 1, rest + strlen(row));
    else
        snprintf(name, EXPORT_MAX_NAME, "%s%s", to, rest + strlen(row));
    return true;
}

// llama.cpp takes a feed-forward layer whose second matrix has as many columns as the model is wide for one
// of an old file with the two exchanged (clip.cpp); where both sizes are equal they must stand so.
static void exchange_mlp(char *name) {
    char *up = strstr(name, ".ffn_up."), *down = strstr(name, ".ffn_down."), text[EXPORT_MAX_NAME];
    if (!up && !down) return;
    const char *rest = up ? up + strlen(".ffn_up.") : down + strlen(".ffn_down.");
    snprintf(text, sizeof text, "%.*s%s%s", (int)((up ? up : down) - name), name,
             up ? ".ffn_down." : ".ffn_up.", rest);
    snprintf(name, EXPORT_MAX_NAME, "%s", text);
}

static void name_clip(ExportTensors *t, ExportTensor *e, const char *backbone) {
    const Params *p = t->source->params;
    const size_t skip = strlen("vision_model.");
    if (e->param->group == GROUP_MP) {
        snprintf(e->name, sizeof e->name, "mm.model.fc.weight");
        return;
    }
    for (size_t i = 0; i < sizeof clip_names / sizeof *clip_names; i++)
        if (name_by_row(e->name, backbone + skip, clip_names[i].backbone, clip_names[i].clip)) break;
    CHECK(e->name[0], "%s has no name in GGUF files", backbone);
    if (t->source->config->vit_hidden_dim == t->source->config->vit_inter_dim) exchange_mlp(e->name);
    if (e->param == p->vision.position) flatten_positions(e, e->param->shape[1]);
    if (e->param == p->vision.position || e->param == p->vision.patch_w) e->type = GGUF_TYPE_F32;
}

void export_list_clip(ExportTensors *t, const ExportSource *s) {
    *t = (ExportTensors){.source = s};
    const bool wanted[GROUP_COUNT] = {[GROUP_MP] = true, [GROUP_VISION] = true};
    add_all(t, wanted, name_clip);
}

void export_tensors_free(ExportTensors *t) {
    vec_free(&t->list);
    vec_free(&t->more_rows);
}

bool export_check_types(const ExportTensors *t, Error *err) {
    for (size_t i = 0; i < t->list.count; i++) {
        const ExportTensor *e = &t->list.items[i];
        const size_t row = e->ndim ? e->shape[e->ndim - 1] : 1, block = gguf_type_block_values(e->type);
        if (row % block)
            return error_set(err,
                             "tensor %s has rows of %zu values, %s stores blocks of %zu: export with --type "
                             "f16, bf16 or f32",
                             e->name, row, gguf_type_name(e->type), block);
        if (strlen(e->name) > GGUF_MAX_NAME && t->source->type == GGUF_TYPE_Q8_0)
            return error_set(err, "tensor %s: its name is longer than %d bytes", e->name, GGUF_MAX_NAME);
    }
    return true;
}

// ---- values ----

static size_t value_count(const ExportTensor *e) {
    size_t n = 1;
    for (int d = 0; d < e->ndim; d++) n *= e->shape[d];
    return n;
}

static void download(float *out, const ExportTensors *t, const ExportTensor *e) {
    Backend *be = t->source->be;
    const Tensor flat = tensor_reshape(e->param->w, SHAPE(tensor_count(e->param->w)));
    tensor_download(be, STREAM_COMPUTE, out, tensor_slice(flat, e->first, e->count));
    backend_sync(be);
}

static void rotate_rows(float *out, const float *in, const ExportTensors *t, const ExportTensor *e) {
    const size_t head = vlm_config_head_dim(t->source->config), C = e->shape[1];
    for (size_t row = 0; row < e->shape[0]; row++)
        memcpy(out + gguf_llama_row_from_hf(row, head) * C, in + row * C, C * sizeof *out);
}

static void widen_grid(float *out, const float *in, const ExportTensors *t, const ExportTensor *e) {
    const size_t n = export_grid(t->source->config), C = e->shape[1];
    memset(out, 0, value_count(e) * sizeof *out);
    for (size_t y = 0; y < n; y++) memcpy(out + y * (n + 1) * C, in + y * n * C, n * C * sizeof *out);
}

static void append_rows(float *out, const float *in, const ExportTensors *t, const ExportTensor *e) {
    const size_t C = e->shape[1], rows = e->count / C;
    memcpy(out, in, e->count * sizeof *out);
    for (size_t i = 0; i < t->more_rows.count; i++) {
        const int32_t like = t->more_rows.items[i];
        float *row = out + (rows + i) * C;
        if (like < 0)
            memset(row, 0, C * sizeof *row);
        else
            memcpy(row, in + (size_t)like * C, C * sizeof *row);
    }
}

static void read_values(float *out, const ExportTensors *t, const ExportTensor *e) {
    static void (*const changes[])(float *, const float *, const ExportTensors *, const ExportTensor *) = {
        [EXPORT_ROTATED] = rotate_rows, [EXPORT_WIDER_GRID] = widen_grid, [EXPORT_MORE_ROWS] = append_rows};
    if (!e->param) {
        memcpy(out, e->made, value_count(e) * sizeof *out);
    } else if (e->change == EXPORT_AS_IS) {
        download(out, t, e);
    } else {
        float *in = mem_alloc(e->count * sizeof *in);
        download(in, t, e);
        changes[e->change](out, in, t, e);
        free(in);
    }
}

static bool export_fill(void *context, size_t i, void *dst) {
    const ExportTensors *t = context;
    const ExportTensor *e = &t->list.items[i];
    const size_t n = value_count(e);
    float *values = mem_alloc(n * sizeof *values + 1);
    read_values(values, t, e);
    gguf_encode(dst, e->type, values, n);
    free(values);
    return true;
}

static Dtype dtype_of(GgufType type) {
    return type == GGUF_TYPE_F16 ? DTYPE_F16 : type == GGUF_TYPE_BF16 ? DTYPE_BF16 : DTYPE_F32;
}

bool export_write_safetensors(ExportTensors *t, const char *path, Error *err) {
    SafetensorsSpec *specs = mem_zeroed(t->list.count, sizeof *specs);
    for (size_t i = 0; i < t->list.count; i++) {
        const ExportTensor *e = &t->list.items[i];
        specs[i] = (SafetensorsSpec){.name = e->name, .dtype = dtype_of(e->type), .ndim = e->ndim};
        for (int d = 0; d < e->ndim; d++) specs[i].shape[d] = e->shape[d];
    }
    const char *const format[1][2] = {{"format", "pt"}};
    const bool ok = safetensors_write(path, specs, t->list.count, format, 1, export_fill, t, err);
    free(specs);
    return ok;
}

bool export_write_gguf(ExportTensors *t, const GgufMetadata *metadata, const char *path, Error *err) {
    GgufSpec *specs = mem_zeroed(t->list.count, sizeof *specs);
    for (size_t i = 0; i < t->list.count; i++) {
        const ExportTensor *e = &t->list.items[i];
        specs[i] = (GgufSpec){.name = e->name, .type = e->type, .ndim = e->ndim};
        memcpy(specs[i].shape, e->shape, sizeof e->shape);
    }
    const bool ok = gguf_write(path, metadata, specs, t->list.count, export_fill, t, err);
    free(specs);
    return ok;
}

// ---- rotary frequencies ----

static float by_bf16(float x) {
    return f32_from_bf16(bf16_from_f32(x));
}

static float by_f16(float x) {
    return f32_from_f16(f16_from_f32(x));
}

float *export_frequency_factors(const ExportSource *s) {
    const Param *p = s->params->decoder.inv_freq;
    const size_t n = tensor_count(p->w);
    float *factors = mem_alloc(n * sizeof *factors);
    bool changed = false, is_bf16 = true, is_f16 = true;
    tensor_download(s->be, STREAM_COMPUTE, factors, p->w);
    backend_sync(s->be);
    for (size_t i = 0; i < n; i++) {
        const double plain = pow(s->config->lm_re_base.value, -(double)i / (double)n);
        const double factor = plain / (double)factors[i];
        is_bf16 &= factors[i] == by_bf16((float)plain);
        is_f16 &= factors[i] == by_f16((float)plain);
        changed |= fabs(factor - 1) > 1e-6;
        factors[i] = (float)factor;
    }
    const bool rounded = is_bf16 || is_f16;
    if (changed && rounded)
        log_warning("%s is that of lm_re_base rounded to 16 bits, as by casting a whole checkpoint; exported "
                    "unrounded",
                    p->name);
    if (changed && !rounded) return factors;
    free(factors);
    return NULL;
}
