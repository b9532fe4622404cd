#include "base/pyjson.h"
#include "base/check.h"
#include "base/vec.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>

static void put(CharVec *out, const char *text) {
    vec_extend(out, text, strlen(text));
}

static void put_line(CharVec *out, int indent, size_t depth) {
    vec_push(out, '\n');
    for (size_t i = 0; i < depth * (size_t)indent; i++) vec_push(out, ' ');
}

// The code point that starts at *s, which is valid UTF-8 because jansson takes nothing else; *s moves behind
// it.
static uint32_t next_code_point(const unsigned char **s) {
    uint32_t lead = *(*s)++;
    if (lead < 0x80) return lead;
    int more = lead >= 0xf0 ? 3 : lead >= 0xe0 ? 2 : 1;
    uint32_t code = lead & (0x3fu >> more);
    while (more--) code = code << 6 | (*(*s)++ & 0x3f);
    return code;
}

static void put_string(CharVec *out, const char *text, size_t length) {
    static const char escapes[] = "\"\"\\\\\nn\rr\tt\bb\ff"; // pairs: character, letter behind the backslash
    const unsigned char *s = (const unsigned char *)text, *end = s + length;
    vec_push(out, '"');
    while (s < end) {
        uint32_t code = next_code_point(&s);
        char unit[16];
        const char *pair = escapes;
        while (*pair && (uint32_t)*pair != code) pair += 2;
        if (*pair)
            snprintf(unit, sizeof unit, "\\%c", pair[1]);
        else if (code >= ' ' && code <= '~')
            snprintf(unit, sizeof unit, "%c", (char)code);
        else if (code < 0x10000)
            snprintf(unit, sizeof unit, "\\u%04x", code);
        else
            snprintf(unit, sizeof unit, "\\u%04x\\u%04x", 0xd800 + ((code - 0x10000) >> 10),
                     0xdc00 + ((code - 0x10000) & 0x3ff));
        put(out, unit);
    }
    vec_push(out, '"');
}

static void put_value(CharVec *out, const json_t *value, int indent, size_t depth);

// What stands before item i of a list or an object.
static void put_separator(CharVec *out, size_t i, int indent, size_t depth) {
    if (i) put(out, indent < 0 ? ", " : ",");
    if (indent >= 0) put_line(out, indent, depth + 1);
}

static void put_array(CharVec *out, const json_t *array, int indent, size_t depth) {
    size_t n = json_array_size(array);
    vec_push(out, '[');
    for (size_t i = 0; i < n; i++) {
        put_separator(out, i, indent, depth);
        put_value(out, json_array_get(array, i), indent, depth + 1);
    }
    if (n && indent >= 0) put_line(out, indent, depth);
    vec_push(out, ']');
}

static void put_object(CharVec *out, const json_t *object, int indent, size_t depth) {
    size_t i = 0;
    const char *key;
    json_t *item;
    vec_push(out, '{');
    json_object_foreach((json_t *)object, key, item) {
        put_separator(out, i++, indent, depth);
        put_string(out, key, strlen(key));
        put(out, ": ");
        put_value(out, item, indent, depth + 1);
    }
    if (i && indent >= 0) put_line(out, indent, depth);
    vec_push(out, '}');
}

static void put_value(CharVec *out, const json_t *value, int indent, size_t depth) {
    char number[32];
    switch (json_typeof(value)) {
    case JSON_NULL:
        put(out, "null");
        break;
    case JSON_TRUE:
        put(out, "true");
        break;
    case JSON_FALSE:
        put(out, "false");
        break;
    case JSON_STRING:
        put_string(out, json_string_value(value), json_string_length(value));
        break;
    case JSON_ARRAY:
        put_array(out, value, indent, depth);
        break;
    case JSON_OBJECT:
        put_object(out, value, indent, depth);
        break;
    case JSON_INTEGER:
        snprintf(number, sizeof number, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
        put(out, number);
        break;
    case JSON_REAL:
        py_repr_double(number, json_real_value(value));
        put(out, number);
        break;
    }
}

char *pyjson_dump(const json_t *value, int indent) {
    CharVec out = {0};
    put_value(&out, value, indent, 0);
    vec_push(&out, '\0');
    return out.items;
}

void pyjson_print(FILE *out, json_t *value, int indent) {
    char *text = pyjson_dump(value, indent);
    fprintf(out, "%s\n", text);
    free(text);
    json_decref(value);
}

// Adds one to the last digit of "1.234e+05"; false when the carry would make it longer.
static bool next_digits(char *text) {
    for (char *c = strchr(text, 'e') - 1; c >= text && *c != '-'; c--) {
        if (*c == '.') continue;
        if (*c != '9') {
            (*c)++;
            return true;
        }
        *c = '0';
    }
    return false;
}

// The shortest "d.ddde±dd" that reads back as the value. Below a power of two the doubles lie closer than
// above it, so that there the digits next to the rounded ones can be the only ones of their length that do.
static void shortest_digits(char text[32], double value) {
    for (int decimals = 0; decimals < 17; decimals++) {
        snprintf(text, 32, "%.*e", decimals, value);
        if (strtod(text, NULL) == value) return;
        if (next_digits(text) && strtod(text, NULL) == value) return;
    }
    CHECK(false, "17 digits do not name %.17g", value);
}

void py_repr_double(char text[32], double value) {
    if (!isfinite(value)) {
        snprintf(text, 32, "%s", isnan(value) ? "nan" : value < 0 ? "-inf" : "inf");
        return;
    }
    char digits[32];
    shortest_digits(digits, value);
    const char *e = strchr(digits, 'e');
    int exponent = atoi(e + 1), decimals = (int)(e - digits) - (digits[0] == '-') - 2; // behind the point
    if (decimals < 0) decimals = 0;
    if (exponent < -4 || exponent >= 16) {
        snprintf(text, 32, "%.*se%c%02d", (int)(e - digits), digits, exponent < 0 ? '-' : '+', abs(exponent));
    } else {
        snprintf(text, 32, "%.*f", decimals > exponent ? decimals - exponent : 1, value);
    }
}
