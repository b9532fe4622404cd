// Reference tensors from safetensors files, as plain arrays.
#pragma once
#include "base/batch.h"
#include "format/safetensors.h"
#include "support/golden.h"
#include "tensor/backend.h"

#include <jansson.h>

Safetensors *reference_open(const char *format, ...)
    __attribute__((format(printf, 1, 2)));                       // under golden_root()
float *reference_f32(const Safetensors *st, const char *name);   // NULL when absent; caller frees
int32_t *reference_i32(const Safetensors *st, const char *name); // from I64; NULL when absent; caller frees
// A batch from "<prefix>input_ids", attention_mask, labels, images (each may be absent but the ids).
Batch reference_batch(const Safetensors *st, const char *prefix);
void reference_batch_free(Batch *b);
json_t *reference_json(const char *format, ...) __attribute__((format(printf, 1, 2))); // caller decrefs
float *tensor_values(Backend *be, Tensor t); // downloads, BF16 as F32; caller frees
