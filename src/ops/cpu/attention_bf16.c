// Attention on BF16 tensors with the processor's own BF16 products; everything between them is F32, and the
// weights and their gradients are rounded to BF16 for the products that follow (Dao et al. 2022). See
// attention.h for the tiles and attention_backward.c for the formulas. Scores are kept times log2 e, so that
// exponentials are powers of 2.
//
// Scores become weights in pieces of PIECE_SIDE queries (backward: and as many keys), which stay in the first
// cache; the product for the next piece stands before the exponentials of this one, so that AMX and vector
// units work at a time.
//
// A product's left factor is made of rows, its right one of columns, both in pairs of what is summed over.
// What the passes add up (o; dk and dv) is kept turned, [D, TILE] or [D, KEY_TILE], so that the weights are
// always a right factor, in the layout in which they are computed.
#include "ops/cpu/attention.h"

#ifdef __AVX512BF16__
#include "ops/cpu/lanes.h"
#include "ops/cpu/tile_bf16.h"

// The score of a hidden key before scaling: beside any real score its weight is 0. A power of 2, so that it
// times any factor is exact, fused or not.
#define UNSEEN     0x1p100f
#define MAX_PAIRS  (ATTENTION_MAX_D / 2)
#define TILE_PAIRS (TILE / 2)
#define PIECE_SIDE 32

static size_t pair_count(size_t n) {
    return (n + 1) / 2;
}
// Packed rows lie close together: at a distance of a power of two they would share few sets of the first
// cache.
static size_t pair_stride(size_t D) {
    return whole_lanes(pair_count(D));
}
static size_t value_stride(size_t D) {
    return (D + 31) / 32 * 32;
}
// Pairs of TILE rows or fewer, as many as products may read.
static size_t whole_pairs(size_t n) {
    return whole_lanes(pair_count(n));
}
static const uint16_t *bf16_row(Head h, size_t i) {
    return (const uint16_t *)h.data + i * h.stride;
}
static __mmask32 first_of_32(size_t n) {
    return n >= 32 ? 0xffffffffu : (1u << n) - 1;
}
static __mmask16 first_of_16(size_t n) {
    return (__mmask16)(n >= 16 ? 0xffff : (1u << n) - 1);
}

// ---- packing n rows of a head of size D, from row `first` on; pairs beyond them become 0 ----

// out [row, pair_stride]: pairs of neighbouring values of a row.
static void pack_rows(Pair *out, Head h, size_t first, size_t n, size_t D) {
    for (size_t i = 0; i < n; i++, out += pair_stride(D))
        for (size_t d = 0; d < D; d += 32)
            _mm512_storeu_si512(out + d / 2,
                                _mm512_maskz_loadu_epi16(first_of_32(D - d), bf16_row(h, first + i) + d));
}

// out [pair of rows, value_stride]: pairs of the same value of two neighbouring rows.
static void pack_pairs(Pair *out, Head h, size_t first, size_t n, size_t D) {
    const __m512i low = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7,
                                         38, 6, 37, 5, 36, 4, 35, 3, 34, 2, 33, 1, 32, 0),
                  high = _mm512_add_epi16(low, _mm512_set1_epi16(16));
    for (size_t i = 0; i < 2 * whole_pairs(n); i += 2, out += value_stride(D))
        for (size_t d = 0; d < D; d += 32) {
            __mmask32 first_row = i < n ? first_of_32(D - d) : 0, second = i + 1 < n ? first_row : 0;
            __m512i a = _mm512_maskz_loadu_epi16(first_row, bf16_row(h, first + i) + d),
                    b = _mm512_maskz_loadu_epi16(second, bf16_row(h, first + i + 1) + d);
            _mm512_storeu_si512(out + d, _mm512_permutex2var_epi16(a, low, b));
            _mm512_storeu_si512(out + d + LANES, _mm512_permutex2var_epi16(a, high, b));
        }
}

// out[c · out_stride + r] = in[r · in_stride + c] for rows and columns that are multiples of 4.
static void transpose_pairs(Pair *out, size_t out_stride, const Pair *in, size_t in_stride, size_t rows,
                            size_t columns) {
    for (size_t r = 0; r < rows; r += 4)
        for (size_t c = 0; c < columns; c += 4) {
            __m128 x[4];
            for (size_t k = 0; k < 4; k++) x[k] = _mm_load_ps((const float *)(in + (r + k) * in_stride + c));
            _MM_TRANSPOSE4_PS(x[0], x[1], x[2], x[3]);
            for (size_t k = 0; k < 4; k++) _mm_store_ps((float *)(out + (c + k) * out_stride + r), x[k]);
        }
}

// out [pair, side]: what pack_rows gives with the rows side by side, up to the next whole vector of them;
// `rows` is room for side · MAX_PAIRS pairs.
static void pack_columns(Pair *out, size_t side, Pair *rows, Head h, size_t first, size_t n, size_t D) {
    size_t lanes = whole_lanes(n), stride = pair_stride(D);
    pack_rows(rows, h, first, n, D);
    memset(rows + n * stride, 0, (lanes - n) * stride * sizeof *rows);
    transpose_pairs(out, side, rows, stride, lanes, stride);
}

// out [D, TILE_PAIRS]: what pack_pairs gives with its pairs side by side; `pairs` is room for
// TILE_PAIRS · ATTENTION_MAX_D pairs.
static void pack_transposed(Pair *out, Pair *pairs, Head h, size_t first, size_t n, size_t D) {
    pack_pairs(pairs, h, first, n, D);
    transpose_pairs(out, TILE_PAIRS, pairs, value_stride(D), whole_pairs(n), whole_lanes(D));
}

// Row i of a BF16 head = row.
static void store_bf16(Head h, size_t i, const float *row, size_t D) {
    uint16_t *out = (uint16_t *)h.data + i * h.stride;
    for (size_t d = 0; d < D; d += LANES)
        _mm256_mask_storeu_epi16(out + d, first_of_16(D - d),
                                 (__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(row + d)));
}

// Rows [first, first + n) of a BF16 head = the columns of sums [D, side]; `rows` is room for them turned.
static void store_columns(Head h, size_t first, size_t n, float *rows, const float *sums, size_t side,
                          size_t D) {
    transpose_pairs((Pair *)rows, whole_lanes(D), (const Pair *)sums, side, whole_lanes(D), whole_lanes(n));
    for (size_t i = 0; i < n; i++) store_bf16(h, first + i, rows + i * whole_lanes(D), D);
}

// ---- forward ----

// A tile of queries and what they have summed up.
typedef struct Queries {
    Pair q[MAX_PAIRS * TILE] ALIGNED;            // [pair, query]
    float o[ATTENTION_MAX_D * TILE] ALIGNED;     // [D, query], not yet divided by sum
    float base[TILE] ALIGNED, sum[TILE] ALIGNED; // weights are relative to 2^base
} Queries;

typedef struct ForwardRoom {
    Queries queries[FORWARD_GROUP];
    Pair k[TILE * MAX_PAIRS] ALIGNED;                // [key, pair]
    Pair v[ATTENTION_MAX_D * TILE_PAIRS] ALIGNED;    // [D, pair of keys]
    Pair room[TILE_PAIRS * ATTENTION_MAX_D] ALIGNED; // for packing
    float s[2][TILE * PIECE_SIDE] ALIGNED;           // [key, query]
    Pair p[TILE_PAIRS * TILE] ALIGNED;               // [pair of keys, query]
    float rows[TILE * ATTENTION_MAX_D] ALIGNED;      // [query, D]
} ForwardRoom;

// Raises the base of LANES queries to their largest score when that is more than 2⁸ above it (the weights
// then still fit F32 easily), which makes it rare that what was summed has to be rescaled.
static void raise_base(Queries *x, size_t i, __m512 largest, size_t D) {
    __m512 base = _mm512_load_ps(x->base + i);
    if (!_mm512_cmp_ps_mask(largest, _mm512_add_ps(base, _mm512_set1_ps(8)), _CMP_GT_OQ)) return;
    largest = _mm512_max_ps(_mm512_roundscale_ps(largest, _MM_FROUND_TO_POS_INF | _MM_FROUND_NO_EXC), base);
    __m512 factor = exp2_lanes(_mm512_sub_ps(base, largest));
    _mm512_store_ps(x->base + i, largest);
    _mm512_store_ps(x->sum + i, _mm512_mul_ps(_mm512_load_ps(x->sum + i), factor));
    for (float *o = x->o + i; o < x->o + D * TILE; o += TILE)
        _mm512_store_ps(o, _mm512_mul_ps(_mm512_load_ps(o), factor));
}

// Scores of keys and LANES queries from i on, where s points to the first key's, become weights in p.
static void weights_forward(Pair *p, const float *s, Queries *x, const ForwardTask *a, size_t keys,
                            size_t i) {
    const __m512 factor = _mm512_set1_ps(a->scale * LOG2_E);
    __m512 largest = _mm512_load_ps(s), odd = largest; // two, because each waits for its last result
    for (size_t j = 1; j < keys; j += 2) {
        odd = _mm512_max_ps(odd, _mm512_load_ps(s + j * PIECE_SIDE));
        if (j + 1 < keys) largest = _mm512_max_ps(largest, _mm512_load_ps(s + (j + 1) * PIECE_SIDE));
    }
    largest = _mm512_mul_ps(_mm512_max_ps(largest, odd), factor);
    raise_base(x, i, largest, a->D);
    __m512 base = _mm512_load_ps(x->base + i), sum = _mm512_load_ps(x->sum + i);
    for (size_t j = 0; j < keys; j += 2, s += 2 * PIECE_SIDE, p += TILE) {
        __m512 w = exp2_lanes(_mm512_fmsub_ps(_mm512_load_ps(s), factor, base)), next = _mm512_setzero_ps();
        if (j + 1 < keys) next = exp2_lanes(_mm512_fmsub_ps(_mm512_load_ps(s + PIECE_SIDE), factor, base));
        sum = _mm512_add_ps(sum, _mm512_add_ps(w, next));
        _mm512_store_si512(p, pairs_of(w, next));
    }
    for (size_t pair = pair_count(keys); pair < whole_pairs(keys); pair++, p += TILE)
        _mm512_store_si512(p, _mm512_setzero_si512());
    _mm512_store_ps(x->sum + i, sum);
}

// Scores of the block's keys and its PIECE_SIDE queries from i on, or what is left of them.
static void scores_forward(float *s, const ForwardRoom *t, const Queries *x, const ForwardTask *a, Block b,
                           size_t i, size_t lanes) {
    pair_product(s, PIECE_SIDE, t->k + b.j0 % TILE * pair_stride(a->D), pair_stride(a->D), x->q + i, TILE,
                 b.keys, min_size(lanes - i, PIECE_SIDE), pair_count(a->D), false);
}

// A block within the tile of keys that is packed in t.
static void forward_block(ForwardRoom *t, Queries *x, const ForwardTask *a, Block b) {
    const size_t lanes = whole_lanes(a->queries);
    scores_forward(t->s[0], t, x, a, b, b.first, lanes);
    for (size_t i = b.first, n = 0; i < lanes; i += PIECE_SIDE, n++) {
        const size_t next = i + PIECE_SIDE, end = min_size(next, lanes);
        float *s = t->s[n % 2];
        if (next < lanes) scores_forward(t->s[(n + 1) % 2], t, x, a, b, next, lanes);
        hide_keys(s, PIECE_SIDE, a, (Block){b.j0, b.keys, i}, end, -UNSEEN, -INFINITY);
        for (size_t k = i; k < end; k += LANES) weights_forward(t->p + k, s + k - i, x, a, b.keys, k);
    }
    pair_product(x->o + b.first, TILE, t->v + b.j0 % TILE / 2, TILE_PAIRS, t->p + b.first, TILE, a->D,
                 lanes - b.first, pair_count(b.keys), true);
}

static void begin_queries(ForwardRoom *t, Queries *x, const ForwardTask *a) {
    pack_columns(x->q, TILE, t->k, a->q, a->i0, a->queries, a->D);
    memset(x->o, 0, a->D * TILE * sizeof(float));
    for (size_t i = 0; i < TILE; i++) x->base[i] = -INFINITY, x->sum[i] = 0;
}

// o = sums / their weights' sum, and lse.
static void finish_queries(ForwardRoom *t, Queries *x, const ForwardTask *a) {
    const float unseen = -UNSEEN * (a->scale * LOG2_E);
    for (size_t i = 0; i < whole_lanes(a->queries); i += LANES) {
        const __m512 factor = _mm512_div_ps(_mm512_set1_ps(1), _mm512_load_ps(x->sum + i));
        for (float *o = x->o + i; o < x->o + a->D * TILE; o += TILE)
            _mm512_store_ps(o, _mm512_mul_ps(_mm512_load_ps(o), factor));
    }
    store_columns(a->o, a->i0, a->queries, t->rows, x->o, TILE, a->D);
    for (size_t i = 0; a->lse && i < a->queries; i++)
        a->lse[a->i0 + i] = x->base[i] > unseen ? x->base[i] * LN_2 + logf(x->sum[i]) : HIDDEN;
}

void KERNEL(attention_forward_bf16)(const ForwardTask *a, size_t n) {
    ForwardRoom t;
    const size_t keys = a[n - 1].keys;
    products_begin();
    for (size_t i = 0; i < n; i++) begin_queries(&t, &t.queries[i], &a[i]);
    for (size_t j0 = 0; j0 < keys; j0 += TILE) {
        const size_t end = min_size(j0 + TILE, keys);
        pack_rows(t.k, a->k, j0, end - j0, a->D);
        pack_transposed(t.v, t.room, a->v, j0, end - j0, a->D);
        for (size_t i = 0; i < n; i++)
            for (size_t j = j0; j < min_size(end, a[i].keys);) {
                const Block b = block_at(&a[i], j, DIAGONAL_BF16);
                forward_block(&t, &t.queries[i], &a[i], b);
                j += b.keys;
            }
    }
    for (size_t i = 0; i < n; i++) finish_queries(&t, &t.queries[i], &a[i]);
    products_end();
}

// ---- backward ----

typedef struct BackwardTile {
    Pair k_columns[MAX_PAIRS * KEY_TILE] ALIGNED, v_columns[MAX_PAIRS * KEY_TILE] ALIGNED; // [pair, key]
    Pair k_pairs[KEY_TILE / 2 * ATTENTION_MAX_D] ALIGNED;             // [pair of keys, D]
    Pair q[TILE * MAX_PAIRS] ALIGNED, dout[TILE * MAX_PAIRS] ALIGNED; // [query, pair]
    Pair q_turned[ATTENTION_MAX_D * TILE_PAIRS] ALIGNED,
        dout_turned[ATTENTION_MAX_D * TILE_PAIRS] ALIGNED; // [D, pair of queries]
    Pair room[TILE_PAIRS * ATTENTION_MAX_D] ALIGNED;       // for packing
    float s[2][PIECE_SIDE * PIECE_SIDE] ALIGNED, dp[2][PIECE_SIDE * PIECE_SIDE] ALIGNED; // [query, key]
    Pair p[TILE_PAIRS * KEY_TILE] ALIGNED, ds_pairs[TILE_PAIRS * KEY_TILE] ALIGNED; // [pair of queries, key]
    uint16_t ds[TILE * KEY_TILE] ALIGNED; // [query, key], times scale
    float dk[ATTENTION_MAX_D * KEY_TILE] ALIGNED, dv[ATTENTION_MAX_D * KEY_TILE] ALIGNED; // [D, key]
    float rows[KEY_TILE * ATTENTION_MAX_D] ALIGNED; // of keys, for packing too
                                                    // [key, D]
    __mmask16 shown[KEY_TILE / LANES];              // the tile's keys that the mask does not hide
} BackwardTile;

// What a query's weights against LANES keys are made from, and the two results.
typedef struct Weights {
    __m512 p, ds;
} Weights;

// p and scale · ds of query i against LANES keys, whose scores and dp are given.
static Weights weights_seen(const BackwardTask *a, size_t i, const float *scores, const float *dp) {
    __m512 score = _mm512_mul_ps(_mm512_load_ps(scores), _mm512_set1_ps(a->scale * LOG2_E));
    __m512 p = exp2_lanes(_mm512_sub_ps(score, _mm512_set1_ps(a->lse[i] * LOG2_E)));
    __m512 ds = _mm512_sub_ps(_mm512_load_ps(dp), _mm512_set1_ps(a->delta[i]));
    return (Weights){p, _mm512_mul_ps(_mm512_mul_ps(p, ds), _mm512_set1_ps(a->scale))};
}

// The same of query i of the step against the keys from j on, 0 where nothing is seen.
static Weights weights_of(const BackwardTile *t, const BackwardTask *a, Step s, size_t i, size_t j,
                          const float *scores, const float *dp) {
    if (i >= s.queries) return (Weights){_mm512_setzero_ps(), _mm512_setzero_ps()};
    size_t reach = a->causal ? s.i0 + i + 1 : a->T, end = min_size(s.j0 + s.keys, reach), at = s.j0 + j;
    __mmask16 seen = end > at ? first_of_16(end - at) : 0;
    if (a->lse[s.i0 + i] <= HIDDEN)
        return (Weights){_mm512_maskz_mov_ps(seen, _mm512_set1_ps(1.0f / (float)reach)), _mm512_setzero_ps()};
    seen &= t->shown[j / LANES];
    const Weights w = weights_seen(a, s.i0 + i, scores, dp);
    return (Weights){_mm512_maskz_mov_ps(seen, w.p), _mm512_maskz_mov_ps(seen, w.ds)};
}

// Weights of two neighbouring queries against LANES keys.
static void store_weights(BackwardTile *t, size_t i, size_t j, Weights x, Weights y) {
    const __m512i both = (__m512i)_mm512_cvtne2ps_pbh(y.ds, x.ds); // x in the lower half
    _mm512_store_si512(t->p + i / 2 * KEY_TILE + j, pairs_of(x.p, y.p));
    _mm512_store_si512(t->ds_pairs + i / 2 * KEY_TILE + j, interleaved(both));
    _mm256_store_si256((__m256i *)(t->ds + i * KEY_TILE + j), _mm512_castsi512_si256(both));
    _mm256_store_si256((__m256i *)(t->ds + (i + 1) * KEY_TILE + j), _mm512_extracti64x4_epi64(both, 1));
}

// A step's piece: PIECE_SIDE queries and keys from i and j on, or what is left of them.
typedef struct Piece {
    size_t i, j, queries, keys;
} Piece;

static Piece step_piece(Step s, size_t n) {
    const size_t across = (s.keys + PIECE_SIDE - 1) / PIECE_SIDE, i = n / across * PIECE_SIDE,
                 j = n % across * PIECE_SIDE;
    return (Piece){i, j, min_size(s.queries - i, PIECE_SIDE), min_size(s.keys - j, PIECE_SIDE)};
}

static void scores_backward(BackwardTile *t, size_t n, Piece x, size_t D) {
    const size_t stride = pair_stride(D), keys = whole_lanes(x.keys);
    pair_product(t->s[n % 2], PIECE_SIDE, t->q + x.i * stride, stride, t->k_columns + x.j, KEY_TILE,
                 x.queries, keys, pair_count(D), false);
    pair_product(t->dp[n % 2], PIECE_SIDE, t->dout + x.i * stride, stride, t->v_columns + x.j, KEY_TILE,
                 x.queries, keys, pair_count(D), false);
}

// Whether the piece is whole and all its queries see all its keys.
static bool sees_all(const BackwardTask *a, Step s, Piece x) {
    const bool past = !a->causal || s.j0 + x.j + x.keys <= s.i0 + x.i + 1;
    return !a->mask && past && x.queries == PIECE_SIDE && x.keys == PIECE_SIDE;
}

static void whole_weights(BackwardTile *t, const BackwardTask *a, Step s, size_t n, Piece x) {
    const float *scores = t->s[n % 2], *dp = t->dp[n % 2];
    for (size_t i = 0; i < PIECE_SIDE; i += 2)
        for (size_t j = 0; j < PIECE_SIDE; j += LANES) {
            const size_t query = s.i0 + x.i + i, at = i * PIECE_SIDE + j, next = at + PIECE_SIDE;
            store_weights(t, x.i + i, x.j + j, weights_seen(a, query, scores + at, dp + at),
                          weights_seen(a, query + 1, scores + next, dp + next));
        }
}

static void ragged_weights(BackwardTile *t, const BackwardTask *a, Step s, size_t n, Piece x) {
    const float *scores = t->s[n % 2], *dp = t->dp[n % 2];
    for (size_t i = 0; i < 2 * whole_pairs(x.queries); i += 2)
        for (size_t j = 0; j < 2 * whole_pairs(x.keys); j += LANES) {
            const size_t at = i * PIECE_SIDE + j, next = at + PIECE_SIDE;
            store_weights(t, x.i + i, x.j + j, weights_of(t, a, s, x.i + i, x.j + j, scores + at, dp + at),
                          weights_of(t, a, s, x.i + i + 1, x.j + j, scores + next, dp + next));
        }
}

static void all_weights_backward(BackwardTile *t, const BackwardTask *a, Step s) {
    const size_t pieces =
        (s.queries + PIECE_SIDE - 1) / PIECE_SIDE * ((s.keys + PIECE_SIDE - 1) / PIECE_SIDE);
    scores_backward(t, 0, step_piece(s, 0), a->D);
    for (size_t n = 0; n < pieces; n++) {
        if (n + 1 < pieces) scores_backward(t, n + 1, step_piece(s, n + 1), a->D);
        const Piece x = step_piece(s, n);
        (sees_all(a, s, x) ? whole_weights : ragged_weights)(t, a, s, n, x);
    }
}

static void backward_step(BackwardTile *t, const BackwardTask *a, Step s) {
    size_t D = a->D, width = whole_lanes(D), keys = whole_lanes(s.keys), pairs = pair_count(s.queries),
           passed = a->passed + s.i0 + s.queries;
    pack_rows(t->q, a->q, s.i0, s.queries, D);
    pack_rows(t->dout, a->dout, s.i0, s.queries, D);
    pack_transposed(t->q_turned, t->room, a->q, s.i0, s.queries, D);
    pack_transposed(t->dout_turned, t->room, a->dout, s.i0, s.queries, D);
    all_weights_backward(t, a, s);
    pair_product(t->dv, KEY_TILE, t->dout_turned, TILE_PAIRS, t->p, KEY_TILE, D, keys, pairs, true);
    pair_product(t->dk, KEY_TILE, t->q_turned, TILE_PAIRS, t->ds_pairs, KEY_TILE, D, keys, pairs, true);
    wait_for(a->before, passed);
    pair_product(a->dq_sum + s.i0 * a->dq_sum_stride, a->dq_sum_stride, (const Pair *)(const void *)t->ds,
                 KEY_TILE / 2, t->k_pairs, value_stride(D), s.queries, width, pair_count(s.keys), s.j0 > 0);
    for (size_t i = s.i0; s.last && i < s.i0 + s.queries; i++)
        store_bf16(a->dq, i, a->dq_sum + i * a->dq_sum_stride, D);
    publish(a->own, passed);
}

static void show_keys(BackwardTile *t, const int *mask, size_t j0, size_t keys) {
    for (size_t j = 0; j < KEY_TILE; j += LANES) {
        t->shown[j / LANES] = 0xffff;
        for (size_t k = j; mask && k < min_size(j + LANES, keys); k++)
            if (!mask[j0 + k]) t->shown[j / LANES] &= (__mmask16) ~(1u << (k - j));
    }
}

void KERNEL(attention_backward_bf16)(BackwardTask a, size_t group, size_t apart, size_t j0, size_t keys) {
    BackwardTile t;
    size_t D = a.D;
    products_begin();
    pack_columns(t.k_columns, KEY_TILE, (Pair *)t.rows, a.k, j0, keys, D);
    pack_columns(t.v_columns, KEY_TILE, (Pair *)t.rows, a.v, j0, keys, D);
    pack_pairs(t.k_pairs, a.k, j0, keys, D);
    show_keys(&t, a.mask, j0, keys);
    memset(t.dk, 0, D * KEY_TILE * sizeof(float));
    memset(t.dv, 0, D * KEY_TILE * sizeof(float));
    for (size_t h = 0; h < group; h++, next_query_head(&a, apart))
        for (size_t i0 = a.causal ? j0 : 0; i0 < a.T;) {
            Step s = step_at(&a, i0, j0, keys, DIAGONAL_BF16);
            backward_step(&t, &a, s);
            i0 += s.queries;
        }
    store_columns(a.dk, j0, keys, t.rows, t.dk, KEY_TILE, D);
    store_columns(a.dv, j0, keys, t.rows, t.dv, KEY_TILE, D);
    products_end();
}
#endif
