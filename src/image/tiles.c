// nanoVLM's data/custom_transforms.py: the size a picture is resized to, and its tiles.
#include "base/check.h"
#include "base/memory.h"
#include "image/filter.h"
#include "image/image.h"

#include <math.h>
#include <stdlib.h>

bool image_target_size(size_t *width, size_t *height, size_t in_width, size_t in_height, size_t max_img_size,
                       size_t tile, bool resize_to_max_side_len, Error *err) {
    CHECK(in_width && in_height && max_img_size && tile, "sizes %zu x %zu, max_img_size %zu, tile %zu",
          in_width, in_height, max_img_size, tile);
    bool wide = in_width >= in_height;
    double p = (double)tile, long_side = (double)(wide ? in_width : in_height);
    double short_side = (double)(wide ? in_height : in_width), long_target = (double)max_img_size;
    if (!resize_to_max_side_len) long_target = fmin(long_target, ceil(long_side / p) * p);
    double scale =
        long_target / long_side; // rounding here decides some sizes: the order of operations matters
    double short_target = fmax(p, ceil(short_side * scale / p) * p);
    *width = (size_t)(wide ? long_target : short_target);
    *height = (size_t)(wide ? short_target : long_target);
    if (*width % tile == 0 && *height % tile == 0) return true;
    return error_set(err,
                     "a picture of %zu x %zu pixels would be resized to %zu x %zu, which tiles of %zu do not "
                     "divide; make max_img_size (%zu) a multiple of vit_img_size (%zu)",
                     in_width, in_height, *width, *height, tile, max_img_size, tile);
}

static void byte_to_float_table(float table[256]) {
    for (int i = 0; i < 256; i++) table[i] = (float)i / 255.0f;
}

// Tile (row, col) into out [3, tile, tile].
static void cut_tile(float *out, const Image *image, size_t tile, size_t row, size_t col,
                     const float table[256]) {
    for (size_t y = 0; y < tile; y++) {
        const uint8_t *p = image->rgb + ((row * tile + y) * image->width + col * tile) * 3;
        for (size_t c = 0; c < 3; c++)
            for (size_t x = 0; x < tile; x++) out[(c * tile + y) * tile + x] = table[p[3 * x + c]];
    }
}

static double triangle(double x) {
    return fabs(x) < 1 ? 1 - fabs(x) : 0;
}

// One row of the picture, [width, 3] bytes, to out [3, tile]; plane: from one channel of out to the next.
static void shrink_row(float *out, size_t plane, const uint8_t *row, const ResizeFilter *f,
                       const float table[256]) {
    for (size_t x = 0; x < f->n_out; x++) {
        const double *w = f->weights + x * f->stride;
        const uint8_t *p = row + 3 * f->first[x];
        float sums[3] = {0};
        for (size_t j = 0; j < f->count[x]; j++)
            for (size_t c = 0; c < 3; c++) sums[c] += table[p[3 * j + c]] * (float)w[j];
        for (size_t c = 0; c < 3; c++) out[c * plane + x] = sums[c];
    }
}

// The whole picture as one tile [3, tile, tile]: torchvision's antialiased bilinear resize of the float
// picture.
static void global_tile(float *out, const Image *image, size_t tile, const float table[256]) {
    ResizeFilter columns, rows;
    CHECK(resize_filter_make(&columns, image->width, tile, triangle, 1) &&
              resize_filter_make(&rows, image->height, tile, triangle, 1),
          "no memory for the weights of %zu x %zu pixels", image->width, image->height);
    size_t plane = image->height * tile;
    float *narrow = mem_alloc(3 * plane * sizeof *narrow); // [3, height, tile]
    for (size_t y = 0; y < image->height; y++)
        shrink_row(narrow + y * tile, plane, image->rgb + y * image->width * 3, &columns, table);
    for (size_t i = 0; i < 3 * tile; i++) { // channel i / tile, row i % tile
        const float *in = narrow + i / tile * plane + rows.first[i % tile] * tile;
        const double *w = rows.weights + i % tile * rows.stride;
        float *sums = out + i * tile;
        for (size_t x = 0; x < tile; x++) sums[x] = 0;
        for (size_t j = 0; j < rows.count[i % tile]; j++)
            for (size_t x = 0; x < tile; x++) sums[x] += in[j * tile + x] * (float)w[j];
    }
    free(narrow);
    resize_filter_free(&columns);
    resize_filter_free(&rows);
}

void image_to_tiles(float *out, const Image *image, size_t tile, bool global) {
    CHECK(image->width % tile == 0 && image->height % tile == 0, "%zu x %zu pixels in tiles of %zu",
          image->width, image->height, tile);
    float table[256];
    byte_to_float_table(table);
    size_t values = 3 * tile * tile;
    if (global) {
        global_tile(out, image, tile, table);
        out += values;
    }
    for (size_t row = 0; row < image->height / tile; row++)
        for (size_t col = 0; col < image->width / tile; col++, out += values)
            cut_tile(out, image, tile, row, col, table);
}
