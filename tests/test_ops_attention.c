// LINK: tensor ops_cpu base
// COST: 40
// Attention against softmax(scale q kᵀ + masks) v written out in double, and its gradient by differences.
#include "support/attention_reference.h"
#include "support/golden.h"
#include "support/op_case.h"

#include "base/memory.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(list) (sizeof(list) / sizeof *(list))

typedef enum MaskKind {
    MASK_NONE,
    MASK_ONES,
    MASK_LEFT,
    MASK_HOLES,
    MASK_LAST_ONLY,
    MASK_ALL_HIDDEN,
    MASK_KINDS
} MaskKind;

// Where samples begin: n[1] of a case.
typedef enum StartsKind {
    STARTS_NONE,
    STARTS_ZERO,  // one sample a sequence
    STARTS_SPLIT, // a few samples, none of which begins where a tile of 64 or 16 does
    STARTS_EVERY, // each position a sample of its own
    STARTS_MIXED, // each position of a padding, samples of 1, 2, 4 … positions, and then a long one
    STARTS_LATE,  // one position, and the rest
    STARTS_KINDS
} StartsKind;

static Part whole(const Sizes *s) {
    return (Part){0, s->B, 0, s->H, 0, s->Tq};
}

// Where the entry q[at] counts, or the entry k[at] or v[at].
static Part part_of_query(const Sizes *s, size_t at) {
    size_t h = at / s->D % s->H, i = at / s->D / s->H % s->Tq, b = at / s->D / s->H / s->Tq;
    return (Part){b, b + 1, h, h + 1, i, i + 1};
}
static Part part_of_key(const Sizes *s, size_t at, bool causal) {
    size_t k = at / s->D % s->K, j = at / s->D / s->K % s->Tk, b = at / s->D / s->K / s->Tk, n = s->H / s->K;
    return (Part){b, b + 1, k * n, (k + 1) * n, causal ? j : 0, s->Tq};
}

static Sizes sizes_of(const Arg *q, const Arg *k) {
    return (Sizes){q->shape[0], q->shape[1], k->shape[1], q->shape[2], k->shape[2], q->shape[3]};
}

static void make_mask(double *mask, const Sizes *s, size_t kind) {
    for (size_t i = 0; mask && i < s->B * s->Tk; i++) {
        size_t b = i / s->Tk, j = i % s->Tk;
        switch (kind) {
        case MASK_LEFT:
            mask[i] = j >= (b + 1) * s->Tk / 3;
            break;
        case MASK_HOLES:
            mask[i] = (j * 7 + b) % 5 > 1;
            break;
        case MASK_LAST_ONLY:
            mask[i] = j == s->Tk - 1;
            break;
        case MASK_ALL_HIDDEN:
            mask[i] = b > 0;
            break; // the first sequence sees nothing
        default:
            mask[i] = 1;
        }
    }
}

static bool begins(size_t j, size_t b, size_t T, size_t kind) {
    size_t padding = (T + b) / 7;
    switch (kind) {
    case STARTS_SPLIT:
        return j == T / 3 + b || j == T / 2 || j == T - T / 5;
    case STARTS_EVERY:
        return true;
    case STARTS_MIXED:
        return j <= padding || (j - padding < 32 && ((j - padding) & (j - padding + 1)) == 0);
    case STARTS_LATE:
        return j == 1;
    default:
        return false;
    }
}

static void make_starts(double *starts, const Sizes *s, size_t kind) {
    for (size_t i = 0; starts && i < s->B * s->Tk; i++) {
        size_t b = i / s->Tk, j = i % s->Tk;
        starts[i] = j == 0 || begins(j, b, s->Tk, kind) ? (double)j : starts[i - 1];
    }
}

// ---- forward ----

static void run_forward(Backend *be, const Tensor *t, const OpCase *c) {
    attention_forward(be, t[0], t[1], t[2], t[3], t[4], t[5], t[6], c->f[0], c->flag);
}

static void prepare_forward(double **a, const OpCase *c) {
    Sizes s = sizes_of(&c->args[2], &c->args[3]);
    make_mask(a[5], &s, c->n[0]);
    make_starts(a[6], &s, c->n[1]);
}

static void ref_forward(double **a, const OpCase *c) {
    Sizes s = sizes_of(&c->args[2], &c->args[3]);
    attention_reference(&(Problem){a[0], a[1], a[2], a[3], a[4], a[5], a[6], s, c->f[0], c->flag}, NULL,
                        whole(&s));
}

// The floating-point arguments become BF16; lse and delta stay what they are.
static OpCase in_bf16(OpCase c) {
    for (size_t i = 0; i < CASE_ARGS; i++)
        if (c.args[i].dtype == DTYPE_F32 && c.args[i].ndim == 4) c.args[i].dtype = DTYPE_BF16;
    if (!c.loss) c.floor = 1;
    return c;
}

static OpCase forward_case(Sizes s, bool causal, size_t mask, size_t starts, float range) {
    OpCase c = {
        .op = "attention_forward",
        .run = run_forward,
        .prepare = prepare_forward,
        .reference = ref_forward,
        .n = {mask, starts},
        .f = {1 / sqrtf((float)s.D)},
        .flag = causal,
        .limit = 12 + 6 * range * range,
        .limit_bf16 = 0.5, // half an epsilon by rounding the weights (terms up to 1 may cancel out) and o
        .args = {F32_ARG(o, ROLE_ASSIGNED, s.B, s.Tq, s.H, s.D), F32_ARG(lse, ROLE_ASSIGNED, s.B, s.H, s.Tq),
                 F32_ARG(q, ROLE_IN, s.B, s.Tq, s.H, s.D), F32_ARG(k, ROLE_IN, s.B, s.Tk, s.K, s.D),
                 F32_ARG(v, ROLE_IN, s.B, s.Tk, s.K, s.D), I32_ARG(mask, 2, s.B, s.Tk),
                 I32_ARG(starts, s.Tk, s.B, s.Tk)}};
    if (mask == MASK_NONE) c.args[5].ndim = 0;
    if (starts == STARTS_NONE) c.args[6].ndim = 0;
    c.args[2].low = c.args[3].low = -range, c.args[2].high = c.args[3].high = range;
    return c;
}

// B, Tq, Tk, H, K, D
static const Sizes square[] = {{1, 1, 1, 1, 1, 2},      {2, 3, 3, 2, 1, 4},    {2, 17, 17, 3, 1, 6},
                               {2, 33, 33, 4, 2, 8},    {1, 64, 64, 2, 2, 32}, {1, 65, 65, 3, 1, 16},
                               {1, 130, 130, 1, 1, 24}, {1, 70, 70, 6, 2, 40}, {1, 129, 129, 1, 1, 64},
                               {1, 5, 5, 2, 1, 255},    {2, 63, 63, 1, 1, 13}, {1, 6, 6, 1, 1, 33},
                               {1, 300, 300, 2, 1, 8}};
static const Sizes longer[] = {{1, 1, 2, 1, 1, 2},    {2, 1, 100, 3, 1, 32}, {2, 1, 64, 6, 2, 16},
                               {1, 3, 70, 2, 1, 8},   {2, 5, 65, 2, 2, 6},   {1, 40, 140, 3, 1, 16},
                               {1, 65, 66, 2, 1, 96}, {3, 1, 130, 4, 4, 64}, {1, 1, 300, 9, 3, 7},
                               {1, 2, 129, 2, 1, 256}};

// Each mask in F32 and BF16, large ones by turns in one of them; by turns packed, and strided without lse.
static void check_forward(Sizes s, bool causal, size_t starts) {
    for (size_t mask = 0; mask < MASK_KINDS; mask++)
        for (int bf16 = 0; bf16 <= 1; bf16++) {
            OpCase c = forward_case(s, causal, mask, starts, mask % 2 ? 1 : 3);
            if (s.Tq * s.Tk > 1000 && (mask + causal + starts) % 2 == (size_t)bf16) continue;
            if ((mask / 2 + s.Tq + (size_t)bf16) % 2) {
                c.args[0].gap = 3, c.args[2].gap = 2 * s.H * s.D, c.args[3].gap = 5,
                c.args[4].gap = s.K * s.D;
                c.args[1].ndim = 0;
            }
            op_case_check(bf16 ? in_bf16(c) : c);
        }
}

static void test_forward(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(square); i++)
        for (int causal = 0; causal <= 1; causal++) check_forward(square[i], causal, STARTS_NONE);
}

static void test_more_keys_than_queries(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(longer); i++)
        for (int causal = 0; causal <= 1; causal++) check_forward(longer[i], causal, STARTS_NONE);
}

static const Sizes with_starts[] = {
    {2, 3, 3, 2, 1, 4}, {2, 33, 33, 4, 2, 8}, {1, 65, 65, 2, 2, 16}, {1, 150, 150, 2, 1, 12}};

// So many tiles of queries that those of a head share the packing of keys, more or fewer by the threads.
static const Sizes with_shared_packing[] = {{1, 330, 330, 4, 2, 8}, {1, 205, 300, 6, 3, 6}};

static void test_forward_samples(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(with_starts); i++)
        for (size_t starts = STARTS_ZERO; starts < STARTS_KINDS; starts++)
            check_forward(with_starts[i], true, starts);
}

static void test_forward_shared_packing(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(with_shared_packing); i++)
        for (int causal = 0; causal <= 1; causal++)
            check_forward(with_shared_packing[i], causal, STARTS_NONE);
    for (size_t starts = STARTS_ZERO; starts < STARTS_KINDS; starts++)
        check_forward(with_shared_packing[0], true, starts);
}

// Scores of several hundred: softmax is nearly one-hot, and nothing overflows.
static void test_large_scores(void **state) {
    (void)state;
    OpCase c = forward_case((Sizes){1, 70, 70, 2, 1, 16}, true, MASK_NONE, STARTS_NONE, 3);
    c.f[0] = 20, c.limit = 4000;
    op_case_check(c);
    op_case_check(in_bf16(c));
}

// ---- backward: dq, dk, dv, delta, dout, q, k, v, o, lse, mask, starts ----

static void run_backward(Backend *be, const Tensor *t, const OpCase *c) {
    attention_backward(be, t[0], t[1], t[2], t[3], t[4], t[5], t[6], t[7], t[8], t[9], t[10], t[11], c->f[0],
                       c->flag);
}

static Problem backward_problem(double **a, const OpCase *c, bool outputs) {
    return (Problem){outputs ? a[8] : NULL,
                     outputs ? a[9] : NULL,
                     a[5],
                     a[6],
                     a[7],
                     a[10],
                     a[11],
                     sizes_of(&c->args[5], &c->args[6]),
                     c->f[0],
                     c->flag};
}

static void prepare_backward(double **a, const OpCase *c) {
    Problem p = backward_problem(a, c, true);
    make_mask(a[10], &p.s, c->n[0]);
    make_starts(a[11], &p.s, c->n[1]);
    attention_reference(&p, NULL, whole(&p.s));
}

// delta; the other outputs follow from backward_loss.
static void ref_backward(double **a, const OpCase *c) {
    Sizes s = sizes_of(&c->args[5], &c->args[6]);
    for (size_t row = 0; row < s.B * s.Tq * s.H; row++) {
        double *delta = &a[3][(row / s.H / s.Tq * s.H + row % s.H) * s.Tq + row / s.H % s.Tq];
        *delta = 0;
        for (size_t d = 0; d < s.D; d++) *delta += a[4][row * s.D + d] * a[8][row * s.D + d];
    }
}

static double backward_loss(double **a, const OpCase *c) {
    Problem p = backward_problem(a, c, false);
    return attention_reference(&p, a[4],
                               c->by == 5 ? part_of_query(&p.s, c->at) : part_of_key(&p.s, c->at, c->flag));
}

static OpCase backward_case(Sizes s, bool causal, size_t mask, size_t starts, bool strided) {
    OpCase c = {
        .op = "attention_backward",
        .run = run_backward,
        .prepare = prepare_backward,
        .reference = ref_backward,
        .loss = backward_loss,
        .n = {mask, starts},
        .f = {1 / sqrtf((float)s.D)},
        .flag = causal,
        .limit = 30 + 2 * sqrt((double)s.Tq),
        .limit_bf16 = 1.5, // o, the weights, their gradients and the results are rounded
        .floor = 0.05 + 0.01 * sqrt((double)s.D),
        .args = {
            F32_ARG(dq, ROLE_ASSIGNED, s.B, s.Tq, s.H, s.D), F32_ARG(dk, ROLE_ASSIGNED, s.B, s.Tk, s.K, s.D),
            F32_ARG(dv, ROLE_ASSIGNED, s.B, s.Tk, s.K, s.D), F32_ARG(delta, ROLE_ASSIGNED, s.B, s.H, s.Tq),
            F32_ARG(dout, ROLE_IN, s.B, s.Tq, s.H, s.D), F32_ARG(q, ROLE_IN, s.B, s.Tq, s.H, s.D),
            F32_ARG(k, ROLE_IN, s.B, s.Tk, s.K, s.D), F32_ARG(v, ROLE_IN, s.B, s.Tk, s.K, s.D),
            F32_ARG(o, ROLE_IN, s.B, s.Tq, s.H, s.D), F32_ARG(lse, ROLE_IN, s.B, s.H, s.Tq),
            I32_ARG(mask, 2, s.B, s.Tk), I32_ARG(starts, s.Tk, s.B, s.Tk)}};
    if (mask == MASK_NONE) c.args[10].ndim = 0;
    if (starts == STARTS_NONE) c.args[11].ndim = 0;
    for (size_t i = 0; i < 3; i++) c.args[i].gradient_of = 6 + (int)i;
    for (size_t i = 0; strided && i < 9; i++)
        if (i != 3) c.args[i].gap = 1 + 2 * i; // delta is packed
    return c;
}

static void check_backward(OpCase c) {
    op_case_check(c);
    op_case_check(in_bf16(c));
}

static void test_backward(void **state) {
    (void)state;
    static const Sizes sizes[] = {{1, 1, 1, 1, 1, 2},   {2, 3, 3, 2, 1, 4},   {2, 9, 9, 3, 1, 6},
                                  {2, 17, 17, 4, 2, 8}, {1, 5, 5, 2, 1, 255}, {1, 7, 7, 1, 1, 13},
                                  {1, 6, 6, 1, 1, 33},  {3, 17, 17, 3, 3, 4}};
    for (size_t i = 0; i < COUNT(sizes); i++)
        for (int causal = 0; causal <= 1; causal++)
            for (size_t mask = 0; mask < MASK_KINDS; mask++)
                check_backward(backward_case(sizes[i], causal, mask, STARTS_NONE, mask % 2));
}

// More than one tile of queries and keys.
static void test_backward_tiles(void **state) {
    (void)state;
    check_backward(backward_case((Sizes){1, 64, 64, 1, 1, 16}, false, MASK_NONE, STARTS_NONE, true));
    check_backward(backward_case((Sizes){1, 65, 65, 2, 1, 8}, true, MASK_HOLES, STARTS_NONE, false));
    check_backward(backward_case((Sizes){1, 80, 80, 1, 1, 6}, false, MASK_LEFT, STARTS_NONE, true));
    check_backward(backward_case((Sizes){1, 130, 130, 1, 1, 4}, true, MASK_LEFT, STARTS_NONE, false));
    check_backward(backward_case((Sizes){2, 70, 70, 2, 2, 4}, true, MASK_ALL_HIDDEN, STARTS_NONE, false));
    check_backward(backward_case((Sizes){1, 195, 195, 2, 1, 4}, true, MASK_NONE, STARTS_NONE, false));
}

static void test_backward_samples(void **state) {
    (void)state;
    static const Sizes sizes[] = {{2, 3, 3, 2, 1, 4}, {2, 17, 17, 4, 2, 8}, {1, 64, 64, 1, 1, 4}};
    for (size_t i = 0; i < COUNT(sizes); i++)
        for (size_t starts = STARTS_ZERO; starts < STARTS_KINDS; starts++)
            for (size_t mask = i ? starts % 2 : 0; mask < MASK_KINDS; mask += i ? 2 : 1)
                check_backward(backward_case(sizes[i], true, mask, starts, mask % 2));
    for (size_t starts = STARTS_ZERO; starts < STARTS_KINDS; starts++)
        check_backward(starts % 2
                           ? backward_case((Sizes){1, 131, 131, 3, 1, 4}, true, MASK_HOLES, starts, false)
                           : backward_case((Sizes){2, 195, 195, 1, 1, 2}, true, MASK_NONE, starts, true));
}

static int all_tests(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forward),         cmocka_unit_test(test_more_keys_than_queries),
        cmocka_unit_test(test_large_scores),    cmocka_unit_test(test_forward_shared_packing),
        cmocka_unit_test(test_backward),        cmocka_unit_test(test_backward_tiles),
        cmocka_unit_test(test_forward_samples), cmocka_unit_test(test_backward_samples),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    print_worst_shares();
    return failed;
}

int main(int argc, char **argv) {
    (void)argc;
    return run_at_each_level(argv, all_tests);
}
