// y = x wᵀ + b for w in Q8_TILES (ops/cpu/packed.h). A row of x becomes whole numbers with a scale a block of
// 32, so a block of 32 rows of w is multiplied in whole numbers, exactly, and there is one float operation a
// block and row. The order of the tiles is what makes it fast: the whole matrix is one stream of memory, rows
// of w lie in the lanes of a vector, so nothing is summed across lanes, and a value of x serves all of them.
// x is rounded to 2⁻²⁴ of its block's largest value where bytes are multiplied (VNNI), else to 2⁻¹⁶
// (llama.cpp, to 8 bits: 2⁻⁸).
#include "ops/cpu/packed.h"
#include "ops/cpu/tile.h"

#include <math.h>
#include <omp.h>
#include <string.h>

typedef int32_t IntLanes __attribute__((vector_size(LANES * 4)));

// ---- x ----

// Rows of x that are rounded at once, and those of them that share the reading of w.
enum { X_ROWS = 64, X_SHARED = 2, PARTS = Q8_ROWS / LANES };

// Whole numbers of x are as large as this at most: of three signed bytes, or of 16 bits.
#ifdef __AVX512VNNI__
enum { LARGEST = 127 << 16, X_BYTES = 3 };
#else
enum { LARGEST = 32767, X_BYTES = 2 };
#endif

// What a block's sum has too much, because the codes of w are its numbers + 128: −128 Σ x. upper is that of
// x without its lowest byte, / 256, where x has three.
typedef struct Shift {
    int32_t upper, lower;
} Shift;

// A row of x, n values: x = scale · whole number.
typedef struct Q8Factor {
    char *values;  // the numbers; of three bytes: all the highest, all the middle, all the lowest
    float *scales; // [n / 32]
    Shift *shifts; // [n / 32]
} Q8Factor;

// A block's numbers and their scale. A value that is not finite makes the scale NaN.
static float round_block(int32_t whole[Q8_VALUES], const float *x) {
    float largest = 0, zero = 0;
    for (size_t i = 0; i < Q8_VALUES; i++) {
        largest = fabsf(x[i]) > largest ? fabsf(x[i]) : largest;
        zero += 0 * x[i];
    }
    const bool finite = zero == 0;
    const float up = finite && largest > 0x1p-100f ? LARGEST / largest : 0; // below, it would not be finite
    for (size_t i = 0; i < Q8_VALUES; i++) {
        const float scaled = finite ? x[i] * up : 0;
        whole[i] = (int32_t)(scaled + (scaled < 0 ? -0.5f : 0.5f));
    }
    return finite ? largest / LARGEST : NAN;
}

// Block b of the row's numbers, as block_sums takes them.
#ifdef __AVX512VNNI__
static Shift store_block(Q8Factor *f, size_t n, size_t b, const int32_t whole[Q8_VALUES]) {
    int8_t *high = (int8_t *)f->values + b * Q8_VALUES, *middle = high + n, *low = middle + n;
    Shift sum = {0};
    for (size_t i = 0; i < Q8_VALUES; i++) {
        low[i] = (int8_t)whole[i];
        const int32_t upper = (whole[i] - low[i]) >> 8;
        middle[i] = (int8_t)upper;
        high[i] = (int8_t)((upper - middle[i]) >> 8);
        sum.upper += upper;
        sum.lower += low[i];
    }
    return (Shift){-128 * sum.upper, -128 * sum.lower};
}
#else
static Shift store_block(Q8Factor *f, size_t n, size_t b, const int32_t whole[Q8_VALUES]) {
    int16_t *values = (int16_t *)f->values + b * Q8_VALUES;
    int32_t sum = 0;
    (void)n;
    for (size_t i = 0; i < Q8_VALUES; i++) {
        values[i] = (int16_t)whole[i];
        sum += whole[i];
    }
    return (Shift){-128 * sum, 0};
}
#endif

static void round_row(Q8Factor *f, const float *x, size_t n) {
    int32_t whole[Q8_VALUES];
    for (size_t b = 0; b < n / Q8_VALUES; b++) {
        f->scales[b] = round_block(whole, x + b * Q8_VALUES);
        f->shifts[b] = store_block(f, n, b, whole);
    }
}

// ---- a block ----

#ifdef __AVX2__
ALWAYS_INLINE Lanes floats_of(IntLanes x) {
#if LANES == 16
    return (Lanes)_mm512_cvtepi32_ps((__m512i)x);
#else
    return (Lanes)_mm256_cvtepi32_ps((__m256i)x);
#endif
}
#else
ALWAYS_INLINE Lanes floats_of(IntLanes x) {
    return __builtin_convertvector(x, Lanes);
}
#endif

// Σ x · w over block b of the row, in units of both scales, for the rows of a tile.
#if defined(__AVX512VNNI__)
ALWAYS_INLINE __m512i four_bytes(const char *at) {
    int32_t four;
    memcpy(&four, at, sizeof four);
    return _mm512_set1_epi32(four);
}
ALWAYS_INLINE void block_sums(Lanes out[PARTS], const Q8Factor *f, size_t n, size_t b, const uint8_t *codes) {
    const char *x = f->values + b * Q8_VALUES;
    const Shift shift = f->shifts[b];
    __m512i sum[PARTS][3];
    for (size_t p = 0; p < PARTS; p++) {
        sum[p][0] = _mm512_setzero_si512();
        sum[p][1] = _mm512_set1_epi32(shift.upper);
        sum[p][2] = _mm512_set1_epi32(shift.lower);
    }
    for (size_t q = 0; q < Q8_VALUES; q += 4) {
        const __m512i high = four_bytes(x + q), middle = four_bytes(x + n + q),
                      low = four_bytes(x + 2 * n + q);
        for (size_t p = 0; p < PARTS; p++) {
            const __m512i w = _mm512_loadu_si512(codes + q * Q8_ROWS + p * 64);
            sum[p][0] = _mm512_dpbusd_epi32(sum[p][0], w, high);
            sum[p][1] = _mm512_dpbusd_epi32(sum[p][1], w, middle);
            sum[p][2] = _mm512_dpbusd_epi32(sum[p][2], w, low);
        }
    }
    for (size_t p = 0; p < PARTS; p++) {
        const __m512i upper = _mm512_add_epi32(_mm512_slli_epi32(sum[p][0], 8), sum[p][1]);
        out[p] = floats_of((IntLanes)upper) * 256 + floats_of((IntLanes)sum[p][2]);
    }
}
#elif defined(__AVX512F__)
ALWAYS_INLINE void block_sums(Lanes out[PARTS], const Q8Factor *f, size_t n, size_t b, const uint8_t *codes) {
    (void)n;
    const char *x = f->values + b * Q8_VALUES * 2;
    __m512i sum[2 * PARTS] = {0}; // two lanes a row, eight rows each
    for (size_t q = 0; q < Q8_VALUES; q += 4) {
        int64_t four;
        memcpy(&four, x + q * 2, sizeof four);
        for (size_t i = 0; i < 2 * PARTS; i++) {
            const __m256i w = _mm256_loadu_si256((const __m256i *)(codes + q * Q8_ROWS + i * 32));
            const __m512i product = _mm512_madd_epi16(_mm512_cvtepu8_epi16(w), _mm512_set1_epi64(four));
            sum[i] = _mm512_add_epi32(sum[i], product);
        }
    }
    const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
    for (size_t p = 0; p < PARTS; p++) {
        const __m512i a = sum[2 * p], c = sum[2 * p + 1];
        const __m512i all =
            _mm512_add_epi32(_mm512_permutex2var_epi32(a, even, c), _mm512_permutex2var_epi32(a, odd, c));
        out[p] = floats_of((IntLanes)all + f->shifts[b].upper);
    }
}
#elif defined(__AVX2__)
ALWAYS_INLINE void block_sums(Lanes out[PARTS], const Q8Factor *f, size_t n, size_t b, const uint8_t *codes) {
    (void)n;
    const char *x = f->values + b * Q8_VALUES * 2;
    __m256i sum[2 * PARTS] = {0}; // two lanes a row, four rows each
    for (size_t q = 0; q < Q8_VALUES; q += 4) {
        int64_t four;
        memcpy(&four, x + q * 2, sizeof four);
        for (size_t i = 0; i < 2 * PARTS; i++) {
            const __m128i w = _mm_loadu_si128((const __m128i *)(codes + q * Q8_ROWS + i * 16));
            const __m256i product = _mm256_madd_epi16(_mm256_cvtepu8_epi16(w), _mm256_set1_epi64x(four));
            sum[i] = _mm256_add_epi32(sum[i], product);
        }
    }
    for (size_t p = 0; p < PARTS; p++) {
        const __m256i all = _mm256_permute4x64_epi64(_mm256_hadd_epi32(sum[2 * p], sum[2 * p + 1]), 0xd8);
        out[p] = floats_of((IntLanes)all + f->shifts[b].upper);
    }
}
#else
ALWAYS_INLINE void block_sums(Lanes out[PARTS], const Q8Factor *f, size_t n, size_t b, const uint8_t *codes) {
    (void)n;
    const int16_t *x = (const int16_t *)f->values + b * Q8_VALUES;
    int32_t sum[Q8_ROWS] = {0};
    for (size_t q = 0; q < Q8_VALUES; q += 4)
        for (size_t r = 0; r < Q8_ROWS; r++)
            for (size_t i = 0; i < 4; i++) sum[r] += x[q + i] * codes[q * Q8_ROWS + r * 4 + i];
    for (size_t p = 0; p < PARTS; p++) {
        IntLanes lanes;
        memcpy(&lanes, sum + p * LANES, sizeof lanes);
        out[p] = floats_of(lanes + f->shifts[b].upper);
    }
}
#endif

// LANES scales of a part of the tile.
ALWAYS_INLINE Lanes part_scales(const uint16_t *halves) {
#if defined(__AVX512F__)
    return (Lanes)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)halves));
#elif defined(__AVX2__)
    return (Lanes)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)halves));
#else
    Lanes scales;
    for (size_t r = 0; r < LANES; r++) scales[r] = f32_from_f16(halves[r]);
    return scales;
#endif
}

// ---- a tile ----

// M rows of x times the rows of a tile. M is a constant where this is used.
ALWAYS_INLINE void tile_rows_of(float (*out)[Q8_ROWS], const Q8Factor *f, const char *tile, size_t n,
                                const size_t M) {
    Lanes sum[X_SHARED][PARTS] = {0};
    for (size_t b = 0; b < n / Q8_VALUES; b++) {
        const Q8Block w = q8_block(tile, b);
        for (size_t m = 0; m < M; m++) {
            Lanes block[PARTS];
            block_sums(block, &f[m], n, b, w.codes);
            for (size_t p = 0; p < PARTS; p++)
                sum[m][p] += block[p] * (part_scales(w.scales + p * LANES) * f[m].scales[b]);
        }
    }
    for (size_t m = 0; m < M; m++) memcpy(out[m], sum[m], sizeof *out);
}

typedef struct Q8Product {
    Matrix y;
    const float *bias;
    const Q8Factor *f;
    size_t n, first, rows; // of x: values of a row, and which rows f has
} Q8Product;

// Columns [o, o + count) of y, which a tile gives.
static void tile_columns(const Q8Product *p, const char *tile, size_t o, size_t count) {
    float out[X_SHARED][Q8_ROWS];
    for (size_t m = 0, step; m < p->rows; m += step) {
        step = p->rows - m < X_SHARED ? 1 : X_SHARED;
        if (step == 1)
            tile_rows_of(out, p->f + m, tile, p->n, 1);
        else
            tile_rows_of(out, p->f + m, tile, p->n, X_SHARED);
        for (size_t i = 0; i < step; i++)
            for (size_t c = 0; c < count; c++)
                row(p->y, p->first + m + i)[o + c] = out[i][c] + (p->bias ? p->bias[o + c] : 0.0f);
    }
}

// ---- all of it ----

typedef struct Scratch {
    Q8Factor f[X_ROWS];
    char *last; // room for a tile
} Scratch;

static Scratch take_scratch(Backend *be, size_t rows, size_t n) {
    const size_t blocks = n / Q8_VALUES, tile = Q8_ROWS * blocks * Q8_BYTES;
    const size_t each = (X_BYTES * n + blocks * (sizeof(float) + sizeof(Shift)) + 63) / 64 * 64;
    Scratch s;
    char *at = s.last = cpu_scratch(be, tile + 64 + rows * each);
    at += (tile + 63) / 64 * 64;
    for (size_t m = 0; m < rows; m++, at += each)
        s.f[m] =
            (Q8Factor){at, (float *)(at + X_BYTES * n), (Shift *)(at + X_BYTES * n + blocks * sizeof(float))};
    return s;
}

void KERNEL(linear_by_tiles)(Backend *be, Tensor y, Tensor x, Tensor w, Tensor b) {
    const Matrix in = matrix(x), out = matrix(y);
    const size_t n = in.cols, tiles = out.cols / Q8_ROWS, left = out.cols % Q8_ROWS;
    const size_t tile_bytes = Q8_ROWS * n / Q8_VALUES * Q8_BYTES;
    for (size_t first = 0; first < in.rows; first += X_ROWS) {
        const size_t rows = in.rows - first < X_ROWS ? in.rows - first : X_ROWS;
        Scratch s = take_scratch(be, rows, n);
        const Q8Product p = {out, tensor_exists(b) ? floats(b) : NULL, s.f, n, first, rows};
        if (left) q8_arrange_tile(s.last, w.data + tiles * tile_bytes, left, n / Q8_VALUES);
#pragma omp parallel for num_threads(threads_for(be, rows *n))
        for (size_t m = 0; m < rows; m++) round_row(&s.f[m], row(in, first + m), n);
#pragma omp parallel for schedule(static) num_threads(threads_for(be, out.cols *n))
        for (size_t t = 0; t < tiles; t++) tile_columns(&p, w.data + t * tile_bytes, t * Q8_ROWS, Q8_ROWS);
        if (left) tile_columns(&p, s.last, tiles * Q8_ROWS, left);
    }
}

void KERNEL(arrange_weights)(Backend *be, Tensor w) {
    const size_t tiles = tensor_rows(w) / Q8_ROWS, blocks = tensor_cols(w) / Q8_VALUES;
    const size_t tile_bytes = Q8_ROWS * blocks * Q8_BYTES;
    const int threads = threads_for(be, tensor_count(w));
    char *room = cpu_scratch(be, (size_t)threads * tile_bytes);
#pragma omp parallel for schedule(static) num_threads(threads)
    for (size_t t = 0; t < tiles; t++) {
        char *tile = w.data + t * tile_bytes, *rows = room + (size_t)omp_get_thread_num() * tile_bytes;
        memcpy(rows, tile, tile_bytes);
        q8_arrange_tile(tile, rows, Q8_ROWS, blocks);
    }
}
