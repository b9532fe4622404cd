#include "model/vision_encoder.h"
#include "base/memory.h"

#include <math.h>

void vision_encoder_init(VisionEncoder *v, Backend *be, const VLMConfig *config, const Params *params) {
    *v = (VisionEncoder){.be = be, .config = config, .params = params};
    v->tokens = vlm_config_patches(config) + (config->vit_cls_flag ? 1 : 0);
    v->blocks = mem_zeroed(config->vit_n_blocks, sizeof *v->blocks);
}

void vision_encoder_free(VisionEncoder *v) {
    free(v->blocks);
    v->blocks = NULL;
}

#define TAKE(field, forgotten_from, dtype, ...)                                                              \
    b.field = block_take(plan, forgotten_from, first ? &first->field : NULL, dtype, SHAPE(__VA_ARGS__))

// first: the first block, or NULL when this is it.
static VisionBlockActs take_block(const VisionEncoder *v, const BlockPlan *plan, size_t I, Tensor x,
                                  const VisionBlockActs *first) {
    const VLMConfig *c = v->config;
    const Dtype act = v->params->act;
    const size_t C = c->vit_hidden_dim, N = v->tokens, M = I * N;
    VisionBlockActs b = {.x = x, .branch = v->branch};
    TAKE(ln1, RECOMPUTE_NORMS, act, I, N, C);
    TAKE(ln1_mean, RECOMPUTE_BLOCK, DTYPE_F32, M);
    TAKE(ln1_rstd, RECOMPUTE_BLOCK, DTYPE_F32, M);
    TAKE(qkv, RECOMPUTE_BLOCK, act, I, N, 3 * C);
    TAKE(attn, RECOMPUTE_ATTENTION, act, I, N, C);
    TAKE(fc1, RECOMPUTE_BLOCK, act, I, N, c->vit_inter_dim);
    if (plan->keep) {
        TAKE(lse, RECOMPUTE_BLOCK, DTYPE_F32, I, c->vit_n_heads, N);
        if (recomputes_between(v->recompute)) TAKE(branch, RECOMPUTE_BLOCK, act, I, N, C);
        TAKE(x_mid, RECOMPUTE_NORMS, DTYPE_F32, I, N, C);
        TAKE(ln2, RECOMPUTE_NORMS, act, I, N, C);
        TAKE(ln2_mean, RECOMPUTE_BLOCK, DTYPE_F32, M);
        TAKE(ln2_rstd, RECOMPUTE_BLOCK, DTYPE_F32, M);
        TAKE(gelu, RECOMPUTE_NORMS, act, I, N, c->vit_inter_dim);
    } else { // the residual stream is updated in place, and each buffer is free again when the next step
             // needs one
        b.x_mid = x;
        b.ln2 = b.ln1, b.ln2_mean = b.ln1_mean, b.ln2_rstd = b.ln1_rstd;
        b.gelu = b.fc1;
    }
    return b;
}

void vision_encoder_plan_gradients(VisionEncoder *v, Arena *a, size_t I) {
    size_t C = v->config->vit_hidden_dim, N = v->tokens;
    const Dtype act = v->params->act;
    v->dx = arena_take(a, DTYPE_F32, SHAPE(I, N, C));
    v->dnorm = arena_take(a, act, SHAPE(I, N, C));
    v->dattn = arena_take(a, act, SHAPE(I, N, C));
    v->dqkv = arena_take(a, act, SHAPE(I, N, 3 * C));
    v->delta = arena_take(a, DTYPE_F32, SHAPE(I, v->config->vit_n_heads, N));
    v->dinner = arena_take(a, act, SHAPE(I, N, v->config->vit_inter_dim));
    v->dpatches = arena_take(a, act, SHAPE(I, vlm_config_patches(v->config), C));
}

// What is forgotten before the first block begins lies where the blocks' scratch does.
static void plan_input(VisionEncoder *v, Arena *scratch, size_t blocks_at) {
    const VLMConfig *c = v->config;
    const size_t end = scratch->used;
    scratch->used = blocks_at;
    v->images = arena_take(scratch, DTYPE_F32, SHAPE(v->I, 3, c->vit_img_size, c->vit_img_size));
    v->embedded = arena_take(scratch, v->params->act, SHAPE(v->I, vlm_config_patches(c), c->vit_hidden_dim));
    if (scratch->used < end) scratch->used = end;
}

void vision_encoder_plan(VisionEncoder *v, Arena *a, Arena *scratch, size_t I, bool keep) {
    const VLMConfig *c = v->config;
    size_t C = c->vit_hidden_dim, N = v->tokens, P = vlm_config_patches(c), p = c->vit_patch_size;
    const Dtype act = v->params->act;
    const BlockPlan plan = {a, scratch, keep, v->recompute};
    Arena *own = keep ? a : scratch;
    v->I = I;
    v->patches = arena_take(own, act, SHAPE(I * P, 3 * p * p));
    Tensor x = arena_take(own, DTYPE_F32, SHAPE(I, N, C));
    const size_t blocks_at = scratch->used;
    v->branch = arena_take(scratch, act, SHAPE(I, N, C));
    lora_plan(&v->lora, v->be, v->params, scratch, I * N, keep);
    for (size_t i = 0; i < c->vit_n_blocks; i++) {
        v->blocks[i] = take_block(v, &plan, I, x, i ? v->blocks : NULL);
        if (keep) x = arena_take(a, DTYPE_F32, SHAPE(I, N, C));
    }
    v->x_out = x;
    v->ln_mean = arena_take(own, DTYPE_F32, SHAPE(I * N));
    v->ln_rstd = arena_take(own, DTYPE_F32, SHAPE(I * N));
    v->out =
        c->vit_cls_flag ? arena_take(scratch, act, SHAPE(I, C)) : arena_take(scratch, act, SHAPE(I, N, C));
    plan_input(v, scratch, blocks_at);
}

// The third part `which` (0 q, 1 k, 2 v) of qkv [I, N, 3C] as heads [I, N, H, D]; a view.
static Tensor qkv_part(const VisionEncoder *v, Tensor qkv, size_t which) {
    size_t C = v->config->vit_hidden_dim;
    return tensor_split_last(tensor_columns(qkv, which * C, C), v->config->vit_n_heads);
}

static float attention_scale(const VLMConfig *c) {
    return 1.0f / sqrtf((float)(c->vit_hidden_dim / c->vit_n_heads));
}

static void attend(VisionEncoder *v, const VisionBlockActs *b) {
    attention_forward(v->be, tensor_split_last(b->attn, v->config->vit_n_heads), b->lse,
                      qkv_part(v, b->qkv, 0), qkv_part(v, b->qkv, 1), qkv_part(v, b->qkv, 2), TENSOR_NONE,
                      TENSOR_NONE, attention_scale(v->config), false);
}

static float norm_eps(const VisionEncoder *v) {
    return (float)v->config->vit_ln_eps.value;
}

static void first_norm(VisionEncoder *v, const VisionBlockParams *w, const VisionBlockActs *b) {
    layer_norm_forward(v->be, b->ln1, b->ln1_mean, b->ln1_rstd, b->x, w->ln1_w->w, w->ln1_b->w, norm_eps(v));
}

static void second_norm(VisionEncoder *v, const VisionBlockParams *w, const VisionBlockActs *b) {
    add_layer_norm_forward(v->be, b->x_mid, b->ln2, b->ln2_mean, b->ln2_rstd, b->x, b->branch, w->ln2_w->w,
                           w->ln2_b->w, norm_eps(v));
}

// From ln1(x) to all that backward reads of a block: up to gelu(fc1(ln2(x_mid))), x_mid = x +
// out_proj(attention(ln1(x))).
static void block_inside(VisionEncoder *v, const VisionBlockParams *w, const VisionBlockActs *b) {
    lora_forward(&v->lora, b->qkv, b->ln1, w->qkv_w, w->qkv_b);
    attend(v, b);
    lora_forward(&v->lora, b->branch, b->attn, w->out_w, w->out_b);
    second_norm(v, w, b);
    lora_forward(&v->lora, b->fc1, b->ln2, w->fc1_w, w->fc1_b);
    gelu_forward(v->be, b->gelu, b->fc1);
}

// Puts back what other blocks and the decoder have written over, all but gelu, which its backward makes.
static void make_again(VisionEncoder *v, size_t block) {
    const VisionBlockParams *w = &v->params->vision.blocks[block];
    const VisionBlockActs *b = &v->blocks[block];
    if (v->recompute == RECOMPUTE_NONE) return;
    first_norm(v, w, b);
    if (v->recompute == RECOMPUTE_BLOCK) {
        block_inside(v, w, b);
        return;
    }
    if (v->recompute == RECOMPUTE_ATTENTION) attend(v, b);
    second_norm(v, w, b);
}

// What the last norm reads: all tokens, or with vit_cls_flag the first of each tile (rows N*C apart).
static Tensor norm_input(const VisionEncoder *v, Tensor x) {
    if (!v->config->vit_cls_flag) return x;
    Tensor first = x;
    first.ndim = 2;
    first.shape[1] = x.shape[2];
    first.stride[1] = 1;
    return first;
}

// [O, ...] as the matrix [O, fan_in] that a linear layer sees (a convolution kernel).
static Tensor as_matrix(const Param *p, Tensor t) {
    return tensor_reshape(t, SHAPE(p->shape[0], p->fan_in));
}

static Tensor without_leading_one(Tensor t) {
    return tensor_reshape(t, SHAPE(tensor_rows(t), tensor_cols(t)));
}

// The last sum and the norm behind it; with vit_cls_flag they see different rows.
static void last_norm(VisionEncoder *v, Tensor x_mid) {
    const Param *w = v->params->vision.ln_w, *b = v->params->vision.ln_b;
    if (!v->config->vit_cls_flag) {
        add_layer_norm_forward(v->be, v->x_out, v->out, v->ln_mean, v->ln_rstd, x_mid, v->branch, w->w, b->w,
                               norm_eps(v));
        return;
    }
    add(v->be, v->x_out, x_mid, v->branch);
    const Tensor x = norm_input(v, v->x_out);
    layer_norm_forward(v->be, v->out, tensor_head(v->ln_mean, tensor_rows(x)),
                       tensor_head(v->ln_rstd, tensor_rows(x)), x, w->w, b->w, norm_eps(v));
}

// x_out = x_mid + fc2(gelu(fc1(ln2(x_mid)))), which is the next block's x, with what norm reads it next. ln1
// of x has been made.
static void block_forward(VisionEncoder *v, size_t i) {
    const VisionBlockParams *w = &v->params->vision.blocks[i];
    const VisionBlockActs *b = &v->blocks[i], *next = b + 1;
    block_inside(v, w, b);
    lora_forward(&v->lora, v->branch, b->gelu, w->fc2_w, w->fc2_b);
    if (i + 1 == v->config->vit_n_blocks)
        last_norm(v, b->x_mid);
    else
        add_layer_norm_forward(v->be, next->x, next->ln1, next->ln1_mean, next->ln1_rstd, b->x_mid, v->branch,
                               w[1].ln1_w->w, w[1].ln1_b->w, norm_eps(v));
}

void vision_encoder_forward(VisionEncoder *v, Tensor images) {
    Backend *be = v->be;
    const VLMConfig *c = v->config;
    const Params *p = v->params;
    Tensor position = without_leading_one(p->vision.position->w), cls = TENSOR_NONE;
    if (c->vit_cls_flag) cls = tensor_reshape(p->vision.cls->w, SHAPE(c->vit_hidden_dim));
    patchify(be, v->patches, images, c->vit_patch_size);
    linear_forward(be, v->embedded, v->patches, as_matrix(p->vision.patch_w, p->vision.patch_w->product),
                   p->vision.patch_b->w);
    position_forward(be, v->blocks[0].x, v->embedded, position, cls);
    first_norm(v, &p->vision.blocks[0], &v->blocks[0]);
    for (size_t i = 0; i < c->vit_n_blocks; i++) block_forward(v, i);
}

// Where a norm's backward leaves the gradient of the residual stream in the products' dtype: in the place of
// the gradient that it has read.
static Tensor rounded_gradient(const VisionEncoder *v) {
    return v->dnorm.dtype == DTYPE_BF16 ? v->dnorm : TENSOR_NONE;
}

// v->dx holds d x_out on entry and d x on return, and rounded_gradient the same; quoted lines are
// block_forward's.
static void block_backward(VisionEncoder *v, const VisionBlockParams *w, const VisionBlockActs *b) {
    Backend *be = v->be;
    const VLMConfig *c = v->config;
    // The gradient of what a branch added to the residual stream is the stream's own.
    const Tensor rounded = rounded_gradient(v), dbranch = tensor_exists(rounded) ? rounded : v->dx;
    // x_out = x_mid + fc2(gelu(fc1(ln2(x_mid)))): dx reaches x_mid both directly and through the branch
    // gelu, which the weights' gradients read, is made again by its backward
    lora_backward_input(&v->lora, v->dinner, dbranch, w->fc2_w, false);
    gelu_backward(be, v->dinner, recomputes_between(v->recompute) ? b->gelu : TENSOR_NONE, v->dinner, b->fc1);
    lora_backward_weight(&v->lora, dbranch, b->gelu, w->fc2_w, w->fc2_b);
    lora_backward(&v->lora, v->dnorm, v->dinner, b->ln2, w->fc1_w, w->fc1_b, false);
    layer_norm_backward(be, v->dx, rounded, w->ln2_w->d, w->ln2_b->d, v->dnorm, b->x_mid, w->ln2_w->w,
                        b->ln2_mean, b->ln2_rstd);
    // x_mid = x + out_proj(attention(ln1(x)))
    lora_backward(&v->lora, v->dattn, dbranch, b->attn, w->out_w, w->out_b, false);
    attention_backward(be, qkv_part(v, v->dqkv, 0), qkv_part(v, v->dqkv, 1), qkv_part(v, v->dqkv, 2),
                       v->delta, tensor_split_last(v->dattn, c->vit_n_heads), qkv_part(v, b->qkv, 0),
                       qkv_part(v, b->qkv, 1), qkv_part(v, b->qkv, 2),
                       tensor_split_last(b->attn, c->vit_n_heads), b->lse, TENSOR_NONE, TENSOR_NONE,
                       attention_scale(c), false);
    lora_backward(&v->lora, v->dnorm, v->dqkv, b->ln1, w->qkv_w, w->qkv_b, false);
    // the first block's goes on to the positions, in F32
    layer_norm_backward(be, v->dx, b == v->blocks ? TENSOR_NONE : rounded, w->ln1_w->d, w->ln1_b->d, v->dnorm,
                        b->x, w->ln1_w->w, b->ln1_mean, b->ln1_rstd);
}

// The last norm's.
static void last_norm_backward(VisionEncoder *v, Tensor dout) {
    const Param *w = v->params->vision.ln_w, *b = v->params->vision.ln_b;
    const Tensor x = norm_input(v, v->x_out), rounded = rounded_gradient(v);
    const bool all = !v->config->vit_cls_flag;
    fill(v->be, v->dx,
         0.0f); // the norm's backward accumulates, and with cls it reaches one token a tile only
    layer_norm_backward(v->be, norm_input(v, v->dx), all ? rounded : TENSOR_NONE, w->d, b->d, dout, x, w->w,
                        tensor_head(v->ln_mean, tensor_rows(x)), tensor_head(v->ln_rstd, tensor_rows(x)));
    if (!all && tensor_exists(rounded)) copy(v->be, rounded, v->dx);
}

void vision_encoder_backward(VisionEncoder *v, Tensor dout) {
    Backend *be = v->be;
    const VLMConfig *c = v->config;
    const Params *p = v->params;
    last_norm_backward(v, dout);
    for (size_t i = c->vit_n_blocks; i-- > 0;) {
        make_again(v, i);
        block_backward(v, &p->vision.blocks[i], &v->blocks[i]);
        params_gradients_final(p, p->vision.blocks[i].ln1_w);
    }
    if (!tensor_exists(p->vision.position->d)) return; // frozen, and then the whole patch embedding is
    Tensor dposition = without_leading_one(p->vision.position->d), dcls = TENSOR_NONE;
    if (c->vit_cls_flag) dcls = tensor_reshape(p->vision.cls->d, SHAPE(c->vit_hidden_dim));
    position_backward(be, v->dpatches, dposition, dcls, v->dx);
    linear_backward_weight(be, as_matrix(p->vision.patch_w, p->vision.patch_w->d), p->vision.patch_b->d,
                           v->dpatches, v->patches);
}
