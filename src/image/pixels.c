// The memory of pictures, and what decoders share.
#include "image/decode.h"

#include <stdlib.h>

void image_free(Image *image) {
    free(image->rgb);
    *image = (Image){0};
}

bool image_size_check(size_t width, size_t height, const char *format, Error *err) {
    if (width == 0 || height == 0) return error_set(err, "%s: a picture without pixels", format);
    if (width <= MAX_PIXELS / height) return true;
    return error_set(err, "%s: %zu x %zu pixels, at most %zu in all are accepted", format, width, height,
                     MAX_PIXELS);
}

bool image_alloc(Image *image, size_t width, size_t height, const char *format, Error *err) {
    *image = (Image){0};
    if (!image_size_check(width, height, format, err)) return false;
    uint8_t *rgb = malloc(width * height * 3);
    if (!rgb) return error_set(err, "%s: no memory for %zu x %zu pixels", format, width, height);
    *image = (Image){width, height, rgb};
    return true;
}

void cmyk_to_rgb(uint8_t rgb[3], const uint8_t cmyk[4]) {
    const int rest = 255 - cmyk[3];
    for (size_t c = 0; c < 3; c++) {
        const int t = cmyk[c] * rest + 128, value = rest - ((t + (t >> 8)) >> 8);
        rgb[c] = (uint8_t)(value < 0 ? 0 : value);
    }
}
