#include "model/generate.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

static void plan(Generation *g) {
    const VLMConfig *c = g->m->config;
    g->mask = arena_take(&g->arena, DTYPE_I32, SHAPE(g->B * g->capacity));
    g->rows = arena_take(&g->arena, DTYPE_I32, SHAPE(g->B));
    g->hidden = arena_take(&g->arena, g->m->params.act, SHAPE(g->B, c->lm_hidden_dim));
    g->logits = arena_take(&g->arena, DTYPE_F32, SHAPE(g->B, c->lm_vocab_size));
}

bool generation_create(Generation *g, Vlm *m, size_t B, size_t capacity, Error *err) {
    *g = (Generation){.m = m, .B = B, .capacity = capacity, .arena = arena_measure(m->be, "generation")};
    plan(g);
    g->host_mask = mem_zeroed(B * capacity, sizeof *g->host_mask);
    g->packed_mask = mem_zeroed(B * capacity, sizeof *g->packed_mask);
    g->host_rows = mem_zeroed(B, sizeof *g->host_rows);
    g->host_logits = mem_zeroed(B * m->config->lm_vocab_size, sizeof *g->host_logits);
    if (!arena_commit(&g->arena, err) ||
        !kv_cache_create(&g->cache, m->be, m->config, m->params.act, B, capacity, err)) {
        generation_free(g);
        return false;
    }
    plan(g);
    return true;
}

void generation_free(Generation *g) {
    kv_cache_free(&g->cache);
    if (g->arena.be) arena_release(&g->arena);
    free(g->host_mask);
    free(g->packed_mask);
    free(g->host_rows);
    free(g->host_logits);
    *g = (Generation){0};
}

// The mask of all positions in the cache once this forward's T are there, packed as [B, n].
static Tensor upload_mask(Generation *g, size_t n) {
    if (!g->has_mask) return TENSOR_NONE;
    Tensor mask = tensor_reshape(tensor_head(g->mask, g->B * n), SHAPE(g->B, n));
    backend_sync(g->m->be); // the last upload is through
    for (size_t b = 0; b < g->B; b++)
        memcpy(g->packed_mask + b * n, g->host_mask + b * g->capacity, n * sizeof *g->packed_mask);
    tensor_upload(g->m->be, STREAM_COMPUTE, mask, g->packed_mask);
    return mask;
}

static void embed(Generation *g, const Batch *batch) {
    const double begin = clock_seconds();
    vlm_embed(g->m);
    if (batch->n_tiles == 0) return;
    backend_sync(g->m->be);
    g->vision_seconds += clock_seconds() - begin;
}

// Embeds the batch, runs the decoder over it and the cache, and fetches the logits of every last position.
static bool advance(Generation *g, const Batch *batch, Error *err) {
    Vlm *m = g->m;
    if (!vlm_set_batch(m, batch, err)) return false;
    embed(g, batch);
    Tensor mask = upload_mask(g, g->cache.used + batch->T);
    language_model_forward(&m->decoder, mask, &g->cache);
    for (size_t b = 0; b < g->B; b++) g->host_rows[b] = (int32_t)(b * batch->T + batch->T - 1);
    tensor_upload(m->be, STREAM_COMPUTE, g->rows, g->host_rows);
    vlm_head(m, g->logits, g->hidden, g->rows);
    tensor_download(m->be, STREAM_COMPUTE, g->host_logits, g->logits);
    backend_sync(m->be);
    return true;
}

bool generation_prefill(Generation *g, const Batch *prompt, Error *err) {
    CHECK(prompt->B == g->B, "%zu prompts, planned for %zu", prompt->B, g->B);
    if (prompt->T == 0) return error_set(err, "the prompt is empty");
    if (prompt->T > g->capacity)
        return error_set(err, "the prompt has %zu tokens, but there is room for %zu", prompt->T, g->capacity);
    g->cache.used = 0;
    g->has_mask = prompt->attention_mask != NULL;
    for (size_t b = 0; b < g->B; b++)
        for (size_t t = 0; t < g->capacity; t++)
            g->host_mask[b * g->capacity + t] =
                g->has_mask && t < prompt->T ? prompt->attention_mask[b * prompt->T + t] : 1;
    // vlm_set_batch need not upload the mask: the cache's is used
    Batch batch = *prompt;
    batch.attention_mask = NULL;
    batch.labels = NULL;
    return advance(g, &batch, err);
}

bool generation_extend(Generation *g, const Batch *more, Error *err) {
    CHECK(more->B == g->B && !more->attention_mask, "%zu rows, planned for %zu", more->B, g->B);
    if (more->T == 0) return error_set(err, "there is no new token");
    if (g->cache.used + more->T > g->capacity)
        return error_set(err, "%zu tokens behind %zu, but there is room for %zu", more->T, g->cache.used,
                         g->capacity);
    return advance(g, more, err);
}

bool generation_step(Generation *g, const int32_t *tokens, Error *err) {
    if (g->cache.used == g->capacity)
        return error_set(err, "the cache of %zu positions is full", g->capacity);
    Batch batch = {.B = g->B, .T = 1, .input_ids = (int32_t *)tokens};
    return advance(g, &batch, err);
}

const float *generation_logits(const Generation *g) {
    return g->host_logits;
}

static void choose(int32_t *next, Generation *g, const GenerateOptions *o, Sampler *sampler,
                   Random *streams) {
    size_t V = g->m->config->lm_vocab_size;
    for (size_t b = 0; b < g->B; b++) {
        const float *logits = g->host_logits + b * V;
        if (o->greedy) {
            next[b] = argmax(logits, V);
            continue;
        }
        sampler_filter(sampler, logits, o->top_k, o->top_p, o->temperature);
        next[b] = sampler_draw(sampler, &streams[b]);
    }
}

static bool is_stop(int32_t token, const GenerateOptions *o, int32_t eos) {
    for (size_t i = 0; i < o->n_stops; i++)
        if (token == o->stops[i]) return true;
    return eos >= 0 && token == eos;
}

// Rows that have ended give eos from then on.
static void apply_eos(int32_t *next, bool *ended, size_t B, const GenerateOptions *o, int32_t eos) {
    for (size_t b = 0; b < B; b++) {
        ended[b] = ended[b] || is_stop(next[b], o, eos);
        if (ended[b]) next[b] = eos;
    }
}

static bool all_ended(const bool *ended, size_t B) {
    for (size_t b = 0; b < B; b++)
        if (!ended[b]) return false;
    return true;
}

bool generate(int32_t *tokens, size_t *steps, Generation *g, const Batch *prompt, const GenerateOptions *o,
              int32_t eos, TokenCallback callback, void *context, Error *err) {
    *steps = 0;
    return generation_prefill(g, prompt, err) &&
           generation_run(tokens, steps, g, o, eos, callback, context, err);
}

bool generation_run(int32_t *tokens, size_t *steps, Generation *g, const GenerateOptions *o, int32_t eos,
                    TokenCallback callback, void *context, Error *err) {
    *steps = 0;
    size_t B = g->B, n = o->max_new_tokens;
    Sampler sampler;
    sampler_init(&sampler, g->m->config->lm_vocab_size);
    Random *streams = mem_zeroed(B, sizeof *streams);
    for (size_t b = 0; b < B; b++) streams[b] = random_stream(o->seed, RANDOM_GENERATE, b);
    int32_t *next = mem_zeroed(B, sizeof *next);
    bool *ended = mem_zeroed(B, sizeof *ended), ok = true, done = false;
    for (size_t i = 0; i < B * n; i++) tokens[i] = eos; // what stands behind the last step
    while (ok && !done && *steps < n) {
        choose(next, g, o, &sampler, streams);
        apply_eos(next, ended, B, o, eos);
        for (size_t b = 0; b < B; b++) tokens[b * n + *steps] = next[b];
        done = (callback && !callback(context, *steps, next, ended)) || all_ended(ended, B);
        if (++*steps < n && !done) ok = generation_step(g, next, err);
    }
    free(ended);
    free(next);
    free(streams);
    sampler_free(&sampler);
    return ok;
}
