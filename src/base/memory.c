#include "base/memory.h"

#include <malloc.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void *not_null(void *p, size_t bytes) {
    if (p || bytes == 0) return p;
    fprintf(stderr, "vlm: out of memory: %zu bytes were asked for\n", bytes);
    exit(1);
}

void *mem_alloc(size_t bytes) {
    return not_null(malloc(bytes), bytes);
}

void *mem_zeroed(size_t count, size_t size) {
    return not_null(calloc(count, size), count && size ? size : 0);
}

void *mem_resize(void *p, size_t bytes) {
    return not_null(realloc(p, bytes ? bytes : 1), bytes);
}

char *mem_strdup(const char *text) {
    return text ? mem_strndup(text, strlen(text)) : NULL;
}

char *mem_strndup(const char *text, size_t n) {
    char *copy = mem_alloc(n + 1);
    memcpy(copy, text, n);
    copy[n] = '\0';
    return copy;
}

char *mem_printf(const char *format, ...) {
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    size_t n = (size_t)vsnprintf(NULL, 0, format, args);
    va_end(args);
    char *text = mem_alloc(n + 1);
    vsnprintf(text, n + 1, format, again);
    va_end(again);
    return text;
}

void mem_settle(void) {
    mallopt(M_ARENA_MAX, 1);
    mallopt(M_MMAP_THRESHOLD, 128 << 10); // glibc would raise it to 32 MiB, block by block
}

size_t mem_heap(void) {
    const struct mallinfo2 heap = mallinfo2();
    return heap.uordblks + heap.hblkhd;
}

void mem_trim(void) {
    malloc_trim(0);
}

size_t mem_huge_page(void) {
    static const char folder[] = "/sys/kernel/mm/transparent_hugepage/";
    char path[96], text[64] = "";
    unsigned long size = 0;
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s%s", folder, i ? "hpage_pmd_size" : "enabled");
        FILE *f = fopen(path, "r");
        if (f && !fgets(text, sizeof text, f)) text[0] = '\0';
        if (f) fclose(f);
        if (!f || strstr(text, "[never]")) return (size_t)sysconf(_SC_PAGESIZE);
    }
    return sscanf(text, "%lu", &size) == 1 && size > 0 ? size : (size_t)sysconf(_SC_PAGESIZE);
}

static size_t status_bytes(const char *field) { // of a line "field:  123 kB" of /proc/self/status
    FILE *f = fopen("/proc/self/status", "r");
    char line[256];
    size_t kib = 0;
    const size_t n = strlen(field);
    while (f && fgets(line, sizeof line, f))
        if (!strncmp(line, field, n) && sscanf(line + n, ": %zu", &kib) == 1) break;
    if (f) fclose(f);
    return kib << 10;
}

size_t mem_resident(void) {
    return status_bytes("VmRSS");
}

size_t mem_resident_anonymous(void) {
    return status_bytes("RssAnon");
}

size_t mem_resident_peak(void) {
    return status_bytes("VmHWM");
}

// A mapping begins with a line "from-to rights offset device inode path"; "Rss: 12 kB" stands in one below.
size_t mem_resident_code(void) {
    FILE *f = fopen("/proc/self/smaps", "r");
    char line[4352], path[4096], own[4096];
    size_t total = 0, kib;
    bool is_code = false;
    const ssize_t n = readlink("/proc/self/exe", own, sizeof own - 1);
    own[n > 0 ? n : 0] = '\0';
    while (f && fgets(line, sizeof line, f)) {
        path[0] = '\0';
        if (sscanf(line, "%*x-%*x %*s %*s %*s %*s %4095[^\n]", path) == 1 || strchr(line, '-'))
            is_code = strstr(path, ".so") || !strcmp(path, own);
        else if (is_code && sscanf(line, "Rss: %zu", &kib) == 1)
            total += kib << 10;
    }
    if (f) fclose(f);
    return total;
}
