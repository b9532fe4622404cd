#include "model/params.h"
#include "base/check.h"
#include "base/log.h"
#include "base/memory.h"

#include <stdio.h>
#include <string.h>

const char *const param_group_names[GROUP_COUNT] = {"MP",          "vision",        "language",
                                                    "LoRA vision", "LoRA language", "buffer"};

// Sizes that shapes are made of.
typedef enum Dim {
    DIM_END,
    DIM_ONE,
    DIM_RGB,
    DIM_PATCH,
    DIM_VIT,
    DIM_VIT_3,
    DIM_VIT_INTER,
    DIM_VIT_TOKENS,
    DIM_SHUFFLED,
    DIM_LM,
    DIM_LM_KV,
    DIM_LM_INTER,
    DIM_VOCAB,
    DIM_HALF_HEAD,
    DIM_COUNT
} Dim;

typedef struct ParamRow {
    const char *name; // after the prefix of the part or block
    size_t slot;      // offset of the Param * in the part's struct
    ParamInit init;
    Dim shape[TENSOR_MAX_DIMS];
    const char *backbone; // in SigLIP's or Llama's files, after the block's prefix there; NULL: not there
} ParamRow;

#define VISION_SLOT(field) offsetof(Params, vision.field)
#define BLOCK_SLOT(field)  offsetof(VisionBlockParams, field)
#define LAYER_SLOT(field)  offsetof(DecoderBlockParams, field)

static const ParamRow projector_rows[] = {
    {"proj.weight", offsetof(Params, projector), INIT_WEIGHT, {DIM_LM, DIM_SHUFFLED}, NULL},
};
static const ParamRow cls_rows[] = {
    {"patch_embedding.cls_token", VISION_SLOT(cls), INIT_ZERO, {DIM_ONE, DIM_ONE, DIM_VIT}, NULL},
};
static const ParamRow patch_rows[] = {
    {"patch_embedding.position_embedding",
     VISION_SLOT(position),
     INIT_POSITION,
     {DIM_ONE, DIM_VIT_TOKENS, DIM_VIT},
     "vision_model.embeddings.position_embedding.weight"},
    {"patch_embedding.conv.weight",
     VISION_SLOT(patch_w),
     INIT_WEIGHT,
     {DIM_VIT, DIM_RGB, DIM_PATCH, DIM_PATCH},
     "vision_model.embeddings.patch_embedding.weight"},
    {"patch_embedding.conv.bias",
     VISION_SLOT(patch_b),
     INIT_ZERO,
     {DIM_VIT},
     "vision_model.embeddings.patch_embedding.bias"},
};
static const ParamRow vision_block_rows[] = {
    {"ln1.weight", BLOCK_SLOT(ln1_w), INIT_ONE, {DIM_VIT}, "layer_norm1.weight"},
    {"ln1.bias", BLOCK_SLOT(ln1_b), INIT_ZERO, {DIM_VIT}, "layer_norm1.bias"},
    {"attn.qkv_proj.weight", BLOCK_SLOT(qkv_w), INIT_WEIGHT, {DIM_VIT_3, DIM_VIT}, "self_attn.?_proj.weight"},
    {"attn.qkv_proj.bias", BLOCK_SLOT(qkv_b), INIT_ZERO, {DIM_VIT_3}, "self_attn.?_proj.bias"},
    {"attn.out_proj.weight",
     BLOCK_SLOT(out_w),
     INIT_RESIDUAL,
     {DIM_VIT, DIM_VIT},
     "self_attn.out_proj.weight"},
    {"attn.out_proj.bias", BLOCK_SLOT(out_b), INIT_ZERO, {DIM_VIT}, "self_attn.out_proj.bias"},
    {"ln2.weight", BLOCK_SLOT(ln2_w), INIT_ONE, {DIM_VIT}, "layer_norm2.weight"},
    {"ln2.bias", BLOCK_SLOT(ln2_b), INIT_ZERO, {DIM_VIT}, "layer_norm2.bias"},
    {"mlp.fc1.weight", BLOCK_SLOT(fc1_w), INIT_WEIGHT, {DIM_VIT_INTER, DIM_VIT}, "mlp.fc1.weight"},
    {"mlp.fc1.bias", BLOCK_SLOT(fc1_b), INIT_ZERO, {DIM_VIT_INTER}, "mlp.fc1.bias"},
    {"mlp.fc2.weight", BLOCK_SLOT(fc2_w), INIT_RESIDUAL, {DIM_VIT, DIM_VIT_INTER}, "mlp.fc2.weight"},
    {"mlp.fc2.bias", BLOCK_SLOT(fc2_b), INIT_ZERO, {DIM_VIT}, "mlp.fc2.bias"},
};
static const ParamRow vision_norm_rows[] = {
    {"layer_norm.weight", VISION_SLOT(ln_w), INIT_ONE, {DIM_VIT}, "vision_model.post_layernorm.weight"},
    {"layer_norm.bias", VISION_SLOT(ln_b), INIT_ZERO, {DIM_VIT}, "vision_model.post_layernorm.bias"},
};
static const ParamRow embedding_rows[] = {
    {"token_embedding.weight",
     offsetof(Params, decoder.embedding),
     INIT_WEIGHT,
     {DIM_VOCAB, DIM_LM},
     "model.embed_tokens.weight"},
};
static const ParamRow decoder_block_rows[] = {
    {"mlp.gate_proj.weight", LAYER_SLOT(gate), INIT_WEIGHT, {DIM_LM_INTER, DIM_LM}, "mlp.gate_proj.weight"},
    {"mlp.up_proj.weight", LAYER_SLOT(up), INIT_WEIGHT, {DIM_LM_INTER, DIM_LM}, "mlp.up_proj.weight"},
    {"mlp.down_proj.weight", LAYER_SLOT(down), INIT_RESIDUAL, {DIM_LM, DIM_LM_INTER}, "mlp.down_proj.weight"},
    {"attn.q_proj.weight", LAYER_SLOT(q), INIT_WEIGHT, {DIM_LM, DIM_LM}, "self_attn.q_proj.weight"},
    {"attn.k_proj.weight", LAYER_SLOT(k), INIT_WEIGHT, {DIM_LM_KV, DIM_LM}, "self_attn.k_proj.weight"},
    {"attn.v_proj.weight", LAYER_SLOT(v), INIT_WEIGHT, {DIM_LM_KV, DIM_LM}, "self_attn.v_proj.weight"},
    {"attn.out_proj.weight", LAYER_SLOT(out), INIT_RESIDUAL, {DIM_LM, DIM_LM}, "self_attn.o_proj.weight"},
    {"norm1.weight", LAYER_SLOT(norm1), INIT_ONE, {DIM_LM}, "input_layernorm.weight"},
    {"norm2.weight", LAYER_SLOT(norm2), INIT_ONE, {DIM_LM}, "post_attention_layernorm.weight"},
};
static const ParamRow decoder_norm_rows[] = {
    {"norm.weight", offsetof(Params, decoder.norm), INIT_ONE, {DIM_LM}, "model.norm.weight"},
};
static const ParamRow head_rows[] = {
    {"head.weight", offsetof(Params, decoder.head), INIT_WEIGHT, {DIM_VOCAB, DIM_LM}, "lm_head.weight"},
};
static const ParamRow buffer_rows[] = {
    {"rotary_embd.inv_freq", offsetof(Params, decoder.inv_freq), INIT_INV_FREQ, {DIM_HALF_HEAD}, NULL},
};

static void list_sizes(size_t sizes[DIM_COUNT], const VLMConfig *c) {
    size_t head_dim = vlm_config_head_dim(c), shuffle = c->mp_pixel_shuffle_factor;
    sizes[DIM_ONE] = 1;
    sizes[DIM_RGB] = 3;
    sizes[DIM_PATCH] = c->vit_patch_size;
    sizes[DIM_VIT] = c->vit_hidden_dim;
    sizes[DIM_VIT_3] = 3 * c->vit_hidden_dim;
    sizes[DIM_VIT_INTER] = c->vit_inter_dim;
    sizes[DIM_VIT_TOKENS] = vlm_config_patches(c) + (c->vit_cls_flag ? 1 : 0);
    sizes[DIM_SHUFFLED] = c->vit_hidden_dim * shuffle * shuffle;
    sizes[DIM_LM] = c->lm_hidden_dim;
    sizes[DIM_LM_KV] = c->lm_n_kv_heads * head_dim;
    sizes[DIM_LM_INTER] = c->lm_inter_dim;
    sizes[DIM_VOCAB] = c->lm_vocab_size;
    sizes[DIM_HALF_HEAD] = head_dim / 2;
}

// A part of the table while it is laid out.
typedef struct Layout {
    Params *p;
    size_t sizes[DIM_COUNT];
} Layout;

// backbone: what stands before the row's name in a backbone's file.
static void add_row(Layout *l, const ParamRow *row, const char *prefix, const char *backbone,
                    ParamGroup group, void *slots) {
    Params *p = l->p;
    Param *param = &p->items[p->count++];
    *param = (Param){.group = group, .init = row->init};
    snprintf(param->name, sizeof param->name, "%s.%s", prefix, row->name);
    bool renamed = p->tied && row->slot == offsetof(Params, decoder.embedding) && slots == p;
    snprintf(param->file_name, sizeof param->file_name, "%s", renamed ? "decoder.head.weight" : param->name);
    if (row->backbone)
        snprintf(param->backbone_name, sizeof param->backbone_name, "%s%s", backbone, row->backbone);
    while (param->ndim < TENSOR_MAX_DIMS && row->shape[param->ndim] != DIM_END) {
        param->shape[param->ndim] = l->sizes[row->shape[param->ndim]];
        param->ndim++;
    }
    param->fan_in = 1;
    for (int i = 1; i < param->ndim; i++) param->fan_in *= param->shape[i];
    *(Param **)((char *)slots + row->slot) = param;
}

#define ADD_ROWS(l, rows, prefix, backbone, group, slots)                                                    \
    for (size_t row_ = 0; row_ < sizeof(rows) / sizeof *(rows); row_++)                                      \
    add_row(l, &(rows)[row_], prefix, backbone, group, slots)

static void add_blocks(Layout *l, const VLMConfig *c, bool vision) {
    for (size_t i = 0; i < (vision ? c->vit_n_blocks : c->lm_n_blocks); i++) {
        char prefix[64], backbone[64];
        snprintf(prefix, sizeof prefix, "%s.blocks.%zu", vision ? "vision_encoder" : "decoder", i);
        snprintf(backbone, sizeof backbone, "%s.layers.%zu.", vision ? "vision_model.encoder" : "model", i);
        if (vision)
            ADD_ROWS(l, vision_block_rows, prefix, backbone, GROUP_VISION, &l->p->vision.blocks[i]);
        else
            ADD_ROWS(l, decoder_block_rows, prefix, backbone, GROUP_LANGUAGE, &l->p->decoder.blocks[i]);
    }
}

// Only what linear_forward and embedding_forward read may be packed; vectors are small and stay exact.
static Dtype kept_as(const Params *p, const Param *q) {
    const bool matrix = q->init == INIT_WEIGHT || q->init == INIT_RESIDUAL;
    return matrix && q->fan_in % dtype_block(p->weights) == 0 ? p->weights : DTYPE_F32;
}

static void take_all(Params *p) {
    for (size_t i = 0; i < p->count; i++) {
        Param *q = &p->items[i];
        q->w = arena_take(&p->values, kept_as(p, q), q->ndim, q->shape);
        q->d = q->trained ? arena_take(&p->gradients, DTYPE_F32, q->ndim, q->shape) : TENSOR_NONE;
        q->product = q->w;
    }
}

static void add_pictures(Layout *l, const VLMConfig *c) {
    Params *p = l->p;
    ADD_ROWS(l, projector_rows, "MP", "", GROUP_MP, p);
    if (c->vit_cls_flag) ADD_ROWS(l, cls_rows, "vision_encoder", "", GROUP_VISION, p);
    ADD_ROWS(l, patch_rows, "vision_encoder", "", GROUP_VISION, p);
    add_blocks(l, c, true);
    ADD_ROWS(l, vision_norm_rows, "vision_encoder", "", GROUP_VISION, p);
}

static bool is_factor(const Params *p, const Param *q) {
    if (q == p->decoder.embedding && !p->tied) return false; // rows of it are read, nothing more
    return q->init == INIT_WEIGHT || q->init == INIT_RESIDUAL || param_is_adapter(q);
}

static void take_copies(Params *p) {
    for (size_t i = 0; i < p->count; i++) {
        Param *q = &p->items[i];
        if (is_factor(p, q)) q->product = arena_take(&p->products, DTYPE_BF16, q->ndim, q->shape);
    }
}

void params_plan_bf16(Params *p, bool keep) {
    p->act = DTYPE_BF16;
    p->keeps_copies = keep;
    if (keep) take_copies(p);
}

size_t params_bf16_bytes(const Params *p) {
    size_t largest = 0;
    if (p->act != DTYPE_BF16 || p->keeps_copies) return p->products.used;
    for (size_t i = 0; i < p->count; i++) {
        const size_t n = tensor_count(p->items[i].w);
        if (is_factor(p, &p->items[i]) && n > largest) largest = n;
    }
    return sizeof(uint16_t) * (largest < LINEAR_ROUNDED ? largest : LINEAR_ROUNDED);
}

size_t params_largest_bytes(const Params *p) {
    size_t largest = 0;
    for (size_t i = 0; i < p->count; i++) {
        const size_t n = tensor_count(p->items[i].w);
        if (n > largest) largest = n;
    }
    return largest * sizeof(float);
}

bool param_has_copy(const Param *p) {
    return p->product.dtype != p->w.dtype;
}

void param_refresh(const Param *p, Backend *be) {
    if (param_has_copy(p)) copy(be, p->product, p->w);
}

// As the matrix it is multiplied as: the kernel of the patches has four sizes.
void param_arrange(Param *p, Backend *be) {
    if (p->w.dtype != DTYPE_Q8_0) return;
    arrange_weights(be, tensor_reshape(p->w, SHAPE(p->shape[0], p->fan_in)));
    p->w.dtype = p->product.dtype = DTYPE_Q8_TILES;
}

void params_plan(Params *p, Backend *be, const VLMConfig *c, const bool trained[GROUP_TRAINED]) {
    params_plan_form(p, be, c, &(ParamsForm){0}, trained);
}

void params_plan_form(Params *p, Backend *be, const VLMConfig *c, const ParamsForm *form,
                      const bool trained[GROUP_TRAINED]) {
    *p = (Params){.tied = c->lm_tie_weights, .decoder_alone = form->decoder_alone, .weights = form->weights};
    p->products = arena_measure(be, "weights in BF16");
    // with room for the adapters of 4 and 7 matrices a block: slots are addresses
    p->items = mem_zeroed(16 + 20 * c->vit_n_blocks + 23 * c->lm_n_blocks, sizeof *p->items);
    p->vision.blocks = mem_zeroed(c->vit_n_blocks, sizeof *p->vision.blocks);
    p->decoder.blocks = mem_zeroed(c->lm_n_blocks, sizeof *p->decoder.blocks);
    Layout l = {.p = p};
    list_sizes(l.sizes, c);
    if (!form->decoder_alone) add_pictures(&l, c);
    ADD_ROWS(&l, embedding_rows, "decoder", "", GROUP_LANGUAGE, p);
    add_blocks(&l, c, false);
    ADD_ROWS(&l, decoder_norm_rows, "decoder", "", GROUP_LANGUAGE, p);
    if (!p->tied)
        ADD_ROWS(&l, head_rows, "decoder", "", GROUP_LANGUAGE, p);
    else
        p->decoder.head = p->decoder.embedding;
    ADD_ROWS(&l, buffer_rows, "decoder", "", GROUP_BUFFER, p);
    for (size_t i = 0; i < p->count; i++)
        p->items[i].trained = p->items[i].group < GROUP_TRAINED && trained[p->items[i].group];
    params_measure(p, be);
}

void params_measure(Params *p, Backend *be) {
    p->values = arena_measure(be, "parameters");
    p->gradients = arena_measure(be, "gradients");
    take_all(p);
}

bool params_allocate(Params *p, Error *err) {
    if (!arena_commit(&p->values, err) || !arena_commit(&p->gradients, err) ||
        !arena_commit(&p->products, err))
        return false;
    take_all(p);
    if (p->keeps_copies) take_copies(p);
    return true;
}

void params_free(Params *p) {
    if (!p->items) return;
    arena_release(&p->values);
    arena_release(&p->gradients);
    arena_release(&p->products);
    free(p->items);
    free(p->vision.blocks);
    free(p->decoder.blocks);
    *p = (Params){0};
}

Param *params_find(Params *p, const char *name) {
    for (size_t i = 0; i < p->count; i++)
        if (!strcmp(p->items[i].name, name) || !strcmp(p->items[i].file_name, name)) return &p->items[i];
    return NULL;
}

size_t params_total(const Params *p, ParamGroup group) {
    size_t total = 0;
    for (size_t i = 0; i < p->count; i++)
        if (p->items[i].group == group) total += tensor_count(p->items[i].w);
    return total;
}

size_t params_trained(const Params *p, ParamGroup group) {
    size_t total = 0;
    for (size_t i = 0; i < p->count; i++)
        if (p->items[i].group == group && p->items[i].trained) total += tensor_count(p->items[i].w);
    return total;
}

void params_print_summary(const Params *p) {
    for (int g = 0; g < GROUP_TRAINED; g++) {
        const size_t all = params_total(p, (ParamGroup)g), trained = params_trained(p, (ParamGroup)g);
        if (all > 0 && (trained == 0 || trained == all))
            log_info("%-13s %12zu parameters, %s", param_group_names[g], all, trained ? "trained" : "frozen");
        else if (all > 0)
            log_info("%-13s %12zu parameters, %zu of them trained", param_group_names[g], all, trained);
    }
}

void params_zero_gradients(Params *p, Backend *be) {
    for (size_t i = 0; i < p->count; i++)
        if (tensor_exists(p->items[i].d)) fill(be, p->items[i].d, 0.0f);
}
