// A twin of the CPU backend that computes nothing: operators on it make the primitives that they would run,
// and note the scratch that they would take. What each kernel asks cpu_scratch for stands here once more;
// tests/test_rehearsal.c compares the two.
#include "ops/cpu/rehearsal.h"
#include "base/memory.h"
#include "ops/cpu/attention_slots.h"
#include "ops/cpu/gemm.h"
#include "ops/cpu/norm_parts.h"
#include "tensor/ops_table.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static void note(Backend *be, size_t kernel, size_t library) {
    CpuState *s = be->state;
    if (kernel > s->scratch_bytes) s->scratch_bytes = kernel;
    if (library > s->library_bytes) s->library_bytes = library;
}

// ---- memory: addresses that nobody may touch ----

static void *no_alloc(Backend *be, size_t bytes) {
    (void)be;
    void *p = mmap(NULL, bytes ? bytes : 1, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}
static void no_release(Backend *be, void *memory, size_t bytes) {
    (void)be;
    munmap(memory, bytes ? bytes : 1);
}
static void *host_alloc(Backend *be, size_t bytes) {
    (void)be;
    return calloc(1, bytes ? bytes : 1);
}
static void host_release(Backend *be, void *memory, size_t bytes) {
    (void)be, (void)bytes;
    free(memory);
}
static void no_upload(Backend *be, Stream stream, void *device, const void *host, size_t bytes) {
    (void)be, (void)stream, (void)device, (void)host, (void)bytes;
}
static void no_download(Backend *be, Stream stream, void *host, const void *device, size_t bytes) {
    (void)be, (void)stream, (void)device;
    memset(host, 0, bytes);
}
static void destroy(Backend *be) {
    free(be->state);
    free(be);
}
static size_t workspace(const Backend *be) {
    const CpuState *s = be->state;
    return s->scratch_bytes + s->library_bytes;
}

// The backend's own, but for what touches memory.
static const BackendDevice *device_like(const BackendDevice *of) {
    static BackendDevice device;
    device = *of;
    device.alloc = no_alloc, device.release = no_release;
    device.host_alloc = host_alloc, device.host_release = host_release;
    device.upload = no_upload, device.download = no_download;
    device.destroy = destroy, device.workspace = workspace;
    return &device;
}

// ---- operators ----

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-parameter"
#define NOTHING(name, ...)                                                                                   \
    static void nothing_##name(Backend *be, __VA_ARGS__) {}
BACKEND_OPS(NOTHING)
#undef NOTHING
#pragma GCC diagnostic pop

static GemmMatrix matrix_of(Tensor t, bool transposed) {
    return (GemmMatrix){t.data, tensor_row_stride(t), transposed, t.dtype};
}

// c = op(a) op(b), as linear.c takes it; block: what b is rounded into, columns at a time (0: it is not).
static void product(Backend *be, GemmSize size, Tensor c, bool accumulate, GemmMatrix a, GemmMatrix b,
                    bool has_bias) {
    const bool by_floats = a.dtype == DTYPE_BF16 && !be->bf16, rounds = b.dtype == DTYPE_F32;
    if (by_floats) note(be, sizeof(float) * (size.M * size.N + size.M * size.K + size.K * size.N), 0);
    if (a.dtype == DTYPE_F32 || by_floats) {
        gemm_prepare(cpu_threads(be));
        return;
    }
    const size_t width = gemm_weight_columns(size);
    if (rounds) note(be, width * size.K * sizeof(uint16_t), 0);
    for (size_t n = 0; n < size.N; n += width) {
        const size_t cols = size.N - n < width ? size.N - n : width;
        const GemmMatrix block = {b.data, rounds ? (b.transposed ? size.K : cols) : b.stride, b.transposed,
                                  DTYPE_BF16};
        note(be, 0,
             gemm_bf16_prepare(cpu_threads(be), (GemmSize){size.M, cols, size.K}, matrix_of(c, false),
                               accumulate, a, block, has_bias));
    }
}

static void linear_forward_(Backend *be, Tensor y, Tensor x, Tensor w, Tensor b) {
    const GemmSize size = {tensor_rows(y), tensor_cols(y), tensor_cols(x)};
    product(be, size, y, false, matrix_of(x, false), matrix_of(w, true), tensor_exists(b));
}

static void linear_backward_input_(Backend *be, Tensor dx, Tensor dy, Tensor w, bool accumulate) {
    const GemmSize size = {tensor_rows(dx), tensor_cols(dx), tensor_cols(dy)};
    product(be, size, dx, accumulate, matrix_of(dy, false), matrix_of(w, false), false);
}

static void linear_backward_weight_(Backend *be, Tensor dw, Tensor db, Tensor dy, Tensor x) {
    const GemmSize size = {tensor_rows(dw), tensor_cols(dw), tensor_rows(x)};
    (void)db;
    if (dy.dtype == DTYPE_BF16 && be->bf16) // in one piece
        note(be, 0,
             gemm_bf16_prepare(cpu_threads(be), size, matrix_of(dw, false), true, matrix_of(dy, true),
                               matrix_of(x, false), false));
    else
        product(be, size, dw, true, matrix_of(dy, true), matrix_of(x, false), false);
}

static void layer_norm_backward_(Backend *be, Tensor dx, Tensor rounded, Tensor dw, Tensor db, Tensor dy,
                                 Tensor x, Tensor w, Tensor mean, Tensor rstd) {
    (void)dx, (void)rounded, (void)db, (void)dy, (void)w, (void)mean, (void)rstd;
    if (tensor_exists(dw)) note(be, norm_parts(tensor_rows(x), tensor_cols(x)).scratch_bytes, 0);
}

static void rms_norm_backward_(Backend *be, Tensor dx, Tensor rounded, Tensor dw, Tensor dy, Tensor x,
                               Tensor w, Tensor rstd) {
    layer_norm_backward_(be, dx, rounded, dw, TENSOR_NONE, dy, x, w, TENSOR_NONE, rstd);
}

static void cross_entropy_(Backend *be, Tensor losses, Tensor logits, Tensor targets, float dscale) {
    (void)losses, (void)targets, (void)dscale;
    if (logits.dtype == DTYPE_BF16)
        note(be, (size_t)cpu_threads(be) * tensor_cols(logits) * sizeof(float), 0);
}

static void attention_backward_(Backend *be, Tensor dq, Tensor dk, Tensor dv, Tensor delta, Tensor dout,
                                Tensor q, Tensor k, Tensor v, Tensor o, Tensor lse, Tensor mask,
                                Tensor starts, float scale, bool causal) {
    (void)dk, (void)dv, (void)delta, (void)dout, (void)v, (void)o, (void)lse, (void)mask, (void)starts;
    (void)scale, (void)causal;
    if (dq.dtype == DTYPE_F32) return;
    const size_t T = q.shape[1], K = k.shape[2], tiles = (T + KEY_TILE - 1) / KEY_TILE;
    note(be,
         slot_sizes(q.shape[0] * K, q.shape[2] / K, T, q.shape[3], tiles, (size_t)cpu_threads(be))
             .scratch_bytes,
         0);
}

static const BackendOps *ops(void) {
    static BackendOps table = {
#define ENTRY(name, ...) .name = nothing_##name,
        BACKEND_OPS(ENTRY)
#undef ENTRY
    };
    table.linear_forward = linear_forward_;
    table.linear_backward_input = linear_backward_input_;
    table.linear_backward_weight = linear_backward_weight_;
    table.layer_norm_backward = layer_norm_backward_;
    table.rms_norm_backward = rms_norm_backward_;
    table.cross_entropy = cross_entropy_;
    table.attention_backward = attention_backward_;
    return &table;
}

Backend *cpu_rehearsal(Backend *be) {
    const CpuState *of = be->state;
    Backend *twin = mem_alloc(sizeof *twin);
    CpuState *state = mem_zeroed(1, sizeof *state);
    *state = (CpuState){.threads = of->threads, .level = of->level};
    *twin = *be;
    twin->ops = ops();
    twin->device = device_like(be->device);
    twin->op_enter = twin->op_leave = NULL;
    twin->state = state;
    return twin;
}
