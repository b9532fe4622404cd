// Attention in F32: of F32 tensors, and of BF16 ones where the processor does not multiply them itself; their
// values are widened as they are packed, and what is multiplied is rounded as in attention_bf16.c. See
// attention.h for the tiles and attention_backward.c for the formulas. Exponentials are powers of 2.
//
// Rows of a head lie far apart, at distances that share few sets of the first cache. So keys and values are
// packed side by side, for several tiles of queries at a time.
#include "ops/cpu/attention.h"
#include "ops/cpu/lanes.h"

static size_t row_width(size_t D) {
    return whole_lanes(D);
}

ALWAYS_INLINE void pack_row(float *out, Head h, const Dtype dtype, size_t D) {
    for (size_t d = 0; d < D; d += LANES)
        *(Lanes *)(out + d) = load_some(h.data, dtype, d, min_size(D - d, LANES));
}

// out [n, row_width]: rows [first, first + n) of a head; values from D on become 0.
static void pack_rows(float *out, Head h, size_t first, size_t n, size_t D) {
    for (size_t i = 0; i < n; i++, out += row_width(D))
        if (h.dtype == DTYPE_F32)
            pack_row(out, from_row(h, first + i), DTYPE_F32, D);
        else
            pack_row(out, from_row(h, first + i), DTYPE_BF16, D);
}

typedef float Four __attribute__((vector_size(16)));
typedef int FourInts __attribute__((vector_size(16)));
typedef Four Packed __attribute__((aligned(4), may_alias));

// out[c · side + r] = in[r · stride + c] · scale for a block of four by four.
static inline void transpose_four(float *out, size_t side, const float *in, size_t stride, float scale) {
    Four a = *(const Packed *)in, b = *(const Packed *)(in + stride);
    Four c = *(const Packed *)(in + 2 * stride), d = *(const Packed *)(in + 3 * stride);
    Four ac = __builtin_shuffle(a, c, (FourInts){0, 4, 1, 5}),
         bd = __builtin_shuffle(b, d, (FourInts){0, 4, 1, 5});
    Four AC = __builtin_shuffle(a, c, (FourInts){2, 6, 3, 7}),
         BD = __builtin_shuffle(b, d, (FourInts){2, 6, 3, 7});
    *(Packed *)out = __builtin_shuffle(ac, bd, (FourInts){0, 4, 1, 5}) * scale;
    *(Packed *)(out + side) = __builtin_shuffle(ac, bd, (FourInts){2, 6, 3, 7}) * scale;
    *(Packed *)(out + 2 * side) = __builtin_shuffle(AC, BD, (FourInts){0, 4, 1, 5}) * scale;
    *(Packed *)(out + 3 * side) = __builtin_shuffle(AC, BD, (FourInts){2, 6, 3, 7}) * scale;
}

// out [row_width, side]: rows [first, first + n) of a head times scale, side by side, up to the next whole
// vector of them; `rows` is room for side · row_width values.
static void pack_columns(float *out, size_t side, float *rows, Head h, size_t first, size_t n, size_t D,
                         float scale) {
    const size_t lanes = whole_lanes(n), width = row_width(D);
    pack_rows(rows, h, first, n, D);
    memset(rows + n * width, 0, (lanes - n) * width * sizeof *rows);
    for (size_t i = 0; i < lanes; i += 4)
        for (size_t d = 0; d < width; d += 4)
            transpose_four(out + d * side + i, side, rows + i * width + d, width, scale);
}

// Values of a product's factor as BF16 products multiply them.
static void round_factor(Dtype dtype, float *x, size_t n) {
    if (dtype == DTYPE_F32) return;
#pragma omp simd
    for (size_t i = 0; i < n; i++) x[i] = f32_from_bf16(bf16_from_f32(x[i]));
}

// ---- forward ----

// A tile of queries and what they have summed up.
typedef struct Queries {
    float q[ATTENTION_MAX_D * TILE] ALIGNED;     // [row_width, query], times scale · log2 e
    float o[TILE * ATTENTION_MAX_D] ALIGNED;     // [query, row_width], not yet divided by sum
    float base[TILE] ALIGNED, sum[TILE] ALIGNED; // weights are relative to 2^base
} Queries;

typedef struct ForwardRoom {
    Queries queries[FORWARD_GROUP];
    float k[TILE * ATTENTION_MAX_D] ALIGNED, v[TILE * ATTENTION_MAX_D] ALIGNED; // [key, row_width]
    float s[TILE * TILE] ALIGNED;                                               // [key, query]
} ForwardRoom;

// Raises the base of LANES queries to their largest score when that is more than 8 above it (the weights then
// still fit easily), which makes it rare that what was summed has to be rescaled. It is a whole number: that
// changes no weight's digits, so BF16 ones are rounded alike whatever keys a block has, at every level.
static void raise_base(Queries *x, size_t i, Lanes largest, size_t width) {
    const Lanes old = *(const Lanes *)(x->base + i);
    bool above = false;
    for (size_t n = 0; n < LANES; n++) above |= largest[n] > old[n] + 8;
    if (!above) return;
    for (size_t n = 0; n < LANES; n++) largest[n] = ceilf(largest[n]);
    const Lanes base = greatest(largest, old), factor = exp2_lanes(old - base);
    *(Lanes *)(x->base + i) = base;
    *(Lanes *)(x->sum + i) *= factor;
    for (size_t n = 0; n < LANES; n++)
        for (size_t d = 0; d < width; d += LANES) *(Lanes *)(x->o + (i + n) * width + d) *= factor[n];
}

// Of LANES queries, where s points to their scores against the first key.
static Lanes largest_score(const float *s, size_t keys) {
    Lanes even = *(const Lanes *)s, odd = even; // two, because each waits for its last result
    for (size_t j = 1; j < keys; j += 2) {
        odd = greatest(odd, *(const Lanes *)(s + j * TILE));
        if (j + 1 < keys) even = greatest(even, *(const Lanes *)(s + (j + 1) * TILE));
    }
    return greatest(even, odd);
}

ALWAYS_INLINE void weigh_keys(float *s, Lanes *sum, Lanes base, const size_t V) {
    Lanes w[CHAINS];
    FOR_CHAINS(v) w[v] = *(const Lanes *)(s + v * TILE) - base;
    exp2_chains(w, V);
    FOR_CHAINS(v) *sum += w[v];
    FOR_CHAINS(v) * (Lanes *)(s + v * TILE) = w[v];
}

// The scores of keys and LANES queries from i on become weights.
static void weights_forward(float *s, Queries *x, const ForwardTask *a, size_t keys, size_t i) {
    raise_base(x, i, largest_score(s, keys), row_width(a->D));
    const Lanes base = *(const Lanes *)(x->base + i);
    Lanes sum = *(const Lanes *)(x->sum + i);
    size_t j = 0;
    for (; j + CHAINS <= keys; j += CHAINS) weigh_keys(s + j * TILE, &sum, base, CHAINS);
    for (; j < keys; j++) weigh_keys(s + j * TILE, &sum, base, 1);
    *(Lanes *)(x->sum + i) = sum;
}

// A block within the tile of keys that is packed in t.
static void forward_block(ForwardRoom *t, Queries *x, const ForwardTask *a, Block b) {
    const size_t lanes = whole_lanes(a->queries), width = row_width(a->D), at = b.j0 % TILE * width,
                 i = b.first;
    tile_product(t->s + i, TILE, (Factor){t->k + at, width, 1}, x->q + i, TILE, b.keys, lanes - i, a->D,
                 false);
    hide_keys(t->s + i, TILE, a, b, lanes, HIDDEN, -INFINITY);
    for (size_t k = i; k < lanes; k += LANES) weights_forward(t->s + k, x, a, b.keys, k);
    for (size_t j = 0; j < b.keys; j++) round_factor(a->q.dtype, t->s + j * TILE + i, lanes - i);
    tile_product(x->o + i * width, width, (Factor){t->s + i, 1, TILE}, t->v + at, width, a->queries - i,
                 width, b.keys, true);
}

static void begin_queries(ForwardRoom *t, Queries *x, const ForwardTask *a) {
    pack_columns(x->q, TILE, t->k, a->q, a->i0, a->queries, a->D, a->scale * LOG2_E);
    memset(x->o, 0, TILE * row_width(a->D) * sizeof(float));
    for (size_t i = 0; i < TILE; i++) x->base[i] = -INFINITY, x->sum[i] = 0;
}

// o = sums / their weights' sum, and lse.
static void finish_queries(const Queries *x, const ForwardTask *a) {
    for (size_t i = 0; i < a->queries; i++) {
        store_row(a->o, a->i0 + i, x->o + i * row_width(a->D), 1.0f / x->sum[i], a->D);
        if (a->lse) a->lse[a->i0 + i] = x->base[i] > HIDDEN ? x->base[i] * LN_2 + logf(x->sum[i]) : HIDDEN;
    }
}

void KERNEL(attention_forward_f32)(const ForwardTask *a, size_t n) {
    ForwardRoom t;
    const size_t keys = a[n - 1].keys;
    for (size_t i = 0; i < n; i++) begin_queries(&t, &t.queries[i], &a[i]);
    for (size_t j0 = 0; j0 < keys; j0 += TILE) {
        const size_t end = min_size(j0 + TILE, keys);
        pack_rows(t.k, a->k, j0, end - j0, a->D);
        pack_rows(t.v, a->v, j0, end - j0, a->D);
        for (size_t i = 0; i < n; i++)
            for (size_t j = j0; j < min_size(end, a[i].keys);) {
                const Block b = block_at(&a[i], j, DIAGONAL);
                forward_block(&t, &t.queries[i], &a[i], b);
                j += b.keys;
            }
    }
    for (size_t i = 0; i < n; i++) finish_queries(&t.queries[i], &a[i]);
}

// ---- backward ----

typedef struct BackwardTile {
    float k_columns[ATTENTION_MAX_D * KEY_TILE] ALIGNED; // [row_width, key], times scale
    float v_columns[ATTENTION_MAX_D * KEY_TILE] ALIGNED;
    float k[KEY_TILE * ATTENTION_MAX_D] ALIGNED;                                          // [key, row_width]
    float dk[KEY_TILE * ATTENTION_MAX_D] ALIGNED, dv[KEY_TILE * ATTENTION_MAX_D] ALIGNED; // [key, D]
    float p[TILE * KEY_TILE] ALIGNED, ds[TILE * KEY_TILE] ALIGNED;                        // [query, key]
    float copy[2][TILE * ATTENTION_MAX_D] ALIGNED; // of rows of BF16 tensors
} BackwardTile;

typedef struct QueryTerms {
    float lse, delta, scale;
} QueryTerms;

ALWAYS_INLINE void weigh_backward(float *p, float *ds, QueryTerms q, const size_t V) {
    Lanes w[CHAINS];
    FOR_CHAINS(v) w[v] = (*(const Lanes *)(p + v * LANES) - q.lse) * LOG2_E;
    exp2_chains(w, V);
    FOR_CHAINS(v) * (Lanes *)(p + v * LANES) = w[v];
    FOR_CHAINS(v) w[v] *= *(const Lanes *)(ds + v * LANES) - q.delta;
    FOR_CHAINS(v) * (Lanes *)(ds + v * LANES) = w[v] * q.scale;
}

// p from scores, and scale · ds = scale · p (dp − delta) in the place of dp, of query i of the step.
static void weights_backward(BackwardTile *t, const BackwardTask *a, Step s, size_t i) {
    const QueryTerms q = {a->lse[s.i0 + i], a->delta[s.i0 + i], a->scale};
    float *p = t->p + i * KEY_TILE, *ds = t->ds + i * KEY_TILE;
    size_t j = 0;
    for (; j + CHAINS * LANES <= s.keys; j += CHAINS * LANES) weigh_backward(p + j, ds + j, q, CHAINS);
    for (; j < s.keys; j += LANES) weigh_backward(p + j, ds + j, q, 1);
}

// Corrects both where query i does not see a key. A query whose keys are all hidden (its lse is HIDDEN) has
// p = 1/n over the n keys that are not in its future, whatever q and k are, hence ds = 0.
static void hide_backward(BackwardTile *t, const BackwardTask *a, Step s, size_t i) {
    const int *mask = a->mask ? a->mask + s.j0 : NULL;
    const size_t reach = a->causal ? s.i0 + i + 1 : a->T,
                 seen = reach <= s.j0 ? 0 : min_size(reach - s.j0, s.keys);
    float *p = t->p + i * KEY_TILE, *ds = t->ds + i * KEY_TILE;
    if (a->lse[s.i0 + i] <= HIDDEN)
        for (size_t j = 0; j < seen; j++) p[j] = 1.0f / (float)reach, ds[j] = 0;
    else
        for (size_t j = 0; mask && j < seen; j++)
            if (!mask[j]) p[j] = 0, ds[j] = 0;
    for (size_t j = seen; j < s.keys; j++) p[j] = 0, ds[j] = 0;
    round_factor(a->q.dtype, p, s.keys);
    round_factor(a->q.dtype, ds, s.keys);
}

static void backward_step(BackwardTile *t, const BackwardTask *a, Step s) {
    const size_t D = a->D, width = row_width(D), lanes = whole_lanes(s.keys),
                 passed = a->passed + s.i0 + s.queries;
    const Rows q = load_rows(t->copy[0], a->q, s.i0, s.queries, D),
               dout = load_rows(t->copy[1], a->dout, s.i0, s.queries, D);
    tile_product(t->p, KEY_TILE, (Factor){q.data, q.stride, 1}, t->k_columns, KEY_TILE, s.queries, lanes, D,
                 false);
    tile_product(t->ds, KEY_TILE, (Factor){dout.data, dout.stride, 1}, t->v_columns, KEY_TILE, s.queries,
                 lanes, D, false);
    for (size_t i = 0; i < s.queries; i++) {
        weights_backward(t, a, s, i);
        hide_backward(t, a, s, i);
    }
    tile_product(t->dv, D, (Factor){t->p, 1, KEY_TILE}, dout.data, dout.stride, s.keys, D, s.queries, true);
    tile_product(t->dk, D, (Factor){t->ds, 1, KEY_TILE}, q.data, q.stride, s.keys, D, s.queries, true);
    wait_for(a->before, passed);
    tile_product(a->dq_sum + s.i0 * a->dq_sum_stride, a->dq_sum_stride, (Factor){t->ds, KEY_TILE, 1}, t->k,
                 width, s.queries, D, s.keys, s.j0 > 0);
    store_dq(a, s);
    publish(a->own, passed);
}

void KERNEL(attention_backward_f32)(BackwardTask a, size_t group, size_t apart, size_t j0, size_t keys) {
    BackwardTile t;
    const size_t D = a.D;
    pack_columns(t.v_columns, KEY_TILE, t.k, a.v, j0, keys, D, 1.0f);
    pack_columns(t.k_columns, KEY_TILE, t.k, a.k, j0, keys, D, a.scale); // leaves the rows in t.k
    memset(t.dk, 0, keys * D * sizeof(float));
    memset(t.dv, 0, keys * D * sizeof(float));
    for (size_t h = 0; h < group; h++, next_query_head(&a, apart))
        for (size_t i0 = a.causal ? j0 : 0; i0 < a.T;) {
            Step s = step_at(&a, i0, j0, keys, DIAGONAL);
            backward_step(&t, &a, s);
            i0 += s.queries;
        }
    for (size_t j = 0; j < keys; j++) {
        store_row(a.dk, j0 + j, t.dk + j * D, 1, D);
        store_row(a.dv, j0 + j, t.dv + j * D, 1, D);
    }
}
