// LINK: tensor ops_cpu base
// Operators that move values, embeddings, and the vision side's rearrangements.
#include "support/golden.h"
#include "support/op_case.h"

#include "ops/cpu/cpu.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(list)  (sizeof(list) / sizeof *(list))
#define UNUSED(a, c) (void)(a), (void)(c)
#define RUNNER(op, ...)                                                                                      \
    static void run_##op(Backend *be, const Tensor *t, const OpCase *c) {                                    \
        UNUSED(t, c);                                                                                        \
        op(be, __VA_ARGS__);                                                                                 \
    }

RUNNER(fill, t[0], c->f[0])
RUNNER(copy, t[0], t[1])
RUNNER(add, t[0], t[1], t[2])
RUNNER(multiply, t[0], c->f[0])
RUNNER(gather_rows, t[0], t[1], t[2])
RUNNER(scatter_rows, t[0], t[1], t[2])
RUNNER(zero_rows, t[0], t[1])
RUNNER(embedding_forward, t[0], t[1], t[2])
RUNNER(embedding_backward, t[0], t[1], t[2])
RUNNER(patchify, t[0], t[1], c->n[0])
RUNNER(position_forward, t[0], t[1], t[2], t[3])
RUNNER(position_backward, t[0], t[1], t[2], t[3])
RUNNER(pixel_shuffle_forward, t[0], t[1], c->n[0])
RUNNER(pixel_shuffle_backward, t[0], t[1], c->n[0])

static Backend *new_backend(void) {
    Error err;
    Backend *be;
    if (!backend_cpu_create(&be, 2, &err)) fail_msg("%s", err.text);
    return be;
}

// ---- moving values ----

static const size_t matrices[][2] = {{1, 1}, {1, 7}, {5, 1}, {3, 8}, {7, 33}, {257, 130}};

static void ref_fill(double **a, const OpCase *c) {
    for (size_t i = 0; i < arg_count(&c->args[0]); i++) a[0][i] = c->f[0];
}

static void test_fill(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(matrices); i++)
        op_case_check((OpCase){.op = "fill",
                               .run = run_fill,
                               .reference = ref_fill,
                               .f = {-2.5f},
                               .args = {F32_ARG(x, ROLE_ASSIGNED, matrices[i][0], matrices[i][1])}});
}

static void ref_copy(double **a, const OpCase *c) {
    memcpy(a[0], a[1], arg_count(&c->args[0]) * sizeof **a);
}

static void test_copy_strided(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(matrices); i++)
        for (size_t gaps = 0; gaps < 4; gaps++) {
            size_t M = matrices[i][0], C = matrices[i][1];
            OpCase c = {.op = "copy",
                        .run = run_copy,
                        .reference = ref_copy,
                        .args = {F32_ARG(y, ROLE_ASSIGNED, M, C), F32_ARG(x, ROLE_IN, M, C)}};
            c.args[0].gap = gaps & 1 ? 3 : 0, c.args[1].gap = gaps & 2 ? 5 : 0;
            op_case_check(c);
        }
}

static void ref_add(double **a, const OpCase *c) {
    for (size_t i = 0; i < arg_count(&c->args[0]); i++) a[0][i] = a[1][i] + a[2][i];
}

static void test_add(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(matrices); i++)
        for (int shares = 0; shares <= 3; shares++) { // y is memory of its own, a, or b
            size_t M = matrices[i][0], C = matrices[i][1];
            OpCase c = {.op = "add",
                        .run = run_add,
                        .reference = ref_add,
                        .limit = 0.5,
                        .args = {F32_ARG(y, ROLE_ASSIGNED, M, C), F32_ARG(a, ROLE_IN, M, C),
                                 F32_ARG(b, ROLE_IN, M, C)}};
            if (shares == 1) continue;
            c.args[0].shares = shares;
            op_case_check(c);
            if (!shares) op_case_check_bf16(c, 4);
        }
}

static void ref_multiply(double **a, const OpCase *c) {
    for (size_t i = 0; i < arg_count(&c->args[0]); i++) a[0][i] *= c->f[0];
}

static void test_multiply(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(matrices); i++) {
        OpCase c = {.op = "multiply",
                    .run = run_multiply,
                    .reference = ref_multiply,
                    .limit = 0.5,
                    .f = {-1.75f},
                    .args = {F32_ARG(x, ROLE_ACCUMULATED, matrices[i][0], matrices[i][1])}};
        op_case_check(c);
        op_case_check_bf16(c, 1);
    }
}

static void ref_gather(double **a, const OpCase *c) {
    size_t C = c->args[1].shape[1];
    for (size_t i = 0; i < c->args[2].shape[0]; i++)
        memcpy(a[0] + i * C, a[1] + (size_t)a[2][i] * C, C * sizeof **a);
}

static void distinct_rows(double *rows, size_t n, size_t M) {
    for (size_t i = 0; i < n; i++) rows[i] = (double)((i * 7 + 3) % M); // M is no multiple of 7
}
static void prepare_scatter(double **a, const OpCase *c) {
    distinct_rows(a[2], c->args[2].shape[0], c->args[0].shape[0]);
}
static void prepare_zero(double **a, const OpCase *c) {
    distinct_rows(a[1], c->args[1].shape[0], c->args[0].shape[0]);
}

static void ref_scatter(double **a, const OpCase *c) {
    size_t C = c->args[0].shape[1];
    for (size_t i = 0; i < c->args[2].shape[0]; i++)
        memcpy(a[0] + (size_t)a[2][i] * C, a[1] + i * C, C * sizeof **a);
}

static void ref_zero(double **a, const OpCase *c) {
    size_t C = c->args[0].shape[1];
    for (size_t i = 0; i < c->args[1].shape[0]; i++)
        for (size_t k = 0; k < C; k++) a[0][(size_t)a[1][i] * C + k] = 0;
}

static void test_rows_by_index(void **state) {
    (void)state;
    static const size_t sizes[][3] = {{1, 1, 1}, {4, 5, 3}, {150, 300, 130}}; // n, M, C
    for (size_t i = 0; i < COUNT(sizes); i++) {
        size_t n = sizes[i][0], M = sizes[i][1], C = sizes[i][2];
        OpCase gather = {
            .op = "gather_rows",
            .run = run_gather_rows,
            .reference = ref_gather,
            .args = {F32_ARG(y, ROLE_ASSIGNED, n, C), F32_ARG(x, ROLE_IN, M, C), I32_ARG(rows, M, n)}};
        OpCase scatter = {
            .op = "scatter_rows",
            .run = run_scatter_rows,
            .prepare = prepare_scatter,
            .reference = ref_scatter,
            .args = {F32_ARG(y, ROLE_ACCUMULATED, M, C), F32_ARG(x, ROLE_IN, n, C), I32_ARG(rows, M, n)}};
        for (unsigned bf16 = 0; bf16 < 4; bf16++) // y, x or both in BF16
            op_case_check_bf16(gather, bf16), op_case_check_bf16(scatter, bf16);
        op_case_check((OpCase){.op = "zero_rows",
                               .run = run_zero_rows,
                               .prepare = prepare_zero,
                               .reference = ref_zero,
                               .args = {F32_ARG(y, ROLE_ACCUMULATED, M, C), I32_ARG(rows, M, n)}});
    }
}

// ---- embeddings ----

static void ref_embedding(double **a, const OpCase *c) {
    ref_gather(a, c);
}
static void ref_embedding_backward(double **a, const OpCase *c) {
    size_t C = c->args[0].shape[1];
    for (size_t m = 0; m < c->args[2].shape[0]; m++)
        for (size_t k = 0; k < C; k++) a[0][(size_t)a[2][m] * C + k] += a[1][m * C + k];
}

static void test_embedding(void **state) {
    (void)state;
    static const size_t sizes[][3] = {{1, 1, 1}, {9, 4, 5}, {300, 11, 67}, {70, 500, 33}}; // M, V, C
    for (size_t i = 0; i < COUNT(sizes); i++) {
        size_t M = sizes[i][0], V = sizes[i][1], C = sizes[i][2];
        op_case_check((OpCase){
            .op = "embedding_forward",
            .run = run_embedding_forward,
            .reference = ref_embedding,
            .args = {F32_ARG(y, ROLE_ASSIGNED, M, C), F32_ARG(table, ROLE_IN, V, C), I32_ARG(ids, V, M)}});
        op_case_check((OpCase){.op = "embedding_backward",
                               .run = run_embedding_backward,
                               .reference = ref_embedding_backward,
                               .limit = 2 + sqrt((double)M),
                               .args = {F32_ARG(dtable, ROLE_ACCUMULATED, V, C), F32_ARG(dy, ROLE_IN, M, C),
                                        I32_ARG(ids, V, M)}});
    }
}

// ---- vision ----

static void ref_patchify(double **a, const OpCase *c) {
    size_t P = c->n[0], I = c->args[1].shape[0], Y = c->args[1].shape[2], X = c->args[1].shape[3];
    size_t rows = Y / P, cols = X / P;
    for (size_t i = 0; i < I; i++)
        for (size_t channel = 0; channel < 3; channel++)
            for (size_t y = 0; y < rows * P; y++)
                for (size_t x = 0; x < cols * P; x++) {
                    size_t patch = (i * rows + y / P) * cols + x / P, at = (channel * P + y % P) * P + x % P;
                    a[0][patch * 3 * P * P + at] = a[1][((i * 3 + channel) * Y + y) * X + x];
                }
}

static void test_patchify(void **state) {
    (void)state;
    static const size_t sizes[][4] = {
        {1, 4, 4, 4}, {2, 9, 14, 4}, {3, 8, 8, 1}, {4, 64, 66, 8}}; // I, Y, X, P
    for (size_t i = 0; i < COUNT(sizes); i++) {
        size_t I = sizes[i][0], Y = sizes[i][1], X = sizes[i][2], P = sizes[i][3];
        OpCase c = {.op = "patchify",
                    .run = run_patchify,
                    .reference = ref_patchify,
                    .n = {P},
                    .args = {F32_ARG(patches, ROLE_ASSIGNED, I * (Y / P) * (X / P), 3 * P * P),
                             F32_ARG(images, ROLE_IN, I, 3, Y, X)}};
        op_case_check(c);
        op_case_check_bf16(c, 1);
    }
}

static void ref_position(double **a, const OpCase *c) {
    size_t I = c->args[0].shape[0], N = c->args[0].shape[1], C = c->args[0].shape[2], cls = a[3] ? 1 : 0;
    for (size_t i = 0; i < I; i++)
        for (size_t n = 0; n < N; n++)
            for (size_t k = 0; k < C; k++) {
                double x = n < cls ? a[3][k] : a[1][(i * (N - cls) + n - cls) * C + k];
                a[0][(i * N + n) * C + k] = x + a[2][n * C + k];
            }
}

static void ref_position_backward(double **a, const OpCase *c) {
    size_t I = c->args[3].shape[0], N = c->args[3].shape[1], C = c->args[3].shape[2], cls = a[2] ? 1 : 0;
    for (size_t i = 0; i < I; i++)
        for (size_t n = 0; n < N; n++)
            for (size_t k = 0; k < C; k++) {
                double g = a[3][(i * N + n) * C + k];
                a[1][n * C + k] += g;
                if (n < cls)
                    a[2][k] += g;
                else
                    a[0][(i * (N - cls) + n - cls) * C + k] = g;
            }
}

static void test_position(void **state) {
    (void)state;
    static const size_t sizes[][3] = {{1, 1, 1}, {2, 4, 5}, {9, 16, 130}}; // I, N', C
    for (size_t i = 0; i < COUNT(sizes); i++)
        for (size_t cls = 0; cls <= 1; cls++) {
            size_t I = sizes[i][0], N = sizes[i][1], C = sizes[i][2];
            OpCase f = {.op = "position_forward",
                        .run = run_position_forward,
                        .reference = ref_position,
                        .limit = 0.5,
                        .args = {F32_ARG(y, ROLE_ASSIGNED, I, N + cls, C), F32_ARG(x, ROLE_IN, I, N, C),
                                 F32_ARG(position, ROLE_IN, N + cls, C), F32_ARG(cls, ROLE_IN, C)}};
            OpCase b = {.op = "position_backward",
                        .run = run_position_backward,
                        .reference = ref_position_backward,
                        .limit = 4,
                        .args = {F32_ARG(dx, ROLE_ASSIGNED, I, N, C),
                                 F32_ARG(dposition, ROLE_ACCUMULATED, N + cls, C),
                                 F32_ARG(dcls, ROLE_ACCUMULATED, C), F32_ARG(dy, ROLE_IN, I, N + cls, C)}};
            if (!cls) f.args[3].ndim = b.args[2].ndim = 0;
            op_case_check(f);
            op_case_check(b);
            op_case_check_bf16(f, 2);
            op_case_check_bf16(b, 1);
        }
}

// For each value of the fine grid, where it goes.
static void ref_shuffle(double *wide, double *fine, const OpCase *c, const Arg *fine_arg, bool to_wide) {
    size_t S = c->n[0], h = c->n[1], C = fine_arg->shape[2];
    for (size_t i = 0; i < fine_arg->shape[0]; i++)
        for (size_t y = 0; y < h; y++)
            for (size_t x = 0; x < h; x++)
                for (size_t k = 0; k < C; k++) {
                    double *f = &fine[((i * h + y) * h + x) * C + k];
                    size_t cell = (i * (h / S) + y / S) * (h / S) + x / S,
                           channel = (y % S * S + x % S) * C + k;
                    double *w = &wide[cell * S * S * C + channel];
                    *(to_wide ? w : f) = *(to_wide ? f : w);
                }
}
static void ref_shuffle_forward(double **a, const OpCase *c) {
    ref_shuffle(a[0], a[1], c, &c->args[1], true);
}
static void ref_shuffle_backward(double **a, const OpCase *c) {
    ref_shuffle(a[1], a[0], c, &c->args[0], false);
}

static void test_pixel_shuffle(void **state) {
    (void)state;
    static const size_t sizes[][4] = {
        {1, 1, 1, 3}, {2, 4, 2, 5}, {3, 6, 3, 2}, {2, 6, 1, 4}, {5, 8, 4, 70}}; // I, h, S, C
    for (size_t i = 0; i < COUNT(sizes); i++) {
        size_t I = sizes[i][0], h = sizes[i][1], S = sizes[i][2], C = sizes[i][3], cells = (h / S) * (h / S);
        OpCase f = {
            .op = "pixel_shuffle_forward",
            .run = run_pixel_shuffle_forward,
            .reference = ref_shuffle_forward,
            .n = {S, h},
            .args = {F32_ARG(y, ROLE_ASSIGNED, I, cells, S * S * C), F32_ARG(x, ROLE_IN, I, h * h, C)}};
        OpCase b = {
            .op = "pixel_shuffle_backward",
            .run = run_pixel_shuffle_backward,
            .reference = ref_shuffle_backward,
            .n = {S, h},
            .args = {F32_ARG(dx, ROLE_ASSIGNED, I, h * h, C), F32_ARG(dy, ROLE_IN, I, cells, S * S * C)}};
        op_case_check(f), op_case_check(b);
        op_case_check_bf16(f, 3), op_case_check_bf16(b, 3);
    }
}

// ---- what the table doesn't reach ----

static uint16_t bf16_bits(float x) {
    uint32_t bits; // rounding by comparing the two neighbours, ties to the even one
    memcpy(&bits, &x, sizeof bits);
    uint32_t low = bits & 0xffff0000u, high = low + 0x10000u, rest = bits - low;
    return (uint16_t)((rest > 0x8000u || (rest == 0x8000u && (low >> 16 & 1)) ? high : low) >> 16);
}

static void test_copy_bf16(void **state) {
    (void)state;
    Backend *be = new_backend();
    float x[40] = {0.0f,      -0.0f,      1.0f,       1.00390625f,  1.01171875f, 3.14159274f,
                   -65504.0f, FLT_MAX,    FLT_MIN,    1e-41f,       INFINITY,    -INFINITY,
                   NAN,       1.0039064f, 1.0039062f, -1.00390625f, 0.1f};
    for (int i = 17; i < 40; i++) x[i] = ldexpf(0.7f + 0.01f * (float)i, i - 30);
    uint16_t half[40];
    float back[40];
    Tensor a = tensor_at(x, DTYPE_F32, SHAPE(5, 8)), b = tensor_at(half, DTYPE_BF16, SHAPE(5, 8));
    Tensor r = tensor_at(back, DTYPE_F32, SHAPE(5, 8));
    copy(be, b, a);
    copy(be, r, b);
    for (int i = 0; i < 40; i++) {
        uint32_t widened = (uint32_t)half[i] << 16, got;
        memcpy(&got, &back[i], sizeof got);
        assert_int_equal(got, widened);
        if (isnan(x[i]))
            assert_true(isnan(back[i]));
        else
            assert_int_equal(half[i], bf16_bits(x[i]));
    }
    backend_destroy(be);
}

// Rows of one table into columns of a wider one, as slices of fused tensors are copied.
static void test_copy_integers_between_strides(void **state) {
    (void)state;
    Backend *be = new_backend();
    int32_t from[6] = {1, 2, 3, 4, 5, 6}, to[10] = {0};
    Tensor y = tensor_columns(tensor_at(to, DTYPE_I32, SHAPE(2, 5)), 1, 3);
    copy(be, y, tensor_at(from, DTYPE_I32, SHAPE(2, 3)));
    const int32_t expected[10] = {0, 1, 2, 3, 0, 0, 4, 5, 6, 0};
    assert_memory_equal(to, expected, sizeof to);
    backend_destroy(be);
}

// Nothing to do: the kernels are not called (the hook would count), and sums are still assigned.
static size_t entered;
static void count_enter(Backend *be, const OpCall *call) {
    (void)be, (void)call, entered++;
}

static void test_empty(void **state) {
    (void)state;
    Backend *be = new_backend();
    be->op_enter = count_enter, entered = 0;
    float w[12] = {0}, total = NAN, clip[2] = {NAN, NAN};
    Tensor none = tensor_at(NULL, DTYPE_F32, SHAPE(0, 4)), weight = tensor_at(w, DTYPE_F32, SHAPE(3, 4));
    Tensor out = tensor_at(NULL, DTYPE_F32, SHAPE(0, 3)), ids = tensor_at(NULL, DTYPE_I32, SHAPE(0));
    Tensor vector = tensor_at(w, DTYPE_F32, SHAPE(4)), list = tensor_at(NULL, DTYPE_F32, SHAPE(0));
    Tensor heads = tensor_at(NULL, DTYPE_F32, SHAPE(0, 3, 2, 4));
    fill(be, none, 1), copy(be, none, none), add(be, none, none, none);
    linear_forward(be, out, none, weight, TENSOR_NONE);
    linear_backward_input(be, none, out, weight, false);
    linear_backward_weight(be, weight, TENSOR_NONE, out, none);
    layer_norm_forward(be, none, list, list, none, vector, vector, 1e-5f);
    rms_norm_backward(be, none, TENSOR_NONE, vector, none, none, vector, list);
    add_rms_norm_forward(be, none, none, list, none, none, vector, 1e-5f);
    gelu_forward(be, none, none);
    embedding_forward(be, none, weight, ids), embedding_backward(be, weight, none, ids);
    gather_rows(be, none, weight, ids), scatter_rows(be, weight, none, ids), zero_rows(be, weight, ids);
    attention_forward(be, heads, TENSOR_NONE, heads, heads, heads, TENSOR_NONE, TENSOR_NONE, 1, true);
    cross_entropy(be, list, none, ids, 1);
    assert_int_equal(entered, 0);
    sum(be, tensor_at(&total, DTYPE_F32, SHAPE(1)), list, 1);
    assert_true(total == 0);
    clip_factor(be, tensor_at(clip, DTYPE_F32, SHAPE(2)), list, 1);
    assert_true(clip[0] == 0 && clip[1] == 1);
    backend_destroy(be);
}

static int all_tests(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fill),
        cmocka_unit_test(test_copy_strided),
        cmocka_unit_test(test_multiply),
        cmocka_unit_test(test_add),
        cmocka_unit_test(test_rows_by_index),
        cmocka_unit_test(test_embedding),
        cmocka_unit_test(test_patchify),
        cmocka_unit_test(test_position),
        cmocka_unit_test(test_pixel_shuffle),
        cmocka_unit_test(test_copy_bf16),
        cmocka_unit_test(test_copy_integers_between_strides),
        cmocka_unit_test(test_empty),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    print_worst_shares();
    return failed;
}

int main(int argc, char **argv) {
    (void)argc;
    return run_at_each_level(argv, all_tests);
}
