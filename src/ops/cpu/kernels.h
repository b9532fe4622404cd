// What every file of kernels begins with. These files are compiled once a level of instructions, with
// CPU_LEVEL its name; KERNEL(fill) is then cpu_fill_avx2 and so on. Nothing else in them may be visible
// outside its file, or the linker would mix the levels.
#pragma once
#include "base/check.h"
#include "base/half.h"
#include "ops/cpu/cpu.h"
#include "ops/cpu/gemm.h"
#include "tensor/ops_table.h"

#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

#define KERNEL_PASTE(name, level)  cpu_##name##_##level
#define KERNEL_EXPAND(name, level) KERNEL_PASTE(name, level)
#define KERNEL(name)               KERNEL_EXPAND(name, CPU_LEVEL)
#define OP_DECLARE(name, ...)      void KERNEL(name)(Backend * be, __VA_ARGS__);
BACKEND_OPS(OP_DECLARE)
#undef OP_DECLARE

// matvec.c: linear_forward for few rows of x or packed w; false where neither is so and nothing was done.
bool KERNEL(linear_by_rows)(Backend *be, Tensor y, Tensor x, Tensor w, Tensor b);
// q8.c: linear_forward for w in Q8_TILES.
void KERNEL(linear_by_tiles)(Backend *be, Tensor y, Tensor x, Tensor w, Tensor b);

// Below this much work (values touched, roughly) waking the other threads costs more than it saves.
#define PARALLEL_WORK 16384
static inline int threads_for(const Backend *be, size_t work) {
    return work < PARALLEL_WORK ? 1 : cpu_threads(be);
}

// Element-wise kernels go through memory in pieces of this many values, whatever the number of threads, so
// that each value is always computed by the same instructions.
#define PIECE 1024
static inline size_t pieces(size_t n) {
    return (n + PIECE - 1) / PIECE;
}
static inline size_t piece_length(size_t n, size_t piece) {
    size_t left = n - piece * PIECE;
    return left < PIECE ? left : PIECE;
}

// Sums over rows for a column (gradients of biases and of norms' weights) are made a strip of columns a task,
// the rows in order.
#define STRIP 32
static inline size_t strips(size_t columns) {
    return (columns + STRIP - 1) / STRIP;
}
static inline size_t strip_width(size_t columns, size_t strip) {
    size_t left = columns - strip * STRIP;
    return left < STRIP ? left : STRIP;
}

static inline float *floats(Tensor t) {
    return (float *)t.data;
}
// Kernels compute in F32. What lies in BF16 goes through room for n floats on the stack, so an F32 tensor is
// read and written where it lies.
static inline const float *load_floats(Tensor t, size_t at, size_t n, float *room) {
    if (t.dtype == DTYPE_F32) return floats(t) + at;
    const uint16_t *in = (const uint16_t *)t.data + at;
#pragma omp simd
    for (size_t i = 0; i < n; i++) room[i] = f32_from_bf16(in[i]);
    return room;
}
// Where to put results for t: t itself, or room, and then store_floats is due.
static inline float *target_floats(Tensor t, size_t at, float *room) {
    return t.dtype == DTYPE_F32 ? floats(t) + at : room;
}
static inline void store_floats(Tensor t, size_t at, size_t n, const float *from) {
    if (t.dtype == DTYPE_F32) return;
    uint16_t *out = (uint16_t *)t.data + at;
#ifdef __AVX512BF16__
    for (; n >= 16; n -= 16, out += 16, from += 16)
        _mm256_storeu_si256((__m256i *)out, (__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(from)));
#endif
#pragma omp simd
    for (size_t i = 0; i < n; i++) out[i] = bf16_from_f32(from[i]);
}
static inline const int *ints(Tensor t) {
    return (const int *)t.data;
}

// All leading dimensions as one list of rows.
typedef struct Matrix {
    float *data;
    size_t rows, cols, stride;
} Matrix;
static inline Matrix matrix(Tensor t) {
    return (Matrix){floats(t), tensor_rows(t), tensor_cols(t), tensor_row_stride(t)};
}
static inline float *row(Matrix m, size_t i) {
    return m.data + i * m.stride;
}

// Entry i of a list of rows (or token ids), which must lie below limit.
static inline size_t checked_row(Tensor rows, size_t i, size_t limit) {
    int r = ints(rows)[i];
    CHECK(r >= 0 && (size_t)r < limit, "entry %zu is row %d of %zu", i, r, limit);
    return (size_t)r;
}
