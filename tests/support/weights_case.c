#include "support/weights_case.h"
#include "base/file.h"
#include "base/memory.h"
#include "format/safetensors.h"
#include "support/golden.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

float case_value(size_t t, size_t i) {
    return (float)(1 + (t * 7 + i) % 50) / 16.0f;
}

typedef struct Filling {
    const TensorCase *tensors;
    Dtype dtype;
} Filling;

static size_t count_of(const TensorCase *t) {
    size_t n = 1;
    for (int d = 0; d < t->ndim; d++) n *= t->shape[d];
    return n;
}

static bool fill(void *context, size_t t, void *dst) {
    const Filling *f = context;
    for (size_t i = 0; i < count_of(&f->tensors[t]); i++) {
        const float x = case_value(t, i);
        const double wide = x;
        const _Float16 half = (_Float16)x;
        uint32_t bits;
        memcpy(&bits, &x, sizeof bits);
        const uint16_t upper = (uint16_t)(bits >> 16);
        const void *from = f->dtype == DTYPE_F64    ? (const void *)&wide
                           : f->dtype == DTYPE_F16  ? (const void *)&half
                           : f->dtype == DTYPE_BF16 ? (const void *)&upper
                                                    : (const void *)&x;
        memcpy((char *)dst + i * dtype_size(f->dtype), from, dtype_size(f->dtype));
    }
    return true;
}

void write_tensors(const char *path, const TensorCase *tensors, Dtype dtype) {
    size_t n = 0;
    while (tensors[n].name) n++;
    SafetensorsSpec *specs = mem_zeroed(n + 1, sizeof *specs);
    for (size_t i = 0; i < n; i++) {
        specs[i] = (SafetensorsSpec){.name = tensors[i].name, .dtype = dtype, .ndim = tensors[i].ndim};
        for (int d = 0; d < tensors[i].ndim; d++) specs[i].shape[d] = tensors[i].shape[d];
    }
    Filling f = {tensors, dtype};
    Error err;
    if (!safetensors_write(path, specs, n, NULL, 0, fill, &f, &err)) fail_msg("%s", err.text);
    free(specs);
}

void write_text(const char *folder, const char *name, const char *text) {
    Error err;
    char *path = path_join(folder, name);
    if (!file_make_folders(folder, &err) || !file_write_text(path, text, strlen(text), &err))
        fail_msg("%s", err.text);
    free(path);
}

// ---- shards ----

static bool copy_entry(void *context, size_t i, void *dst) {
    const SafetensorsEntry *const *entries = context;
    memcpy(dst, entries[i]->data, entries[i]->bytes);
    return true;
}

// Every tensor whose place in the file is `shard` modulo 2, and its line of the index.
static void write_shard(const char *path, const Safetensors *st, size_t shard, json_t *map) {
    const SafetensorsEntry *entries[256];
    SafetensorsSpec specs[256];
    size_t n = 0;
    Error err;
    for (size_t i = shard; i < safetensors_count(st); i += 2, n++) {
        assert_true(n < 256);
        const SafetensorsEntry *e = entries[n] = safetensors_entry(st, i);
        specs[n] = (SafetensorsSpec){.name = e->name, .dtype = e->dtype, .ndim = e->ndim};
        memcpy(specs[n].shape, e->shape, sizeof specs[n].shape);
        json_object_set_new(map, e->name, json_string(strrchr(path, '/') + 1));
    }
    if (!safetensors_write(path, specs, n, NULL, 0, copy_entry, entries, &err)) fail_msg("%s", err.text);
}

void shard_into_cache(const char *cache, const char *model, const char *from) {
    Safetensors *st;
    Error err;
    char *whole = path_join(from, "model.safetensors"), *config = path_join(from, "config.json"), *text,
         *folder = mem_printf("%s/models--%s", cache, model), *snapshot = path_join(folder, "snapshots/1"),
         *refs = path_join(folder, "refs");
    size_t size;
    if (!safetensors_open(&st, whole, &err) || !file_read(&text, &size, config, &err))
        fail_msg("%s", err.text);
    write_text(refs, "main", "1");
    write_text(snapshot, "config.json", text);
    json_t *map = json_object(), *index = json_pack("{s:o}", "weight_map", map);
    for (size_t i = 0; i < 2; i++) {
        char *path = mem_printf("%s/model-%zu.safetensors", snapshot, i);
        write_shard(path, st, i, map);
        free(path);
    }
    char *lines = json_dumps(index, 0);
    write_text(snapshot, "model.safetensors.index.json", lines);
    json_decref(index);
    safetensors_close(st);
    free(lines), free(text), free(whole), free(config), free(folder), free(snapshot), free(refs);
}
