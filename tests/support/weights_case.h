// Small files of weights, written for a test.
#pragma once
#include "support/folders.h"
#include "base/error.h"
#include "tensor/dtype.h"

#include <stddef.h>

typedef struct TensorCase {
    const char *name; // NULL ends a list
    int ndim;
    size_t shape[4];
} TensorCase;

// The value i of tensor t in every such file: small, exact in every dtype, never 0.
float case_value(size_t t, size_t i);
// Writes the tensors as safetensors of F32, BF16, F16 or F64; fails the test when it cannot.
void write_tensors(const char *path, const TensorCase *tensors, Dtype dtype);
void write_text(const char *folder, const char *name, const char *text);
// The checkpoint in `from` as two shards with an index: revision 1 of the model in a Hub cache; model:
// ORG--NAME.
void shard_into_cache(const char *cache, const char *model, const char *from);
