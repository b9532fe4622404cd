// PNG files of all kinds, written by libpng. Its pixels are noise.
#pragma once
#include "support/image_case.h"

#include <png.h>

typedef struct PngKind {
    const char *name;
    int color, depth, channels;
} PngKind;

static const PngKind png_kinds[] = {
    {"RGB", PNG_COLOR_TYPE_RGB, 8, 3},           {"RGBA", PNG_COLOR_TYPE_RGBA, 8, 4},
    {"RGB 16", PNG_COLOR_TYPE_RGB, 16, 3},       {"gray", PNG_COLOR_TYPE_GRAY, 8, 1},
    {"gray 1", PNG_COLOR_TYPE_GRAY, 1, 1},       {"gray 16", PNG_COLOR_TYPE_GRAY, 16, 1},
    {"gray alpha", PNG_COLOR_TYPE_GA, 8, 2},     {"palette 2", PNG_COLOR_TYPE_PALETTE, 2, 1},
    {"palette 8", PNG_COLOR_TYPE_PALETTE, 8, 1},
};
enum { N_PNG_KINDS = sizeof png_kinds / sizeof *png_kinds };

typedef struct PngBytes {
    char *bytes; // [room]
    size_t size;
} PngBytes;

static inline void append_png(png_structp png, png_bytep bytes, size_t n) {
    PngBytes *out = png_get_io_ptr(png);
    memcpy(out->bytes + out->size, bytes, n);
    out->size += n;
}

static inline void flush_png(png_structp png) {
    (void)png;
}

static inline void set_palette(png_structp png, png_infop info, int depth) {
    png_color colours[256];
    for (int i = 0; i < 256; i++)
        colours[i] = (png_color){(png_byte)(i * 7), (png_byte)(i * 90), (png_byte)~i};
    png_set_PLTE(png, info, colours, 1 << depth);
}

// The pixels depend on size and kind alone. Caller frees.
static inline char *make_png_of(size_t *size, size_t width, size_t height, const PngKind *kind,
                                bool interlaced) {
    const size_t row_bytes = (width * (size_t)(kind->channels * kind->depth) + 7) / 8;
    PngBytes out = {mem_alloc(height * (row_bytes + 16) * 2 + 4096), 0};
    uint8_t *pixels = mem_alloc(height * row_bytes), **rows = mem_alloc(height * sizeof *rows);
    Random random = random_stream(width * 65536 + height, RANDOM_TEST, (uint64_t)(kind - png_kinds));
    for (size_t i = 0; i < height * row_bytes; i++) // of 16-bit gray half is below 256, where it tells
        pixels[i] =
            (uint8_t)(kind->depth == 16 && i % 2 == 0 ? random_below(&random, 2) : random_u32(&random));
    for (size_t y = 0; y < height; y++) rows[y] = pixels + y * row_bytes;
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
    png_infop info = png_create_info_struct(png);
    png_set_write_fn(png, &out, append_png, flush_png);
    png_set_IHDR(png, info, (png_uint_32)width, (png_uint_32)height, kind->depth, kind->color,
                 interlaced ? PNG_INTERLACE_ADAM7 : PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT,
                 PNG_FILTER_TYPE_DEFAULT);
    if (kind->color == PNG_COLOR_TYPE_PALETTE) set_palette(png, info, kind->depth);
    png_write_info(png, info);
    png_write_image(png, rows);
    png_write_end(png, info);
    png_destroy_write_struct(&png, &info);
    free(rows);
    free(pixels);
    *size = out.size;
    return out.bytes;
}
