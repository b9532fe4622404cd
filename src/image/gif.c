// The first frame of a GIF, through giflib, on its canvas as Pillow shows it.
#include "image/decode.h"

#include <stdlib.h>
#include <string.h>

#include <gif_lib.h>

typedef struct GifReader {
    const uint8_t *bytes;
    size_t size, at;
    GifFileType *gif;
    int transparent;     // index; -1: none
    uint8_t rgb[256][3]; // of each index
} GifReader;

// Behind the file's end there is one block of length 0 after the other: the end of the pixels, if they are
// complete, and damage if they are not. A block that is itself incomplete is not made up.
static int read_bytes(GifFileType *gif, GifByteType *out, int n) {
    GifReader *r = gif->UserData;
    const size_t left = r->size - r->at, count = (size_t)n < left ? (size_t)n : left;
    if (left == 0 && n == 1) {
        *out = 0;
        return 1;
    }
    memcpy(out, r->bytes + r->at, count);
    r->at += count;
    return (int)count;
}

static bool gif_error(const GifReader *r, Error *err) {
    const char *cause = GifErrorString(r->gif->Error);
    return error_set(err, "GIF: %s", cause ? cause : "the file is truncated or damaged");
}

static bool skip_extension(GifReader *r) {
    GifByteType *block; // length, then so many bytes
    int code;
    if (DGifGetExtension(r->gif, &code, &block) == GIF_ERROR) return false;
    if (code == GRAPHICS_EXT_FUNC_CODE && block && block[0] >= 4)
        r->transparent = block[1] & 1 ? block[4] : r->transparent;
    while (block)
        if (DGifGetExtensionNext(r->gif, &block) == GIF_ERROR) return false;
    return true;
}

// Goes to the first frame and reads its header.
static bool find_frame(GifReader *r, Error *err) {
    GifRecordType type;
    do {
        if (DGifGetRecordType(r->gif, &type) == GIF_ERROR) return gif_error(r, err);
        if (type == EXTENSION_RECORD_TYPE && !skip_extension(r)) return gif_error(r, err);
        if (type == TERMINATE_RECORD_TYPE) return error_set(err, "GIF: the file holds no frame");
    } while (type != IMAGE_DESC_RECORD_TYPE);
    if (DGifGetImageDesc(r->gif) == GIF_ERROR) return gif_error(r, err);
    const GifImageDesc *frame = &r->gif->Image;
    if (frame->Width > 0 && frame->Height > 0) return true;
    return error_set(err, "GIF: the first frame has no pixels");
}

// Without a palette, or with one that only says so, an index is a gray; else indices beyond the palette are
// black.
static void set_colours(GifReader *r) {
    const ColorMapObject *map = r->gif->Image.ColorMap ? r->gif->Image.ColorMap : r->gif->SColorMap;
    bool gray = true;
    for (int i = 0; map && i < map->ColorCount; i++)
        gray &= map->Colors[i].Red == i && map->Colors[i].Green == i && map->Colors[i].Blue == i;
    for (int i = 0; i < 256; i++) {
        GifColorType c = {0};
        if (gray)
            c = (GifColorType){(GifByteType)i, (GifByteType)i, (GifByteType)i};
        else if (i < map->ColorCount)
            c = map->Colors[i];
        memcpy(r->rgb[i], (uint8_t[]){c.Red, c.Green, c.Blue}, 3);
    }
}

static void put_row(Image *image, const GifReader *r, const GifPixelType *row, size_t x, size_t y, size_t n) {
    uint8_t *out = image->rgb + 3 * (y * image->width + x);
    for (size_t i = 0; i < n; i++)
        memcpy(out + 3 * i, r->rgb[row ? row[i] : r->transparent < 0 ? 0 : r->transparent], 3);
}

static bool read_rows(Image *image, GifReader *r, GifPixelType *row, Error *err) {
    static const struct {
        size_t from, step;
    } whole[] = {{0, 1}}, interlaced[] = {{0, 8}, {4, 8}, {2, 4}, {1, 2}};
    const GifImageDesc *frame = &r->gif->Image;
    const size_t n = (size_t)frame->Width, height = (size_t)frame->Height;
    for (size_t pass = 0; pass < (frame->Interlace ? 4u : 1u); pass++) {
        const size_t from = (frame->Interlace ? interlaced : whole)[pass].from,
                     step = (frame->Interlace ? interlaced : whole)[pass].step;
        for (size_t y = from; y < height; y += step) {
            if (DGifGetLine(r->gif, row, frame->Width) == GIF_ERROR) return gif_error(r, err);
            put_row(image, r, row, (size_t)frame->Left, (size_t)frame->Top + y, n);
        }
    }
    return true;
}

static bool read_frame(Image *image, GifReader *r, Error *err) {
    if (!find_frame(r, err)) return false;
    const GifImageDesc *frame = &r->gif->Image;
    const int right = frame->Left + frame->Width, bottom = frame->Top + frame->Height;
    const int width = right > r->gif->SWidth ? right : r->gif->SWidth,
              height = bottom > r->gif->SHeight ? bottom : r->gif->SHeight;
    if (!image_alloc(image, (size_t)width, (size_t)height, "GIF", err)) return false;
    set_colours(r);
    for (size_t y = 0; y < image->height; y++) put_row(image, r, NULL, 0, y, image->width);
    GifPixelType *row = malloc((size_t)frame->Width);
    bool ok = row ? read_rows(image, r, row, err) : error_set(err, "GIF: no memory for a row");
    free(row);
    if (!ok) image_free(image);
    return ok;
}

bool gif_decode(Image *image, int *orientation, const void *bytes, size_t size, Error *err) {
    GifReader r = {.bytes = bytes, .size = size, .transparent = -1};
    int code = 0;
    *orientation = 1;
    r.gif = DGifOpen(&r, read_bytes, &code);
    if (!r.gif)
        return error_set(err, "GIF: %s", GifErrorString(code) ? GifErrorString(code) : "not readable");
    bool ok = read_frame(image, &r, err);
    DGifCloseFile(r.gif, &code);
    return ok;
}
