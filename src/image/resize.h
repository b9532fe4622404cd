// Pillow's bicubic resize as a stream of rows, without a whole picture in between. Only image/*.c include
// this.
#pragma once
#include "image/filter.h"
#include "image/image.h"
#include "image/kernels/kernels.h"

// The weights of a vertical pass in fixed point.
typedef struct ColumnFilter {
    size_t taps;      // room for the weights of an output row
    ResizeFilter f;   // first and count
    int32_t *weights; // [n_out, taps]
} ColumnFilter;

typedef struct Resizer {
    const Image *in; // borrowed
    size_t width, height;
    const ImageKernels *kernels;
    RowFilter across; // n_out 0: the width stays
    ColumnFilter down;
    size_t plane_in, plane; // bytes of one channel's row before and after the horizontal pass, with padding
    uint8_t *split;         // [3, plane_in]: an input row by channels
    uint8_t *ring;          // [taps, 3, plane]: the rows last passed through the horizontal pass
    size_t done;            // input rows that were
    const uint8_t **rows;   // [3, taps]: those that the current output row is mixed from
} Resizer;

// To width x height; in is borrowed. After a failure nothing is left to close.
bool resizer_open(Resizer *r, const Image *in, size_t width, size_t height, Error *err);
void resizer_close(Resizer *r);
// Output row y, to be taken in order: *rows [3, r->down.taps] and *weights for kernels->mix_*; returns how
// many rows.
size_t resizer_row(Resizer *r, size_t y, const int32_t **weights);
