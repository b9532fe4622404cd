// Attention, backward: see attention.h.
#include "ops/cpu/attention.h"

#include <sched.h>
#include <stdatomic.h>

// A task is a tile of keys of one key head. For each query head that reads it, it goes over the sample's
// queries: computes the weights again from lse, sums dk and dv in the tile, and adds its share to dq in
// memory. Quoted: s = scale q·k, p = exp(s − lse), o = Σ p v.
//
// Several tiles of keys add to the same rows of dq. So that its bits do not depend on the threads, they do it
// in the keys' order: before each step a tile waits until the tile before it is past these queries. Tasks are
// taken in an order in which this tile comes first, so it is done or under way. The tiles of a sample thus
// follow one another at a distance of one step and rarely have to wait.
typedef struct BackwardTile {
    float k[ATTENTION_MAX_D * TILE] ALIGNED, v[ATTENTION_MAX_D * TILE] ALIGNED; // [D, TILE]; k times scale
    float p[TILE * TILE] ALIGNED, dp[TILE * TILE] ALIGNED;                      // [query, key]
    float dk[TILE * ATTENTION_MAX_D] ALIGNED, dv[TILE * ATTENTION_MAX_D] ALIGNED;
} BackwardTile;

// How many queries a tile of keys is past, those of the heads before included.
typedef _Atomic size_t Progress;

// One sample: row 0 of everything is its first position.
typedef struct BackwardTask {
    Head dq, dout, q;         // of one query head; the next of the group is D values on
    Head dk, dv, k, v;        // of the key head
    const int *mask;          // of this sample, or NULL
    const float *lse, *delta; // of the query head
    size_t T, D;
    float scale;
    bool causal;
    Progress *before, *own; // of the tile of keys before this one, and of this one; or NULL
    size_t passed;          // T times the heads before this one
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

static void wait_for(Progress *other, size_t passed) {
    while (other && atomic_load_explicit(other, memory_order_acquire) < passed) sched_yield();
}

static void publish(Progress *own, size_t passed) {
    if (own) atomic_store_explicit(own, passed, memory_order_release);
}

// `queries` queries against the first `keys` keys of the tile at j0, whose transposed k and v are ready in t.
static void backward_step(BackwardTile *t, const BackwardTask *a, size_t i0, size_t queries, size_t j0,
                          size_t keys) {
    size_t D = a->D, width = whole_lanes(keys), passed = a->passed + i0 + queries;
    const float *q = a->q.data + i0 * a->q.stride, *dout = a->dout.data + i0 * a->dout.stride;
    tile_product(t->p, TILE, (Factor){q, a->q.stride, 1}, t->k, TILE, queries, width, D, false);
    tile_product(t->dp, TILE, (Factor){dout, a->dout.stride, 1}, t->v, TILE, queries, width, D, false);
    weights_backward(t, a, i0, queries, j0, keys);
    tile_product(t->dv, D, (Factor){t->p, 1, TILE}, dout, a->dout.stride, keys, D, queries, true);
    tile_product(t->dk, D, (Factor){t->dp, 1, TILE}, q, a->q.stride, keys, D, queries, true);
    wait_for(a->before, passed);
    tile_product(a->dq.data + i0 * a->dq.stride, a->dq.stride, (Factor){t->dp, TILE, 1},
                 a->k.data + j0 * a->k.stride, a->k.stride, queries, D, keys, j0 > 0);
    publish(a->own, passed);
}

// All queries of one head against the tile of keys at j0; on the diagonal of a causal mask in smaller steps,
// so that few scores are computed which nobody may see.
static void backward_queries(BackwardTile *t, const BackwardTask *a, size_t j0, size_t keys) {
    for (size_t i0 = a->causal ? j0 : 0, queries; i0 < a->T; i0 += queries) {
        bool diagonal = a->causal && i0 < j0 + TILE;
        queries = min_size(a->T - i0, diagonal ? DIAGONAL : TILE);
        backward_step(t, a, i0, queries, j0, diagonal ? min_size(keys, i0 + queries - j0) : keys);
    }
}

static void store_rows(Head out, size_t first, const float *rows, size_t n, size_t D) {
    for (size_t i = 0; i < n; i++)
        memcpy(out.data + (first + i) * out.stride, rows + i * D, D * sizeof *rows);
}

// The tile of keys at j0 with all `group` query heads; `a` describes the first. Lse and delta of neighbouring
// heads lie `apart`.
static void backward_keys(BackwardTask a, size_t group, size_t apart, size_t j0, size_t keys) {
    BackwardTile t;
    size_t D = a.D;
    transpose(t.k, (Head){a.k.data + j0 * a.k.stride, a.k.stride}, keys, D, a.scale);
    transpose(t.v, (Head){a.v.data + j0 * a.v.stride, a.v.stride}, keys, D, 1.0f);
    memset(t.dk, 0, keys * D * sizeof(float));
    memset(t.dv, 0, keys * D * sizeof(float));
    for (size_t h = 0; h < group; h++) {
        backward_queries(&t, &a, j0, keys);
        a.dq.data += D, a.dout.data += D, a.q.data += D;
        a.lse += apart, a.delta += apart, a.passed += a.T;
    }
    store_rows(a.dk, j0, t.dk, keys, D);
    store_rows(a.dv, j0, t.dv, keys, D);
}

static Head from_row(Head h, size_t i) {
    return (Head){h.data + i * h.stride, h.stride};
}

static size_t sample_end(const int *starts, size_t T, Tile t) {
    size_t end = starts ? t.first + t.length : T;
    while (end < T && (size_t)starts[end] == t.sample) end++;
    return end;
}

// `a` describes the sequence; progress: of its tiles of keys. Only a whole tile has one after it, and no two
// whole tiles begin within TILE positions, so these share an entry with nobody.
static BackwardTask of_sample(const BackwardTask *a, const int *starts, Tile t, Progress *progress) {
    BackwardTask s = *a;
    s.dq = from_row(a->dq, t.sample), s.dout = from_row(a->dout, t.sample), s.q = from_row(a->q, t.sample);
    s.dk = from_row(a->dk, t.sample), s.dv = from_row(a->dv, t.sample);
    s.k = from_row(a->k, t.sample), s.v = from_row(a->v, t.sample);
    s.mask = a->mask ? a->mask + t.sample : NULL;
    s.lse += t.sample, s.delta += t.sample;
    s.T = sample_end(starts, a->T, t) - t.sample;
    s.before = t.first > t.sample ? &progress[t.first / TILE - 1] : NULL;
    s.own = t.length == TILE ? &progress[t.first / TILE] : NULL;
    return s;
}

static void row_dots(float *delta, Head x, Head y, size_t n, size_t D) {
    for (size_t i = 0; i < n; i++) {
        const float *a = x.data + i * x.stride, *b = y.data + i * y.stride;
        float dot = 0;
#pragma omp simd reduction(+ : dot)
        for (size_t d = 0; d < D; d++) dot += a[d] * b[d];
        delta[i] = dot;
    }
}

static void all_row_dots(Backend *be, Tensor delta, Tensor dout, Tensor o) {
    size_t B = o.shape[0], T = o.shape[1], H = o.shape[2], D = o.shape[3], windows = tile_count(T);
#pragma omp parallel for num_threads(threads_for(be, B *H *T *D))
    for (size_t task = 0; task < B * H * windows; task++) {
        size_t b = task / windows / H, h = task / windows % H, first = task % windows * TILE;
        row_dots(floats(delta) + (b * H + h) * T + first, from_row(head_of(dout, b, h), first),
                 from_row(head_of(o, b, h), first), tile_length(T, first), D);
    }
}

void KERNEL(attention_backward)(Backend *be, Tensor dq, Tensor dk, Tensor dv, Tensor delta, Tensor dout,
                                Tensor q, Tensor k, Tensor v, Tensor o, Tensor lse, Tensor mask,
                                Tensor starts, float scale, bool causal) {
    size_t B = q.shape[0], T = q.shape[1], H = q.shape[2], D = q.shape[3], K = k.shape[2], group = H / K,
           windows = tile_count(T);
    Progress progress[B * K * windows], next; // 8 bytes where k has TILE · D values: the stack has room
    check_starts(starts);
    all_row_dots(be, delta, dout, o);
    for (size_t i = 0; i < B * K * windows; i++) atomic_init(&progress[i], 0);
    atomic_init(&next, 0);
#pragma omp parallel num_threads(threads_for(be, B *H *T *T *D / 4))
    for (size_t task; (task = atomic_fetch_add(&next, 1)) < B * K * windows;) {
        size_t b = task / windows / K, head = task / windows % K, h = head * group,
               first = task % windows * TILE;
        BackwardTask a = {.dq = head_of(dq, b, h),
                          .dout = head_of(dout, b, h),
                          .q = head_of(q, b, h),
                          .dk = head_of(dk, b, head),
                          .dv = head_of(dv, b, head),
                          .k = head_of(k, b, head),
                          .v = head_of(v, b, head),
                          .mask = sequence(mask, b),
                          .lse = floats(lse) + (b * H + h) * T,
                          .delta = floats(delta) + (b * H + h) * T,
                          .T = T,
                          .D = D,
                          .scale = scale,
                          .causal = causal};
        const int *s = sequence(starts, b);
        for (Tile t = tile_from(s, T, first); t.first < min_size(first + TILE, T);
             t = tile_from(s, T, t.first + t.length))
            backward_keys(of_sample(&a, s, t, progress + (b * K + head) * windows), group, T,
                          t.first - t.sample, t.length);
    }
}
