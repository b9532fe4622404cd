// What tests of damaged files share.
#pragma once
#include "base/random.h"
#include "base/vec.h"
#include "support/golden.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

// How long a kind of damage goes on: VLM_FUZZ_SECONDS, or a few seconds of each test's own.
static inline double fuzz_seconds(double otherwise) {
    const char *given = getenv("VLM_FUZZ_SECONDS");
    return given ? atof(given) : otherwise;
}

// Without the sync of base/file.h, which would take most of the time.
static inline void fuzz_write(const char *path, const char *bytes, size_t size) {
    FILE *out = fopen(path, "wb");
    assert_non_null(out);
    assert_int_equal(fwrite(bytes, 1, size, out), size);
    assert_int_equal(fclose(out), 0);
}

// JSON text with bytes changed, numbers put in the place of others, spans removed or doubled.
static inline void fuzz_json(CharVec *text, Random *r) {
    static const char *const numbers[] = {"0",          "1",    "-1",  "7",          "9223372036854775807",
                                          "4294967296", "1.",   "1e9", "1152921504", "[]",
                                          "{}",         "\"\"", "null"};
    for (uint64_t n = 1 + random_below(r, 3); n > 0 && text->count > 40; n--) {
        const size_t size = 1 + random_below(r, 24);
        size_t at = random_below(r, text->count - size);
        char span[24];
        memcpy(span, text->items + at, size);
        if (random_below(r, 4) == 0) {
            text->items[at] = (char)random_below(r, 256);
        } else if (random_below(r, 3) == 0) {
            text->items[at] = "0123456789-.{}[]\",:\\"[random_below(r, 20)];
        } else if (random_below(r, 2)) {
            CharVec rest = {0};
            const char *number = random_below(r, 2) ? numbers[random_below(r, 13)] : "";
            while (at < text->count && strchr("0123456789", text->items[at]) == NULL) at++;
            size_t end = at;
            while (end < text->count && text->items[end] >= '0' && text->items[end] <= '9') end++;
            vec_extend(&rest, text->items + end, text->count - end);
            text->count = at;
            vec_extend(text, number, strlen(number));
            vec_extend(text, rest.items, rest.count);
            vec_free(&rest);
        } else {
            memcpy(text->items + random_below(r, text->count - size), span, size);
        }
    }
}

// Puts something else in a random place of a JSON value: the file stays JSON, and comes further.
static inline void fuzz_json_value(json_t *json, Random *r) {
    static const char *const values[] = {
        "null",        "true", "-1", "7",    "1e300",          "\"\"",
        "\"\\u0000\"", "[]",   "{}", "[[]]", "\"<|im_end|>\"", "{\"type\": \"NFC\"}"};
    const size_t n = json_is_object(json) ? json_object_size(json) : json_array_size(json);
    if (n == 0) return;
    size_t chosen = random_below(r, n);
    const char *key = NULL;
    json_t *child = json_array_get(json, chosen), *value;
    json_object_foreach(json, key, value) {
        child = value;
        if (chosen-- == 0) break;
    }
    if ((json_is_object(child) || json_is_array(child)) && random_below(r, 4)) {
        fuzz_json_value(child, r);
        return;
    }
    json_t *other = json_loads(values[random_below(r, sizeof values / sizeof *values)],
                               JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
    if (key && random_below(r, 3) == 0)
        json_object_del(json, key), json_decref(other);
    else if (key)
        json_object_set_new(json, key, other);
    else
        json_array_set_new(json, random_below(r, n), other);
}
