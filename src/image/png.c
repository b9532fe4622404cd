#include "base/check.h"
#include "image/decode.h"

#include <png.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK_IEND    0x49454e44u
#define INFLATE_BYTES (48 << 10) // zlib's window and tables, libpng's buffer of the file

// libpng leaves through longjmp on errors; everything that must survive lies here, or in the caller's sink.
typedef struct PngReader {
    const uint8_t *bytes;
    size_t size, at;
    png_structp png;
    png_infop info;
    bool read_all,
        endless; // all rows are read; the file then ended where a chunk should begin, or within IEND
    char message[256];
} PngReader;

static void on_error(png_structp png, png_const_charp message) {
    PngReader *r = png_get_error_ptr(png);
    snprintf(r->message, sizeof r->message, "%s", message);
    png_longjmp(png, 1);
}

static void on_warning(png_structp png, png_const_charp message) {
    (void)png, (void)message;
}

static void read_bytes(png_structp png, png_bytep out, size_t n) {
    PngReader *r = png_get_io_ptr(png);
    if (n > r->size - r->at) {
        const bool chunk_begins = n == 8; // length and name
        r->endless = r->read_all && (chunk_begins || png_get_io_chunk_type(png) == CHUNK_IEND);
        png_error(png, "the file is truncated");
    }
    memcpy(out, r->bytes + r->at, n);
    r->at += n;
}

// A row of palette numbers becomes RGB in place, from its end because it grows. A number beyond the palette
// is black, as in Pillow.
static void expand_palette(uint8_t *row, size_t width, const PngReader *r) {
    png_colorp palette = NULL;
    int entries = 0;
    png_get_PLTE(r->png, r->info, &palette, &entries);
    for (size_t x = width; x-- > 0;) {
        uint8_t k = row[x];
        png_color c = k < entries ? palette[k] : (png_color){0};
        row[3 * x] = c.red, row[3 * x + 1] = c.green, row[3 * x + 2] = c.blue;
    }
}

// A row of 16-bit gray in place: min(v, 255), as Pillow converts its mode I;16.
static void expand_gray16(uint8_t *row, size_t width) {
    for (size_t x = width; x-- > 0;) memset(row + 3 * x, row[2 * x] ? 255 : row[2 * x + 1], 3);
}

// Reads all rows, those of an interlaced picture in several passes. Alpha and transparent colours are
// dropped, gamma and profiles are not applied.
static void read_rows(PngReader *r, ImageSink *s) {
    png_structp png = r->png;
    int color = png_get_color_type(png, r->info), depth = png_get_bit_depth(png, r->info);
    bool palette = color == PNG_COLOR_TYPE_PALETTE, gray16 = color == PNG_COLOR_TYPE_GRAY && depth == 16;
    if (palette) {
        png_set_packing(png);
    } else if (!gray16) {
        png_set_strip_16(png); // v >> 8
        png_set_strip_alpha(png);
        png_set_gray_to_rgb(png); // 1, 2 and 4 bits become 8
    }
    int passes = png_set_interlace_handling(png);
    png_read_update_info(png, r->info);
    CHECK(png_get_rowbytes(png, r->info) <= s->full.width * 3, "%zu bytes a row",
          (size_t)png_get_rowbytes(png, r->info));
    while (passes-- > 0) {
        for (size_t y = 0; y < s->full.height; y++) {
            uint8_t *row = sink_row(s, y);
            png_read_row(png, row, NULL);
            if (passes > 0) continue;
            if (palette) expand_palette(row, s->full.width, r);
            if (gray16) expand_gray16(row, s->full.width);
            sink_put(s);
        }
    }
}

static int stored_orientation(const PngReader *r) {
    Metadata m = {0};
    png_bytep exif;
    png_uint_32 exif_size;
    if (png_get_eXIf_1(r->png, r->info, &exif_size, &exif)) m.exif = exif, m.exif_size = exif_size;
    png_textp texts = NULL;
    int n = png_get_text(r->png, r->info, &texts, NULL);
    for (int i = 0; i < n; i++)
        if (strcmp(texts[i].key, "XML:com.adobe.xmp") == 0)
            m.xmp = texts[i].text, m.xmp_size = strlen(texts[i].text);
    return orientation_of(&m);
}

static bool open_sink(PngReader *r, ImageSink *s, Error *err) {
    s->full = (ImageSize){png_get_image_width(r->png, r->info), png_get_image_height(r->png, r->info)};
    s->orientation = stored_orientation(r); // unless it stands behind the pixels
    s->whole |= png_get_interlace_type(r->png, r->info) != PNG_INTERLACE_NONE;
    s->beside = INFLATE_BYTES + 2 * png_get_rowbytes(r->png, r->info);
    return sink_open(s, s->full.width, s->full.height, "PNG", err);
}

static bool read_png(PngReader *r, ImageSink *s, Error *err) {
    if (setjmp(png_jmpbuf(r->png))) {
        if (!r->endless) return error_set(err, "PNG: %s", r->message);
        s->orientation = stored_orientation(r);
        return true; // as Pillow: a picture without its IEND is complete
    }
    png_set_crc_action(r->png, PNG_CRC_ERROR_QUIT, PNG_CRC_ERROR_QUIT);
    png_set_user_limits(r->png, PNG_UINT_31_MAX, PNG_UINT_31_MAX); // sink_open limits the pixels
    png_set_read_fn(r->png, r, read_bytes);
    png_read_info(r->png, r->info);
    if (!open_sink(r, s, err)) return false;
    read_rows(r, s);
    r->read_all = true;
    png_read_end(r->png, r->info);
    s->orientation = stored_orientation(r);
    return true;
}

bool png_decode(ImageSink *s, const void *bytes, size_t size, Error *err) {
    PngReader r = {.bytes = bytes, .size = size};
    r.png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &r, on_error, on_warning);
    r.info = r.png ? png_create_info_struct(r.png) : NULL;
    bool ok = r.info ? read_png(&r, s, err) : error_set(err, "PNG: out of memory");
    if (r.png) png_destroy_read_struct(&r.png, &r.info, NULL);
    return ok;
}

// ---- writing ----

bool image_encode_png(unsigned char **bytes, size_t *size, const Image *image, Error *err) {
    png_image png = {.version = PNG_IMAGE_VERSION,
                     .width = (png_uint_32)image->width,
                     .height = (png_uint_32)image->height,
                     .format = PNG_FORMAT_RGB,
                     .flags = PNG_IMAGE_FLAG_FAST};
    png_alloc_size_t room = PNG_IMAGE_PNG_SIZE_MAX(png);
    *bytes = malloc(room);
    if (!*bytes) return error_set(err, "PNG: no memory for %zu bytes", (size_t)room);
    if (!png_image_write_to_memory(&png, *bytes, &room, 0, image->rgb, 0, NULL)) {
        free(*bytes);
        *bytes = NULL;
        return error_set(err, "PNG: %s", png.message);
    }
    *size = room;
    return true;
}
