#include "image/decode.h"

#include <string.h>

// ---- EXIF: a TIFF header (byte order, 42, place of the first directory) and directories of 12-byte entries
// ----

#define TAG_ORIENTATION 0x0112
#define TYPE_SHORT      3
#define TYPE_LONG       4

typedef struct Tiff {
    const uint8_t *bytes;
    size_t size;
    bool big_endian;
} Tiff;

// A number of n bytes; 0 when it does not lie inside.
static uint32_t tiff_number(Tiff t, size_t at, size_t n) {
    uint32_t value = 0;
    if (at > t.size || t.size - at < n) return 0;
    for (size_t i = 0; i < n; i++) value = value << 8 | t.bytes[at + (t.big_endian ? i : n - 1 - i)];
    return value;
}

// 0 when absent.
static int exif_orientation(const void *bytes, size_t size) {
    Tiff t = {bytes, size, false};
    if (size >= 6 && memcmp(bytes, "Exif\0\0", 6) == 0) t.bytes += 6, t.size -= 6;
    if (t.size < 8 || (memcmp(t.bytes, "II", 2) && memcmp(t.bytes, "MM", 2))) return 0;
    t.big_endian = t.bytes[0] == 'M';
    if (tiff_number(t, 2, 2) != 42) return 0;
    size_t directory = tiff_number(t, 4, 4), entries = tiff_number(t, directory, 2);
    for (size_t i = 0; i < entries; i++) {
        size_t entry = directory + 2 + 12 * i;
        if (tiff_number(t, entry, 2) != TAG_ORIENTATION) continue;
        uint32_t type = tiff_number(t, entry + 2, 2);
        if (type != TYPE_SHORT && type != TYPE_LONG) return 1;
        uint32_t value = tiff_number(t, entry + 8, type == TYPE_SHORT ? 2 : 4);
        return value >= 1 && value <= 8 ? (int)value : 1;
    }
    return 0;
}

// The digit behind the first tiff:Orientation=" or tiff:Orientation> of an XMP packet; 0 when there is none.
static int xmp_orientation(const char *text, size_t size) {
    static const char name[] = "tiff:Orientation";
    const char *end = text + size, *p = text;
    while ((p = memmem(p, (size_t)(end - p), name, sizeof name - 1)) != NULL) {
        p += sizeof name - 1;
        size_t left = (size_t)(end - p),
               sign = left > 2 && memcmp(p, "=\"", 2) == 0 ? 2 : left > 1 && *p == '>';
        if (sign && p[sign] >= '0' && p[sign] <= '9') return p[sign] - '0';
    }
    return 0;
}

int orientation_of(const Metadata *m) {
    int orientation = m->exif_size ? exif_orientation(m->exif, m->exif_size) : 0;
    return orientation || !m->xmp_size ? orientation : xmp_orientation(m->xmp, m->xmp_size);
}

// ---- turning ----

bool orientation_turns(int orientation) {
    return orientation >= 2 && orientation <= 8;
}

// Where the pixel (x, y) of the result comes from: columns and rows exchanged first (transpose), then counted
// from the other end. Orientation 6 says "turn by 90 degrees clockwise", 8 the other way round.
static const struct {
    bool transpose, from_right, from_bottom;
} turns[9] = {
    [2] = {false, true, false}, [3] = {false, true, true}, [4] = {false, false, true},
    [5] = {true, false, false}, [6] = {true, false, true}, [7] = {true, true, true},
    [8] = {true, true, false},
};

bool image_orient(Image *image, int orientation, Error *err) {
    if (!orientation_turns(orientation)) return true;
    bool transpose = turns[orientation].transpose;
    Image out;
    size_t w = image->width, h = image->height;
    if (!image_alloc(&out, transpose ? h : w, transpose ? w : h, "EXIF orientation", err)) {
        image_free(image);
        return false;
    }
    for (size_t y = 0; y < out.height; y++) {
        for (size_t x = 0; x < out.width; x++) {
            size_t from_x = transpose ? y : x, from_y = transpose ? x : y;
            if (turns[orientation].from_right) from_x = w - 1 - from_x;
            if (turns[orientation].from_bottom) from_y = h - 1 - from_y;
            memcpy(out.rgb + 3 * (y * out.width + x), image->rgb + 3 * (from_y * w + from_x), 3);
        }
    }
    image_free(image);
    *image = out;
    return true;
}
