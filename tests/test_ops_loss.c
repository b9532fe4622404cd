// LINK: tensor ops_cpu base
// Loss and optimizer, and the exponential that the kernels share.
#include "support/golden.h"
#include "support/op_case.h"

#include "base/half.h"
#include "base/memory.h"
#include "base/random.h"
#include "ops/cpu/cpu.h"
#include "ops/cpu/lanes.h"
#include "ops/cpu/vecmath.h"

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

RUNNER(cross_entropy, t[0], t[1], t[2], c->f[0])
RUNNER(sum, t[0], t[1], c->f[0])
RUNNER(sum_of_squares, t[0], t[1])
RUNNER(clip_factor, t[0], t[1], c->f[0])
RUNNER(adamw, t[0], t[1], t[2], t[3], t[4], t[5], t[6], 0.9, 0.999, 1e-8f, c->flag)

static Backend *new_backend(void) {
    Error err;
    Backend *be;
    if (!backend_cpu_create(&be, 2, &err)) fail_msg("%s", err.text);
    return be;
}

// ---- loss ----

// The loss of a row of which one value is changed from x to changed; sum: Σ exp(value − largest) of the row
// as it is.
static double row_loss(double sum, double largest, double x, double changed, double target) {
    return log(sum - exp(x - largest) + exp(changed - largest)) + largest - target;
}

static double row_sum(const double *x, size_t V, double *largest) {
    double sum = 0;
    *largest = x[0];
    for (size_t i = 1; i < V; i++) *largest = fmax(*largest, x[i]);
    for (size_t i = 0; i < V; i++) sum += exp(x[i] - *largest);
    return sum;
}

static void ref_cross_entropy(double **a, const OpCase *c) {
    const size_t M = c->args[1].shape[0], V = c->args[1].shape[1];
    const double h = 1e-3;
    for (size_t m = 0; m < M; m++) {
        double *x = a[1] + m * V, largest, sum = row_sum(x, V, &largest);
        const size_t target = (size_t)a[2][m];
        const double logit = x[target];
        a[0][m] = row_loss(sum, largest, logit, logit, logit);
        for (size_t i = 0; c->f[0] != 0 && i < V; i++) { // differences of the loss, not softmax − onehot
            double f[4];
            for (int k = 0; k < 4; k++) {
                double changed = x[i] + h * (const double[]){-2, -1, 1, 2}[k];
                f[k] = row_loss(sum, largest, x[i], changed, i == target ? changed : logit);
            }
            x[i] = (8 * (f[2] - f[1]) - (f[3] - f[0])) / (12 * h) * c->f[0];
        }
    }
}

static void test_cross_entropy(void **state) {
    (void)state;
    static const size_t sizes[][2] = {{1, 1},  {1, 2},  {3, 7},  {2, 8},    {5, 9},
                                      {4, 15}, {4, 16}, {6, 17}, {40, 386}, {3, 4099}};
    static const float scales[] = {1.0f, 0.125f, 0.0f};
    for (size_t i = 0; i < COUNT(sizes); i++)
        for (size_t k = 0; k < COUNT(scales); k++)
            for (int wide = 0; wide <= 2; wide++) {
                size_t M = sizes[i][0], V = sizes[i][1];
                OpCase c = {.op = "cross_entropy",
                            .run = run_cross_entropy,
                            .reference = ref_cross_entropy,
                            .f = {scales[k]},
                            .limit = wide ? 30 : 8,
                            .args = {F32_ARG(losses, ROLE_ASSIGNED, M),
                                     F32_ARG(logits, ROLE_ACCUMULATED, M, V), I32_ARG(targets, V, M)}};
                if (wide == 1) c.args[1].low = -40, c.args[1].high = 40;
                if (wide == 2) c.args[1].low = -240, c.args[1].high = -160;
                op_case_check(c);
                c.args[1].dtype = DTYPE_BF16, c.limit_bf16 = 0.51;
                op_case_check(c);
            }
}

// Hidden entries (-infinity), scores far apart, and what must not be hidden: NaN and infinity.
static void test_cross_entropy_far_out(void **state) {
    (void)state;
    Backend *be = new_backend();
    float x[4 * 9], losses[4];
    int32_t target[4] = {3, 0, 2, 5};
    for (int i = 0; i < 36; i++) x[i] = i < 9 ? -INFINITY : i < 18 ? -1e30f : 0.5f;
    x[3] = 7, x[4] = 7, x[9] = 1e30f, x[20] = NAN, x[30] = INFINITY;
    Tensor logits = tensor_at(x, DTYPE_F32, SHAPE(4, 9));
    cross_entropy(be, tensor_at(losses, DTYPE_F32, SHAPE(4)), logits, tensor_at(target, DTYPE_I32, SHAPE(4)),
                  1);
    assert_true(fabsf(losses[0] - logf(2)) < 1e-6f && losses[1] == 0 && isnan(losses[2]) && isnan(losses[3]));
    for (int i = 0; i < 9; i++)
        assert_true(fabsf(x[i] - (i == 3   ? -0.5f
                                  : i == 4 ? 0.5f
                                           : 0)) < 1e-6f &&
                    x[9 + i] == 0 && isnan(x[18 + i]));
    backend_destroy(be);
}

static void ref_sum(double **a, const OpCase *c) {
    a[0][0] = 0;
    for (size_t i = 0; i < arg_count(&c->args[1]); i++) a[0][0] += a[1][i];
    a[0][0] *= c->f[0];
}
static void ref_squares(double **a, const OpCase *c) {
    a[0][0] = 0;
    for (size_t i = 0; i < arg_count(&c->args[1]); i++) a[0][0] += a[1][i] * a[1][i];
}

static void test_sums(void **state) {
    (void)state;
    static const size_t sizes[] = {1, 2, 63, 64, 65, 1000, 50001};
    for (size_t i = 0; i < COUNT(sizes); i++) {
        op_case_check((OpCase){.op = "sum",
                               .run = run_sum,
                               .reference = ref_sum,
                               .f = {0.25f},
                               .limit = 1,
                               .args = {F32_ARG(total, ROLE_ASSIGNED, 1), F32_ARG(x, ROLE_IN, sizes[i])}});
        op_case_check((OpCase){.op = "sum_of_squares",
                               .run = run_sum_of_squares,
                               .reference = ref_squares,
                               .limit = 1,
                               .args = {F32_ARG(total, ROLE_ASSIGNED, 1), F32_ARG(x, ROLE_IN, sizes[i])}});
    }
}

// ---- optimizer ----

static void ref_clip(double **a, const OpCase *c) {
    double total = 0;
    for (size_t i = 0; i < arg_count(&c->args[1]); i++) total += a[1][i];
    a[0][0] = sqrt(total);
    a[0][1] = c->f[0] <= 0 ? 1 : fmin(1, c->f[0] / (sqrt(total) + 1e-6));
}

static void test_clip_factor(void **state) {
    (void)state;
    static const float limits[] = {1.0f, 0.01f, 100.0f, 0.0f, -1.0f};
    for (size_t i = 0; i < COUNT(limits); i++)
        for (size_t n = 1; n <= 40; n += 13) {
            OpCase c = {.op = "clip_factor",
                        .run = run_clip_factor,
                        .reference = ref_clip,
                        .f = {limits[i]},
                        .limit = 2,
                        .args = {F32_ARG(clip, ROLE_ASSIGNED, 2), F32_ARG(squares, ROLE_IN, n)}};
            c.args[1].low = 0;
            op_case_check(c);
            c.args[1].high = 1e-13, c.f[0] *= 1e-7f; // norms about as small as the 1e-6 beside them
            op_case_check(c);
        }
}

static void ref_adamw(double **a, const OpCase *c) {
    double *hyper = a[5], clip = a[6][1];
    for (size_t i = 0; i < arg_count(&c->args[0]); i++) {
        double g = a[4][i] * clip, *p = &a[0][i], *m = &a[1][i], *v = &a[2][i];
        *p *= hyper[0];
        *m += (g - *m) * (1 - 0.9);
        *v = 0.999 * *v + (1 - 0.999) * g * g;
        *p -= hyper[1] * *m / (sqrt(*v) / hyper[2] + 1e-8);
        if (a[3]) a[3][i] = *p;
        if (c->flag) a[4][i] = 0;
    }
}
static void prepare_adamw(double **a, const OpCase *c) {
    const double hyper[] = {1 - 1e-3 * 0.01, 1e-3 / (1 - pow(0.9, 3)), sqrt(1 - pow(0.999, 3))};
    (void)c;
    for (int i = 0; i < 3; i++) a[5][i] = (float)hyper[i];
    a[6][0] = 2, a[6][1] = 0.5;
}

static void test_adamw(void **state) {
    (void)state;
    static const size_t sizes[] = {1, 7, 64, 4099, 20000};
    for (size_t i = 0; i < COUNT(sizes); i++) {
        size_t n = sizes[i];
        OpCase c = {.op = "adamw",
                    .run = run_adamw,
                    .prepare = prepare_adamw,
                    .reference = ref_adamw,
                    .limit = 4,
                    .limit_bf16 = 0.51,
                    .args = {F32_ARG(p, ROLE_ACCUMULATED, n), F32_ARG(m, ROLE_ACCUMULATED, n),
                             F32_ARG(v, ROLE_ACCUMULATED, n), BF16_ARG(rounded, ROLE_ASSIGNED, n),
                             F32_ARG(grad, ROLE_ACCUMULATED, n), F32_ARG(hyper, ROLE_IN, 3),
                             F32_ARG(clip, ROLE_IN, 2)}};
        c.args[2].low = 0;
        op_case_check(c);
        c.args[3].ndim = 0, c.flag = true; // the gradient is cleared, no rounded copy
        op_case_check(c);
        for (int k = 1; k <= 4; k++) c.args[k].low = 0, c.args[k].high = k == 2 ? 0 : 1e-8; // eps decides
        op_case_check(c);
    }
}

// BF16 moments: within one step of BF16 of the exact ones.
static void test_adamw_bf16(void **state) {
    (void)state;
    static const size_t sizes[] = {1, 7, 511, 513, 20000};
    for (size_t i = 0; i < COUNT(sizes); i++) {
        size_t n = sizes[i];
        OpCase c = {.op = "adamw",
                    .run = run_adamw,
                    .prepare = prepare_adamw,
                    .reference = ref_adamw,
                    .limit = 4,
                    .limit_bf16 = 1.01,
                    .args = {F32_ARG(p, ROLE_ACCUMULATED, n), BF16_ARG(m, ROLE_ACCUMULATED, n),
                             BF16_ARG(v, ROLE_ACCUMULATED, n), NO_ARG(rounded, ROLE_ASSIGNED),
                             F32_ARG(grad, ROLE_ACCUMULATED, n), F32_ARG(hyper, ROLE_IN, 3),
                             F32_ARG(clip, ROLE_IN, 2)}};
        c.args[2].low = 0;
        op_case_check(c);
    }
}

// Without gradients BF16 moments decay as fast as exact ones, though a step is less than half of what BF16
// tells.
static void test_bf16_moments_decay(void **state) {
    (void)state;
    enum { N = 4096, STEPS = 200 };
    static float p[N], grad[N], hyper[3] = {1, 0, 1}, clip[2] = {0, 1};
    static uint16_t m[N], v[N];
    Backend *be = new_backend();
    double mean = 0, expected = 1;
    for (size_t i = 0; i < N; i++) v[i] = bf16_from_f32(1);
    for (int step = 0; step < STEPS; step++, expected *= (float)0.999) {
        hyper[0] = 1 - 1e-6f * (float)step;
        adamw(be, tensor_at(p, DTYPE_F32, SHAPE(N)), tensor_at(m, DTYPE_BF16, SHAPE(N)),
              tensor_at(v, DTYPE_BF16, SHAPE(N)), TENSOR_NONE, tensor_at(grad, DTYPE_F32, SHAPE(N)),
              tensor_at(hyper, DTYPE_F32, SHAPE(3)), tensor_at(clip, DTYPE_F32, SHAPE(2)), 0.9, 0.999, 1e-8f,
              false);
    }
    for (size_t i = 0; i < N; i++) mean += f32_from_bf16(v[i]) / N;
    // A step's rounding has a deviation of at most half of 2^-8; five of the deviation of the mean.
    expect_within("mean of decayed BF16 moments", fabs(mean - expected), 5 * 0x1p-9 * sqrt(STEPS) / sqrt(N),
                  "mean %g, expected %g", mean, expected);
    backend_destroy(be);
}

// ---- moments in 8 bits ----

// State of n parameters, its codes decoded by hand.
typedef struct Short {
    size_t n;
    float p[1024], grad[1024], m[1024], v[1024], hyper[3], clip[2];
    uint8_t m8[4 * MOMENT_ROW], v8[4 * MOMENT_ROW];
} Short;

static void decode(Short *s) {
    for (size_t i = 0; i < s->n; i++) {
        const size_t row = i / MOMENT_BLOCK * MOMENT_ROW, at = row + i % MOMENT_BLOCK;
        float m_scale, v_scale;
        memcpy(&m_scale, s->m8 + row + MOMENT_BLOCK, sizeof m_scale);
        memcpy(&v_scale, s->v8 + row + MOMENT_BLOCK, sizeof v_scale);
        const int code = (int8_t)s->m8[at];
        s->m[i] = (float)(m_scale * (double)(code * abs(code)) / (127.0 * 127.0));
        s->v[i] = (float)(v_scale * pow(s->v8[at] / 255.0, 4));
    }
}

static void step_of(Backend *be, Short *s, Dtype moments) {
    const bool whole = moments == DTYPE_F32;
    const size_t rows = moment_blocks(s->n);
    const Tensor m = whole ? tensor_at(s->m, DTYPE_F32, SHAPE(s->n))
                           : tensor_at(s->m8, DTYPE_U8, SHAPE(rows, MOMENT_ROW)),
                 v = whole ? tensor_at(s->v, DTYPE_F32, SHAPE(s->n))
                           : tensor_at(s->v8, DTYPE_U8, SHAPE(rows, MOMENT_ROW));
    adamw(be, tensor_at(s->p, DTYPE_F32, SHAPE(s->n)), m, v, TENSOR_NONE,
          tensor_at(s->grad, DTYPE_F32, SHAPE(s->n)), tensor_at(s->hyper, DTYPE_F32, SHAPE(3)),
          tensor_at(s->clip, DTYPE_F32, SHAPE(2)), 0.9, 0.999, 1e-8f, false);
}

// Gradients of unlike sizes, from a fixed sequence.
static void set_gradients(Short *s, uint64_t step) {
    Random r = random_stream(step, RANDOM_TEST, 0);
    for (size_t i = 0; i < s->n; i++)
        s->grad[i] = (float)((random_uniform(&r) - 0.5) * pow(10, -3 * random_uniform(&r)));
}

// Weights move as with moments of F32 that hold what the codes said before, and the codes then stand next to
// the exact moments.
static void test_adamw_8(void **state) {
    (void)state;
    static const size_t sizes[] = {1, 255, 256, 257, 1024};
    Backend *be = new_backend();
    for (size_t i = 0; i < COUNT(sizes); i++) {
        Short s = {.n = sizes[i], .hyper = {1 - 1e-5f, 1e-3f, 0.5f}, .clip = {1, 0.5f}};
        for (uint64_t step = 0; step < 20; step++) {
            set_gradients(&s, step);
            decode(&s);
            Short exact = s;
            step_of(be, &exact, DTYPE_F32);
            step_of(be, &s, DTYPE_U8);
            for (size_t k = 0; k < s.n; k++) {
                const size_t row = k / MOMENT_BLOCK * MOMENT_ROW, at = row + k % MOMENT_BLOCK;
                float m_scale, v_scale;
                memcpy(&m_scale, s.m8 + row + MOMENT_BLOCK, sizeof m_scale);
                memcpy(&v_scale, s.v8 + row + MOMENT_BLOCK, sizeof v_scale);
                const double m_code = copysign(127 * sqrt(fabs((double)exact.m[k]) / m_scale), exact.m[k]),
                             v_code = 255 * pow((double)exact.v[k] / v_scale, 0.25);
                expect_within("weight after 8-bit moments", fabs((double)s.p[k] - exact.p[k]), 1e-7, "%zu",
                              k);
                expect_within("code of m", fabs(m_code - (int8_t)s.m8[at]), 1.01, "%zu", k);
                expect_within("code of v", fabs(v_code - s.v8[at]), 1.01, "%zu", k);
            }
        }
    }
    backend_destroy(be);
}

// Beside a value that stays, those without gradients decay as exact ones do, though a step is a small part of
// what the codes tell; what is tiny beside it never becomes 0, and what is not finite shows.
static void test_8_bit_moments_decay(void **state) {
    (void)state;
    enum { M_STEPS = 10, V_STEPS = 200 };
    Short s = {.n = 1024, .hyper = {1, 0, 1}, .clip = {0, 1}};
    Backend *be = new_backend();
    double m = 0, v = 0;
    const float one = 1;
    for (size_t i = 0; i < s.n; i++) {
        const size_t row = i / MOMENT_BLOCK * MOMENT_ROW, at = row + i % MOMENT_BLOCK;
        const bool stays = i % MOMENT_BLOCK == 0, tiny = i % MOMENT_BLOCK == 1;
        s.grad[i] = stays ? 1 : 0;
        s.m8[at] = stays ? 127 : 64, s.v8[at] = stays ? 255 : tiny ? 1 : 128;
        memcpy(s.m8 + row + MOMENT_BLOCK, &one, sizeof one);
        memcpy(s.v8 + row + MOMENT_BLOCK, &one, sizeof one);
    }
    for (int step = 0; step < V_STEPS; step++) {
        s.hyper[0] = 1 - 1e-6f * (float)step;
        step_of(be, &s, DTYPE_U8);
        decode(&s);
        for (size_t i = 0; step + 1 == M_STEPS && i < s.n; i++)
            if (i % MOMENT_BLOCK > 1) m += s.m[i] / 1016 / pow(64 / 127.0, 2);
    }
    for (size_t i = 0; i < s.n; i++)
        if (i % MOMENT_BLOCK > 1) v += s.v[i] / 1016 / pow(128 / 255.0, 4);
    // five deviations of the mean: a step is at most half of a code's 2/64 (4/128), most of them far less
    expect_within("mean of decayed 8-bit m", fabs(m - pow(0.9, M_STEPS)), 5 * 0.03 / sqrt(1016), "%g", m);
    expect_within("mean of decayed 8-bit v", fabs(v - pow(0.999, V_STEPS)), 5 * 0.08 / sqrt(1016), "%g", v);
    for (size_t i = 0; i < s.n; i++) assert_true(s.v[i] > 0);
    s.grad[300] = NAN;
    step_of(be, &s, DTYPE_U8);
    decode(&s);
    for (size_t i = 0; i < s.n; i++) assert_true(isnan(s.m[i]) == (i / MOMENT_BLOCK == 1));
    backend_destroy(be);
}

// The exponential all kernels share: every 769th float from where it underflows to where it overflows.
static void test_exp(void **state) {
    (void)state;
    double worst = 0, largest_sigmoid = 0;
    for (uint32_t bits = 0x2f000000; bits < 0x42d00000; bits += 769)
        for (int sign = 0; sign <= 1; sign++) {
            float x = float_from_bits(bits | (uint32_t)sign << 31), y = exp_f32(x);
            double exact = exp((double)x), unit = fmax(exact * FLT_EPSILON, 0x1p-149);
            const float by_lanes = exp_lanes(lanes_of(x))[0];
            if (exact > FLT_MAX)
                assert_true(isinf(y) && isinf(by_lanes));
            else
                worst = fmax(worst, fmax(fabs(y - exact), fabs(by_lanes - exact)) / unit);
            if (fabsf(x) > 86) continue;
            Sigmoid s;
            sigmoid_lanes(&s, (Lanes[]){lanes_of(x)}, 1);
            double plus = 1 / (1 + exp(-(double)x)), minus = 1 / (1 + exp((double)x));
            largest_sigmoid = fmax(largest_sigmoid, fabs(s.plus[0][0] - plus) / (plus * FLT_EPSILON));
            largest_sigmoid = fmax(largest_sigmoid, fabs(s.minus[0][0] - minus) / (minus * FLT_EPSILON));
        }
    expect_within("exp, in epsilons", worst, 1, "exp_f32");
    expect_within("sigmoid, in epsilons", largest_sigmoid, 2, "sigmoid_lanes");
    assert_true(exp_f32(0) == 1 && exp_f32(-INFINITY) == 0 && isinf(exp_f32(INFINITY)) &&
                isnan(exp_f32(NAN)));
    assert_true(exp_f32(-FLT_MAX) == 0 && isinf(exp_f32(FLT_MAX)));
    assert_true(exp_lanes(lanes_of(0))[0] == 1 && exp_lanes(lanes_of(-INFINITY))[0] == 0 &&
                isnan(exp_lanes(lanes_of(NAN))[0]));
}

static int all_tests(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cross_entropy),
        cmocka_unit_test(test_cross_entropy_far_out),
        cmocka_unit_test(test_sums),
        cmocka_unit_test(test_clip_factor),
        cmocka_unit_test(test_adamw),
        cmocka_unit_test(test_adamw_bf16),
        cmocka_unit_test(test_bf16_moments_decay),
        cmocka_unit_test(test_adamw_8),
        cmocka_unit_test(test_8_bit_moments_decay),
        cmocka_unit_test(test_exp),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    print_worst_shares();
    return failed;
}

int main(int argc, char **argv) {
    (void)argc;
    return run_at_each_level(argv, all_tests);
}
