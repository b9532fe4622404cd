// The tables of `vlm inspect`.
#include "cmd/inspect.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAME_WIDTH = 52, VALUE_WIDTH = 56, MAX_SHAPE = 160 };

static void shape_text(char text[MAX_SHAPE], const json_t *shape) {
    size_t i, used = 0;
    json_t *size;
    text[0] = '\0';
    json_array_foreach(shape, i, size) if (used + 24 < MAX_SHAPE) used += (size_t)snprintf(
        text + used, MAX_SHAPE - used, "%s%lld", i ? " x " : "", (long long)json_integer_value(size));
    if (json_array_size(shape) == 0) snprintf(text, MAX_SHAPE, "scalar");
}

static long long integer(const json_t *o, const char *key) {
    return (long long)json_integer_value(json_object_get(o, key));
}

static void print_stats(const json_t *t) {
    const json_t *s = json_object_get(t, "stats"), *why = json_object_get(s, "not_read");
    if (!s) return;
    if (why) {
        printf("    %s\n", json_string_value(why));
        return;
    }
    printf("    min %.5g  max %.5g  mean %.5g  std %.5g  NaN %lld  infinite %lld\n",
           json_real_value(json_object_get(s, "min")), json_real_value(json_object_get(s, "max")),
           json_real_value(json_object_get(s, "mean")), json_real_value(json_object_get(s, "std")),
           integer(s, "nan"), integer(s, "infinite"));
}

static void print_first_values(const json_t *t) {
    size_t i;
    json_t *x;
    const json_t *list = json_object_get(t, "first_values");
    if (!list) return;
    printf("    first values:");
    json_array_foreach(list, i, x) json_is_null(x) ? printf(" none") : printf(" %.6g", json_real_value(x));
    putchar('\n');
}

// A name that is too long keeps its end, where names differ.
static void print_name(const char *name, int width) {
    const int n = (int)strlen(name);
    n > width ? printf("…%-*s", width - 1, name + n - width + 1) : printf("%-*s", width, name);
}

static void print_tensors(const json_t *about) {
    size_t i;
    json_t *t;
    const json_t *list = json_object_get(about, "tensors"), *totals = json_object_get(about, "totals");
    if (!list) return;
    printf("\n%-*s %-5s %-20s %18s\n", NAME_WIDTH, "tensor", "type", "shape", "bytes");
    json_array_foreach(list, i, t) {
        char shape[MAX_SHAPE];
        shape_text(shape, json_object_get(t, "shape"));
        print_name(json_string_value(json_object_get(t, "name")), NAME_WIDTH);
        printf(" %-5s %-20s %18lld\n", json_string_value(json_object_get(t, "type")), shape,
               integer(t, "bytes"));
        print_stats(t);
        print_first_values(t);
    }
    printf("%lld tensors, %lld values, %lld bytes\n", integer(totals, "tensors"), integer(totals, "values"),
           integer(totals, "bytes"));
}

// "key: value" lines of what is no list of objects; a long text is cut.
static void print_object(const json_t *object, const char *indent) {
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)object, key, value) {
        if (json_is_object(value)) {
            printf("%s%s\n", indent, key);
            print_object(value, "  ");
        } else if (json_is_array(value) && json_is_object(json_array_get(value, 0))) {
            printf("%s%s: %zu\n", indent, key, json_array_size(value));
        } else {
            char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(9) | JSON_COMPACT);
            printf("%s%-30s %.*s%s\n", indent, key, VALUE_WIDTH, text,
                   strlen(text) > VALUE_WIDTH ? "..." : "");
            free(text);
        }
    }
}

// Lists of small objects that are worth a line each.
static void print_lines(const json_t *list, const char *title) {
    size_t i;
    json_t *o, *value;
    const char *key;
    if (json_array_size(list) == 0) return;
    printf("\n%s\n", title);
    json_array_foreach(list, i, o) {
        printf("  %zu:", i);
        json_object_foreach(o, key, value) {
            char *text = json_dumps(value, JSON_ENCODE_ANY);
            printf("  %s %s", key, text);
            free(text);
        }
        putchar('\n');
    }
}

void inspect_print(const json_t *about) {
    json_t *head = json_copy((json_t *)about); // shallow
    static const char *const tables[] = {"tensors", "totals", "columns", "row_groups"};
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++) json_object_del(head, tables[i]);
    print_object(head, "");
    json_decref(head);
    print_lines(json_object_get(about, "columns"), "columns");
    print_lines(json_object_get(about, "row_groups"), "row groups");
    const json_t *tokenizer = json_object_get(about, "tokenizer");
    print_lines(json_object_get(tokenizer, "special_tokens"), "special tokens");
    print_tensors(about);
}
