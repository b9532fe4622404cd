// What the vision encoder made of tiles, kept in files from one epoch, and one run, to the next. A tile is
// known by a digest of its pixels, so it does not matter which row it comes from, how it was made, or how
// batches are put together; equal pictures share one entry.
//
// DIR/<32 digits>/<2 digits>/<30 digits>: a folder for everything that what is kept depends on (weights,
// settings, arithmetic), so nothing is ever read that was made with something else; in it made_by.json says
// what that is. An entry has a header and a digest of its own, and comes into place by renaming, so any
// number of processes may share a folder, and what a kill or a bad disk leaves half done is noticed.
#pragma once
#include "base/batch.h"
#include "base/error.h"

typedef struct TileCache TileCache;

typedef struct TileCacheCounts {
    uint64_t known, unknown;              // tiles that were asked for
    uint64_t damaged, kept, write_failed; // entries found damaged, written, not written
} TileCacheCounts;

// folder is made if it is not there; it must be one. Of each tile, tile_bytes are kept. Until
// tile_cache_open nothing is known and nothing kept.
bool tile_cache_create(TileCache **c, const char *folder, size_t tile_bytes, Error *err);
void tile_cache_free(TileCache *c); // NULL is fine
size_t tile_cache_tile_bytes(const TileCache *c);
size_t tile_cache_entry_bytes(size_t tile_bytes); // of a tile's file
// From now on what is kept was made by `made_by`, the text of a JSON object. A folder in which nothing can be
// written is only read; with none to read either, a warning says so and nothing is known.
void tile_cache_open(TileCache *c, const char *made_by);
// The next two by any thread at any time; they allocate nothing.
// The key's entry into `bytes`. A damaged one is counted, the first is named, and is as if it weren't there.
bool tile_cache_read(TileCache *c, Digest key, void *bytes);
// Keeps the entry, over one that is there. The first failure is named and ends the writing. A twentieth of
// the disk is left free.
void tile_cache_write(TileCache *c, Digest key, const void *bytes);
TileCacheCounts tile_cache_counts(const TileCache *c);
