#include "base/check.h"
#include "base/file.h"
#include "format/gguf_parts.h"

#include <string.h>

// ---- metadata ----

static void append_u32(CharVec *out, uint32_t value) {
    vec_extend(out, (const char *)&value, sizeof value);
}

static void append_u64(CharVec *out, uint64_t value) {
    vec_extend(out, (const char *)&value, sizeof value);
}

static void append_string(CharVec *out, const char *text, size_t size) {
    append_u64(out, size);
    vec_extend(out, text, size);
}

// Where in the metadata the pair of this key begins, or SIZE_MAX.
static size_t find_key(const GgufMetadata *m, const char *key) {
    for (size_t i = 0; i < m->keys.count; i++) {
        uint64_t size;
        const char *at = m->bytes.items + m->keys.items[i];
        memcpy(&size, at, sizeof size);
        if (size == strlen(key) && memcmp(at + sizeof size, key, size) == 0) return m->keys.items[i];
    }
    return SIZE_MAX;
}

void gguf_put_value(GgufMetadata *m, const char *key, const GgufValue *value) {
    CHECK(find_key(m, key) == SIZE_MAX, "metadata key %s is written twice", key);
    vec_push(&m->keys, m->bytes.count);
    append_string(&m->bytes, key, strlen(key));
    append_u32(&m->bytes, value->type);
    if (value->type == GGUF_ARRAY) {
        append_u32(&m->bytes, value->item_type);
        append_u64(&m->bytes, value->count);
    }
    vec_extend(&m->bytes, (const char *)value->data, value->bytes);
    m->count++;
}

static void put_plain(GgufMetadata *m, const char *key, GgufValueType type, const void *data, size_t bytes) {
    gguf_put_value(m, key, &(GgufValue){.type = type, .count = 1, .data = data, .bytes = bytes});
}

static void put_array(GgufMetadata *m, const char *key, GgufValueType type, size_t n, const void *data,
                      size_t bytes) {
    gguf_put_value(m, key, &(GgufValue){GGUF_ARRAY, type, n, data, bytes});
}

void gguf_put_u32(GgufMetadata *m, const char *key, uint32_t value) {
    put_plain(m, key, GGUF_U32, &value, sizeof value);
}

void gguf_put_f32(GgufMetadata *m, const char *key, float value) {
    put_plain(m, key, GGUF_F32, &value, sizeof value);
}

void gguf_put_bool(GgufMetadata *m, const char *key, bool value) {
    put_plain(m, key, GGUF_BOOL, &(unsigned char){value}, 1);
}

void gguf_put_string(GgufMetadata *m, const char *key, const char *value) {
    CharVec text = {0};
    append_string(&text, value, strlen(value));
    put_plain(m, key, GGUF_STRING, text.items, text.count);
    vec_free(&text);
}

void gguf_put_strings(GgufMetadata *m, const char *key, const GgufString *items, size_t n) {
    CharVec texts = {0};
    for (size_t i = 0; i < n; i++) append_string(&texts, items[i].text, items[i].size);
    put_array(m, key, GGUF_STRING, n, texts.items, texts.count);
    vec_free(&texts);
}

void gguf_put_i32s(GgufMetadata *m, const char *key, const int32_t *items, size_t n) {
    put_array(m, key, GGUF_I32, n, items, n * sizeof *items);
}

void gguf_put_f32s(GgufMetadata *m, const char *key, const float *items, size_t n) {
    put_array(m, key, GGUF_F32, n, items, n * sizeof *items);
}

void gguf_metadata_free(GgufMetadata *m) {
    vec_free(&m->bytes);
    vec_free(&m->keys);
    m->count = 0;
}

static size_t alignment_of(const GgufMetadata *m) {
    const size_t at = find_key(m, GGUF_ALIGNMENT_KEY);
    if (at == SIZE_MAX) return GGUF_DEFAULT_ALIGNMENT;
    uint32_t type_and_value[2];
    memcpy(type_and_value, m->bytes.items + at + sizeof(uint64_t) + strlen(GGUF_ALIGNMENT_KEY),
           sizeof type_and_value);
    const uint32_t alignment = type_and_value[1];
    CHECK(type_and_value[0] == GGUF_U32 && alignment && (alignment & (alignment - 1)) == 0,
          GGUF_ALIGNMENT_KEY " is no U32 that is a power of two");
    return alignment;
}

// ---- tensors ----

size_t gguf_spec_bytes(const GgufSpec *s) {
    CHECK(s->ndim >= 0 && s->ndim <= GGUF_MAX_DIMS, "tensor %s: %d dimensions", s->name, s->ndim);
    size_t bytes = gguf_type_row_bytes(s->type, s->ndim ? s->shape[s->ndim - 1] : 1);
    for (int d = 0; d + 1 < s->ndim; d++)
        CHECK(!__builtin_mul_overflow(bytes, s->shape[d], &bytes), "tensor %s: size overflows", s->name);
    return bytes;
}

static size_t align(size_t size, size_t alignment) {
    return (size + alignment - 1) & ~(alignment - 1);
}

static int compare_names(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static void check_names(const GgufSpec *specs, size_t n) {
    const char **names = mem_alloc((n + 1) * sizeof *names);
    for (size_t i = 0; i < n; i++) {
        names[i] = specs[i].name;
        CHECK(strlen(names[i]) <= GGUF_MAX_NAME, "tensor name %s is too long", names[i]);
    }
    qsort(names, n, sizeof *names, compare_names);
    for (size_t i = 1; i < n; i++)
        CHECK(strcmp(names[i - 1], names[i]) != 0, "tensor %s is written twice", names[i]);
    free(names);
}

// All that stands before the values, padded to the alignment.
static CharVec header_bytes(const GgufMetadata *m, const GgufSpec *specs, size_t n, size_t alignment) {
    CharVec out = {0};
    vec_extend(&out, GGUF_MAGIC, strlen(GGUF_MAGIC));
    append_u32(&out, GGUF_VERSION);
    append_u64(&out, n);
    append_u64(&out, m->count);
    vec_extend(&out, m->bytes.items, m->bytes.count);
    size_t offset = 0;
    for (size_t i = 0; i < n; i++) {
        const GgufSpec *s = &specs[i];
        append_string(&out, s->name, strlen(s->name));
        append_u32(&out, (uint32_t)s->ndim);
        for (int d = s->ndim - 1; d >= 0; d--) append_u64(&out, s->shape[d]);
        append_u32(&out, s->type);
        append_u64(&out, offset);
        offset += align(gguf_spec_bytes(s), alignment);
    }
    while (out.count % alignment) vec_push(&out, '\0');
    return out;
}

static bool write_tensors(FileWriter *w, const GgufSpec *specs, size_t n, size_t alignment, char *buffer,
                          bool (*fill)(void *context, size_t i, void *dst), void *context, Error *err) {
    for (size_t i = 0; i < n; i++) {
        const size_t bytes = gguf_spec_bytes(&specs[i]), padded = align(bytes, alignment);
        memset(buffer + bytes, 0, padded - bytes);
        if (!fill(context, i, buffer))
            return error_set(err, "%s: tensor %s: its values could not be read", w->path, specs[i].name);
        if (!file_put(w, buffer, padded, err)) return false;
    }
    return true;
}

bool gguf_write(const char *path, const GgufMetadata *metadata, const GgufSpec *specs, size_t n,
                bool (*fill)(void *context, size_t i, void *dst), void *context, Error *err) {
    check_names(specs, n);
    const size_t alignment = alignment_of(metadata);
    size_t largest = alignment;
    for (size_t i = 0; i < n; i++) {
        const size_t padded = align(gguf_spec_bytes(&specs[i]), alignment);
        if (padded > largest) largest = padded;
    }
    char *buffer = malloc(largest);
    if (!buffer) return error_set(err, "%s: no memory for the largest tensor, %zu bytes", path, largest);
    CharVec header = header_bytes(metadata, specs, n, alignment);
    FileWriter w = {0};
    bool ok = file_create(&w, path, err);
    if (ok) {
        ok = file_put(&w, header.items, header.count, err) &&
             write_tensors(&w, specs, n, alignment, buffer, fill, context, err);
        if (ok)
            ok = file_commit(&w, err);
        else
            file_abandon(&w);
    }
    vec_free(&header);
    free(buffer);
    return ok;
}
