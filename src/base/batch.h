// A batch of training data on the host: what data/ hands to train/, and train/ to model/. It stands in base/
// so that neither room has to include the other.
#pragma once
#include "base/digest.h"

#include <stdbool.h>

#define IGNORE_INDEX (-100) // label of a position without a target (PyTorch's default)

// What a cache knows of a batch's tiles (data/tile_cache.h). Entries that are not known may be written over.
typedef struct TileFeatures {
    size_t tile_bytes;
    Digest *keys;         // [n_tiles]: of their pixels
    bool *known;          // [n_tiles]
    unsigned char *bytes; // [n_tiles, tile_bytes]: what the projector reads, as the device has it
} TileFeatures;

typedef struct Batch {
    size_t B, T;             // sequences and positions
    int32_t *input_ids;      // [B, T]
    int32_t *attention_mask; // [B, T]: 1 real, 0 padding
    int32_t *labels;         // [B, T]: already shifted left by one; IGNORE_INDEX where nothing is trained
    int32_t *starts;         // [B, T]: the position at which the sample that this one belongs to begins
    size_t n_tiles;          // tiles of all pictures of the batch, in the order of their image tokens
    float *images;           // [n_tiles, 3, P, P], values in [0, 1]; NULL when n_tiles is 0
    size_t n_images;         // pictures (not tiles), for the statistics
    size_t n_samples;        // samples packed into the batch
    const size_t *rows;      // [n_samples]: the rows of the data set they come from; NULL: not known
    const TileFeatures *features; // NULL: no cache, every tile is encoded
} Batch;
