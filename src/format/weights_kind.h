// The kinds of files that hold weights, one table row each (weights.c): a new kind is a struct and a row
// there.
#pragma once
#include "format/weights.h"

typedef struct WeightsKind {
    const char *name;   // "safetensors"
    const char *suffix; // of file names, ".safetensors"
    const char *magic;  // the file's first bytes; NULL: none. A file is of the first kind that fits, by magic
                        // or suffix
    bool (*open)(void **file, const char *path, Error *err);
    void (*close)(void *file);
    size_t (*count)(const void *file);
    // Fills name, type, ndim, shape, count, bytes and source; all borrowed from file, names as transformers
    // has them.
    void (*describe)(WeightsEntry *e, const void *file, size_t i);
    bool (*read_f32)(float *out, const WeightsEntry *e, size_t first, size_t count, Error *err);
    // What config.json would say, as a new reference, from what the file carries. The member is NULL for
    // kinds that carry nothing.
    json_t *(*config)(const void *file, Error *err);
} WeightsKind;

typedef struct WeightsFile {
    const WeightsKind *kind;
    void *file; // the kind's own
    char *path;
} WeightsFile;

extern const WeightsKind weights_safetensors, weights_gguf;
