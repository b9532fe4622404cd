// Compiled once a level of instructions; nothing but the table may be visible outside, or the linker would
// mix the levels. Contraction into fused multiply-adds is off, so that sums of floats are the same at every
// level.
#include "image/kernels/lanes.h"

#include <string.h>

static void split(uint8_t *restrict planes, size_t plane, const uint8_t *restrict rgb, size_t n) {
    uint8_t *restrict r = planes, *restrict g = planes + plane, *restrict b = planes + 2 * plane;
    for (size_t x = 0; x < n; x++) r[x] = rgb[3 * x], g[x] = rgb[3 * x + 1], b[x] = rgb[3 * x + 2];
}

static void filter_row_far(uint8_t *restrict out, const uint8_t *restrict in, const RowFilter *f) {
    for (size_t x = 0; x < f->blocks * BLOCK; x++) {
        const uint8_t *p = in + f->first[x];
        const int32_t *w = f->weights + x * f->taps;
        int32_t sum = FIXED_HALF;
        for (size_t j = 0; j < f->taps; j++) sum += p[j] * w[j];
        int32_t value = sum >> FIXED_BITS;
        out[x] = (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
    }
}

#if LANES > 4
static void filter_row(uint8_t *restrict out, const uint8_t *restrict in, const RowFilter *f) {
    if (!f->pairs) {
        filter_row_far(out, in, f);
        return;
    }
    const size_t quads = f->taps / 4, array = 2 * BLOCK; // array: the pairs of one of four kinds
    for (size_t x = 0; x < f->blocks * BLOCK; x += LANES) {
        const int16_t *pairs = f->pairs + x / BLOCK * quads * 4 * array + x % BLOCK * 2;
        Ints high = {0}, low = ints_of(FIXED_HALF);
        for (size_t q = 0; q < quads; q++, pairs += 4 * array) {
            Ints taps = load_taps(in + 4 * q, f->first + x, f->shuffle + 4 * x);
            Ints even = even_bytes(taps), odd = odd_bytes(taps);
            high += pair_products(even, pairs) + pair_products(odd, pairs + array);
            low += pair_products(even, pairs + 2 * array) + pair_products(odd, pairs + 3 * array);
        }
        store_bytes(out + x, clip(((high << FIXED_LOW_BITS) + low) >> FIXED_BITS));
    }
}
#else
#define filter_row filter_row_far
#endif

static inline Ints mixed(const uint8_t *const *rows, const int32_t *weights, size_t n_rows, size_t x) {
    Ints sum = ints_of(FIXED_HALF);
    for (size_t j = 0; j < n_rows; j++) sum += load_bytes(rows[j] + x) * weights[j];
    return clip(sum >> FIXED_BITS);
}

static void mix_bytes(uint8_t *out, const uint8_t *const *rows, const int32_t *weights, size_t n_rows,
                      size_t n) {
    for (size_t x = 0; x < n; x += LANES) store_bytes(out + x, mixed(rows, weights, n_rows, x));
}

static void mix_floats(float *out, const uint8_t *const *rows, const int32_t *weights, size_t n_rows,
                       size_t n) {
    size_t x = 0;
    for (; x + LANES <= n; x += LANES) {
        Floats values = over_255(mixed(rows, weights, n_rows, x));
        memcpy(out + x, &values, sizeof values);
    }
    if (x == n) return;
    Floats values = over_255(mixed(rows, weights, n_rows, x));
    memcpy(out + x, &values, (n - x) * sizeof *out);
}

static void add_row(float *restrict sums, const float *restrict x, float weight, bool first, size_t n) {
    if (first)
        for (size_t i = 0; i < n; i++) sums[i] = x[i] * weight;
    else
        for (size_t i = 0; i < n; i++) sums[i] += x[i] * weight;
}

// With the stride a constant the compiler can take the values apart by shuffles.
static inline __attribute__((always_inline)) void shrink_by(float *restrict out, const float *restrict in,
                                                            const float *restrict weights, size_t taps,
                                                            size_t stride, size_t n) {
    for (size_t i = 0; i < n; i++) {
        float sum = 0;
        for (size_t j = 0; j < taps; j++) sum += in[i * stride + j] * weights[j];
        out[i] = sum;
    }
}

static void shrink(float *out, const float *in, const float *weights, size_t stride, size_t n) {
    switch (stride) {
    case 2:
        shrink_by(out, in, weights, 4, 2, n);
        break;
    case 3:
        shrink_by(out, in, weights, 6, 3, n);
        break;
    case 4:
        shrink_by(out, in, weights, 8, 4, n);
        break;
    default:
        shrink_by(out, in, weights, 2 * stride, stride, n);
    }
}

#define PASTE(level)  image_kernels_##level
#define EXPAND(level) PASTE(level)
const ImageKernels EXPAND(CPU_LEVEL) = {split, filter_row, mix_bytes, mix_floats, add_row, shrink};
