#include "train/gradient_sync.h"
#include "base/check.h"
#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

// ---- buckets ----

// The language group from its end down to the first block, the projector, the vision encoder from its end,
// and last the token embedding, which is an input of the decoder and, when tied, also its head. Adapters are
// small and follow at the end.
static size_t list_backward(const Param **order, const Params *p) {
    static const ParamGroup groups[] = {GROUP_LANGUAGE, GROUP_MP, GROUP_VISION};
    size_t n = 0;
    for (size_t g = 0; g < sizeof groups / sizeof *groups; g++)
        for (size_t i = p->count; i-- > 0;)
            if (p->items[i].group == groups[g] && &p->items[i] != p->decoder.embedding)
                order[n++] = &p->items[i];
    order[n++] = p->decoder.embedding;
    for (size_t i = p->count; i-- > 0;)
        if (param_is_adapter(&p->items[i])) order[n++] = &p->items[i];
    return n;
}

// Takes the parameter into the bucket when it ends where the bucket begins, but for the arena's padding,
// which is zero on every rank.
static bool join(GradientBucket *b, const Param *q, size_t place, size_t bucket_bytes, size_t alignment) {
    float *x = (float *)(void *)q->d.data;
    const size_t n = tensor_count(q->d);
    if (b->n * sizeof *x >= bucket_bytes || x >= b->x ||
        (size_t)((char *)b->x - (char *)(x + n)) >= alignment)
        return false;
    b->n += (size_t)(b->x - x);
    b->x = x;
    b->last = place;
    return true;
}

static void make_buckets(GradientSync *s, size_t bucket_bytes) {
    const Params *p = s->params;
    const Param **order = mem_zeroed(p->count, sizeof *order);
    const size_t n = list_backward(order, p);
    for (size_t k = 0; k < n; k++) {
        const Param *q = order[k];
        s->place[q - p->items] = k;
        if (!tensor_exists(q->d)) continue;
        CHECK(q->d.dtype == DTYPE_F32, "%s: gradients are summed in F32", q->name);
        GradientBucket *b = &s->buckets[s->n_buckets - 1];
        if (s->n_buckets > 0 && join(b, q, k, bucket_bytes, p->gradients.be->alignment)) continue;
        s->buckets[s->n_buckets++] = (GradientBucket){(float *)(void *)q->d.data, tensor_count(q->d), k};
    }
    free(order);
}

// ---- the same weights everywhere ----

// FNV-1a over words (Fowler, Noll & Vo).
static uint64_t hash_weights(const Params *p) {
    uint64_t hash = 14695981039346656037u;
    for (size_t i = 0; i < p->count; i++) {
        const size_t n = tensor_count(p->items[i].w);
        uint32_t *values = mem_alloc(n * sizeof *values);
        tensor_download(p->values.be, STREAM_COMPUTE, values, p->items[i].w);
        backend_sync(p->values.be);
        for (size_t k = 0; k < n; k++) hash = (hash ^ values[k]) * 1099511628211u;
        free(values);
    }
    return hash;
}

static bool check_weights(GradientSync *s, Error *err) {
    const char *what = "comparing weights";
    const uint64_t mine = hash_weights(s->params);
    uint64_t first = mine;
    if (!comm_broadcast(s->comm, &first, sizeof first, what, err)) return false;
    double different = mine == first ? 0 : (double)comm_rank(s->comm);
    if (!comm_combine(s->comm, &different, 1, COMM_MAX, what, err)) return false;
    return different == 0 ||
           error_set(
               err,
               "rank %g does not begin with the weights of rank 0; give all ranks the same seed and the "
               "same files",
               different);
}

bool gradient_sync_open(GradientSync *s, Comm *comm, Params *params, size_t bucket_bytes, Error *err) {
    if (!comm) return true;
    *s = (GradientSync){.comm = comm, .params = params, .factor = 1.0f / (float)comm_world_size(comm)};
    if (strcmp(params->gradients.be->name, "cpu") != 0)
        return error_set(err, "several ranks train on the CPU alone; the backend is %s",
                         params->gradients.be->name);
    s->place = mem_zeroed(params->count, sizeof *s->place);
    s->buckets = mem_zeroed(params->count, sizeof *s->buckets);
    make_buckets(s, bucket_bytes);
    return check_weights(s, err);
}

void gradient_sync_close(GradientSync *s) {
    free(s->place);
    free(s->buckets);
    *s = (GradientSync){0};
}

// ---- a step ----

// Sends on their way the buckets, in their order, that are complete at this place of the backward.
static void start_until(GradientSync *s, size_t place) {
    for (; s->started < s->n_buckets && s->buckets[s->started].last <= place; s->started++) {
        const GradientBucket *b = &s->buckets[s->started];
        comm_sum_start(s->comm, b->x, b->n, s->factor, "gradients");
    }
}

static void hear_final(void *state, const Param *lowest) {
    GradientSync *s = state;
    start_until(s, s->place[lowest - s->params->items]);
}

void gradient_sync_begin(GradientSync *s) {
    if (!s->comm) return;
    s->started = 0;
    s->params->gradients_final = hear_final;
    s->params->final_state = s;
}

bool gradient_sync_end(GradientSync *s, bool received[GROUP_TRAINED], Error *err) {
    if (!s->comm) return true;
    s->params->gradients_final = NULL;
    start_until(s, s->params->count);
    double any[GROUP_TRAINED];
    for (int g = 0; g < GROUP_TRAINED; g++) any[g] = received[g];
    if (!comm_wait(s->comm, err) ||
        !comm_combine(s->comm, any, GROUP_TRAINED, COMM_MAX, "groups with a gradient", err))
        return false;
    for (int g = 0; g < GROUP_TRAINED; g++) received[g] = any[g] > 0;
    return true;
}
