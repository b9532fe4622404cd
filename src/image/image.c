#include "image/image.h"
#include "image/decode.h"

#include <stdlib.h>
#include <string.h>

// Formats by their first bytes; those without a decoder are named in the error.
typedef struct Format {
    const char *name, *magic;
    size_t at, length;
    RowDecoder *by_rows;
    ImageDecoder *whole;
} Format;

static const Format formats[] = {
    {"JPEG", "\xff\xd8\xff", 0, 3, jpeg_decode, NULL}, {"PNG", "\x89PNG\r\n\x1a\n", 0, 8, png_decode, NULL},
    {"WebP", "WEBP", 8, 4, NULL, webp_decode},         {"GIF", "GIF87a", 0, 6, NULL, gif_decode},
    {"GIF", "GIF89a", 0, 6, NULL, gif_decode},         {"BMP", "BM", 0, 2, NULL, bmp_decode},
    {"TIFF", "II*\0", 0, 4, NULL, tiff_decode},        {"TIFF", "MM\0*", 0, 4, NULL, tiff_decode},
    {"TIFF", "II+\0", 0, 4, NULL, tiff_decode},        {"TIFF", "MM\0+", 0, 4, NULL, tiff_decode},
    {"AVIF or HEIF", "ftyp", 4, 4, NULL, NULL},        {"JPEG 2000", "\0\0\0\x0cjP  ", 0, 8, NULL, NULL},
};

static const Format *find_format(const void *bytes, size_t size, Error *err) {
    if (size == 0) error_set(err, "the picture is empty");
    for (size_t i = 0; size > 0 && i < sizeof formats / sizeof *formats; i++) {
        const Format *f = &formats[i];
        const size_t end = f->at + f->length;
        if (size < end || memcmp((const char *)bytes + f->at, f->magic, f->length)) continue;
        if (f->by_rows || f->whole) return f;
        error_set(err, "%s pictures are not supported; convert them to PNG", f->name);
        return NULL;
    }
    if (size > 0) error_set(err, "not a picture of a known format (JPEG, PNG, WebP, GIF, BMP, TIFF)");
    return NULL;
}

static bool decode_as(const Format *f, ImageSink *s, const void *bytes, size_t size, Error *err) {
    if (f->by_rows) return f->by_rows(s, bytes, size, err);
    if (!f->whole(&s->image, &s->orientation, bytes, size, err)) return false;
    s->full = (ImageSize){s->image.width, s->image.height};
    return true;
}

static size_t pixel_bytes(const Image *image) {
    return 3 * image->width * image->height;
}

static bool turn(ImageSink *s, Error *err) {
    if (pixel_bytes(&s->image) > s->beside) s->beside = pixel_bytes(&s->image); // for a moment there are two
    if (s->orientation >= 5) s->full = (ImageSize){s->full.height, s->full.width};
    return image_orient(&s->image, s->orientation, err);
}

static bool decode(ImageSink *s, const void *bytes, size_t size, Error *err) {
    const Format *f = find_format(bytes, size, err);
    if (!f || !decode_as(f, s, bytes, size, err)) return false;
    if (!s->how->exif || !orientation_turns(s->orientation)) return true;
    if (s->resizes) { // a PNG may say only behind its pixels how it is turned
        sink_free(s);
        *s = (ImageSink){.how = s->how, .whole = true};
        if (!decode_as(f, s, bytes, size, err)) return false;
    }
    return turn(s, err);
}

// Resizes what was decoded as it is.
static bool fit(FittedImage *f, ImageSink *s, const ResizeRule *rule, Error *err) {
    ImageSize *to = &f->target;
    if (!image_target_size(&to->width, &to->height, s->full.width, s->full.height, rule, err)) return false;
    if (to->width * to->height >= s->image.width * s->image.height) return true;
    Image resized;
    s->beside += pixel_bytes(&s->image);
    bool ok = image_resize_bicubic(&resized, &s->image, to->width, to->height, err);
    image_free(&s->image);
    s->image = resized;
    return ok;
}

bool image_decode_fitted(FittedImage *f, const void *bytes, size_t size, const ImageReading *how,
                         Error *err) {
    ImageSink s = {.how = how};
    *f = (FittedImage){0};
    bool ok = decode(&s, bytes, size, err);
    if (ok) f->full = s.full;
    ok = ok && (!how->rule || fit(f, &s, how->rule, err));
    if (ok) {
        f->image = s.image;
        f->beside = s.beside;
        s.image = (Image){0};
    }
    sink_free(&s);
    return ok;
}

bool image_decode(Image *image, const void *bytes, size_t size, bool exif, Error *err) {
    FittedImage f;
    bool ok = image_decode_fitted(&f, bytes, size, &(ImageReading){.exif = exif}, err);
    *image = f.image;
    return ok;
}
