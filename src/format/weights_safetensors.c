#include "format/safetensors.h"
#include "format/weights_kind.h"

#include <string.h>

static bool open_file(void **file, const char *path, Error *err) {
    Safetensors *st;
    bool ok = safetensors_open(&st, path, err);
    *file = st;
    return ok;
}

static void close_file(void *file) {
    safetensors_close(file);
}

static size_t count(const void *file) {
    return safetensors_count(file);
}

static void describe(WeightsEntry *e, const void *file, size_t i) {
    const SafetensorsEntry *s = safetensors_entry(file, i);
    e->name = s->name;
    e->type = dtype_name(s->dtype);
    e->ndim = s->ndim;
    memcpy(e->shape, s->shape, sizeof s->shape);
    e->count = s->count;
    e->bytes = s->bytes;
    e->source = s;
}

static bool read_f32(float *out, const WeightsEntry *e, size_t first, size_t n, Error *err) {
    if (safetensors_read_f32(out, e->source, first, n, err)) return true;
    return error_prefix(err, "%s", e->file->path);
}

const WeightsKind weights_safetensors = {
    .name = "safetensors",
    .suffix = ".safetensors",
    .open = open_file,
    .close = close_file,
    .count = count,
    .describe = describe,
    .read_f32 = read_f32,
};
