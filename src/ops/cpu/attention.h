// What attention's two directions share. The scores of TILE queries by TILE keys exist at a time, never the
// whole matrix (Milakov & Gimelshein 2018; Dao et al. 2022). A hidden key has the score HIDDEN, the lowest
// finite number, as in nanoVLM: beside any real score its weight is 0, and a query that sees hidden keys only
// gets their plain mean by itself. A key that lies in the future has -infinity.
//
// Tiles are counted from the first position of each sample, so that a tile belongs to one sample, and nothing
// is computed between samples. Without starts a sequence is one sample.
#pragma once
#include "ops/cpu/kernels.h"
#include "ops/cpu/tile.h"
#include "ops/cpu/vecmath.h"
#include "tensor/ops.h"

#include <float.h>
#include <string.h>

#define TILE     64
#define DIAGONAL 16 // a block's keys (forward) or queries (backward) on a causal mask's diagonal
#define ALIGNED  __attribute__((aligned(64)))
#define HIDDEN   (-FLT_MAX)

// One head of a [B, T, heads, D] tensor: rows `stride` apart.
typedef struct Head {
    float *data;
    size_t stride;
} Head;

static inline Head head_of(Tensor t, size_t b, size_t h) {
    return (Head){floats(t) + b * t.stride[0] + h * t.stride[2], t.stride[1]};
}

static inline size_t tile_count(size_t n) {
    return (n + TILE - 1) / TILE;
}
static inline size_t tile_length(size_t n, size_t first) {
    return n - first < TILE ? n - first : TILE;
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

// The first tile that begins at position `at` or later; first = T when there is none.
static inline Tile tile_from(const int *starts, size_t T, size_t at) {
    if (at >= T) return (Tile){.first = T};
    if (!starts) return (Tile){0, at, tile_length(T, at)};
    size_t sample = (size_t)starts[at], first = sample + tile_count(at - sample) * TILE, end = at;
    while (end < T && end < first + TILE && (size_t)starts[end] == sample) end++;
    return end > first ? (Tile){sample, first, end - first} : tile_from(starts, T, end);
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

typedef float Four __attribute__((vector_size(16)));
typedef int FourInts __attribute__((vector_size(16)));
typedef Four Packed __attribute__((aligned(4), may_alias));

// out[c, r] = in[r, c] · scale for a block of four by four.
static inline void transpose_four(float *out, const float *in, size_t stride, float scale) {
    Four a = *(const Packed *)in, b = *(const Packed *)(in + stride);
    Four c = *(const Packed *)(in + 2 * stride), d = *(const Packed *)(in + 3 * stride);
    Four ac = __builtin_shuffle(a, c, (FourInts){0, 4, 1, 5}),
         bd = __builtin_shuffle(b, d, (FourInts){0, 4, 1, 5});
    Four AC = __builtin_shuffle(a, c, (FourInts){2, 6, 3, 7}),
         BD = __builtin_shuffle(b, d, (FourInts){2, 6, 3, 7});
    *(Packed *)out = __builtin_shuffle(ac, bd, (FourInts){0, 4, 1, 5}) * scale;
    *(Packed *)(out + TILE) = __builtin_shuffle(ac, bd, (FourInts){2, 6, 3, 7}) * scale;
    *(Packed *)(out + 2 * TILE) = __builtin_shuffle(AC, BD, (FourInts){0, 4, 1, 5}) * scale;
    *(Packed *)(out + 3 * TILE) = __builtin_shuffle(AC, BD, (FourInts){2, 6, 3, 7}) * scale;
}

// out[d, i] = in[i, d] · scale for `rows` rows; the columns up to the next whole vector become 0.
static inline void transpose(float *out, Head in, size_t rows, size_t D, float scale) {
    size_t whole_rows = rows / 4 * 4, whole_D = D / 4 * 4;
    for (size_t i = 0; i < whole_rows; i += 4)
        for (size_t d = 0; d < whole_D; d += 4)
            transpose_four(out + d * TILE + i, in.data + i * in.stride + d, in.stride, scale);
    for (size_t i = 0; i < rows; i++)
        for (size_t d = i < whole_rows ? whole_D : 0; d < D; d++)
            out[d * TILE + i] = in.data[i * in.stride + d] * scale;
    for (size_t i = rows; i < whole_lanes(rows); i++)
        for (size_t d = 0; d < D; d++) out[d * TILE + i] = 0;
}
