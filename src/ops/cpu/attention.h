// What attention's two directions share. The scores of TILE queries by TILE keys exist at a time, never the
// whole matrix (Milakov & Gimelshein 2018; Dao et al. 2022). A hidden key has the score HIDDEN, the lowest
// finite number, as in nanoVLM: beside any real score its weight is 0, and a query that sees hidden keys only
// gets their plain mean by itself. A key that lies in the future has -infinity.
//
// Tiles are counted from the first position of each sample, so that a tile belongs to one sample, and nothing
// is computed between samples. Without starts a sequence is one sample. The kernels of both directions are in
// attention_f32.c and attention_bf16.c, their tasks in attention.c and attention_backward.c.
#pragma once
#include "base/half.h"
#include "ops/cpu/attention_slots.h"
#include "ops/cpu/kernels.h"
#include "ops/cpu/tile.h"
#include "ops/cpu/vecmath.h"
#include "tensor/ops.h"

#include <float.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>

#define TILE     64 // queries, and forward keys, at a time; backward KEY_TILE
#define DIAGONAL 16 // a block's keys (forward) or queries (backward) on a causal mask's diagonal
#ifdef __AMX_BF16__
#define DIAGONAL_BF16 32 // what AMX sums over at a time
#else
#define DIAGONAL_BF16 DIAGONAL
#endif
#define ALIGNED __attribute__((aligned(64)))
#define HIDDEN  (-FLT_MAX)
#define LN_2    0.69314718f
#define LOG2_E  1.44269504f

// One head of a [B, T, heads, D] tensor, F32 or BF16: rows `stride` values apart.
typedef struct Head {
    char *data;
    size_t stride;
    Dtype dtype;
} Head;

static inline size_t value_size(Head h) {
    return h.dtype == DTYPE_BF16 ? sizeof(uint16_t) : sizeof(float);
}
static inline Head head_of(Tensor t, size_t b, size_t h) {
    Head head = {t.data, t.stride[1], t.dtype};
    head.data += (b * t.stride[0] + h * t.stride[2]) * value_size(head);
    return head;
}
static inline Head from_row(Head h, size_t i) {
    h.data += i * h.stride * value_size(h);
    return h;
}
static inline Head next_head(Head h, size_t D) {
    h.data += D * value_size(h);
    return h;
}

// Rows of floats: a head's own, or a copy of a BF16 head's.
typedef struct Rows {
    const float *data;
    size_t stride;
} Rows;

// Rows [first, first + n) of a head; `copy` has room for n · D values.
static inline Rows load_rows(float *copy, Head h, size_t first, size_t n, size_t D) {
    h = from_row(h, first);
    if (h.dtype == DTYPE_F32) return (Rows){(const float *)h.data, h.stride};
    for (size_t i = 0; i < n; i++) {
        const uint16_t *in = (const uint16_t *)h.data + i * h.stride;
        for (size_t d = 0; d < D; d++) copy[i * D + d] = f32_from_bf16(in[d]);
    }
    return (Rows){copy, D};
}

// Row i of a head = row · factor.
static inline void store_row(Head h, size_t i, const float *row, float factor, size_t D) {
    h = from_row(h, i);
    if (h.dtype == DTYPE_F32)
        for (size_t d = 0; d < D; d++) ((float *)h.data)[d] = row[d] * factor;
    else
        for (size_t d = 0; d < D; d++) ((uint16_t *)h.data)[d] = bf16_from_f32(row[d] * factor);
}

static inline size_t tile_count(size_t n, size_t side) {
    return (n + side - 1) / side;
}
static inline size_t tile_length(size_t n, size_t first, size_t side) {
    return n - first < side ? n - first : side;
}
static inline size_t whole_lanes(size_t n) {
    return (n + LANES - 1) / LANES * LANES;
}
static inline size_t min_size(size_t a, size_t b) {
    return a < b ? a : b;
}

// `length` queries or keys from `first` on, of the sample that begins at `sample`.
typedef struct Tile {
    size_t sample, first, length;
} Tile;

// The first tile of `side` positions that begins at position `at` or later; first = T when there is none.
static inline Tile tile_from(const int *starts, size_t T, size_t at, size_t side) {
    if (at >= T) return (Tile){.first = T};
    if (!starts) return (Tile){0, at, tile_length(T, at, side)};
    size_t sample = (size_t)starts[at], first = sample + tile_count(at - sample, side) * side, end = at;
    while (end < T && end < first + side && (size_t)starts[end] == sample) end++;
    return end > first ? (Tile){sample, first, end - first} : tile_from(starts, T, end, side);
}

// A position either begins a sample or belongs to the one before it.
static inline void check_starts(Tensor starts) {
    size_t T = starts.shape[1];
    for (size_t i = 0; tensor_exists(starts) && i < tensor_count(starts); i++) {
        const int *s = ints(starts) + i;
        CHECK(*s == (int)(i % T) || (i % T > 0 && *s == s[-1]), "sample starts at %d for position %zu", *s,
              i % T);
    }
}

// Sequence b's part of a mask or of starts, or NULL.
static inline const int *sequence(Tensor t, size_t b) {
    return tensor_exists(t) ? ints(t) + b * t.shape[1] : NULL;
}

// ---- forward ----

// The tile of queries [i0, i0 + queries) of one head against all keys they see.
typedef struct ForwardTask {
    Head o, q, k, v;
    const int *mask; // of this sequence, or NULL
    float *lse;      // of this head, or NULL
    size_t D;
    size_t i0, queries;
    size_t reach, keys; // how many keys the tile's first and its last query may see
    float scale;
} ForwardTask;

// A block of keys [j0, j0 + keys) and the tile's queries from `first` on.
typedef struct Block {
    size_t j0, keys, first;
} Block;

// While all queries see all keys, blocks are whole tiles. Where the queries' reach ends (the diagonal of a
// causal mask) they are smaller, so that few scores are computed which nobody may see.
static inline Block block_at(const ForwardTask *a, size_t j0, size_t diagonal) {
    if (j0 + TILE <= a->reach || a->reach == a->keys) return (Block){j0, tile_length(a->keys, j0, TILE), 0};
    size_t first = j0 < a->reach ? 0 : (j0 + 1 - a->reach) / LANES * LANES;
    return (Block){j0, min_size(a->keys - j0, diagonal), first};
}

// Puts `hidden` and `future` where keys are not to be seen, in scores [key, query] of a block's keys and the
// queries [b.first, end); rows lie `stride` apart.
static inline void hide_keys(float *s, size_t stride, const ForwardTask *a, Block b, size_t end, float hidden,
                             float future) {
    if (!a->mask && b.j0 + b.keys <= a->reach) return;
    for (size_t j = b.j0; j < b.j0 + b.keys; j++, s += stride) {
        if (a->mask && !a->mask[j])
            for (size_t i = b.first; i < end; i++) s[i - b.first] = hidden;
        size_t blind = j < a->reach ? 0 : min_size(j + 1 - a->reach, end);
        for (size_t i = b.first; i < blind; i++) s[i - b.first] = future;
    }
}

// ---- backward ----

// How many queries a tile of keys is past, those of the heads before included.
typedef _Atomic size_t Progress;

static inline void wait_for(Progress *other, size_t passed) {
    while (other && atomic_load_explicit(other, memory_order_acquire) < passed) sched_yield();
}
static inline void publish(Progress *own, size_t passed) {
    if (own) atomic_store_explicit(own, passed, memory_order_release);
}

// A tile of keys of one sample: row 0 of everything is the sample's first position.
typedef struct BackwardTask {
    Head dq, dout, q;         // of one query head; the next of the group is D values on
    Head dk, dv, k, v;        // of the key head
    const int *mask;          // of this sample, or NULL
    const float *lse, *delta; // of the query head
    size_t T, D;
    float scale;
    bool causal;
    float *dq_sum;                      // where the query head's dq is summed: dq itself if that is F32
    size_t dq_sum_stride, dq_sum_apart; // between its rows, and between neighbouring heads
    Progress *before, *own;             // of the tile of keys before this one, and of this one; or NULL
    size_t passed;                      // T times the heads before this one
} BackwardTask;

// Queries [i0, i0 + queries) against keys [j0, j0 + keys).
typedef struct Step {
    size_t i0, queries, j0, keys;
    bool last; // no later keys add to these queries' dq
} Step;

// The step at i0 of the tile of `keys` keys at j0: on the diagonal of a causal mask smaller, so that few
// scores are computed which nobody may see.
static inline Step step_at(const BackwardTask *a, size_t i0, size_t j0, size_t keys, size_t diagonal) {
    bool crosses = a->causal && i0 < j0 + keys;
    size_t queries = min_size(a->T - i0, crosses ? diagonal : TILE);
    return (Step){i0, queries, j0, crosses ? min_size(keys, i0 + queries - j0) : keys,
                  a->causal ? crosses : j0 + keys == a->T};
}

// On to the next query head of the group, whose lse and delta lie `apart`.
static inline void next_query_head(BackwardTask *a, size_t apart) {
    a->dq = next_head(a->dq, a->D), a->dout = next_head(a->dout, a->D), a->q = next_head(a->q, a->D);
    a->lse += apart, a->delta += apart, a->passed += a->T, a->dq_sum += a->dq_sum_apart;
}

static inline void store_dq(const BackwardTask *a, Step s) {
    for (size_t i = s.i0; s.last && a->dq.dtype == DTYPE_BF16 && i < s.i0 + s.queries; i++)
        store_row(a->dq, i, a->dq_sum + i * a->dq_sum_stride, 1, a->D);
}

// ---- the kernels ----
// n ≤ FORWARD_GROUP tiles of queries of one head and one sample, at least one and in their order, so that the
// last sees the most keys; they share the packing of keys and values.
#define FORWARD_GROUP 4
void KERNEL(attention_forward_f32)(const ForwardTask *a, size_t n);
// The tile of keys at j0 with all `group` query heads, whose lse and delta lie `apart`; `a` describes the
// first.
void KERNEL(attention_backward_f32)(BackwardTask a, size_t group, size_t apart, size_t j0, size_t keys);
// The same on BF16 tensors where the processor multiplies them itself.
#ifdef __AVX512BF16__
#define BF16_PRODUCTS true
#else
#define BF16_PRODUCTS false
#endif
void KERNEL(attention_forward_bf16)(const ForwardTask *a, size_t n);
void KERNEL(attention_backward_bf16)(BackwardTask a, size_t group, size_t apart, size_t j0, size_t keys);
