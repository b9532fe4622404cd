// Pillow's bicubic resize of 8-bit pixels (its Resample.c up to version 12): horizontally, rounded to bytes,
// then vertically, both in integers of 22 bits after the point.
#include "image/decode.h"
#include "image/filter.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define BITS 22
#define HALF (1 << (BITS - 1))

static double cubic(double x) { // Keys 1981 with a = -0.5
    const double a = -0.5;
    x = fabs(x);
    if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
    return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}

static uint8_t to_byte(int32_t sum) {
    int32_t value = sum >> BITS;
    return (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
}

// The weights as integers, rounded half away from zero; NULL without memory, caller frees.
static int32_t *fixed_point(const ResizeFilter *f) {
    size_t n = f->n_out * f->stride;
    int32_t *fixed = malloc(n * sizeof *fixed);
    for (size_t i = 0; fixed && i < n; i++)
        fixed[i] = (int32_t)(f->weights[i] * (1 << BITS) + (f->weights[i] < 0 ? -0.5 : 0.5));
    return fixed;
}

static void resize_rows(Image *out, const Image *in, const ResizeFilter *f, const int32_t *weights) {
    for (size_t y = 0; y < in->height; y++) {
        const uint8_t *row = in->rgb + y * in->width * 3;
        uint8_t *result = out->rgb + y * out->width * 3;
        for (size_t x = 0; x < out->width; x++) {
            const uint8_t *p = row + 3 * f->first[x];
            const int32_t *w = weights + x * f->stride;
            int32_t r = HALF, g = HALF, b = HALF;
            for (size_t j = 0; j < f->count[x]; j++) {
                r += p[3 * j] * w[j];
                g += p[3 * j + 1] * w[j];
                b += p[3 * j + 2] * w[j];
            }
            result[3 * x] = to_byte(r), result[3 * x + 1] = to_byte(g), result[3 * x + 2] = to_byte(b);
        }
    }
}

static void add_row(int32_t *restrict sums, const uint8_t *restrict row, int32_t weight, size_t n) {
    for (size_t i = 0; i < n; i++) sums[i] += row[i] * weight;
}

static void resize_columns(Image *out, const Image *in, const ResizeFilter *f, const int32_t *weights,
                           int32_t *sums) {
    size_t n = in->width * 3;
    for (size_t y = 0; y < out->height; y++) {
        for (size_t i = 0; i < n; i++) sums[i] = HALF;
        for (size_t j = 0; j < f->count[y]; j++)
            add_row(sums, in->rgb + (f->first[y] + j) * n, weights[y * f->stride + j], n);
        uint8_t *result = out->rgb + y * n;
        for (size_t i = 0; i < n; i++) result[i] = to_byte(sums[i]);
    }
}

// One pass into a new image of width x height, one of which is that of in.
static bool resize_pass(Image *out, const Image *in, size_t width, size_t height, Error *err) {
    bool horizontal = width != in->width;
    ResizeFilter f = {0};
    int32_t *weights = NULL, *sums = malloc(in->width * 3 * sizeof *sums);
    if (!image_alloc(out, width, height, "resize", err)) {
        free(sums);
        return false;
    }
    bool ok = sums && resize_filter_make(&f, horizontal ? in->width : in->height, horizontal ? width : height,
                                         cubic, 2);
    ok = ok && (weights = fixed_point(&f)) != NULL;
    if (ok && horizontal) resize_rows(out, in, &f, weights);
    if (ok && !horizontal) resize_columns(out, in, &f, weights, sums);
    resize_filter_free(&f);
    free(weights);
    free(sums);
    if (ok) return true;
    image_free(out);
    return error_set(err, "resize: no memory for %zu x %zu pixels", width, height);
}

bool image_resize_bicubic(Image *out, const Image *in, size_t width, size_t height, Error *err) {
    Image wide = {0};
    *out = (Image){0};
    if (width == 0 || height == 0) return error_set(err, "resize to %zu x %zu pixels", width, height);
    if (width != in->width && height != in->height) {
        bool ok =
            resize_pass(&wide, in, width, in->height, err) && resize_pass(out, &wide, width, height, err);
        image_free(&wide);
        return ok;
    }
    if (width != in->width || height != in->height) return resize_pass(out, in, width, height, err);
    if (!image_alloc(out, width, height, "resize", err)) return false;
    memcpy(out->rgb, in->rgb, width * height * 3);
    return true;
}
