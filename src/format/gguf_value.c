#include "format/gguf_parts.h"

#include <stdio.h>
#include <string.h>

#define LENGTH_BYTES 8  // of a string or an array
#define ARRAY_BYTES  12 // before the items: their type and their number
#define MAX_DEPTH    4  // of arrays within arrays

static const struct {
    const char *name;
    size_t size; // 0: it varies
} value_types[GGUF_VALUE_TYPES] = {
    [GGUF_U8] = {"U8", 1},       [GGUF_I8] = {"I8", 1},     [GGUF_U16] = {"U16", 2},
    [GGUF_I16] = {"I16", 2},     [GGUF_U32] = {"U32", 4},   [GGUF_I32] = {"I32", 4},
    [GGUF_F32] = {"F32", 4},     [GGUF_BOOL] = {"BOOL", 1}, [GGUF_STRING] = {"STRING", 0},
    [GGUF_ARRAY] = {"ARRAY", 0}, [GGUF_U64] = {"U64", 8},   [GGUF_I64] = {"I64", 8},
    [GGUF_F64] = {"F64", 8},
};

const char *gguf_value_type_name(GgufValueType type) {
    return value_types[type].name;
}

// ---- parsing ----

const unsigned char *gguf_take(GgufCursor *c, size_t size, const char *what, Error *err) {
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
        ok = gguf_take(c, count * value_types[type].size, key, err);
    return ok && (type != GGUF_BOOL || check_bools(c, bytes, count, key, err));
}

static bool take_array(GgufCursor *c, GgufValue *array, int depth, const char *key, Error *err) {
    if (depth == 0)
        return error_set(err, "%s: %s: arrays lie more than %d deep; the file is damaged", c->path, key,
                         MAX_DEPTH);
    array->type = GGUF_ARRAY;
    if (!take_type(c, &array->item_type, key, err)) return false;
    const size_t size = value_types[array->item_type].size;
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

// ---- access ----

// A plain value as the widest number of its kind.
typedef struct Number {
    enum { NUMBER_NONE, NUMBER_UNSIGNED, NUMBER_SIGNED, NUMBER_FLOAT } kind;
    uint64_t u;
    int64_t i;
    double f;
} Number;

static Number number_of(const GgufValue *v) {
    union {
        uint8_t u8;
        int8_t i8;
        uint16_t u16;
        int16_t i16;
        uint32_t u32;
        int32_t i32;
        float f32;
        uint64_t u64;
        int64_t i64;
        double f64;
    } x;
    memcpy(&x, v->data, value_types[v->type].size);
    switch (v->type) {
    case GGUF_U8:
        return (Number){NUMBER_UNSIGNED, .u = x.u8};
    case GGUF_U16:
        return (Number){NUMBER_UNSIGNED, .u = x.u16};
    case GGUF_U32:
        return (Number){NUMBER_UNSIGNED, .u = x.u32};
    case GGUF_U64:
        return (Number){NUMBER_UNSIGNED, .u = x.u64};
    case GGUF_I8:
        return (Number){NUMBER_SIGNED, .i = x.i8};
    case GGUF_I16:
        return (Number){NUMBER_SIGNED, .i = x.i16};
    case GGUF_I32:
        return (Number){NUMBER_SIGNED, .i = x.i32};
    case GGUF_I64:
        return (Number){NUMBER_SIGNED, .i = x.i64};
    case GGUF_F32:
        return (Number){NUMBER_FLOAT, .f = x.f32};
    case GGUF_F64:
        return (Number){NUMBER_FLOAT, .f = x.f64};
    default:
        return (Number){NUMBER_NONE, .u = 0};
    }
}

bool gguf_value_u64(const GgufValue *v, uint64_t *out) {
    const Number n = number_of(v);
    *out = n.kind == NUMBER_SIGNED ? (uint64_t)n.i : n.u;
    return n.kind == NUMBER_UNSIGNED || (n.kind == NUMBER_SIGNED && n.i >= 0);
}

bool gguf_value_i64(const GgufValue *v, int64_t *out) {
    const Number n = number_of(v);
    *out = n.kind == NUMBER_UNSIGNED ? (int64_t)n.u : n.i;
    return n.kind == NUMBER_SIGNED || (n.kind == NUMBER_UNSIGNED && n.u <= INT64_MAX);
}

bool gguf_value_f64(const GgufValue *v, double *out) {
    const Number n = number_of(v);
    *out = n.kind == NUMBER_UNSIGNED ? (double)n.u : n.kind == NUMBER_SIGNED ? (double)n.i : n.f;
    return n.kind != NUMBER_NONE;
}

bool gguf_value_bool(const GgufValue *v, bool *out) {
    *out = v->type == GGUF_BOOL && *(const unsigned char *)v->data;
    return v->type == GGUF_BOOL;
}

bool gguf_value_string(const GgufValue *v, GgufString *out) {
    *out = (GgufString){"", 0};
    if (v->type != GGUF_STRING) return false;
    *out = (GgufString){(const char *)v->data + LENGTH_BYTES, v->bytes - LENGTH_BYTES};
    return true;
}

bool gguf_array_next(const GgufValue *array, size_t *place, GgufValue *item) {
    if (array->type != GGUF_ARRAY || *place >= array->bytes) return false;
    const unsigned char *at = (const unsigned char *)array->data + *place;
    const size_t size = value_types[array->item_type].size;
    *item = (GgufValue){.type = array->item_type, .count = 1, .data = at, .bytes = size};
    uint64_t length;
    if (array->item_type == GGUF_STRING) {
        memcpy(&length, at, sizeof length);
        item->bytes = LENGTH_BYTES + (size_t)length;
    } else if (array->item_type == GGUF_ARRAY) { // it has been checked, so that parsing it again cannot fail
        GgufCursor c = {"", at, array->bytes - *place, 0};
        take_array(&c, item, MAX_DEPTH, "", NULL);
        *place += ARRAY_BYTES;
    }
    *place += item->bytes;
    return true;
}

bool gguf_string_is(GgufString s, const char *text) {
    return s.size == strlen(text) && memcmp(s.text, text, s.size) == 0;
}

// ---- access by key ----

// "a U32" or "an ARRAY of STRING", for messages.
static const char *describe(const GgufValue *v, char text[40]) {
    const char *name = value_types[v->type].name;
    if (v->type == GGUF_ARRAY)
        snprintf(text, 40, "an ARRAY of %s", value_types[v->item_type].name);
    else
        snprintf(text, 40, "a %s", name);
    return text;
}

static const GgufValue *require(const Gguf *g, const char *key, Error *err) {
    const GgufValue *v = gguf_find_value(g, key);
    if (!v)
        error_set(err, "%s: field %s is missing; the file is incomplete: convert the model again",
                  gguf_path(g), key);
    return v;
}

static bool wrong_type(const Gguf *g, const char *key, const GgufValue *v, const char *expected, Error *err) {
    char found[40];
    return error_set(err, "%s: field %s is %s, expected %s", gguf_path(g), key, describe(v, found), expected);
}

bool gguf_get_u64(const Gguf *g, const char *key, uint64_t *out, Error *err) {
    const GgufValue *v = require(g, key, err);
    return v && (gguf_value_u64(v, out) || wrong_type(g, key, v, "an integer from 0 on", err));
}

bool gguf_get_f64(const Gguf *g, const char *key, double *out, Error *err) {
    const GgufValue *v = require(g, key, err);
    return v && (gguf_value_f64(v, out) || wrong_type(g, key, v, "a number", err));
}

bool gguf_get_bool(const Gguf *g, const char *key, bool *out, Error *err) {
    const GgufValue *v = require(g, key, err);
    return v && (gguf_value_bool(v, out) || wrong_type(g, key, v, "a BOOL", err));
}

bool gguf_get_string(const Gguf *g, const char *key, GgufString *out, Error *err) {
    const GgufValue *v = require(g, key, err);
    return v && (gguf_value_string(v, out) || wrong_type(g, key, v, "a STRING", err));
}

// The items of an array by read, which converts one of them; *items is freed and NULL after a failure.
static bool get_array(const Gguf *g, const char *key, void **items, size_t *n, size_t item_size,
                      bool (*read)(const GgufValue *item, void *out), const char *expected, Error *err) {
    const GgufValue *v = require(g, key, err);
    *items = NULL;
    if (!v) return false;
    if (v->type != GGUF_ARRAY) return wrong_type(g, key, v, expected, err);
    *n = v->count;
    *items = mem_zeroed(v->count + 1, item_size);
    GgufValue item;
    char *out = *items;
    for (size_t place = 0; gguf_array_next(v, &place, &item); out += item_size)
        if (!read(&item, out)) {
            free(*items);
            *items = NULL;
            return wrong_type(g, key, v, expected, err);
        }
    return true;
}

static bool read_string(const GgufValue *item, void *out) {
    return gguf_value_string(item, out);
}

static bool read_i64(const GgufValue *item, void *out) {
    return gguf_value_i64(item, out);
}

static bool read_f64(const GgufValue *item, void *out) {
    return gguf_value_f64(item, out);
}

bool gguf_get_strings(const Gguf *g, const char *key, GgufString **items, size_t *n, Error *err) {
    return get_array(g, key, (void **)items, n, sizeof **items, read_string, "an ARRAY of STRING", err);
}

bool gguf_get_i64s(const Gguf *g, const char *key, int64_t **items, size_t *n, Error *err) {
    return get_array(g, key, (void **)items, n, sizeof **items, read_i64, "an ARRAY of integers", err);
}

bool gguf_get_f64s(const Gguf *g, const char *key, double **items, size_t *n, Error *err) {
    return get_array(g, key, (void **)items, n, sizeof **items, read_f64, "an ARRAY of numbers", err);
}
