// Attention, backward: see attention.h.
#include "ops/cpu/attention.h"

// A task is one key head of one sequence. For each query head that reads it, it goes over the tiles of keys
// and, for each, over the queries: computes the weights again from lse, sums dk and dv in the tile, and dq in
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
    const float *delta;  // [T]: Σ_d do·o of the query head
    size_t T, D;
    float scale;
    bool causal;
} BackwardTask;

// p [queries, keys] from scores, and scale · ds = scale · p (dp − delta) in place of dp. A query whose
// keys are all hidden (its lse is HIDDEN) has p = 1/n over the n keys that are not in its future, whatever q
// and k are, hence ds = 0.
static void weights_backward(BackwardTile *t, const BackwardTask *a, size_t i0, size_t queries, size_t j0,
                             size_t keys) {
    for (size_t i = 0; i < queries; i++) {
        float *p = t->p + i * TILE, *dp = t->dp + i * TILE, lse = a->lse[i0 + i], delta = a->delta[i0 + i];
        size_t reach = a->causal ? i0 + i + 1 : a->T, seen = reach <= j0 ? 0 : min_size(reach - j0, keys);
        if (lse <= HIDDEN) {
            for (size_t j = 0; j < seen; j++) p[j] = 1.0f / (float)reach, dp[j] = 0;
        } else {
            for (size_t j = 0; a->mask && j < seen; j++) p[j] = a->mask[j0 + j] ? p[j] : -INFINITY;
            for (size_t j = 0; j < seen; j++) {
                p[j] = exp_f32(p[j] - lse);
                dp[j] = p[j] * (dp[j] - delta) * a->scale;
            }
        }
        for (size_t j = seen; j < keys; j++) p[j] = 0, dp[j] = 0;
    }
}

// `queries` queries against the first `keys` keys of the tile at j0, whose transposed k and v are ready in t.
static void backward_tile(BackwardTile *t, const BackwardTask *a, size_t i0, size_t queries, size_t j0,
                          size_t keys) {
    size_t D = a->D, width = whole_lanes(keys);
    const float *q = a->q.data + i0 * a->q.stride, *dout = a->dout.data + i0 * a->dout.stride;
    tile_product(t->p, TILE, (Factor){q, a->q.stride, 1}, t->k, TILE, queries, width, D, false);
    tile_product(t->dp, TILE, (Factor){dout, a->dout.stride, 1}, t->v, TILE, queries, width, D, false);
    weights_backward(t, a, i0, queries, j0, keys);
    tile_product(t->dv, D, (Factor){t->p, 1, TILE}, dout, a->dout.stride, keys, D, queries, true);
    tile_product(t->dk, D, (Factor){t->dp, 1, TILE}, q, a->q.stride, keys, D, queries, true);
    tile_product(a->dq.data + i0 * a->dq.stride, a->dq.stride, (Factor){t->dp, TILE, 1},
                 a->k.data + j0 * a->k.stride, a->k.stride, queries, D, keys, j0 > 0);
}

// The first head of a group assigns dk and dv, the others add to them.
static void store_rows(Head out, size_t first, const float *rows, size_t n, size_t D, bool add) {
    for (size_t i = 0; i < n; i++) {
        float *to = out.data + (first + i) * out.stride;
        for (size_t d = 0; d < D; d++) to[d] = add ? to[d] + rows[i * D + d] : rows[i * D + d];
    }
}

static void row_dots(float *delta, Head x, Head y, size_t T, size_t D) {
    for (size_t i = 0; i < T; i++) {
        const float *a = x.data + i * x.stride, *b = y.data + i * y.stride;
        float dot = 0;
#pragma omp simd reduction(+ : dot)
        for (size_t d = 0; d < D; d++) dot += a[d] * b[d];
        delta[i] = dot;
    }
}

// All queries of one head against the tile of keys at j0; on the diagonal of a causal mask in smaller steps,
// so that few scores are computed which nobody may see.
static void backward_queries(BackwardTile *t, const BackwardTask *a, size_t j0, size_t keys) {
    for (size_t i0 = a->causal ? j0 : 0, queries; i0 < a->T; i0 += queries) {
        bool diagonal = a->causal && i0 < j0 + TILE;
        queries = min_size(a->T - i0, diagonal ? DIAGONAL : TILE);
        backward_tile(t, a, i0, queries, j0, diagonal ? min_size(keys, i0 + queries - j0) : keys);
    }
}

static void backward_head(BackwardTile *t, const BackwardTask *a, Head dk, Head dv, bool add) {
    size_t T = a->T, D = a->D;
    for (size_t j0 = 0; j0 < T; j0 += TILE) {
        size_t keys = tile_length(T, j0);
        transpose(t->k, (Head){a->k.data + j0 * a->k.stride, a->k.stride}, keys, D, a->scale);
        transpose(t->v, (Head){a->v.data + j0 * a->v.stride, a->v.stride}, keys, D, 1.0f);
        memset(t->dk, 0, keys * D * sizeof(float));
        memset(t->dv, 0, keys * D * sizeof(float));
        backward_queries(t, a, j0, keys);
        store_rows(dk, j0, t->dk, keys, D, add);
        store_rows(dv, j0, t->dv, keys, D, add);
    }
}

// `a` describes the first query head of the group.
static void backward_group(BackwardTask a, Head dk, Head dv, size_t group) {
    BackwardTile t;
    float delta[a.T]; // four bytes a position: the stack has room for any length that attention can be
                      // afforded for
    a.delta = delta;
    for (size_t h = 0; h < group; h++) {
        row_dots(delta, a.dout, a.o, a.T, a.D);
        backward_head(&t, &a, dk, dv, h > 0);
        a.dq.data += a.D, a.dout.data += a.D, a.q.data += a.D, a.o.data += a.D;
        a.lse += a.T;
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
        backward_group(first, head_of(dk, b, head), head_of(dv, b, head), group);
    }
}
