// Pillow's bicubic resize as a stream of rows: input rows go in one by one, and an output row can be made as
// soon as the rows that it is mixed from are in. No picture has to be whole. Only image/*.c include this.
#pragma once
#include "image/filter.h"
#include "image/image.h"
#include "image/kernels/kernels.h"

// The weights of a vertical pass in fixed point.
typedef struct ColumnFilter {
    size_t taps;      // room for the weights of an output row
    ResizeFilter f;   // first and count alone
    int32_t *weights; // [n_out, taps]
} ColumnFilter;

typedef struct Resizer {
    size_t in_width, width, height;
    const ImageKernels *kernels;
    RowFilter across; // n_out 0: the width stays
    ColumnFilter down;
    size_t plane_in, plane; // bytes of one channel's row before and after the horizontal pass, with padding
    uint8_t *split;         // [3, plane_in]: an input row by channels
    uint8_t *ring;          // [taps, 3, plane]: the rows last passed through the horizontal pass
    size_t taken;           // input rows that were
    const uint8_t **rows;   // [3, taps]: those that the current output row is mixed from
    uint8_t *mixed;         // [3, plane]: an output row by channels
    size_t made;            // output rows that resizer_put_to has made
} Resizer;

// To width x height. After a failure nothing is left to close.
bool resizer_open(Resizer *r, ImageSize in, size_t width, size_t height, Error *err);
void resizer_close(Resizer *r);
size_t resizer_bytes(const Resizer *r); // memory it holds
// Takes the next input row [in_width, 3]. Before it puts one in that output row y does not need, y must be
// made.
void resizer_put(Resizer *r, const uint8_t *rgb);
// Whether the input rows of output row y are in.
bool resizer_has(const Resizer *r, size_t y);
// Output row y, which is to be had: r->rows [3, r->down.taps] and *weights for kernels->mix_*; returns how
// many rows.
size_t resizer_row(Resizer *r, size_t y, const int32_t **weights);
// Takes the next input row and writes the rows of out, a picture of width x height, that it completes.
void resizer_put_to(Image *out, Resizer *r, const uint8_t *rgb);
