// Pillow's bicubic resize of 8-bit pixels (its Resample.c up to version 12): horizontally, rounded to bytes,
// then vertically, both in integers of 22 bits after the point. A pass that leaves the size as it is changes
// no pixel.
#include "image/resize.h"
#include "image/decode.h"

#include <math.h>
#include <stdlib.h>

#ifdef CPU_LEVELS_X86
#define TABLE(level) &image_kernels_##level
#else
#define TABLE(level) NULL
#endif

// The table of the level in use (the levels above avx512 have nothing for pictures: avx512's); NULL when
// VLM_CPU_LEVEL asks for what is not there.
static const ImageKernels *image_kernels(Error *err) {
    static const ImageKernels *const tables[CPU_LEVELS] = {&image_kernels_generic, TABLE(avx2), TABLE(avx512),
                                                           TABLE(avx512), TABLE(avx512)};
    CpuLevel level;
    return cpu_level_choose(&level, err) ? tables[level] : NULL;
}

static double cubic(double x) { // Keys 1981 with a = -0.5
    const double a = -0.5;
    x = fabs(x);
    if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
    return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}

// A weight as an integer, rounded half away from zero.
static int32_t fixed_point(double weight) {
    return (int32_t)(weight * (1 << FIXED_BITS) + (weight < 0 ? -0.5 : 0.5));
}

// ---- weights ----

static void row_filter_free(RowFilter *f) {
    free(f->first);
    free(f->weights);
    free(f->shuffle);
    free(f->pairs);
    *f = (RowFilter){0};
}

static void set_weights(RowFilter *f, const ResizeFilter *exact) {
    for (size_t x = 0; x < f->blocks * BLOCK; x++) {
        const size_t from =
            x < f->n_out ? x : f->n_out - 1; // beyond the row: its last place, with weights of zero
        f->first[x] = (uint32_t)exact->first[from];
        for (size_t j = 0; x < f->n_out && j < exact->count[x]; j++)
            f->weights[x * f->taps + j] = fixed_point(exact->weights[x * exact->stride + j]);
    }
}

// Whether each four neighbouring outputs find four taps in one window.
static bool lie_close(const RowFilter *f) {
    for (size_t x = 0; x < f->blocks * BLOCK; x += 4)
        if (f->first[x + 3] - f->first[x] + 4 > WINDOW) return false;
    return true;
}

static void set_pairs(RowFilter *f) {
    const size_t quads = f->taps / 4;
    for (size_t x = 0; x < f->blocks * BLOCK; x++) {
        for (size_t j = 0; j < 4; j++)
            f->shuffle[4 * x + j] = (uint8_t)(f->first[x] - f->first[x & ~(size_t)3] + j);
        for (size_t j = 0; j < f->taps; j++) {
            const int32_t weight = f->weights[x * f->taps + j], low = weight & ((1 << FIXED_LOW_BITS) - 1);
            const size_t kind = j % 2, second = j % 4 / 2;
            int16_t *p =
                f->pairs + ((x / BLOCK * quads + j / 4) * 4 + kind) * 2 * BLOCK + x % BLOCK * 2 + second;
            p[0] = (int16_t)(weight >> FIXED_LOW_BITS);
            p[4 * BLOCK] = (int16_t)low;
        }
    }
}

static bool row_filter_make(RowFilter *f, size_t n_in, size_t n_out) {
    ResizeFilter exact;
    if (!resize_filter_make(&exact, n_in, n_out, cubic, 2)) return false;
    size_t taps = 0, outputs = (n_out + BLOCK - 1) / BLOCK * BLOCK;
    for (size_t x = 0; x < n_out; x++) taps = exact.count[x] > taps ? exact.count[x] : taps;
    *f = (RowFilter){.n_out = n_out, .blocks = outputs / BLOCK, .taps = (taps + 3) / 4 * 4};
    f->first = calloc(outputs, sizeof *f->first);
    f->weights = calloc(outputs * f->taps, sizeof *f->weights);
    bool ok = f->first && f->weights;
    if (ok) set_weights(f, &exact);
    resize_filter_free(&exact);
    if (ok && lie_close(f)) {
        f->shuffle = malloc(outputs * 4);
        f->pairs = malloc(outputs * f->taps * 2 * sizeof *f->pairs);
        ok = f->shuffle && f->pairs;
        if (ok) set_pairs(f);
    }
    if (!ok) row_filter_free(f);
    return ok;
}

static bool column_filter_make(ColumnFilter *c, size_t n_in, size_t n_out) {
    *c = (ColumnFilter){0};
    if (!resize_filter_make(&c->f, n_in, n_out, cubic, 2)) return false;
    const size_t n = n_out * c->f.stride;
    c->taps = c->f.stride;
    c->weights = malloc(n * sizeof *c->weights);
    for (size_t i = 0; c->weights && i < n; i++) c->weights[i] = fixed_point(c->f.weights[i]);
    free(c->f.weights);
    c->f.weights = NULL;
    return c->weights;
}

// ---- the stream ----

bool resizer_open(Resizer *r, ImageSize in, size_t width, size_t height, Error *err) {
    *r = (Resizer){.in_width = in.width, .width = width, .height = height};
    if (!image_size_check(width, height, "resize", err) || !(r->kernels = image_kernels(err))) return false;
    bool across = width != in.width;
    bool ok = (!across || row_filter_make(&r->across, in.width, width)) &&
              column_filter_make(&r->down, in.height, height);
    r->plane_in = in.width + r->across.taps + WINDOW + BLOCK;
    r->plane = width + 2 * BLOCK;
    r->split = ok ? calloc(3, r->plane_in) : NULL;
    r->ring = ok ? calloc(r->down.taps, 3 * r->plane) : NULL;
    r->rows = ok ? calloc(r->down.taps, 3 * sizeof *r->rows) : NULL;
    r->mixed = ok ? malloc(3 * r->plane) : NULL;
    if (r->split && r->ring && r->rows && r->mixed) return true;
    resizer_close(r);
    return error_set(err, "resize: no memory for %zu x %zu pixels", width, height);
}

void resizer_close(Resizer *r) {
    row_filter_free(&r->across);
    resize_filter_free(&r->down.f);
    free(r->down.weights);
    free(r->split);
    free(r->ring);
    free(r->rows);
    free(r->mixed);
    *r = (Resizer){0};
}

size_t resizer_bytes(const Resizer *r) {
    const RowFilter *a = &r->across;
    const ColumnFilter *d = &r->down;
    const size_t of_output = sizeof *a->first + a->taps * sizeof *a->weights +
                             (a->shuffle ? 4 + a->taps * 2 * sizeof *a->pairs : 0),
                 of_row = sizeof *d->f.first + sizeof *d->f.count + d->taps * sizeof *d->weights;
    return a->blocks * BLOCK * of_output + r->height * of_row + 3 * r->plane_in +
           3 * d->taps * (r->plane + sizeof *r->rows) + 3 * r->plane;
}

static uint8_t *ring_row(const Resizer *r, size_t y) {
    return r->ring + y % r->down.taps * 3 * r->plane;
}

void resizer_put(Resizer *r, const uint8_t *rgb) {
    uint8_t *out = ring_row(r, r->taken++);
    if (r->across.n_out == 0) {
        r->kernels->split(out, r->plane, rgb, r->width);
        return;
    }
    r->kernels->split(r->split, r->plane_in, rgb, r->in_width);
    for (size_t c = 0; c < 3; c++)
        r->kernels->filter_row(out + c * r->plane, r->split + c * r->plane_in, &r->across);
}

bool resizer_has(const Resizer *r, size_t y) {
    return r->down.f.first[y] + r->down.f.count[y] <= r->taken;
}

size_t resizer_row(Resizer *r, size_t y, const int32_t **weights) {
    const size_t first = r->down.f.first[y], count = r->down.f.count[y];
    for (size_t c = 0; c < 3; c++)
        for (size_t j = 0; j < count; j++)
            r->rows[c * r->down.taps + j] = ring_row(r, first + j) + c * r->plane;
    *weights = r->down.weights + y * r->down.taps;
    return count;
}

// ---- to bytes ----

static void join(uint8_t *restrict rgb, const uint8_t *restrict planes, size_t plane, size_t n) {
    const uint8_t *r = planes, *g = planes + plane, *b = planes + 2 * plane;
    for (size_t x = 0; x < n; x++) rgb[3 * x] = r[x], rgb[3 * x + 1] = g[x], rgb[3 * x + 2] = b[x];
}

void resizer_put_to(Image *out, Resizer *r, const uint8_t *rgb) {
    resizer_put(r, rgb);
    for (; r->made < r->height && resizer_has(r, r->made); r->made++) {
        const int32_t *weights;
        const size_t n_rows = resizer_row(r, r->made, &weights);
        for (size_t c = 0; c < 3; c++)
            r->kernels->mix_bytes(r->mixed + c * r->plane, r->rows + c * r->down.taps, weights, n_rows,
                                  r->width);
        join(out->rgb + r->made * r->width * 3, r->mixed, r->plane, r->width);
    }
}

bool image_resize_bicubic(Image *out, const Image *in, size_t width, size_t height, Error *err) {
    Resizer r;
    *out = (Image){0};
    if (!resizer_open(&r, (ImageSize){in->width, in->height}, width, height, err)) return false;
    bool ok = image_alloc(out, width, height, "resize", err);
    for (size_t y = 0; ok && y < in->height; y++) resizer_put_to(out, &r, in->rgb + y * in->width * 3);
    resizer_close(&r);
    return ok;
}
