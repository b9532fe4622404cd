// What the first bytes of an encoded picture say, without decoding it.
#pragma once
#include <stddef.h>

typedef struct ImageProbe {
    const char *format;   // "JPEG", "PNG", "WebP", "GIF", "BMP", "TIFF", or "unknown"
    size_t width, height; // as stored, before any orientation is applied; 0 when the header does not tell
} ImageProbe;

ImageProbe image_probe(const void *bytes, size_t size); // any bytes
