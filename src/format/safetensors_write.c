#include "base/check.h"
#include "base/file.h"
#include "base/memory.h"
#include "format/safetensors.h"

#include <jansson.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

// The place of a dtype in the order of the safetensors library, which puts wide dtypes first so that values
// stay aligned, and tensors of one dtype by name.
static const int dtype_rank[DTYPE_COUNT] = {
    [DTYPE_I64] = 0, [DTYPE_F64] = 1, [DTYPE_F32] = 2, [DTYPE_I32] = 3, [DTYPE_BF16] = 4,
    [DTYPE_F16] = 5, [DTYPE_I16] = 6, [DTYPE_I8] = 7,  [DTYPE_U8] = 8,  [DTYPE_BOOL] = 9,
};

static int compare_specs(const void *a, const void *b, void *specs) {
    const SafetensorsSpec *x = (const SafetensorsSpec *)specs + *(const size_t *)a;
    const SafetensorsSpec *y = (const SafetensorsSpec *)specs + *(const size_t *)b;
    int order = dtype_rank[x->dtype] - dtype_rank[y->dtype];
    return order ? order : strcmp(x->name, y->name);
}

static size_t spec_bytes(const SafetensorsSpec *s) {
    size_t bytes = dtype_size(s->dtype);
    CHECK(s->ndim >= 0 && s->ndim <= SAFETENSORS_MAX_DIMS, "tensor %s: %d dimensions", s->name, s->ndim);
    for (int d = 0; d < s->ndim; d++)
        CHECK(!__builtin_mul_overflow(bytes, s->shape[d], &bytes), "tensor %s: size overflows", s->name);
    return bytes;
}

static json_t *spec_json(const SafetensorsSpec *s, size_t offset) {
    json_t *entry = json_object(), *shape = json_array();
    for (int d = 0; d < s->ndim; d++) json_array_append_new(shape, json_integer((json_int_t)s->shape[d]));
    json_object_set_new(entry, "dtype", json_string(dtype_name(s->dtype)));
    json_object_set_new(entry, "shape", shape);
    json_object_set_new(entry, "data_offsets",
                        json_pack("[I, I]", (json_int_t)offset, (json_int_t)(offset + spec_bytes(s))));
    return entry;
}

// The header's text, padded with spaces to 8 bytes; caller frees. NULL when a name or a value is not UTF-8.
static char *header_text(const SafetensorsSpec *specs, const size_t *order, size_t n,
                         const char *const (*metadata)[2], size_t n_metadata) {
    json_t *header = json_object(), *pairs = json_object();
    bool ok = true;
    for (size_t i = 0; i < n_metadata; i++)
        ok = json_object_set_new(pairs, metadata[i][0], json_string(metadata[i][1])) == 0 && ok;
    if (n_metadata) json_object_set(header, "__metadata__", pairs);
    json_decref(pairs);
    size_t offset = 0;
    for (size_t i = 0; i < n; i++) {
        const SafetensorsSpec *s = &specs[order[i]];
        CHECK(!json_object_get(header, s->name), "tensor %s is written twice", s->name);
        ok = json_object_set_new(header, s->name, spec_json(s, offset)) == 0 && ok;
        offset += spec_bytes(s);
    }
    char *json = ok ? json_dumps(header, JSON_COMPACT) : NULL;
    json_decref(header);
    if (!json) return NULL;
    int padding = (int)(-strlen(json) & 7);
    char *text = mem_printf("%s%*s", json, padding, "");
    free(json);
    return text;
}

static bool write_all(FileWriter *w, const char *header, const SafetensorsSpec *specs, const size_t *order,
                      size_t n, bool (*fill)(void *context, size_t i, void *dst), void *context, void *buffer,
                      Error *err) {
    size_t length = strlen(header);
    unsigned char length_bytes[8];
    for (int i = 0; i < 8; i++) length_bytes[i] = (unsigned char)((uint64_t)length >> 8 * i);
    if (!file_put(w, length_bytes, sizeof length_bytes, err) || !file_put(w, header, length, err))
        return false;
    for (size_t i = 0; i < n; i++) {
        const SafetensorsSpec *s = &specs[order[i]];
        if (!fill(context, order[i], buffer))
            return error_set(err, "%s: tensor %s: its values could not be read", w->path, s->name);
        if (!file_put(w, buffer, spec_bytes(s), err)) return false;
    }
    return true;
}

bool safetensors_write(const char *path, const SafetensorsSpec *specs, size_t n,
                       const char *const (*metadata)[2], size_t n_metadata,
                       bool (*fill)(void *context, size_t i, void *dst), void *context, Error *err) {
    size_t *order = mem_alloc((n + 1) * sizeof *order), largest = 1;
    for (size_t i = 0; i < n; i++) {
        order[i] = i;
        if (spec_bytes(&specs[i]) > largest) largest = spec_bytes(&specs[i]);
    }
    qsort_r(order, n, sizeof *order, compare_specs, (void *)specs);
    char *header = header_text(specs, order, n, metadata, n_metadata);
    void *buffer = malloc(largest);
    FileWriter w = {0};
    bool ok = true;
    if (!header)
        ok = error_set(err, "%s: a tensor name or metadata value is not UTF-8", path);
    else if (!buffer)
        ok = error_set(err, "%s: no memory for the largest tensor, %zu bytes", path, largest);
    ok = ok && file_create(&w, path, err);
    ok = ok && write_all(&w, header, specs, order, n, fill, context, buffer, err);
    if (ok)
        ok = file_commit(&w, err);
    else
        file_abandon(&w);
    free(buffer);
    free(header);
    free(order);
    return ok;
}
