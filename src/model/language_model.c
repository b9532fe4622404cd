#include "model/language_model.h"
#include "base/check.h"
#include "base/memory.h"

#include <math.h>

void language_model_init(LanguageModel *lm, Backend *be, const VLMConfig *config, const Params *params,
                         size_t max_positions) {
    *lm = (LanguageModel){.be = be, .config = config, .params = params, .host_capacity = max_positions};
    lm->blocks = mem_zeroed(config->lm_n_blocks, sizeof *lm->blocks);
    lm->host_positions = be->device->host_alloc(be, max_positions * sizeof *lm->host_positions);
}

void language_model_free(LanguageModel *lm) {
    if (!lm->be) return;
    lm->be->device->host_release(lm->be, lm->host_positions, lm->host_capacity * sizeof *lm->host_positions);
    free(lm->blocks);
    *lm = (LanguageModel){0};
}

#define TAKE(field, forgotten_from, dtype, ...)                                                              \
    b.field = block_take(plan, forgotten_from, first ? &first->field : NULL, dtype, SHAPE(__VA_ARGS__))

// first: the first block, or NULL when this is it.
static DecoderBlockActs take_block(const LanguageModel *lm, const BlockPlan *plan, Tensor x,
                                   const DecoderBlockActs *first) {
    const VLMConfig *c = lm->config;
    const Dtype act = lm->params->act;
    const size_t C = c->lm_hidden_dim, M = lm->B * lm->T, KD = c->lm_n_kv_heads * vlm_config_head_dim(c);
    DecoderBlockActs b = {.x = x, .branch = lm->branch};
    // lm->branch holds a gradient while backward runs the forward again
    if (plan->keep && lm->recompute == RECOMPUTE_BLOCK) b.branch = lm->dattn;
    TAKE(norm1, RECOMPUTE_NORMS, act, M, C);
    TAKE(norm1_rstd, RECOMPUTE_BLOCK, DTYPE_F32, M);
    TAKE(q, RECOMPUTE_BLOCK, act, M, C);
    TAKE(k, RECOMPUTE_BLOCK, act, M, KD);
    TAKE(v, RECOMPUTE_BLOCK, act, M, KD);
    TAKE(attn, RECOMPUTE_ATTENTION, act, M, C);
    TAKE(gate, RECOMPUTE_BLOCK, act, M, c->lm_inter_dim);
    TAKE(up, RECOMPUTE_BLOCK, act, M, c->lm_inter_dim);
    TAKE(swiglu, RECOMPUTE_NORMS, act, M, c->lm_inter_dim);
    if (plan->keep) {
        TAKE(lse, RECOMPUTE_BLOCK, DTYPE_F32, lm->B, c->lm_n_heads, lm->T);
        if (recomputes_between(lm->recompute)) TAKE(branch, RECOMPUTE_BLOCK, act, M, C);
        TAKE(x_mid, RECOMPUTE_NORMS, DTYPE_F32, M, C);
        TAKE(norm2, RECOMPUTE_NORMS, act, M, C);
        TAKE(norm2_rstd, RECOMPUTE_BLOCK, DTYPE_F32, M);
    } else { // the residual stream is updated in place, and the second norm may overwrite the first
        b.x_mid = x;
        b.norm2 = b.norm1, b.norm2_rstd = b.norm1_rstd;
    }
    return b;
}

// dx outlives the decoder's backward: the pictures' and the embeddings' gradients come out of it.
static void take_gradients(LanguageModel *lm, Arena *a, Arena *scratch) {
    const VLMConfig *c = lm->config;
    size_t C = c->lm_hidden_dim, M = lm->B * lm->T, KD = c->lm_n_kv_heads * vlm_config_head_dim(c);
    const Dtype act = lm->params->act;
    lm->dx = arena_take(a, DTYPE_F32, SHAPE(M, C));
    lm->dnorm = arena_take(scratch, DTYPE_F32, SHAPE(M, C));
    lm->dattn = arena_take(scratch, act, SHAPE(M, C));
    lm->dq = arena_take(scratch, act, SHAPE(M, C));
    lm->dk = arena_take(scratch, act, SHAPE(M, KD));
    lm->dv = arena_take(scratch, act, SHAPE(M, KD));
    lm->delta = arena_take(scratch, DTYPE_F32, SHAPE(lm->B, c->lm_n_heads, lm->T));
    lm->dswiglu = arena_take(scratch, act, SHAPE(M, c->lm_inter_dim));
    lm->dgate = arena_take(scratch, act, SHAPE(M, c->lm_inter_dim));
    lm->dup = arena_take(scratch, act, SHAPE(M, c->lm_inter_dim));
}

void language_model_plan(LanguageModel *lm, Arena *a, Arena *scratch, size_t B, size_t T, bool keep,
                         bool gradients, bool documents) {
    const VLMConfig *c = lm->config;
    size_t C = c->lm_hidden_dim, M = B * T, D = vlm_config_head_dim(c), rows = documents ? M : T;
    const Dtype act = lm->params->act;
    const BlockPlan plan = {a, scratch, keep, lm->recompute};
    lm->B = B, lm->T = T;
    lm->starts = documents ? arena_take(a, DTYPE_I32, SHAPE(B, T)) : TENSOR_NONE;
    lm->positions = arena_take(a, DTYPE_I32, SHAPE(rows));
    lm->cos = arena_take(scratch, DTYPE_F32, SHAPE(rows, D));
    lm->sin = arena_take(scratch, DTYPE_F32, SHAPE(rows, D));
    lm->branch = arena_take(scratch, act, SHAPE(M, C));
    lm->norm_rstd = arena_take(scratch, DTYPE_F32, SHAPE(M));
    lm->out = arena_take(scratch, act, SHAPE(M, C));
    if (gradients) take_gradients(lm, a, scratch);
    lora_plan(&lm->lora, lm->be, lm->params, scratch, M, gradients);
    lm->blocks_at = a->used;
    Tensor x = arena_take(a, DTYPE_F32, SHAPE(M, C));
    for (size_t i = 0; i < c->lm_n_blocks; i++) {
        lm->blocks[i] = take_block(lm, &plan, x, i ? lm->blocks : NULL);
        if (keep) x = arena_take(a, DTYPE_F32, SHAPE(M, C));
    }
    lm->x_out = x;
}

Tensor language_model_input(const LanguageModel *lm) {
    return lm->blocks[0].x;
}

// [M, heads*D] as [M, heads, D] (for the rotation) or [B, T, heads, D] (for attention); views.
static Tensor by_head(const LanguageModel *lm, Tensor t, size_t heads) {
    return tensor_reshape(t, SHAPE(lm->B * lm->T, heads, vlm_config_head_dim(lm->config)));
}

static Tensor by_sequence(const LanguageModel *lm, Tensor t, size_t heads) {
    return tensor_reshape(t, SHAPE(lm->B, lm->T, heads, vlm_config_head_dim(lm->config)));
}

static float attention_scale(const VLMConfig *c) {
    return 1.0f / sqrtf((float)vlm_config_head_dim(c));
}

// Puts this forward's keys or values into the cache and returns all it then holds, [B, used + T, K, D].
static Tensor append(LanguageModel *lm, const KVCache *cache, Tensor held, Tensor fresh) {
    size_t M = lm->B * lm->T;
    Tensor flat = tensor_reshape(held, SHAPE(cache->B * cache->capacity, tensor_cols(held)));
    scatter_rows(lm->be, flat, fresh, tensor_head(cache->rows, M));
    held.shape[1] = cache->used + lm->T;
    return tensor_split_last(held, lm->config->lm_n_kv_heads);
}

static void upload_cache_rows(LanguageModel *lm, KVCache *cache) {
    for (size_t b = 0; b < lm->B; b++)
        for (size_t t = 0; t < lm->T; t++)
            cache->host_rows[b * lm->T + t] = (int32_t)(b * cache->capacity + cache->used + t);
    tensor_upload(lm->be, STREAM_COMPUTE, tensor_head(cache->rows, lm->B * lm->T), cache->host_rows);
}

static void attend(LanguageModel *lm, const DecoderBlockActs *b, Tensor k, Tensor v, Tensor mask) {
    const size_t H = lm->config->lm_n_heads;
    attention_forward(lm->be, by_sequence(lm, b->attn, H), b->lse, by_sequence(lm, b->q, H), k, v, mask,
                      lm->starts, attention_scale(lm->config), true);
}

static void attention_branch(LanguageModel *lm, const DecoderBlockParams *w, DecoderBlockActs *b,
                             size_t block, Tensor mask, KVCache *cache) {
    Backend *be = lm->be;
    size_t H = lm->config->lm_n_heads, K = lm->config->lm_n_kv_heads;
    lora_forward(&lm->lora, b->q, b->norm1, w->q, NULL);
    lora_forward(&lm->lora, b->k, b->norm1, w->k, NULL);
    lora_forward(&lm->lora, b->v, b->norm1, w->v, NULL);
    rope_forward(be, by_head(lm, b->q, H), lm->cos, lm->sin);
    rope_forward(be, by_head(lm, b->k, K), lm->cos, lm->sin);
    Tensor k = cache ? append(lm, cache, cache->k[block], b->k) : by_sequence(lm, b->k, K);
    Tensor v = cache ? append(lm, cache, cache->v[block], b->v) : by_sequence(lm, b->v, K);
    attend(lm, b, k, v, mask);
    lora_forward(&lm->lora, b->branch, b->attn, w->out, NULL);
}

static float norm_eps(const LanguageModel *lm) {
    return (float)lm->config->lm_rms_eps.value;
}

static void first_norm(LanguageModel *lm, size_t block) {
    const DecoderBlockActs *b = &lm->blocks[block];
    rms_norm_forward(lm->be, b->norm1, b->norm1_rstd, b->x, lm->params->decoder.blocks[block].norm1->w,
                     norm_eps(lm));
}

static void second_norm(LanguageModel *lm, size_t block) {
    const DecoderBlockActs *b = &lm->blocks[block];
    add_rms_norm_forward(lm->be, b->x_mid, b->norm2, b->norm2_rstd, b->x, b->branch,
                         lm->params->decoder.blocks[block].norm2->w, norm_eps(lm));
}

// From norm1 x to all that backward reads of a block: up to silu(gate(norm2 x_mid)) · up(norm2 x_mid), x_mid
// = x + out_proj(attention(norm1 x)).
static void block_inside(LanguageModel *lm, size_t block, Tensor mask, KVCache *cache) {
    const DecoderBlockParams *w = &lm->params->decoder.blocks[block];
    DecoderBlockActs *b = &lm->blocks[block];
    attention_branch(lm, w, b, block, mask, cache);
    second_norm(lm, block);
    lora_forward(&lm->lora, b->gate, b->norm2, w->gate, NULL);
    lora_forward(&lm->lora, b->up, b->norm2, w->up, NULL);
    swiglu_forward(lm->be, b->swiglu, b->gate, b->up);
}

// x_out = x_mid + down(silu(gate) · up), which is the next block's x, with what norm reads it next. norm1 of
// x has been made.
static void block_forward(LanguageModel *lm, size_t block, Tensor mask, KVCache *cache) {
    const DecoderBlockActs *b = &lm->blocks[block], *next = b + 1;
    const DecoderBlockParams *w = &lm->params->decoder.blocks[block];
    block_inside(lm, block, mask, cache);
    lora_forward(&lm->lora, lm->branch, b->swiglu, w->down, NULL);
    if (block + 1 == lm->config->lm_n_blocks)
        add_rms_norm_forward(lm->be, lm->x_out, lm->out, lm->norm_rstd, b->x_mid, lm->branch,
                             lm->params->decoder.norm->w, norm_eps(lm));
    else
        add_rms_norm_forward(lm->be, next->x, next->norm1, next->norm1_rstd, b->x_mid, lm->branch,
                             w[1].norm1->w, norm_eps(lm));
}

// Puts back what later blocks have written over, all but swiglu, which its backward makes. The last one's is
// still there.
static void make_again(LanguageModel *lm, size_t block, Tensor mask) {
    const DecoderBlockActs *b = &lm->blocks[block];
    const size_t K = lm->config->lm_n_kv_heads;
    if (lm->recompute == RECOMPUTE_NONE || block + 1 == lm->config->lm_n_blocks) return;
    first_norm(lm, block);
    if (lm->recompute == RECOMPUTE_BLOCK) {
        block_inside(lm, block, mask, NULL);
        return;
    }
    if (lm->recompute == RECOMPUTE_ATTENTION)
        attend(lm, b, by_sequence(lm, b->k, K), by_sequence(lm, b->v, K), mask);
    second_norm(lm, block);
}

static void upload_positions(LanguageModel *lm, size_t end) {
    tensor_upload(lm->be, STREAM_COMPUTE, lm->positions, lm->host_positions);
    lm->end = end;
}

void language_model_set_starts(LanguageModel *lm, const int32_t *starts) {
    size_t M = lm->B * lm->T, end = 0;
    CHECK(tensor_exists(lm->starts) && M <= lm->host_capacity, "%zu positions, %zu planned", M,
          lm->host_capacity);
    for (size_t m = 0; m < M; m++) {
        size_t position = m % lm->T - (size_t)starts[m];
        lm->host_positions[m] = (int32_t)position;
        if (position >= end) end = position + 1;
    }
    tensor_upload(lm->be, STREAM_COMPUTE, lm->starts, starts);
    upload_positions(lm, end);
}

// Positions first … first + T − 1 in every sequence.
static void run_through(LanguageModel *lm, size_t first) {
    CHECK(lm->T <= lm->host_capacity, "%zu positions, %zu planned", lm->T, lm->host_capacity);
    for (size_t t = 0; t < lm->T; t++) lm->host_positions[t] = (int32_t)(first + t);
    upload_positions(lm, first + lm->T);
}

// Cosines and sines of the positions. If the last lies beyond lm_max_position_embeddings, all frequencies of
// this call are divided (spec: "for that call"), so cached keys keep the angles they had.
static void rotary_tables(LanguageModel *lm) {
    const VLMConfig *c = lm->config;
    size_t end = lm->end, limit = c->lm_max_position_embeddings;
    float divisor = end > limit ? (float)end / (float)limit : 1.0f;
    rope_table(lm->be, lm->cos, lm->sin, lm->positions, lm->params->decoder.inv_freq->w, divisor,
               (float)c->lm_attn_scaling.value);
}

void language_model_forward(LanguageModel *lm, Tensor mask, KVCache *cache) {
    size_t n = lm->config->lm_n_blocks;
    if (cache)
        CHECK(cache->used + lm->T <= cache->capacity, "cache of %zu, %zu used", cache->capacity, cache->used);
    if (cache) upload_cache_rows(lm, cache);
    if (!tensor_exists(lm->starts)) run_through(lm, cache ? cache->used : 0);
    rotary_tables(lm);
    first_norm(lm, 0);
    for (size_t i = 0; i < n; i++) block_forward(lm, i, mask, cache);
    if (cache) cache->used += lm->T;
}

// Where a norm's backward leaves the gradient of the residual stream in the products' dtype.
static Tensor rounded_gradient(const LanguageModel *lm) {
    return lm->branch.dtype == DTYPE_BF16 ? lm->branch : TENSOR_NONE;
}

// lm->dx holds d x_out on entry and d x on return, and rounded_gradient the same; see block_forward.
static void block_backward(LanguageModel *lm, size_t block, Tensor mask) {
    Backend *be = lm->be;
    const DecoderBlockParams *w = &lm->params->decoder.blocks[block];
    const DecoderBlockActs *b = &lm->blocks[block];
    size_t H = lm->config->lm_n_heads, K = lm->config->lm_n_kv_heads;
    // x_out = x_mid + down(silu(gate) · up)
    // swiglu, which the weights' gradients read, is made again by its backward
    const Tensor rounded = rounded_gradient(lm), dbranch = tensor_exists(rounded) ? rounded : lm->dx,
                 again = recomputes_between(lm->recompute) ? b->swiglu : TENSOR_NONE;
    lora_backward_input(&lm->lora, lm->dswiglu, dbranch, w->down, false);
    swiglu_backward(be, lm->dgate, lm->dup, again, lm->dswiglu, b->gate, b->up);
    lora_backward_weight(&lm->lora, dbranch, b->swiglu, w->down, NULL);
    lora_backward(&lm->lora, lm->dnorm, lm->dgate, b->norm2, w->gate, NULL, false);
    lora_backward(&lm->lora, lm->dnorm, lm->dup, b->norm2, w->up, NULL, true);
    rms_norm_backward(be, lm->dx, rounded, w->norm2->d, lm->dnorm, b->x_mid, w->norm2->w, b->norm2_rstd);
    // x_mid = x + out_proj(attention(norm1 x))
    lora_backward(&lm->lora, lm->dattn, dbranch, b->attn, w->out, NULL, false);
    attention_backward(be, by_sequence(lm, lm->dq, H), by_sequence(lm, lm->dk, K), by_sequence(lm, lm->dv, K),
                       lm->delta, by_sequence(lm, lm->dattn, H), by_sequence(lm, b->q, H),
                       by_sequence(lm, b->k, K), by_sequence(lm, b->v, K), by_sequence(lm, b->attn, H),
                       b->lse, mask, lm->starts, attention_scale(lm->config), true);
    rope_backward(be, by_head(lm, lm->dq, H), lm->cos, lm->sin);
    rope_backward(be, by_head(lm, lm->dk, K), lm->cos, lm->sin);
    lora_backward(&lm->lora, lm->dnorm, lm->dq, b->norm1, w->q, NULL, false);
    lora_backward(&lm->lora, lm->dnorm, lm->dk, b->norm1, w->k, NULL, true);
    lora_backward(&lm->lora, lm->dnorm, lm->dv, b->norm1, w->v, NULL, true);
    // the embeddings take it in F32
    rms_norm_backward(be, lm->dx, block ? rounded : TENSOR_NONE, w->norm1->d, lm->dnorm, b->x, w->norm1->w,
                      b->norm1_rstd);
}

void language_model_backward(LanguageModel *lm, Tensor mask) {
    const Param *norm = lm->params->decoder.norm;
    fill(lm->be, lm->dx, 0.0f);
    rms_norm_backward(lm->be, lm->dx, rounded_gradient(lm), norm->d, lm->dnorm, lm->x_out, norm->w,
                      lm->norm_rstd);
    for (size_t i = lm->config->lm_n_blocks; i-- > 0;) {
        make_again(lm, i, mask);
        block_backward(lm, i, mask);
        params_gradients_final(lm->params, lm->params->decoder.blocks[i].gate);
    }
}

static void kv_cache_plan(KVCache *cache, Arena *arena, const VLMConfig *c, Dtype act, size_t B,
                          size_t capacity) {
    cache->B = B, cache->capacity = capacity, cache->used = 0;
    cache->rows = arena_take(arena, DTYPE_I32, SHAPE(B * capacity));
    for (size_t i = 0; i < 2 * c->lm_n_blocks;
         i++) // k of all blocks, then v: the two lists are one allocation
        cache->k[i] = arena_take(arena, act, SHAPE(B, capacity, c->lm_n_kv_heads * vlm_config_head_dim(c)));
}

bool kv_cache_create(KVCache *cache, Backend *be, const VLMConfig *c, Dtype act, size_t B, size_t capacity,
                     Error *err) {
    *cache = (KVCache){.arena = arena_measure(be, "key/value cache")};
    cache->k = mem_zeroed(2 * c->lm_n_blocks, sizeof *cache->k);
    cache->v = cache->k + c->lm_n_blocks;
    kv_cache_plan(cache, &cache->arena, c, act, B, capacity);
    cache->host_rows = be->device->host_alloc(be, B * capacity * sizeof *cache->host_rows);
    if (!arena_commit(&cache->arena, err)) {
        kv_cache_free(cache);
        return false;
    }
    kv_cache_plan(cache, &cache->arena, c, act, B, capacity);
    return true;
}

void kv_cache_free(KVCache *cache) {
    if (!cache->k) return;
    Backend *be = cache->arena.be;
    be->device->host_release(be, cache->host_rows, cache->B * cache->capacity * sizeof *cache->host_rows);
    arena_release(&cache->arena);
    free(cache->k);
    *cache = (KVCache){0};
}
