// LINK: tensor ops_cpu base
// COST: 26
// Linear layers, norms, activations and rotary positions.
#include "support/golden.h"
#include "support/linear_reference.h"
#include "support/op_case.h"

#include "base/half.h"
#include "base/memory.h"
#include "base/random.h"
#include "ops/cpu/cpu.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(list) (sizeof(list) / sizeof *(list))
#define RUNNER(op, ...)                                                                                      \
    static void run_##op(Backend *be, const Tensor *t, const OpCase *c) {                                    \
        (void)c;                                                                                             \
        op(be, __VA_ARGS__);                                                                                 \
    }

RUNNER(linear_forward, t[0], t[1], t[2], t[3])
RUNNER(linear_backward_input, t[0], t[1], t[2], c->flag)
RUNNER(linear_backward_weight, t[0], t[1], t[2], t[3])
RUNNER(layer_norm_forward, t[0], t[1], t[2], t[3], t[4], t[5], c->f[0])
RUNNER(layer_norm_backward, t[0], t[1], t[2], t[3], t[4], t[5], t[6], t[7], t[8])
RUNNER(rms_norm_forward, t[0], t[1], t[2], t[3], c->f[0])
RUNNER(rms_norm_backward, t[0], t[1], t[2], t[3], t[4], t[5], t[6])
RUNNER(add_layer_norm_forward, t[0], t[1], t[2], t[3], t[4], t[5], t[6], t[7], c->f[0])
RUNNER(add_rms_norm_forward, t[0], t[1], t[2], t[3], t[4], t[5], c->f[0])
RUNNER(gelu_forward, t[0], t[1])
RUNNER(gelu_backward, t[0], t[1], t[2], t[3])
RUNNER(swiglu_forward, t[0], t[1], t[2])
RUNNER(swiglu_backward, t[0], t[1], t[2], t[3], t[4], t[5])
RUNNER(rope_table, t[0], t[1], t[2], t[3], c->f[0], c->f[1])
RUNNER(rope_forward, t[0], t[1], t[2])
RUNNER(rope_backward, t[0], t[1], t[2])

// ---- linear ----

static const size_t linears[][3] = {{1, 1, 1},      {1, 64, 33},  {1, 300, 200}, {2, 3, 5},
                                    {7, 13, 10},    {4, 16, 15},  {5, 8, 386},   {33, 17, 31},
                                    {64, 192, 192}, {130, 70, 65}}; // M, C, O

static void test_linear_forward(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(linears); i++)
        for (int variant = 0; variant < 8; variant++) {
            size_t M = linears[i][0], C = linears[i][1], O = linears[i][2];
            OpCase c = {.op = "linear_forward",
                        .run = run_linear_forward,
                        .reference = ref_linear,
                        .limit = 4 + sqrt((double)C),
                        .inexact_threads = true,
                        .args = {F32_ARG(y, ROLE_ASSIGNED, M, O), F32_ARG(x, ROLE_IN, M, C),
                                 F32_ARG(w, ROLE_IN, O, C), F32_ARG(b, ROLE_IN, O)}};
            if (variant & 1) c.args[3].ndim = 0;
            c.args[0].gap = variant & 2 ? 5 : 0, c.args[1].gap = variant & 4 ? 3 : 0;
            op_case_check(c);
            op_case_check_bf16(c, 2 | 4 | (unsigned)variant >> 2); // by turns the result too
        }
}

static void test_linear_backward(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(linears); i++)
        for (int variant = 0; variant < 8; variant++) {
            size_t M = linears[i][0], C = linears[i][1], O = linears[i][2];
            bool accumulate = variant & 1;
            OpCase c = {.op = "linear_backward_input",
                        .run = run_linear_backward_input,
                        .reference = ref_linear_input,
                        .flag = accumulate,
                        .limit = 4 + sqrt((double)O),
                        .inexact_threads = true,
                        .args = {F32_ARG(dx, accumulate ? ROLE_ACCUMULATED : ROLE_ASSIGNED, M, C),
                                 F32_ARG(dy, ROLE_IN, M, O), F32_ARG(w, ROLE_IN, O, C)}};
            c.args[0].gap = variant & 2 ? 5 : 0, c.args[1].gap = variant & 4 ? 3 : 0;
            op_case_check(c);
            op_case_check_bf16(c, 2 | 4 | (unsigned)variant >> 2); // by turns the result too
            OpCase w = {.op = "linear_backward_weight",
                        .run = run_linear_backward_weight,
                        .reference = ref_linear_weight,
                        .limit = 4 + sqrt((double)M),
                        .inexact_threads = true,
                        .args = {F32_ARG(dw, ROLE_ACCUMULATED, O, C), F32_ARG(db, ROLE_ACCUMULATED, O),
                                 F32_ARG(dy, ROLE_IN, M, O), F32_ARG(x, ROLE_IN, M, C)}};
            if (variant & 1) w.args[1].ndim = 0;
            w.args[2].gap = variant & 2 ? 5 : 0, w.args[3].gap = variant & 4 ? 3 : 0;
            op_case_check(w);
            op_case_check_bf16(w, 4 | 8);
        }
}

// Weights in F32, which a product of BF16 rounds; the last is rounded in two blocks.
static const size_t rounded_linears[][3] = {{1, 1, 1},       {3, 64, 33},    {7, 13, 10},
                                            {33, 17, 31},    {5, 8, 386},    {130, 70, 65},
                                            {2, 1100, 4100}, {2, 4100, 1100}}; // M, C, O

static void test_linear_rounding(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(rounded_linears); i++)
        for (int variant = 0; variant < 8; variant++) {
            size_t M = rounded_linears[i][0], C = rounded_linears[i][1], O = rounded_linears[i][2];
            const bool large = C * O > 1 << 20, accumulate = variant & 4;
            OpCase y = {.op = "linear_forward",
                        .run = run_linear_forward,
                        .reference = ref_linear_rounding,
                        .limit = 4 + sqrt((double)C),
                        .inexact_threads = true,
                        .args = {F32_ARG(y, ROLE_ASSIGNED, M, O), F32_ARG(x, ROLE_IN, M, C),
                                 F32_ARG(w, ROLE_IN, O, C), F32_ARG(b, ROLE_IN, O)}};
            OpCase dx = {.op = "linear_backward_input",
                         .run = run_linear_backward_input,
                         .reference = ref_linear_input_rounding,
                         .flag = accumulate,
                         .limit = 4 + sqrt((double)O),
                         .inexact_threads = true,
                         .args = {F32_ARG(dx, accumulate ? ROLE_ACCUMULATED : ROLE_ASSIGNED, M, C),
                                  F32_ARG(dy, ROLE_IN, M, O), F32_ARG(w, ROLE_IN, O, C)}};
            if (large && variant % 3) continue;
            if (variant & 4) y.args[3].ndim = 0;
            y.args[0].gap = dx.args[0].gap = variant & 2 ? 5 : 0;
            op_case_check_bf16(y, 2 | (variant & 1));
            op_case_check_bf16(dx, 2 | (variant & 1));
        }
}

// [rows, cols] of this dtype with the values of t (opt).
static Tensor matrix_of(Backend *be, Dtype dtype, size_t rows, size_t cols, Tensor t) {
    const Tensor m = tensor_at(be->device->alloc(be, rows * cols * sizeof(float)), dtype, SHAPE(rows, cols));
    if (tensor_exists(t)) copy(be, m, t);
    return m;
}

// [rows, cols] of this dtype, random unless seed is 0.
static Tensor random_matrix(Backend *be, Dtype dtype, size_t rows, size_t cols, uint64_t seed) {
    Tensor t = matrix_of(be, DTYPE_F32, rows, cols, TENSOR_NONE);
    Random r = random_stream(seed, RANDOM_TEST, 0);
    for (size_t i = 0; seed && i < rows * cols; i++) ((float *)t.data)[i] = (float)random_uniform(&r) - 0.5f;
    if (dtype == DTYPE_F32) return t;
    const Tensor rounded = matrix_of(be, dtype, rows, cols, t);
    be->device->release(be, t.data, rows * cols * sizeof(float));
    return rounded;
}

static void free_matrix(Backend *be, Tensor t) {
    be->device->release(be, t.data, tensor_count(t) * sizeof(float));
}

// A weight rounded on the way gives the bits that its copy in BF16 gives.
static void test_linear_rounding_bits(void **state) {
    (void)state;
    enum { M = 40, MATRICES = 8 };
    Backend *be;
    Error err;
    assert_true(backend_cpu_create(&be, 2, &err));
    for (size_t i = 0; i < COUNT(rounded_linears); i++) {
        const size_t C = rounded_linears[i][1], O = rounded_linears[i][2];
        Tensor x = random_matrix(be, DTYPE_BF16, M, C, 1), dy = random_matrix(be, DTYPE_BF16, M, O, 2), w[2],
               y[2], dx[2];
        for (int k = 0; k < 2; k++) {
            w[k] = k ? matrix_of(be, DTYPE_BF16, O, C, w[0]) : random_matrix(be, DTYPE_F32, O, C, 3);
            y[k] = random_matrix(be, DTYPE_F32, M, O, 0);
            dx[k] = random_matrix(be, DTYPE_BF16, M, C, 0);
            linear_forward(be, y[k], x, w[k], TENSOR_NONE);
            linear_backward_input(be, dx[k], dy, w[k], false);
        }
        assert_memory_equal(y[0].data, y[1].data, tensor_bytes(y[0]));
        assert_memory_equal(dx[0].data, dx[1].data, tensor_bytes(dx[0]));
        const Tensor all[MATRICES] = {x, dy, w[0], w[1], y[0], y[1], dx[0], dx[1]};
        for (int k = 0; k < MATRICES; k++) free_matrix(be, all[k]);
    }
    backend_destroy(be);
}

// ---- norms ----

static const size_t norms[][2] = {{1, 1},  {1, 3},   {3, 7},     {5, 8},    {4, 31},
                                  {9, 33}, {2, 300}, {200, 130}, {1100, 20}}; // M, C

static void ref_layer_norm(double **a, const OpCase *c) {
    ref_norm(a[0], a[1], a[2], a[3], a[4], a[5], &c->args[3], true);
}
static void ref_rms_norm(double **a, const OpCase *c) {
    ref_norm(a[0], NULL, a[1], a[2], a[3], NULL, &c->args[2], false);
}

static void test_norm_forward(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(norms); i++) {
        size_t M = norms[i][0], C = norms[i][1];
        OpCase c = {.op = "layer_norm_forward",
                    .run = run_layer_norm_forward,
                    .reference = ref_layer_norm,
                    .f = {EPS},
                    .limit = 8 + sqrt((double)C),
                    .args = {F32_ARG(y, ROLE_ASSIGNED, M, C), F32_ARG(mean, ROLE_ASSIGNED, M),
                             F32_ARG(rstd, ROLE_ASSIGNED, M), F32_ARG(x, ROLE_IN, M, C),
                             F32_ARG(w, ROLE_IN, C), F32_ARG(b, ROLE_IN, C)}};
        op_case_check(c);
        op_case_check_bf16(c, 1);
        c.args[3].gap = 9;
        op_case_check(c);
        OpCase r = {.op = "rms_norm_forward",
                    .run = run_rms_norm_forward,
                    .reference = ref_rms_norm,
                    .f = {EPS},
                    .limit = 4 + sqrt((double)C),
                    .args = {F32_ARG(y, ROLE_ASSIGNED, M, C), F32_ARG(rstd, ROLE_ASSIGNED, M),
                             F32_ARG(x, ROLE_IN, M, C), F32_ARG(w, ROLE_IN, C)}};
        op_case_check(r);
        op_case_check_bf16(r, 1);
    }
}

static void ref_sum_of_streams(double *sum, const double *x, const double *branch, const Arg *shape) {
    for (size_t i = 0; i < arg_count(shape); i++) sum[i] = x[i] + branch[i];
}
static void ref_add_layer_norm(double **a, const OpCase *c) {
    ref_sum_of_streams(a[0], a[4], a[5], &c->args[4]);
    ref_norm(a[1], a[2], a[3], a[0], a[6], a[7], &c->args[4], true);
}
static void ref_add_rms_norm(double **a, const OpCase *c) {
    ref_sum_of_streams(a[0], a[3], a[4], &c->args[3]);
    ref_norm(a[1], NULL, a[2], a[0], a[5], NULL, &c->args[3], false);
}

static void test_add_norm_forward(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(norms); i++)
        for (int in_place = 0; in_place < 2; in_place++) {
            size_t M = norms[i][0], C = norms[i][1];
            OpCase c = {.op = "add_layer_norm_forward",
                        .run = run_add_layer_norm_forward,
                        .reference = ref_add_layer_norm,
                        .f = {EPS},
                        .limit = 8 + sqrt((double)C),
                        .args = {F32_ARG(sum, ROLE_ASSIGNED, M, C), F32_ARG(y, ROLE_ASSIGNED, M, C),
                                 F32_ARG(mean, ROLE_ASSIGNED, M), F32_ARG(rstd, ROLE_ASSIGNED, M),
                                 F32_ARG(x, ROLE_IN, M, C), F32_ARG(branch, ROLE_IN, M, C),
                                 F32_ARG(w, ROLE_IN, C), F32_ARG(b, ROLE_IN, C)}};
            if (in_place) c.args[0].shares = 5;
            op_case_check(c);
            op_case_check_bf16(c, 1 << 1 | 1 << 5);
            OpCase r = {.op = "add_rms_norm_forward",
                        .run = run_add_rms_norm_forward,
                        .reference = ref_add_rms_norm,
                        .f = {EPS},
                        .limit = 4 + sqrt((double)C),
                        .args = {F32_ARG(sum, ROLE_ASSIGNED, M, C), F32_ARG(y, ROLE_ASSIGNED, M, C),
                                 F32_ARG(rstd, ROLE_ASSIGNED, M), F32_ARG(x, ROLE_IN, M, C),
                                 F32_ARG(branch, ROLE_IN, M, C), F32_ARG(w, ROLE_IN, C)}};
            if (in_place) r.args[0].shares = 4;
            op_case_check(r);
            op_case_check_bf16(r, 1 << 1 | 1 << 4);
        }
}

// To the bits of an addition and a norm, because backward makes some again in one way and some in the other.
static void test_add_norm_bits(void **state) {
    (void)state;
    enum { M = 21 };
    Backend *be;
    Error err;
    assert_true(backend_cpu_create(&be, 2, &err));
    for (size_t i = 0; i < 2 * COUNT(norms); i++) {
        const size_t C = norms[i / 2][1];
        const Dtype act = i % 2 ? DTYPE_BF16 : DTYPE_F32;
        Tensor x = random_matrix(be, DTYPE_F32, M, C, 1), branch = random_matrix(be, act, M, C, 2),
               w = random_matrix(be, DTYPE_F32, 1, C, 3), b = random_matrix(be, DTYPE_F32, 1, C, 4), sum[2],
               y[2], statistics[2];
        for (int k = 0; k < 2; k++) {
            sum[k] = random_matrix(be, DTYPE_F32, M, C, 0);
            y[k] = random_matrix(be, act, 2 * M, C, 0);
            statistics[k] = random_matrix(be, DTYPE_F32, 3, M, 0);
        }
        const Tensor layer = tensor_slice(y[0], 0, M), rms = tensor_slice(y[0], M, M);
        const Tensor mean = tensor_slice(statistics[0], 0, 1), rstd = tensor_slice(statistics[0], 1, 1),
                     rms_rstd = tensor_slice(statistics[0], 2, 1);
        add(be, sum[0], x, branch);
        layer_norm_forward(be, layer, mean, rstd, sum[0], w, b, EPS);
        rms_norm_forward(be, rms, rms_rstd, sum[0], w, EPS);
        add_layer_norm_forward(be, sum[1], tensor_slice(y[1], 0, M), tensor_slice(statistics[1], 0, 1),
                               tensor_slice(statistics[1], 1, 1), x, branch, w, b, EPS);
        assert_memory_equal(sum[0].data, sum[1].data, tensor_bytes(sum[0]));
        add_rms_norm_forward(be, sum[1], tensor_slice(y[1], M, M), tensor_slice(statistics[1], 2, 1), x,
                             branch, w, EPS);
        assert_memory_equal(sum[0].data, sum[1].data, tensor_bytes(sum[0]));
        assert_memory_equal(y[0].data, y[1].data, tensor_bytes(y[0]));
        assert_memory_equal(statistics[0].data, statistics[1].data, tensor_bytes(statistics[0]));
        for (size_t m = 0; m < M; m++) // a row alone
            add_layer_norm_forward(be, tensor_slice(sum[1], m, 1), tensor_slice(y[1], m, 1),
                                   tensor_slice(tensor_reshape(statistics[1], SHAPE(3 * M)), m, 1),
                                   tensor_slice(tensor_reshape(statistics[1], SHAPE(3 * M)), M + m, 1),
                                   tensor_slice(x, m, 1), tensor_slice(branch, m, 1), w, b, EPS);
        assert_memory_equal(y[0].data, y[1].data, tensor_bytes(y[0]));
        assert_memory_equal(statistics[0].data, statistics[1].data, tensor_bytes(statistics[0]));
        const Tensor all[] = {x, branch, w, b, sum[0], sum[1], y[0], y[1], statistics[0], statistics[1]};
        for (size_t k = 0; k < COUNT(all); k++) free_matrix(be, all[k]);
    }
    backend_destroy(be);
}

static void prepare_layer_norm_backward(double **a, const OpCase *c) {
    ref_norm(NULL, a[7], a[8], a[5], a[6], NULL, &c->args[5], true);
}
static void prepare_rms_norm_backward(double **a, const OpCase *c) {
    ref_norm(NULL, NULL, a[6], a[4], a[5], NULL, &c->args[4], false);
}
static double layer_norm_loss(double **a, const OpCase *c) {
    return norm_loss(a[4], a[5], a[6], &c->args[5], true, c->by == 5, c->at);
}
static double rms_norm_loss(double **a, const OpCase *c) {
    return norm_loss(a[3], a[4], a[5], &c->args[4], false, c->by == 4, c->at);
}

// The bias is no argument of backward, so its gradient is written out: db = Σ_m dy.
static void ref_layer_norm_backward(double **a, const OpCase *c) {
    size_t C = c->args[5].shape[1];
    for (size_t k = 0; a[3] && k < c->args[5].shape[0] * C; k++) a[3][k % C] += a[4][k];
    ref_rounded(a[1], a[0], a[4], a[5], a[6], &c->args[5], true);
}
static void ref_rms_norm_backward(double **a, const OpCase *c) {
    ref_rounded(a[1], a[0], a[3], a[4], a[5], &c->args[4], false);
}

static void test_layer_norm_backward(void **state) {
    (void)state;
    for (size_t i = 1; i < COUNT(norms); i++)
        for (int variant = 0; variant < 8; variant++) { // strided; without weights' gradients; with rounded
            size_t M = norms[i][0], C = norms[i][1];
            OpCase c = {.op = "layer_norm_backward",
                        .run = run_layer_norm_backward,
                        .prepare = prepare_layer_norm_backward,
                        .reference = ref_layer_norm_backward,
                        .loss = layer_norm_loss,
                        .limit = 20 + 2 * sqrt((double)(C + M)),
                        .limit_bf16 = 0.51,
                        .args = {F32_ARG(dx, ROLE_ACCUMULATED, M, C), BF16_ARG(rounded, ROLE_ASSIGNED, M, C),
                                 F32_ARG(dw, ROLE_ACCUMULATED, C), F32_ARG(db, ROLE_ACCUMULATED, C),
                                 F32_ARG(dy, ROLE_IN, M, C), F32_ARG(x, ROLE_IN, M, C),
                                 F32_ARG(w, ROLE_IN, C), F32_ARG(mean, ROLE_IN, M),
                                 F32_ARG(rstd, ROLE_IN, M)}};
            c.args[0].gradient_of = 6, c.args[2].gradient_of = 7;
            c.args[0].gap = variant & 1 ? 3 : 0, c.args[5].gap = variant & 1 ? 6 : 0;
            if (variant & 2) c.args[2].ndim = c.args[3].ndim = 0;
            if (!(variant & 4)) c.args[1].ndim = 0;
            op_case_check(c);
            op_case_check_bf16(c, 1 << 4);
            if (variant & 4) c.args[1].shares = 5;
            op_case_check_bf16(c, 1 << 4);
        }
}

static void test_rms_norm_backward(void **state) {
    (void)state;
    for (size_t i = 1; i < COUNT(norms); i++)
        for (int variant = 0; variant < 4; variant++) { // without weights' gradients; with rounded
            size_t M = norms[i][0], C = norms[i][1];
            OpCase r = {.op = "rms_norm_backward",
                        .run = run_rms_norm_backward,
                        .prepare = prepare_rms_norm_backward,
                        .reference = ref_rms_norm_backward,
                        .loss = rms_norm_loss,
                        .limit = 20 + 2 * sqrt((double)(C + M)),
                        .limit_bf16 = 0.51,
                        .args = {F32_ARG(dx, ROLE_ACCUMULATED, M, C), BF16_ARG(rounded, ROLE_ASSIGNED, M, C),
                                 F32_ARG(dw, ROLE_ACCUMULATED, C), F32_ARG(dy, ROLE_IN, M, C),
                                 F32_ARG(x, ROLE_IN, M, C), F32_ARG(w, ROLE_IN, C),
                                 F32_ARG(rstd, ROLE_IN, M)}};
            r.args[0].gradient_of = 5, r.args[2].gradient_of = 6;
            if (variant & 1) r.args[2].ndim = 0;
            if (!(variant & 2)) r.args[1].ndim = 0;
            op_case_check(r);
            op_case_check_bf16(r, 1 << 3);
            if (variant & 2) r.args[1].shares = 4;
            op_case_check_bf16(r, 1 << 3);
        }
}

// ---- activations ----

static double gelu(double x) {
    return 0.5 * x * (1 + tanh(sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
}
static double silu(double x) {
    return x / (1 + exp(-x));
}

static void ref_gelu(double **a, const OpCase *c) {
    for (size_t i = 0, n = arg_count(&c->args[0]); i < n; i++) a[0][i] = gelu(a[1][i]);
}
// Of the other entries none depends on this one.
static double gelu_loss(double **a, const OpCase *c) {
    return a[2][c->at] * gelu(a[3][c->at]);
}
static void ref_swiglu(double **a, const OpCase *c) {
    for (size_t i = 0, n = arg_count(&c->args[0]); i < n; i++) a[0][i] = silu(a[1][i]) * a[2][i];
}
static double swiglu_loss(double **a, const OpCase *c) {
    return a[3][c->at] * silu(a[4][c->at]) * a[5][c->at];
}

static const size_t counts[] = {1, 2, 7, 8, 9, 15, 17, 100, 20011};

static void test_activations(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(counts); i++)
        for (double range = 1; range <= 9; range += 4) {
            size_t n = counts[i];
            OpCase g = {.op = "gelu_forward",
                        .run = run_gelu_forward,
                        .reference = ref_gelu,
                        .limit = 6,
                        .args = {F32_ARG(y, ROLE_ASSIGNED, n), F32_ARG(x, ROLE_IN, n)}};
            g.args[1].low = -range, g.args[1].high = range;
            op_case_check(g);
            if (range > 5) op_case_check_bf16(g, 3);
            g.args[0].shares = 2;
            op_case_check(g);
            OpCase s = {
                .op = "swiglu_forward",
                .run = run_swiglu_forward,
                .reference = ref_swiglu,
                .limit = 6,
                .args = {F32_ARG(y, ROLE_ASSIGNED, n), F32_ARG(gate, ROLE_IN, n), F32_ARG(up, ROLE_IN, n)}};
            s.args[1].low = -range, s.args[1].high = range;
            op_case_check(s);
            if (range > 5) op_case_check_bf16(s, 7);
        }
}

static void test_activations_backward(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(counts); i++)
        for (double range = 1; range <= 9; range += 4) {
            size_t n = counts[i];
            OpCase g = {.op = "gelu_backward",
                        .run = run_gelu_backward,
                        .loss = gelu_loss,
                        .limit = 12,
                        .args = {F32_ARG(dx, ROLE_ASSIGNED, n), NO_ARG(y, ROLE_ASSIGNED),
                                 F32_ARG(dy, ROLE_IN, n), F32_ARG(x, ROLE_IN, n)}};
            g.args[0].gradient_of = 4;
            g.args[3].low = -range, g.args[3].high = range;
            op_case_check(g);
            if (range > 5) op_case_check_bf16(g, 15);
            g.args[0].shares = 3;
            op_case_check(g);
            OpCase s = {.op = "swiglu_backward",
                        .run = run_swiglu_backward,
                        .loss = swiglu_loss,
                        .limit = 12,
                        .args = {F32_ARG(dgate, ROLE_ASSIGNED, n), F32_ARG(dup, ROLE_ASSIGNED, n),
                                 NO_ARG(y, ROLE_ASSIGNED), F32_ARG(dy, ROLE_IN, n), F32_ARG(gate, ROLE_IN, n),
                                 F32_ARG(up, ROLE_IN, n)}};
            s.args[0].gradient_of = 5, s.args[1].gradient_of = 6;
            s.args[4].low = -range, s.args[4].high = range;
            op_case_check(s);
            if (range > 5) op_case_check_bf16(s, 63);
        }
}

// What the backward passes make again has the bits of the forward passes.
static void test_activations_again(void **state) {
    (void)state;
    enum { N = 4099 };
    Error err;
    Backend *be;
    if (!backend_cpu_create(&be, 1, &err)) fail_msg("%s", err.text);
    Random r = random_stream(1, RANDOM_TEST, 0);
    for (int half = 0; half <= 1; half++) {
        Tensor t[7], f32 = tensor_at(mem_alloc(N * 4), DTYPE_F32, SHAPE(N));
        for (int i = 0; i < 7; i++) { // gate, up, y of both, two gradients, y again
            t[i] = tensor_at(mem_alloc(N * 4), half ? DTYPE_BF16 : DTYPE_F32, SHAPE(N));
            for (size_t k = 0; k < N; k++)
                ((float *)(void *)f32.data)[k] = (float)(9 * random_uniform(&r) - 5);
            copy(be, t[i], f32);
        }
        gelu_forward(be, t[2], t[0]), gelu_backward(be, t[4], t[6], t[1], t[0]);
        assert_memory_equal(t[6].data, t[2].data, tensor_bytes(t[2]));
        swiglu_forward(be, t[3], t[0], t[1]), swiglu_backward(be, t[4], t[5], t[6], t[2], t[0], t[1]);
        assert_memory_equal(t[6].data, t[3].data, tensor_bytes(t[3]));
        for (int i = 0; i < 7; i++) free(t[i].data);
        free(f32.data);
    }
    backend_destroy(be);
}

// Far out, where a careless formula gives inf / inf: gelu and silu are the identity or nothing there.
static void test_activations_far_out(void **state) {
    (void)state;
    Error err;
    Backend *be;
    if (!backend_cpu_create(&be, 1, &err)) fail_msg("%s", err.text);
    float x[16] = {0,     -0.0f,  1e-40f, -1e-40f, 60, -60, 1e4f, -1e4f,
                   1e12f, -1e12f, 1e18f,  -1e18f,  20, -20, NAN,  200};
    float y[16], dx[16], dup[16], one[16];
    for (int i = 0; i < 16; i++) one[i] = 1;
    Tensor tx = tensor_at(x, DTYPE_F32, SHAPE(16)), ty = tensor_at(y, DTYPE_F32, SHAPE(16));
    Tensor tdx = tensor_at(dx, DTYPE_F32, SHAPE(16)), tup = tensor_at(dup, DTYPE_F32, SHAPE(16));
    Tensor tone = tensor_at(one, DTYPE_F32, SHAPE(16));
    for (int silu = 0; silu <= 1; silu++) {
        if (silu)
            swiglu_forward(be, ty, tx, tone), swiglu_backward(be, tdx, tup, TENSOR_NONE, tone, tx, tone);
        else
            gelu_forward(be, ty, tx), gelu_backward(be, tdx, TENSOR_NONE, tone, tx);
        for (int i = 0; i < 16; i++) {
            if (isnan(x[i]))
                assert_true(isnan(y[i]) && isnan(dx[i]));
            else if (fabsf(x[i]) < 1)
                assert_true(fabsf(y[i] - 0.5f * x[i]) < 1e-44 && dx[i] == 0.5f);
            else
                assert_true(fabsf(y[i] - (x[i] > 0 ? x[i] : 0)) < 1e-7f &&
                            fabsf(dx[i] - (float)(x[i] > 0)) < 1e-7f);
        }
    }
    backend_destroy(be);
}

// ---- rotary positions ----

// Each rounding to float is one that PyTorch makes too; only cos and sin are taken in double.
static void ref_rope_table(double **a, const OpCase *c) {
    size_t n = c->args[2].shape[0], half = c->args[3].shape[0];
    for (size_t p = 0; p < n; p++)
        for (size_t i = 0; i < 2 * half; i++) {
            float frequency = (float)a[3][i % half] / c->f[0], angle = (float)a[2][p] * frequency;
            a[0][p * 2 * half + i] = cos((double)angle) * c->f[1];
            a[1][p * 2 * half + i] = sin((double)angle) * c->f[1];
        }
}

static void test_rope_table(void **state) {
    (void)state;
    static const size_t sizes[][2] = {{1, 1}, {5, 4}, {130, 32}};
    for (size_t i = 0; i < COUNT(sizes); i++)
        for (int variant = 0; variant < 2; variant++) {
            size_t n = sizes[i][0], half = sizes[i][1];
            OpCase c = {
                .op = "rope_table",
                .run = run_rope_table,
                .reference = ref_rope_table,
                .limit = 2,
                .f = {variant ? 1.75f : 1.0f, variant ? 1.25f : 1.0f},
                .args = {F32_ARG(cos, ROLE_ASSIGNED, n, 2 * half), F32_ARG(sin, ROLE_ASSIGNED, n, 2 * half),
                         I32_ARG(positions, variant ? 20000 : 200, n), F32_ARG(inv_freq, ROLE_IN, half)}};
            c.args[3].low = 1e-5;
            op_case_check(c);
        }
}

// The rotation of one head as a matrix R [D, D], column by column from the formula x cos + rotate_half(x)
// sin.
static double rotation(const double *cos, const double *sin, size_t D, size_t row, size_t column) {
    size_t half = D / 2;
    double value = row == column ? cos[row] : 0;
    if (row < half && column == row + half) value -= sin[row];
    if (row >= half && column + half == row) value += sin[row];
    return value;
}

static void ref_rope(double **a, const OpCase *c, bool transposed) {
    size_t M = c->args[0].shape[0], H = c->args[0].shape[1], D = c->args[0].shape[2], n = c->args[1].shape[0];
    for (size_t m = 0; m < M * H; m++) {
        double old[64], *x = a[0] + m * D;
        const double *co = a[1] + m / H % n * D, *si = a[2] + m / H % n * D;
        memcpy(old, x, D * sizeof *x);
        for (size_t i = 0; i < D; i++) {
            x[i] = 0;
            for (size_t j = 0; j < D; j++)
                x[i] += old[j] * (transposed ? rotation(co, si, D, j, i) : rotation(co, si, D, i, j));
        }
    }
}
static void ref_rope_forward(double **a, const OpCase *c) {
    ref_rope(a, c, false);
}
static void ref_rope_backward(double **a, const OpCase *c) {
    ref_rope(a, c, true);
}

static void test_rope(void **state) {
    (void)state;
    static const size_t sizes[][4] = {
        {1, 1, 2, 1}, {6, 2, 6, 3}, {4, 3, 8, 4}, {130, 3, 48, 65}}; // M, H, D, n
    for (size_t i = 0; i < COUNT(sizes); i++)
        for (int backward = 0; backward < 2; backward++) {
            size_t M = sizes[i][0], H = sizes[i][1], D = sizes[i][2], n = sizes[i][3];
            OpCase c = {.op = backward ? "rope_backward" : "rope_forward",
                        .run = backward ? run_rope_backward : run_rope_forward,
                        .reference = backward ? ref_rope_backward : ref_rope_forward,
                        .limit = 3,
                        .args = {F32_ARG(x, ROLE_ACCUMULATED, M, H, D), F32_ARG(cos, ROLE_IN, n, D),
                                 F32_ARG(sin, ROLE_IN, n, D)}};
            op_case_check(c);
            op_case_check_bf16(c, 1);
        }
}

static int all_tests(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_activations_far_out),
        cmocka_unit_test(test_linear_forward),
        cmocka_unit_test(test_linear_backward),
        cmocka_unit_test(test_linear_rounding),
        cmocka_unit_test(test_linear_rounding_bits),
        cmocka_unit_test(test_norm_forward),
        cmocka_unit_test(test_add_norm_forward),
        cmocka_unit_test(test_add_norm_bits),
        cmocka_unit_test(test_layer_norm_backward),
        cmocka_unit_test(test_rms_norm_backward),
        cmocka_unit_test(test_activations),
        cmocka_unit_test(test_activations_backward),
        cmocka_unit_test(test_activations_again),
        cmocka_unit_test(test_rope_table),
        cmocka_unit_test(test_rope),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    print_worst_shares();
    return failed;
}

int main(int argc, char **argv) {
    (void)argc;
    return run_at_each_level(argv, all_tests);
}
