#include "format/gguf_parts.h"

#include <string.h>

#define LENGTH_BYTES 8  // of a string or an array
#define ARRAY_BYTES  12 // before the items: their type and their number
#define MAX_DEPTH    4  // of arrays within arrays

static const unsigned char *gguf_take(GgufCursor *c, size_t size, const char *what, Error *err) {
    if (size > c->size - c->at) {
        error_set(
            err,
            "%s: %s: takes %zu bytes from byte %zu on, but the file has %zu; it is truncated or damaged: "
            "copy it again",
            c->path, what, size, c->at, c->size);
        return NULL;
    }
    c->at += size;
    return c->bytes + c->at - size;
}

bool gguf_take_u32(GgufCursor *c, uint32_t *value, const char *what, Error *err) {
    const unsigned char *bytes = gguf_take(c, sizeof *value, what, err);
    if (bytes) memcpy(value, bytes, sizeof *value);
    return bytes;
}

bool gguf_take_u64(GgufCursor *c, uint64_t *value, const char *what, Error *err) {
    const unsigned char *bytes = gguf_take(c, sizeof *value, what, err);
    if (bytes) memcpy(value, bytes, sizeof *value);
    return bytes;
}

bool gguf_take_count(GgufCursor *c, size_t *count, size_t least, const char *what, Error *err) {
    uint64_t n;
    *count = 0;
    if (!gguf_take_u64(c, &n, what, err)) return false;
    const size_t rest = c->size - c->at;
    if (n > rest / least)
        return error_set(err,
                         "%s: %s: %llu, but the %zu bytes behind it hold at most %zu; the file is truncated "
                         "or damaged: copy it again",
                         c->path, what, (unsigned long long)n, rest, rest / least);
    *count = (size_t)n;
    return true;
}

bool gguf_take_name(GgufCursor *c, char **name, size_t longest, const char *what, Error *err) {
    size_t size;
    if (!gguf_take_count(c, &size, 1, what, err)) return false;
    const unsigned char *bytes = gguf_take(c, size, what, err);
    if (!bytes) return false;
    if (size > longest)
        return error_set(err, "%s: %s: %zu bytes long, expected at most %zu; the file is damaged", c->path,
                         what, size, longest);
    if (memchr(bytes, '\0', size))
        return error_set(err, "%s: %s: holds a zero byte; the file is damaged", c->path, what);
    *name = mem_strndup((const char *)bytes, size);
    return true;
}

static bool take_type(GgufCursor *c, GgufValueType *type, const char *key, Error *err) {
    uint32_t number;
    if (!gguf_take_u32(c, &number, key, err)) return false;
    if (number >= GGUF_VALUE_TYPES)
        return error_set(err, "%s: %s: value type %u is unknown, expected 0…%d; the file is damaged or newer",
                         c->path, key, number, GGUF_VALUE_TYPES - 1);
    *type = (GgufValueType)number;
    return true;
}

static bool check_bools(const GgufCursor *c, const unsigned char *bytes, size_t n, const char *key,
                        Error *err) {
    for (size_t i = 0; i < n; i++)
        if (bytes[i] > 1)
            return error_set(err, "%s: %s: a BOOL is %d, expected 0 or 1; the file is damaged", c->path, key,
                             bytes[i]);
    return true;
}

static bool take_string(GgufCursor *c, const char *key, Error *err) {
    size_t size;
    return gguf_take_count(c, &size, 1, key, err) && gguf_take(c, size, key, err);
}

static bool take_array(GgufCursor *c, GgufValue *array, int depth, const char *key, Error *err);

// count items of a type, which is at most depth arrays deep.
static bool take_items(GgufCursor *c, GgufValueType type, size_t count, int depth, const char *key,
                       Error *err) {
    const unsigned char *bytes = c->bytes + c->at;
    GgufValue inner;
    bool ok = true;
    if (type == GGUF_STRING)
        for (size_t i = 0; ok && i < count; i++) ok = take_string(c, key, err);
    else if (type == GGUF_ARRAY)
        for (size_t i = 0; ok && i < count; i++) ok = take_array(c, &inner, depth - 1, key, err);
    else
        ok = gguf_take(c, count * gguf_value_size(type), key, err);
    return ok && (type != GGUF_BOOL || check_bools(c, bytes, count, key, err));
}

static bool take_array(GgufCursor *c, GgufValue *array, int depth, const char *key, Error *err) {
    if (depth == 0)
        return error_set(err, "%s: %s: arrays lie more than %d deep; the file is damaged", c->path, key,
                         MAX_DEPTH);
    array->type = GGUF_ARRAY;
    if (!take_type(c, &array->item_type, key, err)) return false;
    const size_t size = gguf_value_size(array->item_type);
    const size_t least = size ? size : array->item_type == GGUF_ARRAY ? ARRAY_BYTES : LENGTH_BYTES;
    if (!gguf_take_count(c, &array->count, least, key, err)) return false;
    array->data = c->bytes + c->at;
    const size_t begin = c->at;
    if (!take_items(c, array->item_type, array->count, depth, key, err)) return false;
    array->bytes = c->at - begin;
    return true;
}

bool gguf_take_value(GgufCursor *c, GgufValue *value, const char *key, Error *err) {
    *value = (GgufValue){.count = 1};
    if (!take_type(c, &value->type, key, err)) return false;
    if (value->type == GGUF_ARRAY) return take_array(c, value, MAX_DEPTH, key, err);
    value->data = c->bytes + c->at;
    const size_t begin = c->at;
    if (!take_items(c, value->type, 1, 0, key, err)) return false;
    value->bytes = c->at - begin;
    return true;
}

bool gguf_take_array(GgufCursor *c, GgufValue *array, const char *key, Error *err) {
    *array = (GgufValue){.count = 1};
    return take_array(c, array, MAX_DEPTH, key, err);
}
