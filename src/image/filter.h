// The weights of a resize: for each output pixel a run of input pixels. Shared by the bicubic resize on bytes
// and the bilinear one of the global tile (Pillow's precompute_coeffs, PyTorch's antialiased interpolate).
#pragma once
#include <stdbool.h>
#include <stddef.h>

typedef struct ResizeFilter {
    size_t n_out, stride;  // stride: room for weights of one output pixel
    size_t *first, *count; // [n_out]: input pixels [first, first + count)
    double *weights;       // [n_out, stride], of sum 1
} ResizeFilter;

// kernel is zero beyond +-radius; it is widened by n_in / n_out when that is above 1 (antialiasing). False:
// no memory.
bool resize_filter_make(ResizeFilter *f, size_t n_in, size_t n_out, double (*kernel)(double x),
                        double radius);
void resize_filter_free(ResizeFilter *f);
