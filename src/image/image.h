// Pictures as nanoVLM sees them: decoded to RGB by Pillow's rules, resized bicubically in its integer
// arithmetic, cut into square tiles (data/custom_transforms.py), with a global tile in front when there are
// several.
#pragma once
#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

typedef struct Image {
    size_t width, height;
    uint8_t *rgb; // [height, width, 3], owned
} Image;

typedef struct ImageSize {
    size_t width, height;
} ImageSize;

// nanoVLM's DynamicResize: tile is vit_img_size.
typedef struct ResizeRule {
    size_t max_img_size, tile;
    bool resize_to_max_side_len;
} ResizeRule;

void image_free(Image *image);
// Decodes JPEG, PNG, WebP, GIF (its first frame), BMP or, where it is built in, TIFF by their first bytes.
// exif: apply the orientation 2…8 that EXIF or XMP gives (training does, generate.py does not). Errors name
// the format and the cause; a file without its end is an error; more than 178 956 970 pixels (Pillow's limit
// against decompression bombs) are an error.
bool image_decode(Image *image, const void *bytes, size_t size, bool exif, Error *err);

// How a picture is read.
typedef struct ImageReading {
    const ResizeRule *rule; // NULL: it is left as it is
    bool exif;              // as above
    bool reduced;           // where the rule makes a JPEG smaller it is decoded at the smallest of libjpeg's
                            // scales 1/8 … 7/8 that is no smaller than what is wanted: faster, other pixels
} ImageReading;

// A picture on its way to the size that the rule gives it.
typedef struct FittedImage {
    Image image;      // resized where that leaves fewer pixels than were decoded, else as decoded
    ImageSize full;   // in the file, turned as the picture is
    ImageSize target; // what the rule makes of that
    size_t beside;    // bytes that were taken meanwhile beside the image, at most, roughly
} FittedImage;

// Decodes for image_to_tiles. The pixels are those of image_decode and image_resize_bicubic, but a JPEG, or a
// PNG that is not interlaced, goes through the resize row by row while it is decoded and is never there in
// full size (unless it is to be turned). After a failure there is no image; full is known if only the target
// is at fault.
bool image_decode_fitted(FittedImage *f, const void *bytes, size_t size, const ImageReading *how, Error *err);
// The bytes of a PNG file; caller frees.
bool image_encode_png(unsigned char **bytes, size_t *size, const Image *image, Error *err);

// Size after the resize, both multiples of tile, or an error (ValueError there).
bool image_target_size(size_t *width, size_t *height, size_t in_width, size_t in_height,
                       const ResizeRule *rule, Error *err);
// Pillow's bicubic on 8-bit pixels, bit for bit (up to Pillow 12). out is allocated; the same size copies.
bool image_resize_bicubic(Image *out, const Image *in, size_t width, size_t height, Error *err);
// Resizes so to width x height (multiples of tile) and cuts into rows x cols tiles of side `tile`, row-major,
// float = byte / 255, each [3, tile, tile], into out; with `global` the whole picture resized (antialiased
// bilinear on the floats) goes first. out holds (rows*cols + global) * 3 * tile * tile floats. The same bits
// at every level of instructions.
bool image_to_tiles(float *out, const Image *image, size_t width, size_t height, size_t tile, bool global,
                    Error *err);
