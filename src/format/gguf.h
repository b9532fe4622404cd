// GGUF files (llama.cpp's format, versions 2 and 3, little endian): metadata, then where the tensors are,
// then their values. Strict reading through a map, and writing. Specification: ggml's docs/gguf.md.
#pragma once
#include "base/error.h"
#include "base/vec.h"
#include "format/gguf_types.h"

// ---- metadata ----

typedef enum GgufValueType { // the numbers that stand in files
    GGUF_U8,
    GGUF_I8,
    GGUF_U16,
    GGUF_I16,
    GGUF_U32,
    GGUF_I32,
    GGUF_F32,
    GGUF_BOOL,
    GGUF_STRING,
    GGUF_ARRAY,
    GGUF_U64,
    GGUF_I64,
    GGUF_F64,
    GGUF_VALUE_TYPES
} GgufValueType;

typedef struct GgufString { // any bytes, not terminated
    const char *text;
    size_t size;
} GgufString;

// A value as it stands in the file; its bytes have been checked.
typedef struct GgufValue {
    GgufValueType type;
    GgufValueType item_type; // of an array
    size_t count;            // items of an array; 1 of any other
    const void *data;        // of an array: its first item; of a string: its length; perhaps not aligned
    size_t bytes;            // from data on
} GgufValue;

typedef struct GgufPair {
    char *key;
    GgufValue value;
} GgufPair;

const char *gguf_value_type_name(GgufValueType type); // "U8", … "ARRAY"
// The value in C's types. False when it has another type or does not fit: u64 and i64 take every integer
// type, f64 every number.
bool gguf_value_u64(const GgufValue *v, uint64_t *out);
bool gguf_value_i64(const GgufValue *v, int64_t *out);
bool gguf_value_f64(const GgufValue *v, double *out);
bool gguf_value_bool(const GgufValue *v, bool *out);
bool gguf_value_string(const GgufValue *v, GgufString *out);
// Steps through an array, whose items may be arrays: *place begins at 0; false behind the last item.
bool gguf_array_next(const GgufValue *array, size_t *place, GgufValue *item);

// ---- reading ----

#define GGUF_MAX_DIMS 4

typedef struct GgufTensor {
    char *name;
    GgufType type; // every type has a size; whether it can be decoded says gguf_type_can_decode
    int ndim;      // 0 for a scalar
    // In PyTorch's order, the outermost dimension first; GGUF lists them the other way round. A row is the
    // last dimension, and lies together in the file.
    size_t shape[GGUF_MAX_DIMS];
    size_t count, bytes;       // of the tensor
    size_t row_values, n_rows; // row_values is 1 for a scalar
    const void *data;          // borrowed from the map; valid until gguf_close
} GgufTensor;

typedef struct Gguf Gguf;

bool gguf_is_file(const char *path); // by its name: whether it ends in .gguf
// Opens and checks everything but the tensors' values: lengths, types, names once, alignment, offsets inside
// the file, no overlap. An error names the file, the field, what was found and what was expected.
bool gguf_open(Gguf **g, const char *path, Error *err);
void gguf_close(Gguf *g); // NULL is fine
const char *gguf_path(const Gguf *g);
uint32_t gguf_version(const Gguf *g);
size_t gguf_alignment(const Gguf *g); // of the tensors' offsets

size_t gguf_pair_count(const Gguf *g);
const GgufPair *gguf_pair(const Gguf *g, size_t i);               // in the file's order
const GgufValue *gguf_find_value(const Gguf *g, const char *key); // NULL when absent
// What must be there and of this type: else an error. (For what may be absent ask gguf_find_value first.)
bool gguf_get_u64(const Gguf *g, const char *key, uint64_t *out, Error *err);
bool gguf_get_f64(const Gguf *g, const char *key, double *out, Error *err);
bool gguf_get_bool(const Gguf *g, const char *key, bool *out, Error *err);
bool gguf_get_string(const Gguf *g, const char *key, GgufString *out, Error *err);
// Arrays; the caller frees *items (also of an empty array), which borrow the texts from the map.
bool gguf_get_strings(const Gguf *g, const char *key, GgufString **items, size_t *n, Error *err);
bool gguf_get_i64s(const Gguf *g, const char *key, int64_t **items, size_t *n, Error *err);
bool gguf_get_f64s(const Gguf *g, const char *key, double **items, size_t *n, Error *err);
bool gguf_string_is(GgufString s, const char *text);

size_t gguf_tensor_count(const Gguf *g);
const GgufTensor *gguf_tensor(const Gguf *g, size_t i);              // in the file's order
const GgufTensor *gguf_find_tensor(const Gguf *g, const char *name); // NULL when absent
// Values [first, first + n) as floats, wherever blocks begin and end. Any number of threads may read at once.
// A type that cannot be decoded is an error that names the tensor and its type.
bool gguf_read_f32(float *out, const GgufTensor *t, size_t first, size_t n, Error *err);

// ---- writing ----

// Metadata of a file to be written, in the order of the calls; zeroed at first. Each key once (CHECK).
typedef struct GgufMetadata {
    CharVec bytes; // as they will stand in the file
    size_t count;
    VEC(size_t) keys; // where the keys stand in bytes
} GgufMetadata;

void gguf_put_u32(GgufMetadata *m, const char *key, uint32_t value);
void gguf_put_f32(GgufMetadata *m, const char *key, float value);
void gguf_put_bool(GgufMetadata *m, const char *key, bool value);
void gguf_put_string(GgufMetadata *m, const char *key, const char *value);
void gguf_put_strings(GgufMetadata *m, const char *key, const GgufString *items, size_t n);
void gguf_put_i32s(GgufMetadata *m, const char *key, const int32_t *items, size_t n);
void gguf_put_f32s(GgufMetadata *m, const char *key, const float *items, size_t n);
// Any value, laid out as in files: one of another file, or of a type that has no function above.
void gguf_put_value(GgufMetadata *m, const char *key, const GgufValue *value);
void gguf_metadata_free(GgufMetadata *m);

typedef struct GgufSpec {
    const char *name; // at most GGUF_MAX_NAME bytes: llama.cpp reads no longer ones
    GgufType type;    // any
    int ndim;
    size_t shape[GGUF_MAX_DIMS]; // PyTorch's order; the last one a multiple of gguf_type_block_values
} GgufSpec;
#define GGUF_MAX_NAME 63

size_t gguf_spec_bytes(const GgufSpec *spec);
// Writes version 3 atomically (base/file.h): the metadata, then the tensors in the order of specs, at offsets
// that are multiples of general.alignment, which is 32 unless the metadata holds another U32. fill puts the
// gguf_spec_bytes of tensor i into dst (gguf_encode helps) and returns false on failure; there is only ever
// one tensor in memory.
bool gguf_write(const char *path, const GgufMetadata *metadata, const GgufSpec *specs, size_t n,
                bool (*fill)(void *context, size_t i, void *dst), void *context, Error *err);
