// Tensors by name from wherever weights lie: one file of any known kind, or a folder with model.safetensors,
// with model.safetensors.index.json and its shards, or with one file of another kind. What a kind of file is
// stands in weights_kind.h; reading is thread-safe and goes straight from the map.
#pragma once
#include "base/error.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#define WEIGHTS_MAX_DIMS 8

typedef struct Weights Weights;
struct WeightsFile;

typedef struct WeightsEntry {
    const char *name; // borrowed from the Weights, as Hugging Face's transformers calls the tensor
    const char *type; // "F32", "BF16", "Q4_K", …: for messages and lists
    int ndim;         // 0 for a scalar
    size_t shape[WEIGHTS_MAX_DIMS]; // outermost first, as PyTorch has it
    size_t count, bytes;            // values, and what they take in the file
    const struct WeightsFile *file;
    const void *source; // the kind's own view of the tensor
} WeightsEntry;

// Opens every file and checks its header. Errors name the file: a missing shard, a tensor that the index
// promises and its shard lacks, a name that stands in two shards, a shard outside the folder.
bool weights_open(Weights **w, const char *path, Error *err);
void weights_close(Weights *w);             // NULL is fine
const char *weights_path(const Weights *w); // as given to weights_open
size_t weights_count(const Weights *w);
const WeightsEntry *weights_entry(const Weights *w, size_t i);        // in the order of names
const WeightsEntry *weights_find(const Weights *w, const char *name); // NULL when absent
const char *weights_entry_path(const WeightsEntry *e);                // of the file it lies in
// Values [first, first + count) as float. A type that holds no real numbers (integers, bool) is an error.
// Any number of threads may read at once. Quantised types demand nothing of first and count either.
bool weights_read_f32(float *out, const WeightsEntry *e, size_t first, size_t count, Error *err);
// The model's configuration as Hugging Face's config.json has it: from a file that carries its own (GGUF),
// else config.json in the folder or beside the file. Caller drops the reference; NULL with an error when
// there is none.
json_t *weights_config(const Weights *w, Error *err);
