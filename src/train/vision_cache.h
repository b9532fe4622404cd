// Between the model and a cache of tiles' features (data/tile_cache.h): what the features depend on, and the
// keeping of new ones.
#pragma once
#include "data/tile_cache.h"
#include "model/vlm.h"

// Opens the cache for the model as it stands, with the weights that a run begins with.
void vision_cache_open(TileCache *cache, Vlm *m);
// After the forward (or backward) of a batch: keeps the features of the tiles that it encoded.
void vision_cache_keep(TileCache *cache, const Vlm *m, const Batch *batch);
