// y = x wᵀ + b for a few rows of x and for packed w. Few rows (a token a sequence) are bound by reading w, so
// they are dot products that read each value of w once, in whatever format it is kept; many rows are a matrix
// product with a block of w unpacked. x stays F32 in both.
#include "ops/cpu/packed.h"
#include "ops/cpu/tile.h"

#include <string.h>

// Sums that run beside one another, because an addition takes longer than a load. They follow one row: rows
// side by side would be streams too short for the hardware to fetch ahead, at half the speed.
enum { SUMS = 4 };

typedef uint16_t HalfLanes __attribute__((vector_size(LANES * 2), aligned(2), may_alias));
typedef uint32_t WordLanes __attribute__((vector_size(LANES * 4)));
typedef int32_t IntLanes __attribute__((vector_size(LANES * 4)));
typedef int8_t ByteLanes __attribute__((vector_size(LANES), aligned(1), may_alias));

ALWAYS_INLINE Lanes lanes_bf16(const uint16_t *p) {
    return (Lanes)(__builtin_convertvector(*(const HalfLanes *)p, WordLanes) << 16);
}

// Written out where there is an instruction for it: gcc 12 takes the plain conversion apart value by value.
ALWAYS_INLINE Lanes lanes_i8(const char *p) {
#if defined(__AVX512F__)
    return (Lanes)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)));
#elif defined(__AVX2__)
    return (Lanes)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p)));
#else
    return __builtin_convertvector(__builtin_convertvector(*(const ByteLanes *)p, IntLanes), Lanes);
#endif
}

ALWAYS_INLINE float sum_of_lanes(Lanes v) {
#if LANES == 16
    v += __builtin_shuffle(v, (IntLanes){8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7});
    v += __builtin_shuffle(v, (IntLanes){4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11});
    v += __builtin_shuffle(v, (IntLanes){2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13});
    v += __builtin_shuffle(v, (IntLanes){1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14});
#elif LANES == 8
    v += __builtin_shuffle(v, (IntLanes){4, 5, 6, 7, 0, 1, 2, 3});
    v += __builtin_shuffle(v, (IntLanes){2, 3, 0, 1, 6, 7, 4, 5});
    v += __builtin_shuffle(v, (IntLanes){1, 0, 3, 2, 5, 4, 7, 6});
#else
    v += __builtin_shuffle(v, (IntLanes){2, 3, 0, 1});
    v += __builtin_shuffle(v, (IntLanes){1, 0, 3, 2});
#endif
    return v[0];
}

ALWAYS_INLINE float sum_of_sums(const Lanes sum[SUMS]) {
    return sum_of_lanes((sum[0] + sum[1]) + (sum[2] + sum[3]));
}

// x · w over n values; `get` makes a vector from w's bytes at value k.
#define DOT(name, type, get, value)                                                                          \
    static inline float name(const float *x, const void *bytes, size_t n) {                                  \
        const type *w = bytes;                                                                               \
        Lanes sum[SUMS] = {0};                                                                               \
        size_t k = 0;                                                                                        \
        for (; k + SUMS * LANES <= n; k += SUMS * LANES)                                                     \
            for (size_t i = 0; i < SUMS; i++)                                                                \
                sum[i] += *(const Lanes *)(x + k + i * LANES) * get(w + k + i * LANES);                      \
        for (; k + LANES <= n; k += LANES) sum[0] += *(const Lanes *)(x + k) * get(w + k);                   \
        float total = sum_of_sums(sum);                                                                      \
        for (; k < n; k++) total += x[k] * value(w[k]);                                                      \
        return total;                                                                                        \
    }

ALWAYS_INLINE Lanes lanes_f32(const float *p) {
    return *(const Lanes *)p;
}

ALWAYS_INLINE float itself(float x) {
    return x;
}

DOT(dot_f32, float, lanes_f32, itself)
DOT(dot_bf16, uint16_t, lanes_bf16, f32_from_bf16)

ALWAYS_INLINE Lanes block_q8_0(const float *x, const char *block) {
    Lanes part = {0};
    for (size_t j = 0; j < Q8_VALUES; j += LANES) part += *(const Lanes *)(x + j) * lanes_i8(block + 2 + j);
    return part * q8_scale(block);
}

static inline float dot_q8_0(const float *x, const char *block, size_t n) {
    Lanes sum[SUMS] = {0};
    size_t k = 0;
    for (; k + SUMS * Q8_VALUES <= n; k += SUMS * Q8_VALUES)
        for (size_t i = 0; i < SUMS; i++, block += Q8_BYTES)
            sum[i] += block_q8_0(x + k + i * Q8_VALUES, block);
    for (; k < n; k += Q8_VALUES, block += Q8_BYTES) sum[0] += block_q8_0(x + k, block);
    return sum_of_sums(sum);
}

static inline float dot(const float *x, const char *w, Dtype dtype, size_t n) {
    if (dtype == DTYPE_Q8_0) return dot_q8_0(x, w, n);
    return dtype == DTYPE_BF16 ? dot_bf16(x, w, n) : dot_f32(x, w, n);
}

static void few_rows(Backend *be, Matrix y, Matrix x, Tensor w, const float *bias) {
    const size_t stride = dtype_bytes(w.dtype, x.cols);
#pragma omp parallel for schedule(static) num_threads(threads_for(be, y.cols *x.cols))
    for (size_t o = 0; o < y.cols; o++)
        for (size_t m = 0; m < x.rows; m++) // the row of w is then in the cache
            row(y, m)[o] = dot(row(x, m), w.data + o * stride, w.dtype, x.cols) + (bias ? bias[o] : 0.0f);
}

// A block of w as F32: 512 KiB, which stay in a core's second cache.
enum { UNPACKED_ROWS = 128, UNPACKED_COLS = 1024 };

static void many_rows(Backend *be, Matrix y, Matrix x, Tensor w, const float *bias) {
    static _Thread_local float block[UNPACKED_ROWS * UNPACKED_COLS];
    float *unpacked = block; // the calling thread's, for all that help it
    for (size_t m = 0; bias && m < y.rows; m++) memcpy(row(y, m), bias, y.cols * sizeof(float));
    for (size_t o = 0; o < y.cols; o += UNPACKED_ROWS) {
        const size_t rows = y.cols - o < UNPACKED_ROWS ? y.cols - o : UNPACKED_ROWS;
        for (size_t k = 0; k < x.cols; k += UNPACKED_COLS) {
            const size_t cols = x.cols - k < UNPACKED_COLS ? x.cols - k : UNPACKED_COLS;
#pragma omp parallel for num_threads(threads_for(be, rows *cols))
            for (size_t r = 0; r < rows; r++) unpack(unpacked + r * cols, w, o + r, k, cols);
            gemm(cpu_threads(be), (GemmSize){y.rows, rows, cols}, y.data + o, y.stride, bias || k > 0,
                 x.data + k, x.stride, false, unpacked, cols, true);
        }
    }
}

// Beyond this many rows of x a matrix product is faster.
enum { FEW_ROWS = 8 };

bool KERNEL(linear_by_rows)(Backend *be, Tensor y, Tensor x, Tensor w, Tensor b) {
    const float *bias = tensor_exists(b) ? floats(b) : NULL;
    if (x.dtype != DTYPE_F32) return false; // products of BF16 have a way of their own
    const bool few = tensor_rows(x) <= FEW_ROWS;
    if (few)
        few_rows(be, matrix(y), matrix(x), w, bias);
    else if (w.dtype != DTYPE_F32)
        many_rows(be, matrix(y), matrix(x), w, bias);
    return few || w.dtype != DTYPE_F32;
}
