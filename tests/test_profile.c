// LINK: tensor ops_cpu base
// A profile's sums: calls, and the work that the tensors of a call make it.
#include "support/golden.h"

#include "ops/cpu/cpu.h"
#include "tensor/ops.h"
#include "tensor/profile.h"

#include <stdlib.h>
#include <string.h>

static Backend *be;

static Tensor values(Dtype dtype, int ndim, const size_t *shape) {
    Tensor t = tensor_at(NULL, dtype, ndim, shape);
    t.data = calloc(tensor_count(t), dtype_size(dtype));
    return t;
}

static const ProfileRow *find(const Profile *p, const char *name) {
    for (size_t i = 0; i < p->count; i++)
        if (!strcmp(p->rows[i].name, name)) return &p->rows[i];
    fail_msg("no row %s", name);
    return NULL;
}

static void calls_and_work_add_up(void **state) {
    (void)state;
    Profile p;
    Tensor x = values(DTYPE_F32, SHAPE(6, 8)), w = values(DTYPE_F32, SHAPE(10, 8)),
           y = values(DTYPE_F32, SHAPE(6, 10)), rows = values(DTYPE_I32, SHAPE(3)),
           picked = values(DTYPE_F32, SHAPE(3, 8));
    profile_begin(&p, be);
    linear_forward(be, y, x, w, TENSOR_NONE);
    linear_forward(be, tensor_head(y, 2), tensor_head(x, 2), w, TENSOR_NONE);
    linear_backward_input(be, x, y, w, false);
    linear_backward_weight(be, w, TENSOR_NONE, y, x);
    gather_rows(be, picked, x, rows);
    ((int *)rows.data)[1] = 1, ((int *)rows.data)[2] = 2;
    zero_rows(be, x, rows);
    profile_end(&p);
    fill(be, x, 0); // nobody watches any more
    const ProfileRow *forward = find(&p, "linear_forward");
    assert_int_equal(p.count, 5);
    assert_int_equal(forward->calls, 2);
    assert_int_equal(forward->kind, WORK_PRODUCT);
    assert_true(forward->flops == 2.0 * (6 + 2) * 8 * 10);
    assert_true(forward->bytes == 4.0 * (6 * 8 + 10 * 8 + 6 * 10 + 2 * 8 + 10 * 8 + 2 * 10));
    assert_true(find(&p, "linear_backward_input")->flops == 2.0 * 6 * 8 * 10);
    assert_true(find(&p, "linear_backward_weight")->flops == 2.0 * 6 * 8 * 10);
    assert_true(find(&p, "linear_backward_weight")->bytes == 4.0 * (2 * 80 + 60 + 48));
    assert_true(find(&p, "gather_rows")->bytes == 4.0 * (2 * 3 * 8 + 3)); // three rows of the table, not six
    assert_true(find(&p, "zero_rows")->bytes == 4.0 * (3 * 8 + 3));
    const ProfileRow total = profile_total(&p);
    assert_int_equal(total.calls, 6);
    assert_true(total.flops == 2.0 * 8 * 10 * (6 + 2 + 6 + 6));
    assert_true(total.wall > 0 && forward->wall > 0 && forward->wall < total.wall);
    profile_sort(&p);
    for (size_t i = 1; i < p.count; i++) assert_true(p.rows[i - 1].wall >= p.rows[i].wall);
    Tensor all[] = {x, w, y, rows, picked};
    for (size_t i = 0; i < 5; i++) free(all[i].data);
}

// Queries of 2 sequences of 5 positions, 2 heads of 4: all pairs, those of the past, those of a sample's
// past.
static void attention_counts_what_a_query_sees(void **state) {
    (void)state;
    Tensor q = values(DTYPE_F32, SHAPE(2, 5, 2, 4)), k = values(DTYPE_F32, SHAPE(2, 5, 1, 4)),
           v = values(DTYPE_F32, SHAPE(2, 5, 1, 4)), o = values(DTYPE_F32, SHAPE(2, 5, 2, 4)),
           lse = values(DTYPE_F32, SHAPE(2, 2, 5)), delta = values(DTYPE_F32, SHAPE(2, 2, 5)),
           starts = values(DTYPE_I32, SHAPE(2, 5));
    memcpy(starts.data, (int[]){0, 0, 2, 2, 2, 0, 1, 1, 1, 1}, 10 * sizeof(int));
    const struct {
        bool causal;
        Tensor starts;
        double pairs;
    } cases[] = {
        {false, TENSOR_NONE, 2 * 25},
        {true, TENSOR_NONE, 2 * 15},
        {true, starts, (3 + 6) + (1 + 10)},
    };
    for (size_t i = 0; i < 3; i++) {
        Profile p;
        profile_begin(&p, be);
        attention_forward(be, o, lse, q, k, v, TENSOR_NONE, cases[i].starts, 0.5f, cases[i].causal);
        attention_backward(be, q, k, v, delta, o, q, k, v, o, lse, TENSOR_NONE, cases[i].starts, 0.5f,
                           cases[i].causal);
        profile_end(&p);
        assert_true(find(&p, "attention_forward")->flops == 4 * 8 * cases[i].pairs);
        assert_true(find(&p, "attention_backward")->flops == 10 * 8 * cases[i].pairs);
    }
    Tensor all[] = {q, k, v, o, lse, delta, starts};
    for (size_t i = 0; i < 7; i++) free(all[i].data);
}

static int open_backend(void **state) {
    (void)state;
    Error err;
    return backend_cpu_create(&be, 1, &err) ? 0 : -1;
}
static int close_backend(void **state) {
    (void)state;
    backend_destroy(be);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(calls_and_work_add_up),
        cmocka_unit_test(attention_counts_what_a_query_sees),
    };
    return cmocka_run_group_tests(tests, open_backend, close_backend);
}
