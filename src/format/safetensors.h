// safetensors files (8 bytes of header length, a JSON header, the data): strict reading through a map,
// writing in the layout nanoVLM's save_pretrained gives (tensors sorted, header padded with spaces to 8
// bytes).
#pragma once
#include "base/error.h"
#include "tensor/dtype.h"

#include <stdbool.h>
#include <stddef.h>

#define SAFETENSORS_MAX_DIMS 8

typedef struct SafetensorsEntry {
    const char *name; // borrowed from the Safetensors
    Dtype dtype;
    int ndim; // 0 for a scalar
    size_t shape[SAFETENSORS_MAX_DIMS];
    size_t count, bytes;
    const void *data; // borrowed from the map; valid until safetensors_close; perhaps not aligned
} SafetensorsEntry;

typedef struct Safetensors Safetensors;

// Opens and checks the whole header: lengths, offsets inside the file, no overlap, bytes = shape x dtype,
// names once.
bool safetensors_open(Safetensors **st, const char *path, Error *err);
void safetensors_close(Safetensors *st); // NULL is fine
size_t safetensors_count(const Safetensors *st);
const SafetensorsEntry *safetensors_entry(const Safetensors *st, size_t i); // in the order of the header
const SafetensorsEntry *safetensors_find(const Safetensors *st, const char *name); // NULL when absent
const char *safetensors_metadata(const Safetensors *st, const char *key);          // NULL when absent
const struct json_t *safetensors_all_metadata(const Safetensors *st); // an object of texts; borrowed; or NULL
const char *safetensors_path(const Safetensors *st);
// Converts count values to float (F32, BF16, F16, F64 entries). Anything else is an error.
bool safetensors_to_f32(float *out, const SafetensorsEntry *e, Error *err);
// The same for values [first, first + count) alone.
bool safetensors_read_f32(float *out, const SafetensorsEntry *e, size_t first, size_t count, Error *err);

typedef struct SafetensorsSpec {
    const char *name;
    Dtype dtype;
    int ndim;
    size_t shape[SAFETENSORS_MAX_DIMS];
} SafetensorsSpec;

// Writes atomically (base/file.h). specs in any order; they are written as the safetensors library does, the
// widest dtypes first and then by name. fill copies the values of specs[i] into dst (its bytes are count x
// dtype size) and returns false on failure. metadata: n_metadata pairs {key, value}; none: no __metadata__.
bool safetensors_write(const char *path, const SafetensorsSpec *specs, size_t n,
                       const char *const (*metadata)[2], size_t n_metadata,
                       bool (*fill)(void *context, size_t i, void *dst), void *context, Error *err);
