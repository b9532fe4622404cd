// Windows and OS/2 bitmaps as Pillow reads them: 1, 4 and 8 bits with a palette, raw or run-length coded; 16,
// 24 and 32 bits, with bit fields where they are whole bytes or 5-5-5 and 5-6-5.
#include "image/decode.h"

#include <string.h>

enum { RAW, RLE8, RLE4, BITFIELDS }; // compression

typedef struct Bmp {
    const uint8_t *bytes;
    size_t size;
    size_t width, height, pixels; // pixels: where they begin
    bool top_down;
    uint32_t bits, compression, colours, masks[4];
    size_t depth;        // bits of a stored index, as Pillow takes them
    uint8_t rgb[256][3]; // of each index
} Bmp;

static uint32_t number(const Bmp *b, size_t at, size_t n) { // 0 where it does not lie inside
    uint32_t value = 0;
    if (at > b->size || b->size - at < n) return 0;
    for (size_t i = n; i-- > 0;) value = value << 8 | b->bytes[at + i];
    return value;
}

// ---- header ----

// The fields behind the header's size at byte 14; *at: behind them.
static bool read_header(Bmp *b, size_t *at, Error *err) {
    static const size_t sizes[] = {12, 40, 52, 56, 64, 108, 124};
    const size_t n = number(b, 14, 4);
    bool known = false;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) known |= n == sizes[i];
    if (!known)
        return error_set(err, "BMP: a header of %zu bytes, expected 12, 40, 52, 56, 64, 108 or 124", n);
    if (b->size < 14 + n) return error_set(err, "BMP: the header is truncated");
    *at = 14 + n;
    if (n == 12) {
        b->width = number(b, 18, 2), b->height = number(b, 20, 2), b->bits = number(b, 24, 2);
        b->compression = RAW;
        return true;
    }
    b->top_down = b->bytes[25] == 0xff; // a negative height
    b->width = number(b, 18, 4);
    b->height = b->top_down ? (size_t)(UINT32_MAX - number(b, 22, 4)) + 1 : number(b, 22, 4);
    b->bits = number(b, 28, 2), b->compression = number(b, 30, 4), b->colours = number(b, 46, 4);
    if (b->compression != BITFIELDS) return true;
    for (size_t i = 0; i < 3; i++) b->masks[i] = number(b, 54 + 4 * i, 4);
    if (n >= 56) b->masks[3] = number(b, 66, 4);
    if (n < 52) *at += 12; // behind a header of 40 bytes (and of no other size) they are not part of it
    return b->size >= *at || error_set(err, "BMP: the header is truncated");
}

// The palette. Pillow takes one that is a plain ramp of grays as no palette, and the pixels then as whole
// bytes (or as single bits where it has two colours), whatever the header says.
static bool read_palette(Bmp *b, size_t at, Error *err) {
    const size_t entry = at == 26 ? 3 : 4; // of the header of 12 bytes
    if (b->colours > 65536) return error_set(err, "BMP: a palette of %u colours", b->colours);
    const size_t left = at < b->size ? (b->size - at) / entry : 0, n = b->colours < left ? b->colours : left;
    if (n > 256) return error_set(err, "BMP: a palette of %zu colours, at most 256 are possible", n);
    bool ramp = n == b->colours;
    for (size_t i = 0; i < n; i++) {
        const uint8_t *p = b->bytes + at + entry * i;
        const uint8_t gray = (uint8_t)(b->colours == 2 ? 255 * i : i);
        ramp &= p[0] == gray && p[1] == gray && p[2] == gray;
        b->rgb[i][0] = p[2], b->rgb[i][1] = p[1], b->rgb[i][2] = p[0];
    }
    b->depth = b->bits;
    if (!ramp) return true;
    b->depth = b->colours == 2 ? 1 : 8;
    for (size_t i = 0; i < 256; i++) memset(b->rgb[i], (int)(b->colours == 2 ? 255 * (i > 0) : i), 3);
    return b->colours != 2 || b->compression == RAW ||
           error_set(err, "BMP: black and white in run-length coding");
}

// ---- pixels ----

static uint8_t *row_of(const Image *image, const Bmp *b, size_t y) { // y: in the order of the file
    return image->rgb + 3 * image->width * (b->top_down ? y : image->height - 1 - y);
}

// The bytes of a row, in the file and of its pixels alone; the last row may lack what fills it up.
static bool find_rows(const Bmp *b, size_t bits, size_t *stride, Error *err) {
    *stride = (b->width * b->bits + 31) / 32 * 4;
    const size_t row = (b->width * bits + 7) / 8;
    if (row > *stride) return error_set(err, "BMP: %u bits a pixel with a palette of grays", b->bits);
    const size_t needed = (b->height - 1) * *stride + row;
    if (b->pixels <= b->size && needed <= b->size - b->pixels) return true;
    return error_set(err, "BMP: the file is truncated: %zu bytes, its pixels end at %zu", b->size,
                     b->pixels + needed);
}

static bool read_indices(Image *image, const Bmp *b, Error *err) {
    size_t stride;
    if (!find_rows(b, b->depth, &stride, err)) return false;
    for (size_t y = 0; y < b->height; y++) {
        const uint8_t *in = b->bytes + b->pixels + y * stride;
        uint8_t *out = row_of(image, b, y);
        for (size_t x = 0; x < b->width; x++) {
            const size_t bit = x * b->depth;
            const unsigned index = in[bit / 8] >> (8 - b->depth - bit % 8) & ((1u << b->depth) - 1);
            memcpy(out + 3 * x, b->rgb[index], 3);
        }
    }
    return true;
}

// Where red, green and blue lie in a pixel: shift and number of bits of each.
typedef struct Layout {
    uint32_t bits, masks[4];
    uint8_t shift[3], width[3];
} Layout;

static const Layout layouts[] = {
    // the first of each number of bits is that without bit fields
    {16, {0x7c00, 0x3e0, 0x1f}, {10, 5, 0}, {5, 5, 5}},
    {16, {0xf800, 0x7e0, 0x1f}, {11, 5, 0}, {5, 6, 5}},
    {24, {0xff0000, 0xff00, 0xff}, {16, 8, 0}, {8, 8, 8}},
    {32, {0xff0000, 0xff00, 0xff, 0}, {16, 8, 0}, {8, 8, 8}},
    {32, {0xff000000, 0xff0000, 0xff00, 0}, {24, 16, 8}, {8, 8, 8}},
    {32, {0xff000000, 0xff00, 0xff, 0}, {24, 8, 0}, {8, 8, 8}},
    {32, {0xff000000, 0xff0000, 0xff00, 0xff}, {24, 16, 8}, {8, 8, 8}},
    {32, {0xff, 0xff00, 0xff0000, 0xff000000}, {0, 8, 16}, {8, 8, 8}},
    {32, {0xff0000, 0xff00, 0xff, 0xff000000}, {16, 8, 0}, {8, 8, 8}},
    {32, {0xff000000, 0xff00, 0xff, 0xff0000}, {24, 8, 0}, {8, 8, 8}},
    {32, {0, 0, 0, 0}, {16, 8, 0}, {8, 8, 8}},
};

static const Layout *layout_of(const Bmp *b) {
    for (size_t i = 0; i < sizeof layouts / sizeof *layouts; i++) {
        const Layout *l = &layouts[i];
        const size_t compared = b->bits == 32 ? 4 : 3;
        if (l->bits == b->bits &&
            (b->compression == RAW || memcmp(l->masks, b->masks, compared * sizeof *l->masks) == 0))
            return l;
    }
    return NULL;
}

static bool read_colours(Image *image, const Bmp *b, Error *err) {
    const Layout *l = layout_of(b);
    size_t stride;
    if (!l)
        return error_set(err, "BMP: bit fields %x %x %x %x of %u bits are not supported; convert it to PNG",
                         b->masks[0], b->masks[1], b->masks[2], b->masks[3], b->bits);
    if (!find_rows(b, b->bits, &stride, err)) return false;
    const size_t bytes = b->bits / 8;
    for (size_t y = 0; y < b->height; y++) {
        uint8_t *out = row_of(image, b, y);
        for (size_t x = 0; x < b->width; x++) {
            const uint32_t pixel = number(b, b->pixels + y * stride + x * bytes, bytes);
            for (size_t c = 0; c < 3; c++) {
                const uint32_t top = (1u << l->width[c]) - 1;
                out[3 * x + c] = (uint8_t)((pixel >> l->shift[c] & top) * 255 / top);
            }
        }
    }
    return true;
}

// ---- run-length coding ----

typedef struct Run {
    const Bmp *b;
    Image *image;
    size_t at, done, x; // next byte; pixels so far, in the order of the file; column as the coder counts it
} Run;

static void put(Run *r, unsigned index, size_t n) {
    const size_t width = r->b->width, total = width * r->b->height;
    for (; n > 0 && r->done < total; n--, r->done++)
        memcpy(row_of(r->image, r->b, r->done / width) + 3 * (r->done % width), r->b->rgb[index], 3);
}

static void put_encoded(Run *r, size_t n, uint8_t byte) {
    const size_t room = r->b->width > r->x ? r->b->width - r->x : 0;
    if (n > room) n = room; // beyond the row's end
    for (size_t i = 0; i < n && r->b->compression == RLE4; i++) put(r, i % 2 ? byte & 15 : byte >> 4, 1);
    if (r->b->compression == RLE8) put(r, byte, n);
    r->x += n;
}

// n pixels as they are; as in Pillow the last one of an odd number is dropped with 4 bits. False: the file
// ends.
static bool put_absolute(Run *r, size_t n) {
    const bool four = r->b->compression == RLE4;
    const size_t bytes = four ? n / 2 : n, left = r->b->size - r->at;
    for (size_t i = 0; i < bytes && i < left; i++) {
        const uint8_t byte = r->b->bytes[r->at + i];
        if (four) put(r, byte >> 4, 1);
        put(r, four ? byte & 15 : byte, 1);
    }
    if (left < bytes) return false;
    r->at += bytes;
    r->at += r->at % 2; // to a whole 16-bit word
    r->x += n;
    return true;
}

// What follows a 0. False: the picture or the file ends.
static bool escape(Run *r, uint8_t code) {
    const size_t width = r->b->width;
    if (code == 0) { // end of the row
        put(r, 0, (width - r->done % width) % width);
        r->x = 0;
    } else if (code == 2) { // so far to the right and up
        if (r->b->size - r->at < 4) return false;
        r->at += 2; // Pillow reads the pair twice
        put(r, 0, r->b->bytes[r->at] + r->b->bytes[r->at + 1] * width);
        r->at += 2;
        r->x = r->done % width;
    } else {
        return code != 1 && put_absolute(r, code);
    }
    return true;
}

static bool read_runs(Image *image, const Bmp *b, Error *err) {
    Run r = {.b = b, .image = image, .at = b->pixels};
    const size_t total = b->width * b->height;
    while (r.done < total && r.at < b->size && b->size - r.at >= 2) {
        const uint8_t count = b->bytes[r.at], byte = b->bytes[r.at + 1];
        r.at += 2;
        if (count)
            put_encoded(&r, count, byte);
        else if (!escape(&r, byte))
            break;
    }
    return r.done == total || error_set(err, "BMP: its runs end after %zu of %zu pixels", r.done, total);
}

static bool read_bmp(Image *image, Bmp *b, Error *err) {
    size_t at = 0;
    if (!read_header(b, &at, err)) return false;
    const bool palette = b->bits == 1 || b->bits == 4 || b->bits == 8;
    if (!palette && b->bits != 16 && b->bits != 24 && b->bits != 32)
        return error_set(err, "BMP: %u bits a pixel, expected 1, 4, 8, 16, 24 or 32", b->bits);
    if (b->compression > BITFIELDS ||
        (palette ? b->compression == BITFIELDS : b->compression == RLE8 || b->compression == RLE4))
        return error_set(err, "BMP: compression %u at %u bits is not supported; convert it to PNG",
                         b->compression, b->bits);
    if (b->colours == 0) b->colours = palette ? 1u << b->bits : 0;
    if (palette && !read_palette(b, at, err)) return false;
    const size_t header = at;
    if (palette) at += (header == 26 ? 3 : 4) * (size_t)b->colours;
    b->pixels = number(b, 10, 4);
    if (palette && b->pixels == header)
        b->pixels += 4 * (size_t)b->colours; // an offset that forgets the palette
    if (b->pixels == 0) b->pixels = at < b->size ? at : b->size;
    if (!image_alloc(image, b->width, b->height, "BMP", err)) return false;
    bool ok = !palette                ? read_colours(image, b, err)
              : b->compression == RAW ? read_indices(image, b, err)
                                      : read_runs(image, b, err);
    if (!ok) image_free(image);
    return ok;
}

bool bmp_decode(Image *image, int *orientation, const void *bytes, size_t size, Error *err) {
    Bmp b = {.bytes = bytes, .size = size};
    *orientation = 1;
    return read_bmp(image, &b, err);
}
