// Between the decoders, pixels.c, which gives them memory, and image.c, which calls them: one function a
// format.
#pragma once
#include "image/image.h"
#include "image/sink.h"

// A decoder that goes from row to row puts them into the sink. On failure what the sink holds is the caller's
// to free.
typedef bool RowDecoder(ImageSink *sink, const void *bytes, size_t size, Error *err);
RowDecoder jpeg_decode, png_decode;

// Any other fills image (RGB, allocated by image_alloc) and leaves in *orientation what the file says
// (orientation_of). On failure image holds nothing.
typedef bool ImageDecoder(Image *image, int *orientation, const void *bytes, size_t size, Error *err);
ImageDecoder webp_decode, gif_decode, bmp_decode, tiff_decode;

#define MAX_PIXELS ((size_t)178956970) // Pillow's DecompressionBombError: 2 x 1 GiB / 4 / 3

// Whether so many pixels are accepted: more than none, and no more than Pillow's limit. Asked before memory
// is taken.
bool image_size_check(size_t width, size_t height, const char *format, Error *err);
// Memory for width x height pixels, or an error naming the format: no pixels, more than Pillow's limit, no
// memory.
bool image_alloc(Image *image, size_t width, size_t height, const char *format, Error *err);

// One pixel of ink (cyan, magenta, yellow, black; 255 is all of it) in Pillow's integer arithmetic.
void cmyk_to_rgb(uint8_t rgb[3], const uint8_t cmyk[4]);

// Metadata of a file that may hold its orientation; borrowed, size 0 when absent.
typedef struct Metadata {
    const void *exif, *xmp;
    size_t exif_size, xmp_size;
} Metadata;
// The orientation in the EXIF (a TIFF header with its first directory) or else, as in Pillow, the one in the
// XMP. Anything but 2…8 means upright.
int orientation_of(const Metadata *m);
bool orientation_turns(int orientation); // 2 … 8
// Turns and mirrors the picture as orientation 2…8 says; anything else leaves it. On failure image is freed.
bool image_orient(Image *image, int orientation, Error *err);
