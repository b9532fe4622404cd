// LINK: tensor ops_cpu base
// Where attention on BF16 tensors rounds inside: at each level of instructions the softmax's weights,
// relative to a power of 2, and the gradients of the scores are rounded for the products that follow, and
// nothing else is. Between two references in double, one with these roundings and one without, the results
// must lie at the first. Single results cannot tell, because they are rounded to BF16 themselves; thousands
// of them can.
#include "support/golden.h"
#include "support/op_case.h"

#include "base/half.h"
#include "base/memory.h"
#include "base/random.h"
#include "ops/cpu/cpu.h"

#include <math.h>
#include <stdlib.h>

// Two tiles of queries and a short one, so that rows see blocks of keys of all kinds; one head, causal.
enum { T = 130, D = 32, N = T * D, PROBLEMS = 4 };

typedef enum Which { Q, K, V, DOUT, O, DQ, DK, DV, TENSORS } Which;
static const char *const names[TENSORS] = {"q", "k", "v", "dout", "o", "dq", "dk", "dv"};

typedef struct Problem {
    uint16_t half[TENSORS][N];
    float lse[T], delta[T];
    double x[TENSORS][N];                          // the same in double
    double exact[TENSORS][N], rounded[TENSORS][N]; // the two references
} Problem;

// How far results lie along the way from the exact reference to the rounded one.
typedef struct Way {
    double along, length;
} Way;

static double bf16(double x) {
    return f32_from_bf16(bf16_from_f32((float)x));
}

static double dot(const double *x, const double *y) {
    double sum = 0;
    for (size_t d = 0; d < D; d++) sum += x[d] * y[d];
    return sum;
}

static void add_scaled(double *y, double factor, const double *x) {
    for (size_t d = 0; d < D; d++) y[d] += factor * x[d];
}

// y += factor x in both references, in one of them with the factor rounded.
static void add_factor(Problem *p, Which y, size_t row, double factor, Which x, size_t from) {
    add_scaled(p->exact[y] + row * D, factor, p->x[x] + from * D);
    add_scaled(p->rounded[y] + row * D, bf16(factor), p->x[x] + from * D);
}

static void run(Backend *be, Problem *p, float scale) {
    Tensor t[TENSORS];
    const Tensor lse = tensor_at(p->lse, DTYPE_F32, SHAPE(1, 1, T)),
                 delta = tensor_at(p->delta, DTYPE_F32, SHAPE(1, 1, T));
    for (size_t i = 0; i < TENSORS; i++) t[i] = tensor_at(p->half[i], DTYPE_BF16, SHAPE(1, T, 1, D));
    attention_forward(be, t[O], lse, t[Q], t[K], t[V], TENSOR_NONE, TENSOR_NONE, scale, true);
    attention_backward(be, t[DQ], t[DK], t[DV], delta, t[DOUT], t[Q], t[K], t[V], t[O], lse, TENSOR_NONE,
                       TENSOR_NONE, scale, true);
    for (size_t i = 0; i < TENSORS; i++)
        for (size_t n = 0; n < N; n++) p->x[i][n] = f32_from_bf16(p->half[i][n]);
}

// Row i of o, and what it adds to the gradients; o and lse are the operator's own.
static void reference_row(Problem *p, size_t i, double scale) {
    double s[T], largest = -INFINITY, sum = 0, delta = dot(p->x[DOUT] + i * D, p->x[O] + i * D);
    for (size_t j = 0; j <= i; j++) {
        s[j] = scale * dot(p->x[Q] + i * D, p->x[K] + j * D);
        largest = fmax(largest, s[j]);
    }
    const double base = ceil(largest * M_LOG2E);
    for (size_t j = 0; j <= i; j++) {
        const double w = exp2(s[j] * M_LOG2E - base), weight = exp(s[j] - p->lse[i]),
                     ds = scale * weight * (dot(p->x[DOUT] + i * D, p->x[V] + j * D) - delta);
        sum += w;
        add_factor(p, O, i, w, V, j);
        add_factor(p, DV, j, weight, DOUT, i);
        add_factor(p, DQ, i, ds, K, j);
        add_factor(p, DK, j, ds, Q, i);
    }
    for (size_t d = i * D; d < (i + 1) * D; d++) p->exact[O][d] /= sum, p->rounded[O][d] /= sum;
}

static void add_problem(Backend *be, Way ways[TENSORS], uint64_t seed) {
    Problem *p = mem_zeroed(1, sizeof *p);
    Random r = random_stream(seed, RANDOM_TEST, 0);
    const float scale = 0.5f;
    for (size_t i = Q; i <= DOUT; i++)
        for (size_t n = 0; n < N; n++) p->half[i][n] = bf16_from_f32((float)random_uniform(&r) * 2 - 1);
    run(be, p, scale);
    for (size_t i = 0; i < T; i++) reference_row(p, i, scale);
    for (size_t i = O; i < TENSORS; i++)
        for (size_t n = 0; n < N; n++) {
            const double way = p->rounded[i][n] - p->exact[i][n];
            ways[i].along += (p->x[i][n] - p->exact[i][n]) * way;
            ways[i].length += way * way;
        }
    free(p);
}

static void test_attention_rounds(void **state) {
    (void)state;
    Backend *be;
    Error err;
    Way ways[TENSORS] = {0};
    if (!backend_cpu_create(&be, 1, &err)) fail_msg("%s", err.text);
    for (uint64_t seed = 1; seed <= PROBLEMS; seed++) add_problem(be, ways, seed);
    for (size_t i = O; i < TENSORS; i++) {
        const double share = ways[i].along / ways[i].length;
        expect_within("share of the inner rounding that shows, from 1", fabs(share - 1), 0.1, "%s: %.3f",
                      names[i], share);
    }
    backend_destroy(be);
}

static int all_tests(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_attention_rounds)};
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    print_worst_shares();
    return failed;
}

int main(int argc, char **argv) {
    (void)argc;
    return run_at_each_level(argv, all_tests);
}
