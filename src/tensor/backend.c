#include "tensor/backend.h"
#include "base/check.h"
#include "base/mib.h"

void backend_destroy(Backend *be) {
    if (be) be->device->destroy(be);
}

size_t backend_pieces(Backend *be, size_t *most) {
    *most = 0;
    return be->device->pieces ? be->device->pieces(most) : 0;
}

void backend_sync(Backend *be) {
    be->device->sync(be);
}

void tensor_upload(Backend *be, Stream stream, Tensor t, const void *host) {
    CHECK(tensor_is_contiguous(t), "upload to a strided tensor");
    if (tensor_count(t)) be->device->upload(be, stream, t.data, host, tensor_bytes(t));
}

void tensor_download(Backend *be, Stream stream, void *host, Tensor t) {
    CHECK(tensor_is_contiguous(t), "download from a strided tensor");
    if (tensor_count(t)) be->device->download(be, stream, host, t.data, tensor_bytes(t));
}

float tensor_read_f32(Backend *be, Tensor t) {
    CHECK(t.dtype == DTYPE_F32 && tensor_count(t) == 1, "%zu values of %s", tensor_count(t),
          dtype_name(t.dtype));
    float value;
    tensor_download(be, STREAM_COMPUTE, &value, t);
    backend_sync(be);
    return value;
}

Arena arena_measure(Backend *be, const char *name) {
    return (Arena){.be = be, .name = name};
}

Tensor arena_take(Arena *a, Dtype dtype, int ndim, const size_t *shape) {
    Tensor t = tensor_at(NULL, dtype, ndim, shape);
    size_t bytes = tensor_bytes(t);
    size_t padded = (bytes + a->be->alignment - 1) & ~(a->be->alignment - 1);
    if (a->base) {
        CHECK(a->used + padded <= a->size, "%s: the plan takes more than it measured (%zu bytes)", a->name,
              a->size);
        t.data = a->base + a->used;
    }
    a->used += padded;
    return t;
}

bool arena_commit(Arena *a, Error *err) {
    a->size = a->used;
    a->used = 0;
    if (a->size == 0) return true;
    a->base = a->be->device->alloc(a->be, a->size);
    if (a->base) return true;
    return error_set(err, "%s: cannot get %.1f MiB of %s memory; use a smaller batch, sequence or model",
                     a->name, in_mib((double)a->size), a->be->name);
}

void arena_release(Arena *a) {
    if (a->base) a->be->device->release(a->be, a->base, a->size);
    *a = (Arena){.be = a->be, .name = a->name};
}
