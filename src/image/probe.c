#include "image/probe.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <webp/decode.h>

// n bytes as a number, the highest first or last.
static size_t number(const uint8_t *at, size_t n, bool highest_first) {
    size_t value = 0;
    for (size_t i = 0; i < n; i++) value = value << 8 | at[highest_first ? i : n - 1 - i];
    return value;
}

static void probe_png(ImageProbe *p, const uint8_t *bytes, size_t size) {
    if (size < 24) return;
    p->width = number(bytes + 16, 4, true);
    p->height = number(bytes + 20, 4, true);
}

// Walks the segments up to the frame header, SOF0 … SOF15 (ITU-T T.81, B.2.2).
static void probe_jpeg(ImageProbe *p, const uint8_t *bytes, size_t size) {
    for (size_t at = 2; at + 9 <= size;) {
        if (bytes[at] != 0xff) return;
        const uint8_t marker = bytes[at + 1];
        const bool bare = marker == 0x01 || (marker >= 0xd0 && marker <= 0xd7);
        const bool frame =
            marker >= 0xc0 && marker <= 0xcf && marker != 0xc4 && marker != 0xc8 && marker != 0xcc;
        if (frame) {
            p->height = number(bytes + at + 5, 2, true);
            p->width = number(bytes + at + 7, 2, true);
            return;
        }
        at += marker == 0xff ? 1 : bare ? 2 : 2 + number(bytes + at + 2, 2, true);
    }
}

static void probe_webp(ImageProbe *p, const uint8_t *bytes, size_t size) {
    int width, height;
    if (!WebPGetInfo(bytes, size, &width, &height)) return;
    p->width = (size_t)width;
    p->height = (size_t)height;
}

static void probe_gif(ImageProbe *p, const uint8_t *bytes, size_t size) {
    if (size < 10) return;
    p->width = number(bytes + 6, 2, false);
    p->height = number(bytes + 8, 2, false);
}

// Rows stored from the top have a negative height.
static void probe_bmp(ImageProbe *p, const uint8_t *bytes, size_t size) {
    if (size < 26 || number(bytes + 14, 4, false) < 40) return;
    p->width = number(bytes + 18, 4, false);
    const int32_t height = (int32_t)(uint32_t)number(bytes + 22, 4, false);
    p->height = height < 0 ? 0 - (size_t)height : (size_t)height;
}

static const struct {
    const char *name, *magic;
    size_t at, length;
    void (*probe)(ImageProbe *p, const uint8_t *bytes, size_t size);
} formats[] = {
    {"JPEG", "\xff\xd8\xff", 0, 3, probe_jpeg},
    {"PNG", "\x89PNG\r\n\x1a\n", 0, 8, probe_png},
    {"WebP", "WEBP", 8, 4, probe_webp},
    {"GIF", "GIF8", 0, 4, probe_gif},
    {"BMP", "BM", 0, 2, probe_bmp},
    {"TIFF", "II*\0", 0, 4, NULL},
    {"TIFF", "MM\0*", 0, 4, NULL},
};

ImageProbe image_probe(const void *bytes, size_t size) {
    ImageProbe p = {.format = "unknown"};
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        if (size < formats[i].at + formats[i].length ||
            memcmp((const uint8_t *)bytes + formats[i].at, formats[i].magic, formats[i].length))
            continue;
        p.format = formats[i].name;
        if (formats[i].probe) formats[i].probe(&p, bytes, size);
        break;
    }
    return p;
}
