// The first page of a TIFF, through libtiff (4.5 or later), in the colours that Pillow gives it; without
// libtiff only the error that says so.
#include "image/decode.h"

#ifdef VLM_TIFF

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <tiffio.h>

#define MAX_SAMPLES 6

typedef struct TiffReader {
    const uint8_t *bytes;
    size_t size, at;
    TIFF *tiff;
    char message[256];
    uint32_t width, height, tile_width, tile_height; // tile_width 0: strips
    uint16_t bits, samples, photometric, compression, planar, orientation;
    bool premultiplied;
    uint8_t rgb[256][3]; // of each value of a gray or palette pixel of up to 8 bits
} TiffReader;

// ---- libtiff's view of the bytes ----

static tmsize_t tiff_read(thandle_t handle, void *out, tmsize_t n) {
    TiffReader *r = handle;
    const size_t left = r->at < r->size ? r->size - r->at : 0, count = (size_t)n < left ? (size_t)n : left;
    memcpy(out, r->bytes + r->size - left, count);
    r->at += count;
    return (tmsize_t)count;
}
static tmsize_t tiff_write(thandle_t handle, void *bytes, tmsize_t n) {
    (void)handle, (void)bytes, (void)n;
    return 0;
}
static toff_t tiff_seek(thandle_t handle, toff_t offset, int from) {
    TiffReader *r = handle;
    r->at = offset + (from == SEEK_SET ? 0 : from == SEEK_CUR ? r->at : r->size);
    return r->at;
}
static int tiff_close(thandle_t handle) {
    (void)handle;
    return 0;
}
static toff_t tiff_size(thandle_t handle) {
    return ((TiffReader *)handle)->size;
}

static int on_error(TIFF *tiff, void *reader, const char *module, const char *format, va_list args) {
    TiffReader *r = reader;
    (void)tiff, (void)module;
    if (!*r->message) vsnprintf(r->message, sizeof r->message, format, args); // the first is the cause
    return 1;
}
static int on_warning(TIFF *tiff, void *reader, const char *module, const char *format, va_list args) {
    (void)tiff, (void)reader, (void)module, (void)format, (void)args;
    return 1;
}

static bool tiff_error(const TiffReader *r, Error *err) {
    return error_set(err, "TIFF: %s", *r->message ? r->message : "the file is truncated or damaged");
}

// ---- header ----

static bool is_supported(const TiffReader *r) {
    const bool byte = r->bits == 8, bytes = byte || r->bits == 16, whole = r->planar == PLANARCONFIG_CONTIG;
    switch (r->photometric) {
    case PHOTOMETRIC_MINISWHITE:
        return r->samples == 1 && r->bits <= 8;
    case PHOTOMETRIC_MINISBLACK:
        return (r->samples == 1 && (r->bits <= 8 || bytes)) || (r->samples == 2 && byte && whole);
    case PHOTOMETRIC_RGB:
        return r->samples >= 3 && bytes && (whole || !r->premultiplied);
    case PHOTOMETRIC_PALETTE:
        return (r->samples == 1 && r->bits <= 8) || (r->samples == 2 && byte && whole);
    case PHOTOMETRIC_SEPARATED:
        return r->samples >= 4 && bytes && whole;
    case PHOTOMETRIC_YCBCR:
        return r->samples == 3 && byte && whole && r->compression == COMPRESSION_JPEG;
    default:
        return false;
    }
}

static bool read_header(TiffReader *r, Error *err) {
    uint16_t format = SAMPLEFORMAT_UINT, n_extra = 0, *extra = NULL;
    TIFF *t = r->tiff;
    if (!TIFFGetField(t, TIFFTAG_IMAGEWIDTH, &r->width) || !TIFFGetField(t, TIFFTAG_IMAGELENGTH, &r->height))
        return error_set(err, "TIFF: it does not say how large it is");
    TIFFGetFieldDefaulted(t, TIFFTAG_BITSPERSAMPLE, &r->bits);
    TIFFGetFieldDefaulted(t, TIFFTAG_SAMPLESPERPIXEL, &r->samples);
    TIFFGetFieldDefaulted(t, TIFFTAG_SAMPLEFORMAT, &format);
    TIFFGetFieldDefaulted(t, TIFFTAG_EXTRASAMPLES, &n_extra, &extra);
    TIFFGetFieldDefaulted(t, TIFFTAG_PLANARCONFIG, &r->planar);
    TIFFGetFieldDefaulted(t, TIFFTAG_COMPRESSION, &r->compression);
    TIFFGetFieldDefaulted(t, TIFFTAG_ORIENTATION, &r->orientation);
    TIFFGetField(t, TIFFTAG_PHOTOMETRIC, &r->photometric); // without it, white is 0, as in Pillow
    r->premultiplied = r->photometric == PHOTOMETRIC_RGB && n_extra > 0 && extra[0] == EXTRASAMPLE_ASSOCALPHA;
    if (r->samples == 1) r->planar = PLANARCONFIG_CONTIG;
    const bool power = r->bits == 1 || r->bits == 2 || r->bits == 4 || r->bits == 8 || r->bits == 16;
    if (power && r->samples <= MAX_SAMPLES && format == SAMPLEFORMAT_UINT && is_supported(r)) return true;
    return error_set(err,
                     "TIFF: %u samples of %u bits, kind %u, colours %u are not supported; convert it to PNG",
                     r->samples, r->bits, format, r->photometric);
}

static bool read_colours(TiffReader *r, Error *err) {
    uint16_t *map[3];
    if (r->photometric != PHOTOMETRIC_PALETTE) {
        const unsigned top = r->bits <= 8 ? (1u << r->bits) - 1 : 255;
        for (unsigned i = 0; i <= top; i++)
            memset(r->rgb[i], (int)((r->photometric == PHOTOMETRIC_MINISWHITE ? top - i : i) * 255 / top), 3);
        return true;
    }
    if (!TIFFGetField(r->tiff, TIFFTAG_COLORMAP, &map[0], &map[1], &map[2]))
        return error_set(err, "TIFF: the palette is missing");
    for (size_t i = 0; i < (size_t)1 << r->bits; i++)
        for (size_t c = 0; c < 3; c++) r->rgb[i][c] = (uint8_t)(map[c][i] >> 8);
    return true;
}

// ---- pixels ----

static unsigned sample(const TiffReader *r, const uint8_t *row, size_t i) { // the high byte of 16 bits
    uint16_t wide;
    if (r->bits == 8) return row[i];
    if (r->bits < 8) return row[i * r->bits / 8] >> (8 - r->bits - i * r->bits % 8) & ((1u << r->bits) - 1);
    memcpy(&wide, row + 2 * i, sizeof wide);
    return wide >> 8;
}

// n pixels of samples as they are stored; of the colour `plane` alone where colours are stored apart.
static void put_pixels(uint8_t *out, const TiffReader *r, const uint8_t *row, size_t n, size_t plane) {
    const size_t step = r->planar == PLANARCONFIG_CONTIG ? r->samples : 1;
    for (size_t x = 0; x < n; x++, out += 3) {
        uint8_t v[4] = {0};
        for (size_t c = 0; c < step && c < 4; c++) v[c] = (uint8_t)sample(r, row, x * step + c);
        if (r->planar != PLANARCONFIG_CONTIG) {
            out[plane] = v[0];
        } else if (r->photometric == PHOTOMETRIC_SEPARATED) {
            cmyk_to_rgb(out, v);
        } else if (r->samples >= 3) {
            memcpy(out, v, 3);
            for (size_t c = 0; r->premultiplied && c < 3; c++)
                out[c] = (uint8_t)(v[3] == 0 ? 0 : 255 * v[c] / v[3] > 255 ? 255 : 255 * v[c] / v[3]);
        } else if (r->bits == 16) { // min(v, 255), as Pillow converts its mode I;16
            uint16_t wide;
            memcpy(&wide, row + 2 * x * step, sizeof wide);
            memset(out, wide > 255 ? 255 : wide, 3);
        } else {
            memcpy(out, r->rgb[v[0]], 3);
        }
    }
}

static bool read_strips(Image *image, TiffReader *r, uint8_t *row, size_t plane) {
    for (uint32_t y = 0; y < r->height; y++) {
        if (TIFFReadScanline(r->tiff, row, y, (uint16_t)plane) < 0) return false;
        put_pixels(image->rgb + 3 * (size_t)y * image->width, r, row, image->width, plane);
    }
    return true;
}

static bool read_tiles(Image *image, TiffReader *r, uint8_t *tile, size_t plane) {
    const size_t w = r->tile_width, h = r->tile_height, row = (size_t)TIFFTileRowSize(r->tiff);
    for (size_t y = 0; y < image->height; y += h) {
        for (size_t x = 0; x < image->width; x += w) {
            if (TIFFReadTile(r->tiff, tile, (uint32_t)x, (uint32_t)y, 0, (uint16_t)plane) < 0) return false;
            const size_t n = image->width - x < w ? image->width - x : w;
            for (size_t i = 0; i < h && y + i < image->height; i++)
                put_pixels(image->rgb + 3 * ((y + i) * image->width + x), r, tile + i * row, n, plane);
        }
    }
    return true;
}

static bool read_pixels(Image *image, TiffReader *r, Error *err) {
    if (TIFFIsTiled(r->tiff)) {
        TIFFGetField(r->tiff, TIFFTAG_TILEWIDTH, &r->tile_width);
        TIFFGetField(r->tiff, TIFFTAG_TILELENGTH, &r->tile_height);
        if (!r->tile_width || !r->tile_height || r->tile_width > MAX_PIXELS / r->tile_height)
            return error_set(err, "TIFF: tiles of %u x %u pixels", r->tile_width, r->tile_height);
    }
    const tmsize_t room = r->tile_width ? TIFFTileSize(r->tiff) : TIFFScanlineSize(r->tiff);
    uint8_t *buffer = room > 0 ? calloc(1, (size_t)room) : NULL;
    bool ok = buffer;
    for (size_t plane = 0; ok && plane < (r->planar == PLANARCONFIG_CONTIG ? 1 : 3); plane++)
        ok = (r->tile_width ? read_tiles : read_strips)(image, r, buffer, plane);
    free(buffer);
    return ok || tiff_error(r, err);
}

static bool read_page(Image *image, TiffReader *r, Error *err) {
    if (!read_header(r, err) || !read_colours(r, err)) return false;
    if (r->photometric == PHOTOMETRIC_YCBCR) TIFFSetField(r->tiff, TIFFTAG_JPEGCOLORMODE, JPEGCOLORMODE_RGB);
    if (!image_alloc(image, r->width, r->height, "TIFF", err)) return false;
    if (read_pixels(image, r, err)) return image_orient(image, r->orientation, err);
    image_free(image);
    return false;
}

// Pillow turns a TIFF as its orientation says whoever opens it, so nothing is left for the caller to do.
bool tiff_decode(Image *image, int *orientation, const void *bytes, size_t size, Error *err) {
    TiffReader r = {.bytes = bytes, .size = size};
    *orientation = 1;
    TIFFOpenOptions *options = TIFFOpenOptionsAlloc();
    if (!options) return error_set(err, "TIFF: no memory");
    TIFFOpenOptionsSetErrorHandlerExtR(options, on_error, &r);
    TIFFOpenOptionsSetWarningHandlerExtR(options, on_warning, &r);
    TIFFOpenOptionsSetMaxSingleMemAlloc(options, (tmsize_t)MAX_PIXELS * MAX_SAMPLES * 2);
    r.tiff = TIFFClientOpenExt("TIFF", "rm", &r, tiff_read, tiff_write, tiff_seek, tiff_close, tiff_size,
                               NULL, NULL, options);
    TIFFOpenOptionsFree(options);
    if (!r.tiff) return tiff_error(&r, err);
    bool ok = read_page(image, &r, err);
    TIFFClose(r.tiff);
    return ok;
}

#else

bool tiff_decode(Image *image, int *orientation, const void *bytes, size_t size, Error *err) {
    (void)image, (void)orientation, (void)bytes, (void)size;
    return error_set(
        err, "TIFF pictures are not built in; install libtiff 4.5 or later and build again, or convert "
             "them to PNG");
}

#endif
