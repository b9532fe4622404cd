#include "support/reference.h"
#include "base/half.h"
#include "base/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

Safetensors *reference_open(const char *format, ...) {
    va_list args;
    va_start(args, format);
    char *path = golden_path_of(format, args);
    va_end(args);
    Safetensors *st;
    Error err;
    if (!safetensors_open(&st, path, &err)) fail_msg("%s", err.text);
    free(path);
    return st;
}

json_t *reference_json(const char *format, ...) {
    va_list args;
    va_start(args, format);
    char *path = golden_path_of(format, args);
    va_end(args);
    json_error_t where;
    json_t *value = json_load_file(path, 0, &where);
    if (!value) fail_msg("%s:%d: %s", path, where.line, where.text);
    free(path);
    return value;
}

float *reference_f32(const Safetensors *st, const char *name) {
    const SafetensorsEntry *e = safetensors_find(st, name);
    if (!e) return NULL;
    float *values = mem_alloc(e->count * sizeof *values + 1);
    Error err;
    if (!safetensors_to_f32(values, e, &err)) fail_msg("%s", err.text);
    return values;
}

int32_t *reference_i32(const Safetensors *st, const char *name) {
    const SafetensorsEntry *e = safetensors_find(st, name);
    if (!e) return NULL;
    assert_int_equal(e->dtype, DTYPE_I64);
    int32_t *values = mem_alloc(e->count * sizeof *values + 1);
    for (size_t i = 0; i < e->count; i++) {
        int64_t wide;
        memcpy(&wide, (const char *)e->data + i * sizeof wide, sizeof wide);
        values[i] = (int32_t)wide;
    }
    return values;
}

Batch reference_batch(const Safetensors *st, const char *prefix) {
    char name[4][64];
    static const char *const parts[] = {"input_ids", "attention_mask", "labels", "images"};
    for (int i = 0; i < 4; i++) snprintf(name[i], sizeof name[i], "%s%s", prefix, parts[i]);
    const SafetensorsEntry *ids = safetensors_find(st, name[0]), *images = safetensors_find(st, name[3]);
    if (!ids) fail_msg("%s: no tensor %s", safetensors_path(st), name[0]);
    Batch b = {.B = ids->shape[0], .T = ids->shape[1]};
    b.input_ids = reference_i32(st, name[0]);
    b.attention_mask = reference_i32(st, name[1]);
    b.labels = reference_i32(st, name[2]);
    b.images = reference_f32(st, name[3]);
    b.n_tiles = images ? images->shape[0] : 0;
    return b;
}

void reference_batch_free(Batch *b) {
    free(b->input_ids);
    free(b->attention_mask);
    free(b->labels);
    free(b->starts);
    free(b->images);
    *b = (Batch){0};
}

float *tensor_values(Backend *be, Tensor t) {
    const size_t n = tensor_count(t);
    assert_true(dtype_size(t.dtype) <= sizeof(float));
    float *values = mem_alloc(n * sizeof *values + 1);
    tensor_download(be, STREAM_COMPUTE, values, t);
    backend_sync(be);
    if (t.dtype != DTYPE_BF16) return values;
    for (size_t i = n; i-- > 0;) { // from the end, in place
        uint16_t half;
        memcpy(&half, (const char *)values + i * sizeof half, sizeof half);
        values[i] = f32_from_bf16(half);
    }
    return values;
}
