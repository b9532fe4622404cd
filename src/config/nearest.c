#include "base/memory.h"
#include "config/fields.h"

#include <stdlib.h>
#include <string.h>

static size_t least(size_t a, size_t b) {
    return a < b ? a : b;
}

static char plain(char c) {
    return c == '-' ? '_' : c;
}

// Levenshtein's distance, one row of the table at a time.
static size_t edit_distance(const char *a, const char *b) {
    size_t n = strlen(b), *row = mem_zeroed(n + 1, sizeof *row);
    for (size_t j = 0; j <= n; j++) row[j] = j;
    for (size_t i = 0; a[i]; i++) {
        size_t diagonal = row[0];
        row[0] = i + 1;
        for (size_t j = 0; j < n; j++) {
            size_t replaced = diagonal + (plain(a[i]) != plain(b[j]));
            diagonal = row[j + 1];
            row[j + 1] = least(replaced, least(row[j], row[j + 1]) + 1);
        }
    }
    size_t distance = row[n];
    free(row);
    return distance;
}

const char *nearest_name(const char *name, const char *const *names, size_t count) {
    size_t length = strlen(name);
    if (length > 64) return NULL; // longer than any name
    const char *nearest = NULL;
    size_t best = length / 3 + 2; // farther than this is another word
    for (size_t i = 0; i < count; i++) {
        size_t distance = edit_distance(name, names[i]);
        if (distance < best) nearest = names[i], best = distance;
    }
    return nearest;
}
