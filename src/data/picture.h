// A picture on its way from a row to tiles. While its sample waits to be packed it is kept in the smaller of
// two forms, decoded or already resized: 8-bit pixels are a quarter of the tiles' floats, and resizing mostly
// enlarges.
#pragma once
#include "config/config.h"
#include "image/image.h"
#include "text/chat.h"

typedef struct Picture {
    Image image;
    ImageSize full;       // in the file, turned as the picture is
    size_t width, height; // after nanoVLM's resize
    size_t beside;        // bytes that decoding took beside the image, at most
} Picture;

// Decodes as training does (turned as EXIF says); reduced: JPEGs at a smaller scale where that suffices.
// After a failure there is no image; full is known where the picture is in order and only its resize is not.
bool picture_decode(Picture *p, const void *bytes, size_t size, const VLMConfig *config, bool reduced,
                    Error *err);
// Reads a file as generate.py does (not turned). Errors name the file.
bool picture_load(Picture *p, const char *path, const VLMConfig *config, Error *err);
void picture_free(Picture *p);
ImageGrid picture_grid(const Picture *p, size_t tile); // tiles down and across, without the global one
// Tiles of a grid; `global`: whether the tokenizer has a token for the global tile.
size_t grid_tiles(ImageGrid grid, bool global);
// Writes grid_tiles() tiles [3, tile, tile] to out, the global one first.
bool picture_tiles(float *out, const Picture *p, size_t tile, bool global, Error *err);
