#include "support/golden.h"
#include "base/memory.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *golden_root(void) {
    const char *root = getenv("VLM_GOLDEN");
    return root && *root ? root : "tests/golden";
}

char *golden_path_of(const char *format, va_list args) {
    char tail[1024];
    vsnprintf(tail, sizeof tail, format, args);
    return path_join(golden_root(), tail);
}

char *golden_path(const char *format, ...) {
    va_list args;
    va_start(args, format);
    char *path = golden_path_of(format, args);
    va_end(args);
    return path;
}

StringList golden_cases(const char *folder, const char *file) {
    Error err;
    StringList all, kept = {0};
    char *root = golden_path("%s", folder);
    if (!file_list(&all, root, &err)) fail_msg("%s", err.text);
    for (size_t i = 0; i < all.count; i++) {
        char *path = mem_printf("%s/%s/%s", root, all.items[i], file);
        if (file_exists(path)) string_list_add(&kept, mem_strdup(all.items[i]));
        free(path);
    }
    string_list_free(&all);
    if (kept.count == 0) fail_msg("%s holds no case folder with a file %s", root, file);
    free(root);
    return kept;
}

double relative_l2(const float *x, const float *ref, size_t n) {
    double difference = 0, norm = 0;
    for (size_t i = 0; i < n; i++) {
        if (!isfinite(x[i])) return INFINITY;
        double d = (double)x[i] - ref[i];
        difference += d * d;
        norm += (double)ref[i] * ref[i];
    }
    return sqrt(difference / (norm > 0 ? norm : 1));
}

double largest_difference(const float *x, const float *ref, size_t n) {
    double largest = 0;
    for (size_t i = 0; i < n; i++) {
        if (!isfinite(x[i])) return INFINITY;
        largest = fmax(largest, fabs((double)x[i] - ref[i]));
    }
    return largest;
}

#define MAX_KINDS 32
static struct {
    const char *kind;
    double share, limit;
    char where[200];
} worst[MAX_KINDS];

void expect_within(const char *kind, double error, double limit, const char *what_format, ...) {
    char what[sizeof worst[0].where];
    va_list args;
    va_start(args, what_format);
    vsnprintf(what, sizeof what, what_format, args);
    va_end(args);
    size_t k = 0;
    while (k < MAX_KINDS - 1 && worst[k].kind && strcmp(worst[k].kind, kind)) k++;
    if (!worst[k].kind || error / limit > worst[k].share) {
        worst[k].kind = kind, worst[k].share = error / limit, worst[k].limit = limit;
        memcpy(worst[k].where, what, sizeof what);
    }
    if (!(error <= limit)) fail_msg("%s: %s is %.3g, at most %.3g is allowed", what, kind, error, limit);
}

void print_worst_shares(void) {
    for (size_t k = 0; k < MAX_KINDS && worst[k].kind; k++)
        printf("worst share of tolerance: %s: %.1f%% of %.3g (%s)\n", worst[k].kind, 100 * worst[k].share,
               worst[k].limit, worst[k].where);
}
