// LINK: tensor ops_cpu base
// The guard backend keeps its promise, and a call with wrong tensors never reaches a kernel.
#include "support/golden.h"
#include "support/guard_backend.h"

#include "tensor/ops.h"

#include <math.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct Fixture {
    Backend *be;
    Arena arena;
    Tensor x, w, y; // [4, 6], [5, 6], [4, 5]
} Fixture;

static void plan(Fixture *f) {
    f->x = arena_take(&f->arena, DTYPE_F32, SHAPE(4, 6));
    f->w = arena_take(&f->arena, DTYPE_F32, SHAPE(5, 6));
    f->y = arena_take(&f->arena, DTYPE_F32, SHAPE(4, 5));
}

static Fixture start(void) {
    Error err;
    Fixture f = {0};
    if (!backend_guard_create(&f.be, &err)) fail_msg("%s", err.text);
    f.arena = arena_measure(f.be, "test");
    plan(&f);
    assert_true(arena_commit(&f.arena, &err));
    plan(&f);
    return f;
}

static void finish(Fixture *f) {
    arena_release(&f->arena);
    backend_destroy(f->be);
}

static void test_closed_outside_operators(void **state) {
    (void)state;
    Fixture f = start();
    float x[24], back[20];
    for (int i = 0; i < 24; i++) x[i] = (float)i;
    assert_true(read_faults(f.x.data));
    tensor_upload(f.be, STREAM_COMPUTE, f.x, x);
    assert_true(read_faults(f.x.data));
    fill(f.be, f.w, 0.5f);
    linear_forward(f.be, f.y, f.x, f.w, TENSOR_NONE);
    assert_true(read_faults(f.x.data) && read_faults(f.w.data) && write_faults(f.y.data));
    tensor_download(f.be, STREAM_COMPUTE, back, f.y);
    assert_true(read_faults(f.y.data));
    for (int i = 0; i < 20; i++) assert_true(back[i] == 0.5f * (float)(6 * 6 * (i / 5) + 15));
    finish(&f);
}

static void test_open_inside(void **state) {
    (void)state;
    Fixture f = start();
    const Tensor tensors[] = {f.y, f.x, TENSOR_NONE, f.y}; // y is read as well: it must stay writable
    const OpCall call = {.name = "test", .tensors = tensors, .writes = 1, .count = 4};
    f.be->op_enter(f.be, &call);
    assert_false(read_faults(f.y.data));
    assert_false(write_faults(f.y.data));
    assert_false(read_faults(f.x.data));
    assert_true(write_faults(f.x.data)); // only read
    assert_true(read_faults(f.w.data));  // not passed
    f.be->op_leave(f.be, &call);
    assert_true(read_faults(f.y.data) && read_faults(f.x.data));
    finish(&f);
}

static void test_host_memory_is_open(void **state) {
    (void)state;
    Fixture f = start();
    int *host = f.be->device->host_alloc(f.be, 64);
    assert_false(write_faults(host));
    f.be->device->host_release(f.be, host, 64);
    void *event = f.be->device->event_create(f.be);
    f.be->device->event_record(f.be, event, STREAM_COMPUTE);
    f.be->device->event_wait(f.be, event, STREAM_COPY);
    f.be->device->event_destroy(f.be, event);
    finish(&f);
}

// ---- wrong calls ----

static void wrong_shape(Fixture *f) {
    linear_forward(f->be, f->y, f->w, f->x, TENSOR_NONE);
}
static void wrong_dtype(Fixture *f) {
    f->y.dtype = DTYPE_BF16;
    linear_forward(f->be, f->y, f->x, f->w, TENSOR_NONE);
}
static void wrong_bias(Fixture *f) {
    linear_forward(f->be, f->y, f->x, f->w, f->w);
}
static void strided_where_packed(Fixture *f) {
    fill(f->be, tensor_columns(f->x, 0, 3), 1);
}
static void no_memory(Fixture *f) {
    f->x.data = NULL;
    fill(f->be, f->x, 1);
}
static void half_of_a_pair(Fixture *f) {
    Tensor row = tensor_reshape(tensor_head(f->x, 1), SHAPE(6)),
           M = tensor_slice(tensor_reshape(f->y, SHAPE(20)), 0, 4);
    layer_norm_backward(f->be, f->x, TENSOR_NONE, row, TENSOR_NONE, f->x, f->x, row, M, M);
}
static void no_square(Fixture *f) {
    Tensor x = tensor_reshape(f->x, SHAPE(1, 12, 2)), y = tensor_reshape(f->x, SHAPE(1, 3, 8));
    pixel_shuffle_forward(f->be, y, x, 2);
}
static void more_queries_than_keys(Fixture *f) {
    Tensor q = tensor_reshape(f->x, SHAPE(1, 4, 1, 6)),
           k = tensor_reshape(tensor_head(f->x, 3), SHAPE(1, 3, 1, 6));
    attention_forward(f->be, q, TENSOR_NONE, q, k, k, TENSOR_NONE, TENSOR_NONE, 1, true);
}
static void attention_of_two_dtypes(Fixture *f) {
    Tensor x = tensor_reshape(f->x, SHAPE(1, 4, 1, 6)), half = x;
    half.dtype = DTYPE_BF16;
    attention_forward(f->be, x, TENSOR_NONE, half, x, x, TENSOR_NONE, TENSOR_NONE, 1, true);
}
static void attention_without_scale(Fixture *f) {
    Tensor x = tensor_reshape(f->x, SHAPE(1, 4, 1, 6));
    attention_forward(f->be, x, TENSOR_NONE, x, x, x, TENSOR_NONE, TENSOR_NONE, 0, true);
}
// Attention over 4 positions with these starts, whose memory is y's.
static void attend_from(Fixture *f, const int32_t starts[4], bool causal) {
    Tensor x = tensor_reshape(f->x, SHAPE(1, 4, 1, 6)), list = f->y;
    list.dtype = DTYPE_I32, list.shape[0] = 1, list.shape[1] = 4, list.stride[0] = 4;
    tensor_upload(f->be, STREAM_COMPUTE, list, starts);
    attention_forward(f->be, x, TENSOR_NONE, x, x, x, TENSOR_NONE, list, 1, causal);
}
static void samples_unless_causal(Fixture *f) {
    attend_from(f, (const int32_t[]){0, 0, 2, 2}, false);
}
static void start_in_another_sample(Fixture *f) {
    attend_from(f, (const int32_t[]){0, 0, 2, 1}, true);
}
static void start_in_the_future(Fixture *f) {
    attend_from(f, (const int32_t[]){0, 2, 2, 2}, true);
}
static void good_starts(Fixture *f) {
    attend_from(f, (const int32_t[]){0, 0, 2, 2}, true);
}
static void id_out_of_range(Fixture *f) {
    int32_t ids[4] = {0, 1, 5, 2}; // 5 rows
    Tensor list = tensor_reshape(tensor_head(f->y, 1), SHAPE(5));
    list.dtype = DTYPE_I32, list.shape[0] = 4;
    tensor_upload(f->be, STREAM_COMPUTE, list, ids);
    embedding_forward(f->be, f->x, f->w, list);
}

static bool aborts(void (*wrong)(Fixture *)) {
    Fixture f = start();
    pid_t child = fork();
    if (child == 0) {
        struct rlimit no_core = {0, 0};
        setrlimit(RLIMIT_CORE, &no_core);
        signal(SIGABRT, SIG_DFL);
        if (!freopen("/dev/null", "w", stderr)) _exit(1);
        wrong(&f);
        _exit(0);
    }
    int status = 0;
    assert_true(child > 0 && waitpid(child, &status, 0) == child);
    finish(&f);
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

static void test_wrong_calls_abort(void **state) {
    (void)state;
    assert_true(aborts(wrong_shape));
    assert_true(aborts(wrong_dtype));
    assert_true(aborts(wrong_bias));
    assert_true(aborts(strided_where_packed));
    assert_true(aborts(no_memory));
    assert_true(aborts(half_of_a_pair));
    assert_true(aborts(no_square));
    assert_true(aborts(more_queries_than_keys));
    assert_true(aborts(attention_of_two_dtypes));
    assert_true(aborts(attention_without_scale));
    assert_true(aborts(samples_unless_causal));
    assert_true(aborts(start_in_another_sample));
    assert_true(aborts(start_in_the_future));
    assert_false(aborts(good_starts));
    assert_true(aborts(id_out_of_range));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wrong_calls_abort), // first: its children must not inherit a used thread pool
        cmocka_unit_test(test_closed_outside_operators),
        cmocka_unit_test(test_open_inside),
        cmocka_unit_test(test_host_memory_is_open),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
