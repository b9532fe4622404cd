#include "base/check.h"
#include "base/file.h"
#include "format/gguf_parts.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#define LONGEST_KEY  65535 // by the specification
#define LONGEST_NAME 64
#define PAIR_BYTES   13 // of the shortest pair: an empty key, its value type, a value of one byte
#define MAX_BLOCK    256
#define TENSOR_BYTES 24 // of the shortest tensor: an empty name, no dimensions, type and offset

typedef struct Index { // names in bytewise order
    const char *name;
    size_t i;
} Index;

struct Gguf {
    char *path;
    FileMap map;
    uint32_t version;
    size_t alignment;
    size_t n_pairs, n_tensors;
    GgufPair *pairs;
    GgufTensor *tensors;
    uint64_t *offsets; // of the tensors, from the beginning of the data
    Index *pair_index, *tensor_index;
};

// ---- names ----

static int compare_index(const void *a, const void *b) {
    return strcmp(((const Index *)a)->name, ((const Index *)b)->name);
}

static bool sort_index(const Gguf *g, Index *index, size_t n, const char *what, Error *err) {
    qsort(index, n, sizeof *index, compare_index);
    for (size_t i = 1; i < n; i++)
        if (strcmp(index[i - 1].name, index[i].name) == 0)
            return error_set(err, "%s: %s %s stands there twice, expected once; the file is damaged", g->path,
                             what, index[i].name);
    return true;
}

// The number of the one of this name, or n.
static size_t find_index(const Index *index, size_t n, const char *name) {
    const Index wanted = {name, 0};
    const Index *found = n ? bsearch(&wanted, index, n, sizeof *index, compare_index) : NULL;
    return found ? found->i : n;
}

// ---- parsing ----

static bool parse_header(Gguf *g, GgufCursor *c, size_t *n_pairs, size_t *n_tensors, Error *err) {
    if (c->size < 4 || memcmp(c->bytes, GGUF_MAGIC, 4) != 0)
        return error_set(err, "%s: does not begin with \"" GGUF_MAGIC "\"; not a GGUF file?", c->path);
    c->at = 4;
    if (!gguf_take_u32(c, &g->version, "version", err)) return false;
    if ((g->version & 0xffff) == 0)
        return error_set(err, "%s: version %#x: the file is big endian, expected little endian", c->path,
                         g->version);
    if (g->version < 2 || g->version > GGUF_VERSION)
        return error_set(err, "%s: version %u, expected 2 or 3; convert the model again", c->path,
                         g->version);
    return gguf_take_count(c, n_tensors, TENSOR_BYTES, "number of tensors", err) &&
           gguf_take_count(c, n_pairs, PAIR_BYTES, "number of metadata pairs", err);
}

static bool parse_pairs(Gguf *g, GgufCursor *c, size_t n, Error *err) {
    g->pairs = mem_zeroed(n + 1, sizeof *g->pairs);
    g->pair_index = mem_zeroed(n + 1, sizeof *g->pair_index);
    g->n_pairs = n;
    for (size_t i = 0; i < n; i++) {
        char what[64];
        snprintf(what, sizeof what, "key of metadata pair %zu", i);
        GgufPair *p = &g->pairs[i];
        if (!gguf_take_name(c, &p->key, LONGEST_KEY, what, err) ||
            !gguf_take_value(c, &p->value, p->key, err))
            return false;
        g->pair_index[i] = (Index){p->key, i};
    }
    return sort_index(g, g->pair_index, n, "metadata key", err);
}

static bool find_alignment(Gguf *g, Error *err) {
    uint64_t alignment = GGUF_DEFAULT_ALIGNMENT;
    const GgufValue *v = gguf_find_value(g, GGUF_ALIGNMENT_KEY);
    if (v && !gguf_get_u64(g, GGUF_ALIGNMENT_KEY, &alignment, err)) return false;
    if (alignment == 0 || (alignment & (alignment - 1)) || alignment > UINT32_MAX)
        return error_set(err, "%s: " GGUF_ALIGNMENT_KEY " is %llu, expected a power of two", g->path,
                         (unsigned long long)alignment);
    g->alignment = (size_t)alignment;
    return true;
}

// The dimensions, innermost first, and the sizes that follow from them and the type.
static bool parse_shape(GgufTensor *t, GgufCursor *c, const char *what, Error *err) {
    uint32_t ndim;
    uint64_t size;
    if (!gguf_take_u32(c, &ndim, what, err)) return false;
    if (ndim > GGUF_MAX_DIMS)
        return error_set(err, "%s: %s: %u dimensions, at most %d are supported", c->path, what, ndim,
                         GGUF_MAX_DIMS);
    t->ndim = (int)ndim;
    for (int d = t->ndim - 1; d >= 0; d--) {
        if (!gguf_take_u64(c, &size, what, err)) return false;
        if (size > SIZE_MAX / 2)
            return error_set(err, "%s: %s: dimension %d is %llu; the file is damaged", c->path, what, d,
                             (unsigned long long)size);
        t->shape[d] = (size_t)size;
    }
    t->row_values = t->ndim ? t->shape[t->ndim - 1] : 1;
    t->n_rows = 1;
    bool fits = true;
    for (int d = 0; d + 1 < t->ndim; d++) fits &= !__builtin_mul_overflow(t->n_rows, t->shape[d], &t->n_rows);
    fits &= !__builtin_mul_overflow(t->n_rows, t->row_values, &t->count);
    if (!fits) return error_set(err, "%s: %s: the product of its shape overflows", c->path, what);
    return true;
}

static bool parse_type(GgufTensor *t, GgufCursor *c, const char *what, Error *err) {
    uint32_t type;
    if (!gguf_take_u32(c, &type, what, err)) return false;
    if (!gguf_type_name(type))
        return error_set(err, "%s: %s: type %u is unknown; the file is damaged or newer", c->path, what,
                         type);
    t->type = (GgufType)type;
    const size_t values = gguf_type_block_values(t->type);
    if (t->row_values % values)
        return error_set(err, "%s: %s: rows of %zu values, expected a multiple of %zu for type %s", c->path,
                         what, t->row_values, values, gguf_type_name(type));
    if (__builtin_mul_overflow(t->n_rows, gguf_type_row_bytes(t->type, t->row_values), &t->bytes) ||
        t->row_values / values > SIZE_MAX / 512)
        return error_set(err, "%s: %s: the product of its shape overflows", c->path, what);
    return true;
}

static bool parse_tensors(Gguf *g, GgufCursor *c, size_t n, Error *err) {
    g->tensors = mem_zeroed(n + 1, sizeof *g->tensors);
    g->offsets = mem_zeroed(n + 1, sizeof *g->offsets);
    g->tensor_index = mem_zeroed(n + 1, sizeof *g->tensor_index);
    g->n_tensors = n;
    for (size_t i = 0; i < n; i++) {
        char what[LONGEST_NAME + 16];
        GgufTensor *t = &g->tensors[i];
        snprintf(what, sizeof what, "name of tensor %zu", i);
        if (!gguf_take_name(c, &t->name, LONGEST_NAME, what, err)) return false;
        snprintf(what, sizeof what, "tensor %s", t->name);
        if (!parse_shape(t, c, what, err) || !parse_type(t, c, what, err) ||
            !gguf_take_u64(c, &g->offsets[i], what, err))
            return false;
        g->tensor_index[i] = (Index){t->name, i};
    }
    return sort_index(g, g->tensor_index, n, "tensor", err);
}

// Gives the tensors their places in the data, which begin at the next multiple of the alignment.
static bool place_tensors(Gguf *g, const GgufCursor *c, Error *err) {
    const size_t begin = (c->at + g->alignment - 1) & ~(g->alignment - 1);
    const size_t size = begin <= c->size ? c->size - begin : 0;
    for (size_t i = 0; i < g->n_tensors; i++) {
        GgufTensor *t = &g->tensors[i];
        const uint64_t offset = g->offsets[i];
        if (offset % g->alignment)
            return error_set(err,
                             "%s: tensor %s: offset %llu, expected a multiple of %zu; the file is damaged",
                             g->path, t->name, (unsigned long long)offset, g->alignment);
        if (offset > size || t->bytes > size - offset)
            return error_set(err,
                             "%s: tensor %s: %zu bytes at offset %llu lie outside the %zu bytes of data; the "
                             "file is truncated or damaged: copy it again",
                             g->path, t->name, t->bytes, (unsigned long long)offset, size);
        t->data = c->bytes + (begin <= c->size ? begin : c->size) + offset;
    }
    return true;
}

static int compare_places(const void *a, const void *b) {
    const GgufTensor *x = *(GgufTensor *const *)a, *y = *(GgufTensor *const *)b;
    const char *p = x->data, *q = y->data;
    return p != q ? (p > q) - (p < q) : (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

static bool check_overlap(const Gguf *g, Error *err) {
    const GgufTensor **order = mem_alloc((g->n_tensors + 1) * sizeof *order);
    for (size_t i = 0; i < g->n_tensors; i++) order[i] = &g->tensors[i];
    qsort(order, g->n_tensors, sizeof *order, compare_places);
    bool ok = true;
    for (size_t i = 1; ok && i < g->n_tensors; i++) {
        const GgufTensor *before = order[i - 1], *t = order[i];
        if ((const char *)before->data + before->bytes > (const char *)t->data)
            ok = error_set(err, "%s: tensors %s and %s overlap; the file is damaged", g->path, before->name,
                           t->name);
    }
    free(order);
    return ok;
}

static bool parse(Gguf *g, Error *err) {
    GgufCursor c = {g->path, g->map.bytes, g->map.size, 0};
    size_t n_pairs, n_tensors;
    return parse_header(g, &c, &n_pairs, &n_tensors, err) && parse_pairs(g, &c, n_pairs, err) &&
           find_alignment(g, err) && parse_tensors(g, &c, n_tensors, err) && place_tensors(g, &c, err) &&
           check_overlap(g, err);
}

// ---- the interface ----

bool gguf_is_file(const char *path) {
    const size_t size = strlen(path), suffix = strlen(".gguf");
    return size > suffix && strcasecmp(path + size - suffix, ".gguf") == 0;
}

bool gguf_open(Gguf **out, const char *path, Error *err) {
    *out = NULL;
    Gguf *g = mem_zeroed(1, sizeof *g);
    g->path = mem_strdup(path);
    if (!file_map(&g->map, path, err) || !parse(g, err)) {
        gguf_close(g);
        return false;
    }
    *out = g;
    return true;
}

void gguf_close(Gguf *g) {
    if (!g) return;
    for (size_t i = 0; i < g->n_pairs; i++) free(g->pairs[i].key);
    for (size_t i = 0; i < g->n_tensors; i++) free(g->tensors[i].name);
    free(g->pairs);
    free(g->tensors);
    free(g->offsets);
    free(g->pair_index);
    free(g->tensor_index);
    file_unmap(&g->map);
    free(g->path);
    free(g);
}

const char *gguf_path(const Gguf *g) {
    return g->path;
}

uint32_t gguf_version(const Gguf *g) {
    return g->version;
}

size_t gguf_alignment(const Gguf *g) {
    return g->alignment;
}

size_t gguf_pair_count(const Gguf *g) {
    return g->n_pairs;
}

const GgufPair *gguf_pair(const Gguf *g, size_t i) {
    return i < g->n_pairs ? &g->pairs[i] : NULL;
}

const GgufValue *gguf_find_value(const Gguf *g, const char *key) {
    const GgufPair *pair = gguf_pair(g, find_index(g->pair_index, g->n_pairs, key));
    return pair ? &pair->value : NULL;
}

size_t gguf_tensor_count(const Gguf *g) {
    return g->n_tensors;
}

const GgufTensor *gguf_tensor(const Gguf *g, size_t i) {
    return i < g->n_tensors ? &g->tensors[i] : NULL;
}

const GgufTensor *gguf_find_tensor(const Gguf *g, const char *name) {
    return gguf_tensor(g, find_index(g->tensor_index, g->n_tensors, name));
}

bool gguf_read_f32(float *out, const GgufTensor *t, size_t first, size_t n, Error *err) {
    if (!gguf_type_can_decode(t->type))
        return error_set(err,
                         "tensor %s: values of type %s cannot be read; use a file of another quantisation, "
                         "such as Q8_0 or Q4_K",
                         t->name, gguf_type_name(t->type));
    CHECK(first <= t->count && n <= t->count - first, "tensor %s: values %zu + %zu of %zu", t->name, first, n,
          t->count);
    const size_t values = gguf_type_block_values(t->type), block_bytes = gguf_type_block_bytes(t->type);
    const unsigned char *blocks = (const unsigned char *)t->data + first / values * block_bytes;
    float block[MAX_BLOCK];
    for (size_t skip = first % values; n > 0; skip = 0) {
        size_t taken = skip || n < values ? (n < values - skip ? n : values - skip) : n - n % values;
        if (taken % values == 0)
            gguf_decode(out, t->type, blocks, taken);
        else {
            gguf_decode(block, t->type, blocks, values);
            memcpy(out, block + skip, taken * sizeof *out);
        }
        blocks += (skip + taken) / values * block_bytes;
        out += taken, n -= taken;
    }
    return true;
}
