// `vlm bench ops`: operators one by one, at the sizes of the preset full, beside the memory's speed and the
// matrix product's in the same run.
#include "base/check.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/pyjson.h"
#include "cmd/bench.h"
#include "cmd/bench_time.h"
#include "cmd/cmd.h"
#include "ops/cpu/cpu.h"
#include "tensor/ops.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct Flags {
    char *only;
    size_t threads, values, vocabulary;
    Number seconds;
    bool json;
} Flags;

#define FLAG(name, type, ...)                                                                                \
    { #name, type, offsetof(Flags, name), __VA_ARGS__ }
static const Field fields[] = {
    FLAG(only, FIELD_STRING, "", 0, 0, NULL, "measure what has this word in its name, e.g. attention"),
    FLAG(threads, FIELD_SIZE, "1", 0, 1024, NULL, "threads; 0: one per physical core"),
    FLAG(values, FIELD_SIZE, "16777216", 64, 1e9, NULL, "values of a parameter for adamw and sums"),
    FLAG(vocabulary, FIELD_SIZE, "49218", 2, 1e7, NULL, "logits of a row of cross_entropy"),
    FLAG(seconds, FIELD_NUMBER, "0.3", 0, 3600, NULL, "repeat each for so long; the fastest round counts"),
    FLAG(json, FIELD_BOOL, "false", 0, 0, NULL, "print one JSON object a line"),
};
static const FieldTable table = {"Operators", fields, sizeof fields / sizeof *fields};

#define OPERANDS 12

// One operator at one size. work: floating-point operations, or bytes that have to move, of a call.
typedef struct Measured Measured;
struct Measured {
    char name[64];
    void (*run)(Backend *be, const Measured *m);
    double work;
    bool bytes;
    Tensor t[OPERANDS];
    bool flag; // causal, or clear
};

static Tensor operand(Backend *be, Dtype dtype, int ndim, const size_t *shape) {
    Tensor t = tensor_at(NULL, dtype, ndim, shape);
    t.data = be->device->alloc(be, tensor_bytes(t));
    if (!t.data) log_error("no memory for %zu bytes", tensor_bytes(t));
    CHECK(t.data, "bench ops");
    return t;
}

// Values in [-1, 1), the same ones each time.
static void set_values(Backend *be, Tensor t) {
    size_t n = tensor_count(t);
    float *host = mem_alloc(n * sizeof *host);
    for (size_t i = 0; i < n; i++) host[i] = (float)((i * 2654435761u >> 8) % 4096) / 2048 - 1;
    Tensor f32 = operand(be, DTYPE_F32, t.ndim, t.shape);
    tensor_upload(be, STREAM_COMPUTE, f32, host);
    copy(be, t, f32);
    backend_sync(be);
    be->device->release(be, f32.data, tensor_bytes(f32));
    free(host);
}

static double seconds_of_call(Backend *be, const Measured *m, double enough) {
    const BenchTime begin = bench_now();
    double fastest = INFINITY;
    do {
        BenchTime call = bench_now();
        m->run(be, m);
        backend_sync(be);
        call = bench_since(call);
        // With several threads their processor time says nothing about how well they share the work.
        double seconds = cpu_threads(be) == 1 ? call.cpu : call.wall;
        fastest = seconds < fastest ? seconds : fastest;
    } while (bench_since(begin).wall < enough);
    return fastest;
}

static bool wanted(const Flags *f, const char *name) {
    return !f->only || strstr(name, f->only);
}

static void measure(Backend *be, const Measured *m, const Flags *f) {
    double seconds = seconds_of_call(be, m, f->seconds.value), rate = bench_rate(m->work * 1e-9, seconds);
    if (f->json)
        pyjson_print(stdout,
                     json_pack("{s:s, s:f, s:f, s:s}", "name", m->name, "seconds", seconds, "rate", rate,
                               "unit", m->bytes ? "GB/s" : "GFLOP/s"),
                     -1);
    else
        printf("%-48s %9.3f ms %9.1f %s\n", m->name, seconds * 1e3, rate, m->bytes ? "GB/s" : "GFLOP/s");
    fflush(stdout);
}

static void release(Backend *be, Measured *m) {
    for (size_t i = 0; i < OPERANDS; i++)
        if (m->t[i].data) be->device->release(be, m->t[i].data, tensor_bytes(m->t[i]));
}

// ---- attention ----

static void run_forward(Backend *be, const Measured *m) {
    const Tensor *t = m->t;
    attention_forward(be, t[0], t[1], t[2], t[3], t[4], TENSOR_NONE, TENSOR_NONE, 0.125f, m->flag);
}
static void run_backward(Backend *be, const Measured *m) {
    const Tensor *t = m->t;
    attention_backward(be, t[5], t[6], t[7], t[8], t[9], t[2], t[3], t[4], t[0], t[1], TENSOR_NONE,
                       TENSOR_NONE, 0.125f, m->flag);
}

typedef struct AttentionSize {
    const char *name;
    size_t B, T, H, K, D;
    bool causal;
} AttentionSize;

static void set_attention_values(Backend *be, Measured *m, AttentionSize s, Dtype dtype) {
    for (size_t i = 0; i < 10; i++) {
        size_t heads = i == 3 || i == 4 || i == 6 || i == 7 ? s.K : s.H;
        m->t[i] = i == 1 || i == 8 ? operand(be, DTYPE_F32, SHAPE(s.B, s.H, s.T))
                                   : operand(be, dtype, SHAPE(s.B, s.T, heads, s.D));
        if (i == 2 || i == 3 || i == 4 || i == 9) set_values(be, m->t[i]);
    }
}

// What a query may see counts, not what is computed and then masked.
static void measure_attention(Backend *be, const Flags *f, AttentionSize s, Dtype dtype) {
    Measured forward = {.run = run_forward, .flag = s.causal}, backward = {.run = run_backward};
    snprintf(forward.name, sizeof forward.name, "attention_forward %s, %s", s.name, dtype_name(dtype));
    snprintf(backward.name, sizeof backward.name, "attention_backward %s, %s", s.name, dtype_name(dtype));
    if (!wanted(f, forward.name) && !wanted(f, backward.name)) return;
    double seen = (double)(s.B * s.H) * (double)s.T * (s.causal ? (double)(s.T + 1) / 2 : (double)s.T);
    set_attention_values(be, &forward, s, dtype);
    memcpy(backward.t, forward.t, sizeof forward.t);
    forward.work = 4 * (double)s.D * seen, backward.work = 10 * (double)s.D * seen;
    backward.flag = s.causal;
    run_forward(be, &forward); // backward needs o and lse
    if (wanted(f, forward.name)) measure(be, &forward, f);
    if (wanted(f, backward.name)) measure(be, &backward, f);
    release(be, &forward);
}

// ---- where bytes count ----

// a = b + scale · c by the plainest means: what the memory gives.
static void run_triad(Backend *be, const Measured *m) {
    float *a = (float *)m->t[0].data;
    const float *b = (const float *)m->t[1].data, *c = (const float *)m->t[2].data;
    size_t n = tensor_count(m->t[0]);
#pragma omp parallel for simd num_threads(cpu_threads(be))
    for (size_t i = 0; i < n; i++) a[i] = b[i] + 3.0f * c[i];
}
static void run_squares(Backend *be, const Measured *m) {
    sum_of_squares(be, m->t[0], m->t[1]);
}
static void run_adamw(Backend *be, const Measured *m) {
    const Tensor *t = m->t;
    adamw(be, t[0], t[1], t[2], t[3], t[4], t[5], t[6], 0.9, 0.999, 1e-8f, m->flag);
}
static void run_cross_entropy(Backend *be, const Measured *m) {
    cross_entropy(be, m->t[0], m->t[1], m->t[2], 1);
}

static void measure_bytes(Backend *be, const Flags *f, const char *name,
                          void (*run)(Backend *, const Measured *), bool flag, double bytes,
                          const Tensor *t) {
    Measured m = {.run = run, .work = bytes, .bytes = true, .flag = flag};
    snprintf(m.name, sizeof m.name, "%s", name);
    memcpy(m.t, t, sizeof m.t);
    for (size_t i = 0; i < OPERANDS; i++)
        if (t[i].data && (t[i].dtype == DTYPE_F32 || t[i].dtype == DTYPE_BF16)) set_values(be, t[i]);
    measure(be, &m, f);
    release(be, &m);
}

static void measure_memory(Backend *be, const Flags *f) {
    const size_t n = f->values;
    const double bytes = (double)n * sizeof(float);
#define VALUES operand(be, DTYPE_F32, SHAPE(n))
#define HALVES operand(be, DTYPE_BF16, SHAPE(n))
#define CODES  operand(be, DTYPE_U8, SHAPE(moment_blocks(n), MOMENT_ROW))
#define HYPER  operand(be, DTYPE_F32, SHAPE(3)), operand(be, DTYPE_F32, SHAPE(2)) // and clip
    if (wanted(f, "triad"))
        measure_bytes(be, f, "triad", run_triad, false, 3 * bytes,
                      (Tensor[OPERANDS]){VALUES, VALUES, VALUES});
    if (wanted(f, "sum_of_squares"))
        measure_bytes(be, f, "sum_of_squares", run_squares, false, bytes,
                      (Tensor[OPERANDS]){operand(be, DTYPE_F32, SHAPE(1)), VALUES});
    if (wanted(f, "adamw"))
        measure_bytes(be, f, "adamw", run_adamw, false, 7 * bytes,
                      (Tensor[OPERANDS]){VALUES, VALUES, VALUES, TENSOR_NONE, VALUES, HYPER});
    if (wanted(f, "adamw with a BF16 copy, clearing"))
        measure_bytes(be, f, "adamw with a BF16 copy, clearing", run_adamw, true, 8.5 * bytes,
                      (Tensor[OPERANDS]){VALUES, VALUES, VALUES, HALVES, VALUES, HYPER});
    if (wanted(f, "adamw with BF16 moments"))
        measure_bytes(be, f, "adamw with BF16 moments", run_adamw, false, 5 * bytes,
                      (Tensor[OPERANDS]){VALUES, HALVES, HALVES, TENSOR_NONE, VALUES, HYPER});
    if (wanted(f, "adamw with moments of 8 bits"))
        measure_bytes(be, f, "adamw with moments of 8 bits", run_adamw, false,
                      (3 + 4.0 * MOMENT_ROW / MOMENT_BLOCK / sizeof(float)) * bytes,
                      (Tensor[OPERANDS]){VALUES, CODES, CODES, TENSOR_NONE, VALUES, HYPER});
#undef VALUES
#undef CODES
#undef HALVES
#undef HYPER
}

static void measure_loss(Backend *be, const Flags *f, Dtype dtype) {
    const size_t rows = 128, V = f->vocabulary;
    const char *name = dtype == DTYPE_BF16 ? "cross_entropy, BF16" : "cross_entropy, F32";
    if (wanted(f, name))
        measure_bytes(be, f, name, run_cross_entropy, false, 2.0 * (double)(rows * V * dtype_size(dtype)),
                      (Tensor[OPERANDS]){operand(be, DTYPE_F32, SHAPE(rows)),
                                         operand(be, dtype, SHAPE(rows, V)),
                                         operand(be, DTYPE_I32, SHAPE(rows))});
}

// ---- norms and activations ----

static void run_layer_norm(Backend *be, const Measured *m) {
    const Tensor *t = m->t;
    layer_norm_forward(be, t[0], t[1], t[2], t[3], t[4], t[5], 1e-6f);
}
static void run_layer_norm_backward(Backend *be, const Measured *m) {
    const Tensor *t = m->t;
    layer_norm_backward(be, t[0], t[8], t[1], t[2], t[3], t[4], t[5], t[6], t[7]);
}
static void run_rms_norm(Backend *be, const Measured *m) {
    rms_norm_forward(be, m->t[0], m->t[1], m->t[2], m->t[3], 1e-5f);
}
static void run_rms_norm_backward(Backend *be, const Measured *m) {
    const Tensor *t = m->t;
    rms_norm_backward(be, t[0], t[6], t[1], t[2], t[3], t[4], t[5]);
}
static void run_add_layer_norm(Backend *be, const Measured *m) {
    const Tensor *t = m->t;
    add_layer_norm_forward(be, t[3], t[0], t[1], t[2], t[3], t[6], t[4], t[5], 1e-6f);
}
static void run_add_rms_norm(Backend *be, const Measured *m) {
    const Tensor *t = m->t;
    add_rms_norm_forward(be, t[2], t[0], t[1], t[2], t[4], t[3], 1e-5f);
}
static void run_add(Backend *be, const Measured *m) {
    add(be, m->t[0], m->t[0], m->t[1]);
}
static void run_copy(Backend *be, const Measured *m) {
    copy(be, m->t[0], m->t[1]);
}
static void run_gelu(Backend *be, const Measured *m) {
    gelu_forward(be, m->t[0], m->t[1]);
}
static void run_gelu_backward(Backend *be, const Measured *m) {
    gelu_backward(be, m->t[0], m->t[1], m->t[2], m->t[3]);
}
static void run_swiglu(Backend *be, const Measured *m) {
    swiglu_forward(be, m->t[0], m->t[1], m->t[2]);
}
static void run_swiglu_backward(Backend *be, const Measured *m) {
    const Tensor *t = m->t;
    swiglu_backward(be, t[0], t[1], t[2], t[3], t[4], t[5]);
}
static void run_rope(Backend *be, const Measured *m) {
    rope_forward(be, m->t[0], m->t[1], m->t[2]);
}

// What one value of a row takes, in bytes, is given; what there is once a row or a column does not count.
static void measure_rows(Backend *be, const Flags *f, const char *op, Dtype act, size_t M, size_t C,
                         void (*run)(Backend *, const Measured *), size_t bytes_a_value, const Tensor *t) {
    char name[64];
    snprintf(name, sizeof name, "%s %zu x %zu, %s", op, M, C, dtype_name(act));
    if (wanted(f, name)) {
        measure_bytes(be, f, name, run, false, (double)(M * C * bytes_a_value), t);
        return;
    }
    Measured unwanted = {0};
    memcpy(unwanted.t, t, sizeof unwanted.t);
    release(be, &unwanted);
}

// The residual stream and its gradient are F32, all else act.
static void measure_norms(Backend *be, const Flags *f, Dtype act, size_t M, size_t C) {
    const size_t a = dtype_size(act), x = sizeof(float);
#define STREAM           operand(be, DTYPE_F32, SHAPE(M, C))
#define ACT              operand(be, act, SHAPE(M, C))
#define ROWS             operand(be, DTYPE_F32, SHAPE(M))
#define COLUMNS          operand(be, DTYPE_F32, SHAPE(C))
#define OPERANDS_OF(...) (Tensor[OPERANDS]){__VA_ARGS__}
    measure_rows(be, f, "layer_norm_forward", act, M, C, run_layer_norm, x + a,
                 OPERANDS_OF(ACT, ROWS, ROWS, STREAM, COLUMNS, COLUMNS));
    measure_rows(be, f, "layer_norm_backward", act, M, C, run_layer_norm_backward, 3 * x + a,
                 OPERANDS_OF(STREAM, COLUMNS, COLUMNS, ACT, STREAM, COLUMNS, ROWS, ROWS));
    measure_rows(be, f, "rms_norm_forward", act, M, C, run_rms_norm, x + a,
                 OPERANDS_OF(ACT, ROWS, STREAM, COLUMNS));
    measure_rows(be, f, "rms_norm_backward", act, M, C, run_rms_norm_backward, 3 * x + a,
                 OPERANDS_OF(STREAM, COLUMNS, ACT, STREAM, COLUMNS, ROWS));
    measure_rows(be, f, "add_layer_norm_forward", act, M, C, run_add_layer_norm, 2 * x + 2 * a,
                 OPERANDS_OF(ACT, ROWS, ROWS, STREAM, COLUMNS, COLUMNS, ACT));
    measure_rows(be, f, "add_rms_norm_forward", act, M, C, run_add_rms_norm, 2 * x + 2 * a,
                 OPERANDS_OF(ACT, ROWS, STREAM, COLUMNS, ACT));
    if (act == DTYPE_BF16)
        measure_rows(be, f, "layer_norm_backward, rounded,", act, M, C, run_layer_norm_backward,
                     3 * x + 2 * a,
                     OPERANDS_OF(STREAM, COLUMNS, COLUMNS, ACT, STREAM, COLUMNS, ROWS, ROWS, ACT));
    measure_rows(be, f, "add", act, M, C, run_add, 2 * x + a, OPERANDS_OF(STREAM, ACT));
    measure_rows(be, f, "copy", act, M, C, run_copy, x + a, OPERANDS_OF(ACT, STREAM));
}

static void measure_activations(Backend *be, const Flags *f, Dtype act, size_t M, size_t C) {
    const size_t a = dtype_size(act), D = 64;
    measure_rows(be, f, "gelu_forward", act, M, C, run_gelu, 2 * a, OPERANDS_OF(ACT, ACT));
    measure_rows(be, f, "gelu_backward", act, M, C, run_gelu_backward, 4 * a,
                 OPERANDS_OF(ACT, ACT, ACT, ACT));
    measure_rows(be, f, "swiglu_forward", act, M, C, run_swiglu, 3 * a, OPERANDS_OF(ACT, ACT, ACT));
    measure_rows(be, f, "swiglu_backward", act, M, C, run_swiglu_backward, 6 * a,
                 OPERANDS_OF(ACT, ACT, ACT, ACT, ACT, ACT));
    measure_rows(be, f, "rope_forward", act, M, C, run_rope, 2 * a,
                 OPERANDS_OF(operand(be, act, SHAPE(M, C / D, D)), operand(be, DTYPE_F32, SHAPE(M, D)),
                             operand(be, DTYPE_F32, SHAPE(M, D))));
#undef STREAM
#undef ACT
#undef ROWS
#undef COLUMNS
#undef OPERANDS_OF
}

static bool measure_all(const void *flags, Error *err) {
    const Flags *f = flags;
    static const AttentionSize sizes[] = {{"4 x 1024, 12 heads of 64", 4, 1024, 12, 12, 64, false},
                                          {"causal 1024, 15/5 heads of 64", 1, 1024, 15, 5, 64, true},
                                          {"causal 4096, 15/5 heads of 64", 1, 4096, 15, 5, 64, true}};
    Backend *be;
    if (!backend_cpu_create(&be, f->threads, err)) return false;
    if (!f->json) printf("%s\n", be->detail);
    measure_memory(be, f);
    measure_loss(be, f, DTYPE_F32);
    measure_loss(be, f, DTYPE_BF16);
    for (int bf16 = 0; bf16 < 2; bf16++) {
        measure_norms(be, f, bf16 ? DTYPE_BF16 : DTYPE_F32, 4096, 768);
        measure_activations(be, f, bf16 ? DTYPE_BF16 : DTYPE_F32, 4096, 3072);
    }
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        measure_attention(be, f, sizes[i], DTYPE_F32);
        measure_attention(be, f, sizes[i], DTYPE_BF16);
    }
    backend_destroy(be);
    return true;
}

int bench_ops(int argc, char **argv) {
    Flags f;
    return command_run((FieldSet){&table, &f}, argc, argv, NULL, measure_all);
}
