#include "image/filter.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>

bool resize_filter_make(ResizeFilter *f, size_t n_in, size_t n_out, double (*kernel)(double x),
                        double radius) {
    double scale = (double)n_in / (double)n_out, widening = scale > 1 ? scale : 1,
           support = radius * widening;
    *f = (ResizeFilter){.n_out = n_out, .stride = (size_t)ceil(support) * 2 + 1};
    f->first = calloc(n_out, sizeof *f->first);
    f->count = calloc(n_out, sizeof *f->count);
    f->weights = f->stride < SIZE_MAX / 64 / n_out ? calloc(n_out * f->stride, sizeof *f->weights) : NULL;
    if (!f->first || !f->count || !f->weights) {
        resize_filter_free(f);
        return false;
    }
    for (size_t i = 0; i < n_out; i++) {
        double center = ((double)i + 0.5) * scale, low = center - support + 0.5,
               high = center + support + 0.5;
        size_t first = low > 0 ? (size_t)low : 0, end = high < (double)n_in ? (size_t)high : n_in;
        double *w = f->weights + i * f->stride, total = 0, narrowing = 1 / widening;
        for (size_t j = 0; j < end - first; j++) {
            w[j] = kernel(((double)j + (double)first - center + 0.5) * narrowing);
            total += w[j];
        }
        for (size_t j = 0; j < end - first; j++) w[j] /= total;
        f->first[i] = first, f->count[i] = end - first;
    }
    return true;
}

void resize_filter_free(ResizeFilter *f) {
    free(f->first);
    free(f->count);
    free(f->weights);
    *f = (ResizeFilter){0};
}
