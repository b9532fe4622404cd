// One value of a field: text becomes JSON, and JSON is checked and stored, so that flags and files obey one
// rule.
#include "config/fields_value.h"
#include "base/check.h"
#include "base/memory.h"
#include "base/pyjson.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define LARGEST_EXACT 9007199254740992.0 // 2^53: integers up to here are exact in a double

size_t field_size(FieldType type) {
    switch (type) {
    case FIELD_SIZE:
        return sizeof(size_t);
    case FIELD_U64:
        return sizeof(uint64_t);
    case FIELD_INT:
        return sizeof(int);
    case FIELD_NUMBER:
        return sizeof(Number);
    case FIELD_OPTIONAL_NUMBER:
        return sizeof(OptionalNumber);
    case FIELD_BOOL:
        return sizeof(bool);
    case FIELD_STRING:
    case FIELD_OPTIONAL_STRING:
        return sizeof(char *);
    case FIELD_STRING_LIST:
    case FIELD_STRING_REPEATED:
        return sizeof(StringList);
    case FIELD_TOKEN_MAP:
        return sizeof(TokenMap);
    }
    CHECK(false, "unknown field type %d", (int)type);
}

static bool allows_none(const Field *f) {
    return f->type == FIELD_OPTIONAL_NUMBER || f->type == FIELD_OPTIONAL_STRING ||
           (f->type == FIELD_STRING && !f->default_text);
}

static void allowed_range(double *low, double *high, const Field *f) {
    bool any = f->min == 0 && f->max == 0, upward = f->max == 0 && f->min > 0;
    bool size = f->type == FIELD_SIZE || f->type == FIELD_U64;
    *low = any && !size ? -INFINITY : f->min;
    *high = any || upward ? INFINITY : f->max;
}

static bool in_range(const Field *f, double value) {
    double low, high;
    allowed_range(&low, &high, f);
    return value >= low && value <= high;
}

// ---- what is allowed, in words ----

static void append_range(char text[256], const Field *f) {
    double low, high;
    allowed_range(&low, &high, f);
    size_t n = strlen(text);
    if (isfinite(low) && isfinite(high))
        snprintf(text + n, 256 - n, " from %.15g to %.15g", low, high);
    else if (isfinite(low))
        snprintf(text + n, 256 - n, " of at least %.15g", low);
    else if (isfinite(high))
        snprintf(text + n, 256 - n, " of at most %.15g", high);
}

static void write_choices(char text[256], const char *choices) {
    size_t n = 0;
    for (const char *c = choices; *c && n < 200; c++) {
        if (*c != '|')
            text[n++] = *c;
        else
            n += (size_t)snprintf(text + n, 256 - n, strchr(c + 1, '|') ? ", " : " or ");
    }
    text[n] = '\0';
}

void field_allowed(char text[256], const Field *f) {
    static const char *const words[] = {
        [FIELD_SIZE] = "a whole number",
        [FIELD_U64] = "a whole number",
        [FIELD_INT] = "a whole number",
        [FIELD_NUMBER] = "a number",
        [FIELD_OPTIONAL_NUMBER] = "a number",
        [FIELD_BOOL] = "true or false",
        [FIELD_STRING] = "text",
        [FIELD_OPTIONAL_STRING] = "text",
        [FIELD_STRING_LIST] = "texts separated by commas",
        [FIELD_STRING_REPEATED] = "text",
        [FIELD_TOKEN_MAP] = "a JSON object of texts",
    };
    snprintf(text, 256, "%s", words[f->type]);
    if (f->choices) write_choices(text, f->choices);
    if (f->type <= FIELD_OPTIONAL_NUMBER) append_range(text, f);
    if (allows_none(f)) strncat(text, ", or none", 255 - strlen(text));
}

// ---- JSON to the struct ----

static bool is_choice(const char *choices, const char *value) {
    size_t n = strlen(value);
    for (const char *c = choices; c; c = strchr(c, '|'), c = c ? c + 1 : NULL) {
        if (strcspn(c, "|") == n && !strncmp(c, value, n)) return true;
    }
    return false;
}

static bool store_number(Number *to, const Field *f, const json_t *value) {
    Number number = {json_number_value(value), json_is_integer(value)};
    if (!json_is_number(value) || !isfinite(number.value) || !in_range(f, number.value)) return false;
    if (number.is_int && fabs(number.value) > LARGEST_EXACT) return false;
    *to = number;
    return true;
}

static bool store_integer(void *to, const Field *f, const json_t *value) {
    json_int_t x = json_integer_value(value);
    if (!json_is_integer(value) || !in_range(f, (double)x)) return false;
    if (f->type == FIELD_INT && (x < INT_MIN || x > INT_MAX)) return false;
    if (f->type == FIELD_SIZE)
        *(size_t *)to = (size_t)x;
    else if (f->type == FIELD_U64)
        *(uint64_t *)to = (uint64_t)x;
    else
        *(int *)to = (int)x;
    return true;
}

// The string without zero bytes, or NULL when the value is none such.
static const char *plain_string(const json_t *value) {
    const char *text = json_string_value(value);
    return text && strlen(text) == json_string_length(value) ? text : NULL;
}

static bool store_string(FieldSet set, const Field *f, const json_t *value) {
    const char *text = plain_string(value);
    if (!text && !(json_is_null(value) && allows_none(f))) return false;
    if (text && f->choices && !is_choice(f->choices, text)) return false;
    char *copy = mem_strdup(text);
    field_free(set, f);
    *(char **)field_at(set, f) = copy;
    return true;
}

static bool store_list(FieldSet set, const Field *f, const json_t *value) {
    if (!json_is_array(value)) return false;
    const size_t n = json_array_size(value);
    StringList list = {0};
    for (size_t i = 0; i < n; i++) {
        const char *text = plain_string(json_array_get(value, i));
        if (!text || !*text) return false;
    }
    for (size_t i = 0; i < n; i++)
        string_list_add(&list, mem_strdup(json_string_value(json_array_get(value, i))));
    field_free(set, f);
    *(StringList *)field_at(set, f) = list;
    return true;
}

static bool store_map(FieldSet set, const Field *f, const json_t *value) {
    const char *key;
    json_t *token;
    if (!json_is_object(value)) return false;
    json_object_foreach((json_t *)value, key, token) {
        if (!plain_string(token)) return false;
    }
    TokenMap map = {0, mem_zeroed(json_object_size(value) + 1, sizeof *map.items)};
    json_object_foreach((json_t *)value, key, token) {
        map.items[map.count++] = (TokenPair){mem_strdup(key), mem_strdup(json_string_value(token))};
    }
    field_free(set, f);
    *(TokenMap *)field_at(set, f) = map;
    return true;
}

bool field_store(FieldSet set, const Field *f, const json_t *value) {
    void *to = field_at(set, f);
    switch (f->type) {
    case FIELD_SIZE:
    case FIELD_U64:
    case FIELD_INT:
        return store_integer(to, f, value);
    case FIELD_NUMBER:
        return store_number(to, f, value);
    case FIELD_OPTIONAL_NUMBER: {
        OptionalNumber *optional = to;
        if (!json_is_null(value) && !store_number(&optional->number, f, value)) return false;
        optional->is_set = !json_is_null(value);
        return true;
    }
    case FIELD_BOOL:
        if (json_is_boolean(value)) *(bool *)to = json_is_true(value);
        return json_is_boolean(value);
    case FIELD_STRING:
    case FIELD_OPTIONAL_STRING:
        return store_string(set, f, value);
    case FIELD_STRING_LIST:
    case FIELD_STRING_REPEATED:
        return store_list(set, f, value);
    case FIELD_TOKEN_MAP:
        return store_map(set, f, value);
    }
    return false;
}

bool fields_set_json(FieldSet set, const Field *f, const json_t *value, Error *err) {
    if (field_store(set, f, value)) return true;
    char allowed[256], *found = pyjson_dump(value, -1);
    field_allowed(allowed, f);
    error_set(err, "%s: found %.200s, expected %s", f->name, found, allowed);
    free(found);
    return false;
}

// ---- the struct to JSON ----

static json_t *number_json(Number number) {
    return number.is_int ? json_integer((json_int_t)number.value) : json_real(number.value);
}

static json_t *list_json(const StringList *list) {
    json_t *array = json_array();
    for (size_t i = 0; i < list->count; i++) json_array_append_new(array, json_string(list->items[i]));
    return array;
}

static json_t *map_json(const TokenMap *map) {
    json_t *object = json_object();
    for (size_t i = 0; i < map->count; i++)
        json_object_set_new(object, map->items[i].name, json_string(map->items[i].token));
    return object;
}

json_t *fields_get_json(FieldSet set, const Field *f) {
    const void *p = field_at(set, f);
    switch (f->type) {
    case FIELD_SIZE:
        return json_integer((json_int_t) * (const size_t *)p);
    case FIELD_U64:
        return json_integer((json_int_t) * (const uint64_t *)p);
    case FIELD_INT:
        return json_integer(*(const int *)p);
    case FIELD_NUMBER:
        return number_json(*(const Number *)p);
    case FIELD_OPTIONAL_NUMBER: {
        const OptionalNumber *optional = p;
        return optional->is_set ? number_json(optional->number) : json_null();
    }
    case FIELD_BOOL:
        return json_boolean(*(const bool *)p);
    case FIELD_STRING:
    case FIELD_OPTIONAL_STRING: {
        const char *text = *(char *const *)p;
        return text ? json_string(text) : json_null();
    }
    case FIELD_STRING_LIST:
    case FIELD_STRING_REPEATED:
        return list_json(p);
    case FIELD_TOKEN_MAP:
        return map_json(p);
    }
    return NULL;
}

// ---- text to JSON ----

// Digits with an optional minus sign.
static bool is_integer_text(const char *text) {
    const char *digits = text + (*text == '-');
    return *digits && !digits[strspn(digits, "0123456789")];
}

static json_t *integer_from_text(const char *text) {
    errno = 0;
    long long x = strtoll(text, NULL, 10);
    return is_integer_text(text) && !errno ? json_integer(x) : NULL;
}

// As argparse reads type=float or type=int: only a field whose default is an integer keeps an integer as
// such.
static json_t *number_from_text(const Field *f, const char *text) {
    if (f->default_text && is_integer_text(f->default_text) && is_integer_text(text))
        return integer_from_text(text);
    if (!*text || text[strspn(text, "0123456789+-.eE")])
        return NULL; // keeps out blanks, hexadecimals, inf and nan
    char *end;
    double x = strtod(text, &end);
    return *end || end == text ? NULL : json_real(x); // json_real gives NULL for an overflow to infinity
}

// Appends the text; frees the array and returns NULL when it is no valid UTF-8.
static json_t *append_text(json_t *array, const char *text, size_t length) {
    json_t *item = json_stringn(text, length);
    if (item)
        json_array_append_new(array, item);
    else
        json_decref(array);
    return item ? array : NULL;
}

static json_t *list_from_text(const char *text) {
    json_t *array = json_array();
    for (const char *s = text; s && array; s = strchr(s, ','), s = s ? s + 1 : NULL)
        array = append_text(array, s, strcspn(s, ","));
    return array;
}

static bool is_none(const char *text) {
    return !strcasecmp(text, "none") || !strcasecmp(text, "null");
}

// New reference; NULL when the text has not the form of the type.
static json_t *value_from_text(FieldSet set, const Field *f, const char *text) {
    if (allows_none(f) && is_none(text)) return json_null();
    switch (f->type) {
    case FIELD_SIZE:
    case FIELD_U64:
    case FIELD_INT:
        return integer_from_text(text);
    case FIELD_NUMBER:
    case FIELD_OPTIONAL_NUMBER:
        return number_from_text(f, text);
    case FIELD_BOOL:
        return !strcasecmp(text, "true") ? json_true() : !strcasecmp(text, "false") ? json_false() : NULL;
    case FIELD_STRING:
    case FIELD_OPTIONAL_STRING:
        return json_string(text);
    case FIELD_STRING_LIST:
        return list_from_text(text);
    case FIELD_STRING_REPEATED:
        return append_text(fields_get_json(set, f), text, strlen(text));
    case FIELD_TOKEN_MAP:
        return json_loads(text, 0, NULL);
    }
    return NULL;
}

bool fields_set_text(FieldSet set, const Field *f, const char *text, Error *err) {
    json_t *value = value_from_text(set, f, text);
    bool stored = value && field_store(set, f, value);
    json_decref(value);
    if (stored) return true;
    char allowed[256];
    field_allowed(allowed, f);
    return error_set(err, "--%s: found \"%.200s\", expected %s", f->name, text, allowed);
}
