#include "format/gguf_parts.h"

#include <stdio.h>
#include <string.h>

#define LENGTH_BYTES 8 // before a string

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

size_t gguf_value_size(GgufValueType type) {
    return value_types[type].size;
}

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
    size_t step = size;
    if (array->item_type == GGUF_STRING) {
        uint64_t length;
        memcpy(&length, at, sizeof length);
        item->bytes = step = LENGTH_BYTES + (size_t)length;
    } else if (array->item_type == GGUF_ARRAY) { // it has been checked, so that parsing it again cannot fail
        GgufCursor c = {"", at, array->bytes - *place, 0};
        gguf_take_array(&c, item, "", NULL);
        step = c.at;
    }
    *place += step;
    return true;
}

bool gguf_string_is(GgufString s, const char *text) {
    return s.size == strlen(text) && memcmp(s.text, text, s.size) == 0;
}

// ---- access by key ----

// "U32" or "ARRAY of STRING", for messages.
static const char *describe(const GgufValue *v, char text[40]) {
    const bool array = v->type == GGUF_ARRAY;
    snprintf(text, 40, "%s%s%s", value_types[v->type].name, array ? " of " : "",
             array ? value_types[v->item_type].name : "");
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
    return error_set(err, "%s: field %s is of type %s, expected %s", gguf_path(g), key, describe(v, found),
                     expected);
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
