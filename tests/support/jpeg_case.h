// JPEG files of all kinds, written by libjpeg, and what libjpeg alone makes of them.
#pragma once
#include "support/image_case.h"

#include <stdio.h>

#include <jpeglib.h>

typedef struct JpegKind {
    const char *name;
    J_COLOR_SPACE given, stored;
    int across, down;             // sampling of the first component; the others have 1
    bool progressive, one_by_one; // one_by_one: each component in a scan of its own
} JpegKind;

static const JpegKind jpeg_kinds[] = {
    {"4:4:4", JCS_RGB, JCS_YCbCr, 1, 1, false, false},
    {"4:2:2", JCS_RGB, JCS_YCbCr, 2, 1, false, false},
    {"4:2:0", JCS_RGB, JCS_YCbCr, 2, 2, false, false},
    {"4:1:0", JCS_RGB, JCS_YCbCr, 4, 2, false, false},
    {"RGB", JCS_RGB, JCS_RGB, 1, 1, false, false},
    {"gray", JCS_GRAYSCALE, JCS_GRAYSCALE, 1, 1, false, false},
    {"CMYK", JCS_CMYK, JCS_CMYK, 1, 1, false, false},
    {"YCCK", JCS_CMYK, JCS_YCCK, 2, 2, false, false},
    {"progressive 4:2:0", JCS_RGB, JCS_YCbCr, 2, 2, true, false},
    {"progressive 4:4:4", JCS_RGB, JCS_YCbCr, 1, 1, true, false},
    {"progressive gray", JCS_GRAYSCALE, JCS_GRAYSCALE, 1, 1, true, false},
    {"progressive CMYK", JCS_CMYK, JCS_CMYK, 1, 1, true, false},
    {"one by one", JCS_RGB, JCS_YCbCr, 2, 1, false, true},
};
enum { N_JPEG_KINDS = sizeof jpeg_kinds / sizeof *jpeg_kinds };

// Slopes with a little noise, so that neighbouring rows and columns differ by what the place decides.
static inline void fill_jpeg_row(uint8_t *row, size_t y, size_t n, Random *random) {
    for (size_t i = 0; i < n; i++) row[i] = (uint8_t)(i * 3 + y * 5 + i * y / 16 + random_below(random, 24));
}

static inline char *make_jpeg(size_t *size, size_t width, size_t height, const JpegKind *kind,
                              int orientation) {
    static const jpeg_scan_info scans[] = {
        {1, {0}, 0, 63, 0, 0}, {1, {1}, 0, 63, 0, 0}, {1, {2}, 0, 63, 0, 0}};
    struct jpeg_compress_struct c = {0};
    struct jpeg_error_mgr errors;
    unsigned char *bytes = NULL;
    unsigned long n = 0;
    c.err = jpeg_std_error(&errors);
    jpeg_create_compress(&c);
    jpeg_mem_dest(&c, &bytes, &n);
    c.image_width = (JDIMENSION)width, c.image_height = (JDIMENSION)height;
    c.in_color_space = kind->given;
    c.input_components = kind->given == JCS_GRAYSCALE ? 1 : kind->given == JCS_CMYK ? 4 : 3;
    jpeg_set_defaults(&c);
    jpeg_set_colorspace(&c, kind->stored);
    jpeg_set_quality(&c, 85, TRUE);
    for (int i = 0; i < c.num_components; i++)
        c.comp_info[i].h_samp_factor = c.comp_info[i].v_samp_factor = 1;
    c.comp_info[0].h_samp_factor = kind->across, c.comp_info[0].v_samp_factor = kind->down;
    if (kind->progressive) jpeg_simple_progression(&c);
    if (kind->one_by_one) c.scan_info = scans, c.num_scans = 3;
    jpeg_start_compress(&c, TRUE);
    char exif[] = "Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0?\0\0";
    exif[24] = (char)orientation;
    if (orientation) jpeg_write_marker(&c, JPEG_APP0 + 1, (const JOCTET *)exif, sizeof exif);
    JSAMPROW row = mem_alloc(width * (size_t)c.input_components);
    Random random = random_stream(width * 65536 + height, RANDOM_TEST, 0);
    while (c.next_scanline < c.image_height) {
        fill_jpeg_row(row, c.next_scanline, width * (size_t)c.input_components, &random);
        jpeg_write_scanlines(&c, &row, 1);
    }
    jpeg_finish_compress(&c);
    jpeg_destroy_compress(&c);
    free(row);
    char *copy = mem_alloc(n); // what free() takes, whatever libjpeg allocated with
    memcpy(copy, bytes, n);
    free(bytes);
    *size = n;
    return copy;
}

// A file without ink, which libjpeg itself turns to RGB, at so many eighths of its size.
static inline Image decode_scaled(const char *bytes, size_t size, unsigned eighths) {
    struct jpeg_decompress_struct d = {0};
    struct jpeg_error_mgr errors;
    Image image;
    d.err = jpeg_std_error(&errors);
    jpeg_create_decompress(&d);
    jpeg_mem_src(&d, (const unsigned char *)bytes, size);
    jpeg_read_header(&d, TRUE);
    d.out_color_space = JCS_RGB;
    d.scale_num = eighths, d.scale_denom = 8;
    jpeg_start_decompress(&d);
    assert_true(image_alloc(&image, d.output_width, d.output_height, "test", NULL));
    while (d.output_scanline < d.output_height) {
        JSAMPROW row = image.rgb + (size_t)d.output_scanline * image.width * 3;
        jpeg_read_scanlines(&d, &row, 1);
    }
    jpeg_destroy_decompress(&d);
    return image;
}
