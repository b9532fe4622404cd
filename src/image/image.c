#include "image/image.h"
#include "base/file.h"
#include "image/decode.h"

#include <stdlib.h>
#include <string.h>

// Formats by their first bytes; those without a decoder are named in the error.
static const struct {
    const char *name, *magic;
    size_t at, length;
    ImageDecoder *decode;
} formats[] = {
    {"JPEG", "\xff\xd8\xff", 0, 3, jpeg_decode}, {"PNG", "\x89PNG\r\n\x1a\n", 0, 8, png_decode},
    {"WebP", "WEBP", 8, 4, webp_decode},         {"GIF", "GIF87a", 0, 6, gif_decode},
    {"GIF", "GIF89a", 0, 6, gif_decode},         {"BMP", "BM", 0, 2, bmp_decode},
    {"TIFF", "II*\0", 0, 4, tiff_decode},        {"TIFF", "MM\0*", 0, 4, tiff_decode},
    {"TIFF", "II+\0", 0, 4, tiff_decode},        {"TIFF", "MM\0+", 0, 4, tiff_decode},
    {"AVIF or HEIF", "ftyp", 4, 4, NULL},        {"JPEG 2000", "\0\0\0\x0cjP  ", 0, 8, NULL},
};

static ImageDecoder *find_decoder(const void *bytes, size_t size, Error *err) {
    if (size == 0) error_set(err, "the picture is empty");
    for (size_t i = 0; size > 0 && i < sizeof formats / sizeof *formats; i++) {
        size_t end = formats[i].at + formats[i].length;
        if (size < end || memcmp((const char *)bytes + formats[i].at, formats[i].magic, formats[i].length))
            continue;
        if (!formats[i].decode)
            error_set(err, "%s pictures are not supported; convert them to PNG", formats[i].name);
        return formats[i].decode;
    }
    if (size > 0) error_set(err, "not a picture of a known format (JPEG, PNG, WebP, GIF, BMP, TIFF)");
    return NULL;
}

bool image_decode_reduced(Image *image, ImageSize *full, const void *bytes, size_t size, bool exif,
                          const ResizeRule *rule, Error *err) {
    *image = (Image){0};
    int orientation = 1;
    ImageDecoder *decode = find_decoder(bytes, size, err);
    if (!decode) return false;
    bool ok = decode == jpeg_decode ? jpeg_decode_reduced(image, full, &orientation, bytes, size, rule, err)
                                    : decode(image, &orientation, bytes, size, err);
    if (!ok) return false;
    if (decode != jpeg_decode) *full = (ImageSize){image->width, image->height};
    if (!exif) return true;
    if (orientation >= 5 && orientation <= 8) *full = (ImageSize){full->height, full->width};
    return image_orient(image, orientation, err);
}

bool image_decode(Image *image, const void *bytes, size_t size, bool exif, Error *err) {
    ImageSize full;
    return image_decode_reduced(image, &full, bytes, size, exif, NULL, err);
}

bool image_load(Image *image, const char *path, bool exif, Error *err) {
    char *bytes;
    size_t size;
    *image = (Image){0};
    if (!file_read(&bytes, &size, path, err)) return false;
    bool ok = image_decode(image, bytes, size, exif, err) || error_prefix(err, "%s", path);
    free(bytes);
    return ok;
}
