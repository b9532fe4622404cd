// y = x wᵀ + b for a few rows of x and for packed w. Few rows (a token a sequence) are bound by reading w, so
// they are dot products that read each value of w once, in whatever format it is kept; many rows are a matrix
// product with a block of w unpacked, or of BF16. Blocks of 8 bits are q8.c's.
#include "ops/cpu/packed.h"
#include "ops/cpu/tile.h"

#include <string.h>

// Sums that run beside one another, because an addition takes longer than a load. They follow one row: rows
// side by side would be streams too short for the hardware to fetch ahead, at half the speed.
enum { SUMS = 4 };

typedef uint16_t HalfLanes __attribute__((vector_size(LANES * 2), aligned(2), may_alias));
typedef uint32_t WordLanes __attribute__((vector_size(LANES * 4)));
typedef int32_t IntLanes __attribute__((vector_size(LANES * 4)));

ALWAYS_INLINE Lanes lanes_bf16(const uint16_t *p) {
    return (Lanes)(__builtin_convertvector(*(const HalfLanes *)p, WordLanes) << 16);
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

// Beyond this many rows of x a matrix product is faster.
enum { FEW_ROWS = 8 };

// ---- rows of x ----

// The rows of w are taken one by one, all rows of x while it is in the cache. One place writes the loop, once
// a format.
#define FEW_ROWS_LOOP(dot)                                                                                   \
    _Pragma("omp parallel for schedule(static) num_threads(threads)") for (size_t o = 0; o < y.cols; o++) {  \
        const char *w_row = w.data + o * stride;                                                             \
        for (size_t m = 0; m < x.rows; m++) row(y, m)[o] = (dot) + (bias ? bias[o] : 0.0f);                  \
    }

static void few_rows(Backend *be, Matrix y, Matrix x, Tensor w, const float *bias) {
    const size_t stride = dtype_bytes(w.dtype, x.cols), n = x.cols;
    const int threads = threads_for(be, y.cols * n);
    if (w.dtype == DTYPE_BF16) {
        FEW_ROWS_LOOP(dot_bf16(row(x, m), w_row, n))
    } else {
        FEW_ROWS_LOOP(dot_f32(row(x, m), w_row, n))
    }
}

// ---- a matrix product ----

// A block of w as F32: 512 KiB, which stay in a core's second cache.
enum { UNPACKED_ROWS = 128, UNPACKED_COLS = 1024 };

static void many_rows(Backend *be, Matrix y, Matrix x, Tensor w, const float *bias) {
    float *unpacked = cpu_scratch(be, UNPACKED_ROWS * UNPACKED_COLS * sizeof *unpacked);
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

// ---- a product of BF16 ----

// Rows of x go in pieces of at most so many, filled up with zeros to a multiple of the second number, so that
// prompts of all lengths share eight sizes of primitives.
enum { ROUNDED_ROWS = 256, ROUNDED_STEP = 32 };

static void round_rows(uint16_t *out, Matrix x, size_t first, size_t rows, size_t padded) {
    for (size_t m = 0; m < rows; m++) {
        const float *in = row(x, first + m);
#pragma omp simd
        for (size_t k = 0; k < x.cols; k++) out[m * x.cols + k] = bf16_from_f32(in[k]);
    }
    memset(out + rows * x.cols, 0, (padded - rows) * x.cols * sizeof *out);
}

// With w in BF16 on a processor that multiplies those: x is rounded to BF16, sums stay F32.
static void rounded_rows(Backend *be, Matrix y, Matrix x, Tensor w, const float *bias) {
    char *scratch = cpu_scratch(be, ROUNDED_ROWS * (x.cols * sizeof(uint16_t) + y.cols * sizeof(float)));
    uint16_t *rounded = (uint16_t *)(scratch + ROUNDED_ROWS * y.cols * sizeof(float));
    for (size_t m = 0; m < y.rows; m += ROUNDED_ROWS) {
        const size_t rows = y.rows - m < ROUNDED_ROWS ? y.rows - m : ROUNDED_ROWS;
        const size_t padded = (rows + ROUNDED_STEP - 1) / ROUNDED_STEP * ROUNDED_STEP;
        const bool direct = padded == rows;
        float *out = direct ? row(y, m) : (float *)scratch;
        const size_t stride = direct ? y.stride : y.cols;
        round_rows(rounded, x, m, rows, padded);
        gemm_bf16(cpu_threads(be), (GemmSize){padded, y.cols, x.cols},
                  (GemmMatrix){out, stride, false, DTYPE_F32}, false,
                  (GemmMatrix){rounded, x.cols, false, DTYPE_BF16},
                  (GemmMatrix){w.data, x.cols, true, DTYPE_BF16}, bias);
        for (size_t i = 0; !direct && i < rows; i++)
            memcpy(row(y, m + i), out + i * stride, y.cols * sizeof *out);
    }
}

bool KERNEL(linear_by_rows)(Backend *be, Tensor y, Tensor x, Tensor w, Tensor b) {
    const float *bias = tensor_exists(b) ? floats(b) : NULL;
    if (x.dtype != DTYPE_F32) return false; // products of BF16 have a way of their own
    const bool few = tensor_rows(x) <= FEW_ROWS;
    if (w.dtype == DTYPE_Q8_TILES && (few || LANES == 16)) // with AVX-512 whole numbers are faster than F32
        KERNEL(linear_by_tiles)(be, y, x, w, b);
    else if (few)
        few_rows(be, matrix(y), matrix(x), w, bias);
    else if (w.dtype == DTYPE_BF16 && be->bf16)
        rounded_rows(be, matrix(y), matrix(x), w, bias);
    else if (w.dtype != DTYPE_F32)
        many_rows(be, matrix(y), matrix(x), w, bias);
    return few || w.dtype != DTYPE_F32;
}
