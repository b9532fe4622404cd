// Between the decoders and image.c: one function a format.
#pragma once
#include "image/image.h"

// A decoder fills image (RGB, allocated by image_alloc) and leaves in *orientation what the file's EXIF says
// (1…8; 1 when it says nothing). On failure image holds nothing.
typedef bool ImageDecoder(Image *image, int *orientation, const void *bytes, size_t size, Error *err);
ImageDecoder jpeg_decode, png_decode, webp_decode;

// Memory for width x height pixels, or an error naming the format: no pixels, more than Pillow's limit, no
// memory.
bool image_alloc(Image *image, size_t width, size_t height, const char *format, Error *err);

// The orientation in a TIFF header with its first directory, as EXIF carries it; 1 when absent or damaged.
int exif_orientation(const void *bytes, size_t size);
// Turns and mirrors the picture as orientation 2…8 says; anything else leaves it.
bool image_orient(Image *image, int orientation, Error *err);
