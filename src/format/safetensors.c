#include "format/safetensors.h"
#include "base/check.h"
#include "base/file.h"
#include "base/memory.h"
#include "format/convert.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#define LENGTH_BYTES 8                   // the header's length, little endian, before the header
#define MAX_HEADER   ((size_t)100000000) // the limit of the safetensors library
#define METADATA     "__metadata__"

struct Safetensors {
    char *path;
    FileMap map;
    json_t *header; // owns the names and the metadata
    size_t count;
    SafetensorsEntry *entries; // in the order of the header
    size_t *by_name;           // numbers of entries, names in bytewise order
};

// ---- reading ----

static size_t read_le64(const unsigned char *p) {
    size_t value = 0;
    for (int i = LENGTH_BYTES - 1; i >= 0; i--) value = value << 8 | p[i];
    return value;
}

// Parses the JSON header into st->header; *data is where the values begin.
static bool parse_header(Safetensors *st, size_t *data, Error *err) {
    const char *path = st->path;
    if (st->map.size < LENGTH_BYTES)
        return error_set(err, "%s: not a safetensors file: %zu bytes, at least 8 expected", path,
                         st->map.size);
    size_t length = read_le64(st->map.bytes), rest = st->map.size - LENGTH_BYTES;
    if (length > MAX_HEADER)
        return error_set(err, "%s: header length %zu is over the limit of %zu bytes; not a safetensors file?",
                         path, length, MAX_HEADER);
    if (length > rest)
        return error_set(err,
                         "%s: header of %zu bytes in a file with %zu bytes after its length; the file is "
                         "truncated or damaged: copy it again",
                         path, length, rest);
    const char *text = (const char *)st->map.bytes + LENGTH_BYTES;
    if (length == 0 || text[0] != '{')
        return error_set(err, "%s: the header does not begin with '{'; not a safetensors file?", path);
    json_error_t json;
    st->header = json_loadb(text, length, JSON_REJECT_DUPLICATES, &json);
    if (!st->header)
        return error_set(err, "%s: header is not valid JSON: %s (byte %d)", path, json.text, json.position);
    *data = LENGTH_BYTES + length;
    return true;
}

static bool parse_metadata(const Safetensors *st, const json_t *metadata, Error *err) {
    if (!json_is_object(metadata))
        return error_set(err, "%s: " METADATA " is not a map of strings", st->path);
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)metadata, key, value) {
        if (!json_is_string(value))
            return error_set(err, "%s: " METADATA ": the value of '%s' is not a string", st->path, key);
    }
    return true;
}

static bool parse_shape(SafetensorsEntry *e, const Safetensors *st, const json_t *shape, Error *err) {
    if (!json_is_array(shape)) return error_set(err, "%s: tensor %s: shape is not a list", st->path, e->name);
    if (json_array_size(shape) > SAFETENSORS_MAX_DIMS)
        return error_set(err, "%s: tensor %s: %zu dimensions, at most %d are supported", st->path, e->name,
                         json_array_size(shape), SAFETENSORS_MAX_DIMS);
    e->ndim = (int)json_array_size(shape);
    e->count = 1;
    for (int d = 0; d < e->ndim; d++) {
        const json_t *size = json_array_get(shape, (size_t)d);
        if (!json_is_integer(size) || json_integer_value(size) < 0)
            return error_set(err, "%s: tensor %s: shape[%d] is not a non-negative integer", st->path, e->name,
                             d);
        e->shape[d] = (size_t)json_integer_value(size);
        if (__builtin_mul_overflow(e->count, e->shape[d], &e->count))
            return error_set(err, "%s: tensor %s: the product of its shape overflows", st->path, e->name);
    }
    if (__builtin_mul_overflow(e->count, dtype_size(e->dtype), &e->bytes))
        return error_set(err, "%s: tensor %s: the product of its shape overflows", st->path, e->name);
    return true;
}

static bool parse_offsets(SafetensorsEntry *e, const Safetensors *st, const json_t *offsets, size_t data,
                          Error *err) {
    const json_t *a = json_array_get(offsets, 0), *b = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !json_is_integer(a) || !json_is_integer(b))
        return error_set(err, "%s: tensor %s: data_offsets is not a list of two integers", st->path, e->name);
    json_int_t begin = json_integer_value(a), end = json_integer_value(b);
    size_t size = st->map.size - data;
    if (begin < 0 || end < begin || (size_t)end > size)
        return error_set(
            err,
            "%s: tensor %s: data_offsets [%lld, %lld] lie outside the %zu bytes of data; the file "
            "is truncated or damaged: copy it again",
            st->path, e->name, (long long)begin, (long long)end, size);
    if ((size_t)(end - begin) != e->bytes)
        return error_set(
            err,
            "%s: tensor %s: data_offsets [%lld, %lld] hold %lld bytes, shape and dtype %s ask for "
            "%zu; the file is damaged: copy it again",
            st->path, e->name, (long long)begin, (long long)end, (long long)(end - begin),
            dtype_name(e->dtype), e->bytes);
    e->data = st->map.bytes + data + begin;
    return true;
}

static bool parse_entry(SafetensorsEntry *e, const Safetensors *st, const char *name, const json_t *value,
                        size_t data, Error *err) {
    e->name = name;
    const json_t *dtype = json_object_get(value, "dtype");
    if (json_object_size(value) != 3 || !json_is_string(dtype))
        return error_set(err, "%s: tensor %s: expected a map of dtype, shape and data_offsets", st->path,
                         name);
    int known = dtype_from_name(json_string_value(dtype), json_string_length(dtype));
    if (known < 0)
        return error_set(err, "%s: tensor %s: dtype '%s' is not supported", st->path, name,
                         json_string_value(dtype));
    e->dtype = (Dtype)known;
    return parse_shape(e, st, json_object_get(value, "shape"), err) &&
           parse_offsets(e, st, json_object_get(value, "data_offsets"), data, err);
}

static int compare_places(const void *a, const void *b) {
    const SafetensorsEntry *x = *(SafetensorsEntry *const *)a, *y = *(SafetensorsEntry *const *)b;
    const char *p = x->data, *q = y->data;
    return p != q ? (p > q) - (p < q) : (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

// The tensors must fill the data without overlap and without holes, as the safetensors library demands.
static bool check_places(const Safetensors *st, size_t data, Error *err) {
    SafetensorsEntry **order = mem_alloc((st->count + 1) * sizeof *order);
    for (size_t i = 0; i < st->count; i++) order[i] = &st->entries[i];
    qsort(order, st->count, sizeof *order, compare_places);
    const unsigned char *base = st->map.bytes + data, *next = base;
    bool ok = true;
    for (size_t i = 0; ok && i < st->count; i++) {
        const unsigned char *p = order[i]->data;
        if (p != next)
            ok = error_set(
                err,
                "%s: tensor %s: begins at byte %zu of the data, %s byte %zu where the one before ends; "
                "the file is damaged",
                st->path, order[i]->name, (size_t)(p - base),
                p < next ? "overlapping" : "leaving a hole from", (size_t)(next - base));
        next = p + order[i]->bytes;
    }
    if (ok && next != st->map.bytes + st->map.size)
        ok = error_set(err, "%s: %zu bytes follow the last tensor; the file is damaged", st->path,
                       (size_t)(st->map.bytes + st->map.size - next));
    free(order);
    return ok;
}

static int compare_names(const void *a, const void *b, void *entries) {
    const SafetensorsEntry *e = entries;
    return strcmp(e[*(const size_t *)a].name, e[*(const size_t *)b].name);
}

static bool parse(Safetensors *st, Error *err) {
    size_t data;
    if (!parse_header(st, &data, err)) return false;
    st->entries = mem_zeroed(json_object_size(st->header) + 1, sizeof *st->entries);
    const char *name;
    json_t *value;
    json_object_foreach(st->header, name, value) {
        bool ok = strcmp(name, METADATA) == 0
                      ? parse_metadata(st, value, err)
                      : parse_entry(&st->entries[st->count++], st, name, value, data, err);
        if (!ok) return false;
    }
    st->by_name = mem_alloc((st->count + 1) * sizeof *st->by_name);
    for (size_t i = 0; i < st->count; i++) st->by_name[i] = i;
    qsort_r(st->by_name, st->count, sizeof *st->by_name, compare_names, st->entries);
    return check_places(st, data, err);
}

bool safetensors_open(Safetensors **out, const char *path, Error *err) {
    *out = NULL;
    Safetensors *st = mem_zeroed(1, sizeof *st);
    st->path = mem_strdup(path);
    if (!file_map(&st->map, path, err) || !parse(st, err)) {
        safetensors_close(st);
        return false;
    }
    *out = st;
    return true;
}

void safetensors_close(Safetensors *st) {
    if (!st) return;
    json_decref(st->header);
    file_unmap(&st->map);
    free(st->entries);
    free(st->by_name);
    free(st->path);
    free(st);
}

size_t safetensors_count(const Safetensors *st) {
    return st->count;
}

const char *safetensors_path(const Safetensors *st) {
    return st->path;
}

const SafetensorsEntry *safetensors_entry(const Safetensors *st, size_t i) {
    return i < st->count ? &st->entries[i] : NULL;
}

const SafetensorsEntry *safetensors_find(const Safetensors *st, const char *name) {
    size_t low = 0, high = st->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const SafetensorsEntry *e = &st->entries[st->by_name[middle]];
        int order = strcmp(name, e->name);
        if (order == 0) return e;
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

const char *safetensors_metadata(const Safetensors *st, const char *key) {
    return json_string_value(json_object_get(json_object_get(st->header, METADATA), key));
}

const json_t *safetensors_all_metadata(const Safetensors *st) {
    return json_object_get(st->header, METADATA);
}

bool safetensors_read_f32(float *out, const SafetensorsEntry *e, size_t first, size_t count, Error *err) {
    if (!convert_is_float(e->dtype))
        return error_set(err, "tensor %s: dtype %s, expected F32, BF16, F16 or F64", e->name,
                         dtype_name(e->dtype));
    CHECK(first <= e->count && count <= e->count - first, "tensor %s: values %zu + %zu of %zu", e->name,
          first, count, e->count);
    if (count) convert_to_f32(out, e->dtype, (const char *)e->data + first * dtype_size(e->dtype), count);
    return true;
}

bool safetensors_to_f32(float *out, const SafetensorsEntry *e, Error *err) {
    return safetensors_read_f32(out, e, 0, e->count, err);
}
