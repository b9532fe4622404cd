// Attention in tiles (Milakov & Gimelshein 2018; Dao et al. 2022): the scores of TILE queries by TILE keys
// exist at a time, never the whole matrix. A hidden key has the score HIDDEN, the lowest finite number, as in
// nanoVLM: beside any real score its weight is 0, and a query that sees hidden keys only gets their plain
// mean by itself. A key that lies in the future has -infinity.
#include "ops/cpu/kernels.h"
#include "ops/cpu/tile.h"
#include "ops/cpu/vecmath.h"
#include "tensor/ops.h"

#include <float.h>
#include <string.h>

#define TILE    64
#define ALIGNED __attribute__((aligned(64)))
#define HIDDEN  (-FLT_MAX)

// One head of a [B, T, heads, D] tensor: rows `stride` apart.
typedef struct Head {
    float *data;
    size_t stride;
} Head;

static Head head_of(Tensor t, size_t b, size_t h) {
    return (Head){floats(t) + b * t.stride[0] + h * t.stride[2], t.stride[1]};
}

static size_t tile_count(size_t n) {
    return (n + TILE - 1) / TILE;
}
static size_t tile_length(size_t n, size_t first) {
    return n - first < TILE ? n - first : TILE;
}
static size_t whole_lanes(size_t n) {
    return (n + LANES - 1) / LANES * LANES;
}
static size_t min_size(size_t a, size_t b) {
    return a < b ? a : b;
}

// out[d, i] = in[i, d] · scale for `rows` rows; the columns up to the next whole vector become 0.
static void transpose(float *out, Head in, size_t rows, size_t D, float scale) {
    size_t width = whole_lanes(rows);
    for (size_t i = 0; i < rows; i++)
        for (size_t d = 0; d < D; d++) out[d * TILE + i] = in.data[i * in.stride + d] * scale;
    for (size_t i = rows; i < width; i++)
        for (size_t d = 0; d < D; d++) out[d * TILE + i] = 0;
}

// What one task of the forward pass needs: TILE queries of one head against all keys they see. Scores are
// kept [key, query], so that each query is a lane: maxima and sums over keys are then plain vector code.
typedef struct ForwardTile {
    float q[ATTENTION_MAX_D * TILE] ALIGNED; // [D, TILE], times scale
    float s[TILE * TILE] ALIGNED;            // [key, query]
    float o[TILE * ATTENTION_MAX_D] ALIGNED; // [query, D], not yet divided by sum
    float max[TILE] ALIGNED, sum[TILE] ALIGNED, old[TILE] ALIGNED;
} ForwardTile;

// Puts HIDDEN and -infinity where keys [j0, j0 + keys) are not to be seen. `reach` is the number of keys that
// the tile's first query may see; each further query sees one more. mask may be NULL.
static void hide_keys(float *s, const int *mask, size_t keys, size_t width, size_t j0, size_t reach) {
    for (size_t j = 0; j < keys; j++) {
        float *line = s + j * TILE;
        if (mask && !mask[j0 + j])
            for (size_t i = 0; i < width; i++) line[i] = HIDDEN;
        size_t blind = j0 + j < reach ? 0 : min_size(j0 + j + 1 - reach, width);
        for (size_t i = 0; i < blind; i++) line[i] = -INFINITY;
    }
}

// Turns scores into weights relative to the largest score so far, and rescales what was summed before it.
static void online_softmax(ForwardTile *t, size_t keys, size_t queries, size_t D) {
    size_t width = whole_lanes(queries);
    memcpy(t->old, t->max, sizeof t->old);
    for (size_t j = 0; j < keys; j++) {
        const float *line = t->s + j * TILE;
        for (size_t i = 0; i < width; i++) t->max[i] = line[i] > t->max[i] ? line[i] : t->max[i];
    }
    for (size_t i = 0; i < width; i++) {
        t->old[i] = exp_f32(t->old[i] - t->max[i]);
        t->sum[i] *= t->old[i];
    }
    for (size_t j = 0; j < keys; j++) {
        float *line = t->s + j * TILE;
        for (size_t i = 0; i < width; i++) {
            line[i] = exp_f32(line[i] - t->max[i]);
            t->sum[i] += line[i];
        }
    }
    for (size_t i = 0; i < queries; i++)
        for (size_t d = 0; d < D; d++) t->o[i * D + d] *= t->old[i];
}

typedef struct ForwardTask {
    Head o, q, k, v;
    const int *mask; // of this sequence, or NULL
    float *lse;      // of this head, or NULL
    size_t Tk, D;
    size_t i0, queries, reach,
        keys; // of this tile: first query, how many, keys its first and its last query see
    float scale;
} ForwardTask;

static void forward_tile(const ForwardTask *a) {
    ForwardTile t;
    size_t D = a->D, width = whole_lanes(a->queries);
    transpose(t.q, (Head){a->q.data + a->i0 * a->q.stride, a->q.stride}, a->queries, D, a->scale);
    memset(t.o, 0, a->queries * D * sizeof(float));
    for (size_t i = 0; i < TILE; i++) t.max[i] = -INFINITY, t.sum[i] = 0;
    for (size_t j0 = 0; j0 < a->keys; j0 += TILE) {
        size_t keys = tile_length(a->keys, j0);
        Factor k = {a->k.data + j0 * a->k.stride, a->k.stride, 1}, weights = {t.s, 1, TILE};
        tile_product(t.s, TILE, k, t.q, TILE, keys, width, D, false);
        hide_keys(t.s, a->mask, keys, width, j0, a->reach);
        online_softmax(&t, keys, a->queries, D);
        tile_product(t.o, D, weights, a->v.data + j0 * a->v.stride, a->v.stride, a->queries, D, keys, true);
    }
    for (size_t i = 0; i < a->queries; i++) {
        float *out = a->o.data + (a->i0 + i) * a->o.stride, inverse = 1.0f / t.sum[i];
        for (size_t d = 0; d < D; d++) out[d] = t.o[i * D + d] * inverse;
        if (a->lse) a->lse[a->i0 + i] = t.max[i] + logf(t.sum[i]);
    }
}

void KERNEL(attention_forward)(Backend *be, Tensor o, Tensor lse, Tensor q, Tensor k, Tensor v, Tensor mask,
                               float scale, bool causal) {
    size_t B = q.shape[0], Tq = q.shape[1], H = q.shape[2], D = q.shape[3], Tk = k.shape[1],
           group = H / k.shape[2];
    size_t tiles = tile_count(Tq);
#pragma omp parallel for schedule(dynamic) num_threads(threads_for(be, B *H *Tq *Tk *D / 8))
    for (size_t task = 0; task < B * H * tiles; task++) {
        size_t b = task / tiles / H, h = task / tiles % H, i0 = task % tiles * TILE,
               queries = tile_length(Tq, i0);
        size_t reach = causal ? i0 + Tk - Tq + 1 : Tk;
        ForwardTask a = {.o = head_of(o, b, h),
                         .q = head_of(q, b, h),
                         .k = head_of(k, b, h / group),
                         .v = head_of(v, b, h / group),
                         .mask = tensor_exists(mask) ? ints(mask) + b * Tk : NULL,
                         .lse = tensor_exists(lse) ? floats(lse) + (b * H + h) * Tq : NULL,
                         .Tk = Tk,
                         .D = D,
                         .i0 = i0,
                         .queries = queries,
                         .reach = reach,
                         .keys = min_size(reach + queries - 1, Tk),
                         .scale = scale};
        forward_tile(&a);
    }
}

// Backward: a task is one key head of one sequence. For each tile of keys it goes over all tiles of queries
// of all query heads that read it, computes the weights again from lse, and sums dk and dv here and dq in
// memory. Quoted: s = scale q·k, p = exp(s − lse), o = Σ p v.
typedef struct BackwardTile {
    float k[ATTENTION_MAX_D * TILE] ALIGNED, v[ATTENTION_MAX_D * TILE] ALIGNED; // [D, TILE]; k times scale
    float p[TILE * TILE] ALIGNED, dp[TILE * TILE] ALIGNED;                      // [query, key]
    float dk[TILE * ATTENTION_MAX_D] ALIGNED, dv[TILE * ATTENTION_MAX_D] ALIGNED;
} BackwardTile;

typedef struct BackwardTask {
    Head dq, dout, q, o; // of one query head
    Head k, v;           // of the key head
    const int *mask;     // of this sequence, or NULL
    const float *lse;    // of the query head
    size_t T, D;
    float scale;
    bool causal;
} BackwardTask;

// p [queries, keys] from scores, and ds = p (dp − Σ_d do·o) in place of dp. A query whose keys are all hidden
// (its lse is HIDDEN) has p = 1/n over the n keys that are not in its future, whatever q and k are, hence ds
// = 0.
static void weights_backward(BackwardTile *t, const BackwardTask *a, size_t i0, size_t queries, size_t j0,
                             size_t keys) {
    for (size_t i = 0; i < queries; i++) {
        float *p = t->p + i * TILE, *dp = t->dp + i * TILE, lse = a->lse[i0 + i], delta = 0;
        const float *g = a->dout.data + (i0 + i) * a->dout.stride, *o = a->o.data + (i0 + i) * a->o.stride;
        size_t reach = a->causal ? i0 + i + 1 : a->T, seen = reach <= j0 ? 0 : min_size(reach - j0, keys);
#pragma omp simd reduction(+ : delta)
        for (size_t d = 0; d < a->D; d++) delta += g[d] * o[d];
        if (lse <= HIDDEN) {
            for (size_t j = 0; j < seen; j++) p[j] = 1.0f / (float)reach, dp[j] = 0;
        } else {
            for (size_t j = 0; a->mask && j < seen; j++) p[j] = a->mask[j0 + j] ? p[j] : -INFINITY;
            for (size_t j = 0; j < seen; j++) {
                p[j] = exp_f32(p[j] - lse);
                dp[j] = p[j] * (dp[j] - delta);
            }
        }
        for (size_t j = seen; j < keys; j++) p[j] = 0, dp[j] = 0;
    }
}

// One tile of queries against the tile of keys in t, whose transposed k and v are ready.
static void backward_tile(BackwardTile *t, const BackwardTask *a, size_t i0, size_t j0, size_t keys) {
    size_t D = a->D, queries = tile_length(a->T, i0), width = whole_lanes(keys);
    const float *q = a->q.data + i0 * a->q.stride, *dout = a->dout.data + i0 * a->dout.stride;
    tile_product(t->p, TILE, (Factor){q, a->q.stride, 1}, t->k, TILE, queries, width, D, false);
    tile_product(t->dp, TILE, (Factor){dout, a->dout.stride, 1}, t->v, TILE, queries, width, D, false);
    weights_backward(t, a, i0, queries, j0, keys);
    tile_product(t->dv, D, (Factor){t->p, 1, TILE}, dout, a->dout.stride, keys, D, queries, true);
    for (size_t i = 0; i < queries; i++)
        for (size_t j = 0; j < keys; j++) t->dp[i * TILE + j] *= a->scale;
    tile_product(t->dk, D, (Factor){t->dp, 1, TILE}, q, a->q.stride, keys, D, queries, true);
    tile_product(a->dq.data + i0 * a->dq.stride, a->dq.stride, (Factor){t->dp, TILE, 1},
                 a->k.data + j0 * a->k.stride, a->k.stride, queries, D, keys, j0 > 0);
}

static void store_rows(Head out, size_t first, const float *rows, size_t n, size_t D) {
    for (size_t i = 0; i < n; i++)
        memcpy(out.data + (first + i) * out.stride, rows + i * D, D * sizeof(float));
}

// Query head h of the group whose first one `a` describes.
static BackwardTask query_head(BackwardTask a, size_t h) {
    a.dq.data += h * a.D, a.dout.data += h * a.D, a.q.data += h * a.D, a.o.data += h * a.D;
    a.lse += h * a.T;
    return a;
}

static void backward_key_head(Head dk, Head dv, BackwardTask first, size_t group) {
    BackwardTile t;
    size_t T = first.T, D = first.D;
    Head k = first.k, v = first.v;
    for (size_t j0 = 0; j0 < T; j0 += TILE) {
        size_t keys = tile_length(T, j0);
        transpose(t.k, (Head){k.data + j0 * k.stride, k.stride}, keys, D, first.scale);
        transpose(t.v, (Head){v.data + j0 * v.stride, v.stride}, keys, D, 1.0f);
        memset(t.dk, 0, keys * D * sizeof(float));
        memset(t.dv, 0, keys * D * sizeof(float));
        for (size_t h = 0; h < group; h++) {
            BackwardTask a = query_head(first, h);
            for (size_t i0 = a.causal ? j0 : 0; i0 < T; i0 += TILE) backward_tile(&t, &a, i0, j0, keys);
        }
        store_rows(dk, j0, t.dk, keys, D);
        store_rows(dv, j0, t.dv, keys, D);
    }
}

void KERNEL(attention_backward)(Backend *be, Tensor dq, Tensor dk, Tensor dv, Tensor dout, Tensor q, Tensor k,
                                Tensor v, Tensor o, Tensor lse, Tensor mask, float scale, bool causal) {
    size_t B = q.shape[0], T = q.shape[1], H = q.shape[2], D = q.shape[3], K = k.shape[2], group = H / K;
#pragma omp parallel for schedule(dynamic) num_threads(threads_for(be, B *H *T *T *D / 4))
    for (size_t task = 0; task < B * K; task++) {
        size_t b = task / K, head = task % K, h = head * group;
        BackwardTask first = {.dq = head_of(dq, b, h),
                              .dout = head_of(dout, b, h),
                              .q = head_of(q, b, h),
                              .o = head_of(o, b, h),
                              .k = head_of(k, b, head),
                              .v = head_of(v, b, head),
                              .mask = tensor_exists(mask) ? ints(mask) + b * T : NULL,
                              .lse = floats(lse) + (b * H + h) * T,
                              .T = T,
                              .D = D,
                              .scale = scale,
                              .causal = causal};
        backward_key_head(head_of(dk, b, head), head_of(dv, b, head), first, group);
    }
}
