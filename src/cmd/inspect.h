// What `vlm inspect` finds out about a path, one JSON object a kind of thing, which is printed as it is
// (--json) or as a table.
#pragma once
#include "base/error.h"

#include <jansson.h>
#include <stdbool.h>

typedef struct InspectFlags {
    bool json, stats;
    char *tensor; // print values of this one; NULL: none
} InspectFlags;

// Each fills `about` (an object) and is false with the reader's own error, which names the file.
// Weights: "tensors" [{name, type, shape, values, bytes}], "totals", with stats "stats" in each tensor, and
// with a tensor named its first values.
bool inspect_weights(json_t *about, const char *path, const InspectFlags *f, Error *err);
bool inspect_gguf(json_t *about, const char *path, const InspectFlags *f, Error *err); // and "metadata"
bool inspect_rows(json_t *about, const char *path, Error *err);      // Parquet, Arrow: schema, row groups
bool inspect_tokenizer(json_t *about, const char *path, Error *err); // file, folder or GGUF
// A folder that nanoVLM or `vlm train` saved: configuration, values a group, tokenizer, then its weights.
bool inspect_checkpoint(json_t *about, const char *path, const InspectFlags *f, Error *err);

void inspect_print(const json_t *about); // as tables within 100 columns
