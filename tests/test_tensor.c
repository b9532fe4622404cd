// LINK: tensor ops_cpu base
// Tensors as views, arenas, the CPU backend's memory and choice of level.
#include "support/golden.h"

#include "base/memory.h"
#include "ops/cpu/cpu.h"
#include "tensor/backend.h"

#include <stdlib.h>
#include <string.h>

static Backend *new_backend(size_t threads) {
    Error err;
    Backend *be;
    if (!backend_cpu_create(&be, threads, &err)) fail_msg("%s", err.text);
    return be;
}

static void test_dtypes(void **state) {
    (void)state;
    static const struct {
        const char *name;
        size_t size;
    } expected[] = {{"F32", 4}, {"BF16", 2}, {"F16", 2}, {"F64", 8}, {"I64", 8},
                    {"I32", 4}, {"I16", 2},  {"I8", 1},  {"U8", 1},  {"BOOL", 1}};
    for (int i = 0; i < DTYPE_Q8_0; i++) {
        assert_string_equal(dtype_name((Dtype)i), expected[i].name);
        assert_int_equal(dtype_size((Dtype)i), expected[i].size);
        assert_int_equal(dtype_from_name(expected[i].name, strlen(expected[i].name)), i);
    }
    assert_int_equal(dtype_from_name("F32", 2), -1);
    assert_int_equal(dtype_from_name("f32", 3), -1);
    assert_int_equal(dtype_from_name("", 0), -1);
}

static void test_shapes(void **state) {
    (void)state;
    float x[2 * 3 * 4];
    Tensor t = tensor_at(x, DTYPE_F32, SHAPE(2, 3, 4));
    assert_int_equal(tensor_count(t), 24);
    assert_int_equal(tensor_bytes(t), 96);
    assert_int_equal(tensor_span(t), 96);
    assert_int_equal(tensor_rows(t), 6);
    assert_int_equal(tensor_cols(t), 4);
    assert_true(tensor_is_contiguous(t));
    assert_int_equal(t.stride[0], 12);
    assert_true(tensor_exists(t) && !tensor_exists(TENSOR_NONE));
    assert_true(tensor_same_shape(t, tensor_reshape(tensor_reshape(t, SHAPE(24)), SHAPE(2, 3, 4))));
    assert_false(tensor_same_shape(t, tensor_reshape(t, SHAPE(6, 4))));
    assert_int_equal(tensor_span(tensor_at(x, DTYPE_F32, SHAPE(0, 4))), 0);
}

static void test_views(void **state) {
    (void)state;
    float x[5 * 12];
    Tensor t = tensor_at(x, DTYPE_F32, SHAPE(5, 12)), middle = tensor_columns(t, 4, 4);
    assert_ptr_equal(middle.data, x + 4);
    assert_false(tensor_is_contiguous(middle));
    assert_int_equal(tensor_span(middle), (4 * 12 + 4) * sizeof(float));
    Tensor part = tensor_slice(middle, 2, 3);
    assert_ptr_equal(part.data, x + 2 * 12 + 4);
    assert_int_equal(part.shape[0], 3);
    assert_true(tensor_is_contiguous(tensor_head(middle, 1))); // one row has no distance to another
    Tensor heads = tensor_split_last(middle, 2);
    assert_int_equal(heads.ndim, 3);
    assert_int_equal(heads.shape[1], 2);
    assert_int_equal(heads.stride[0], 12);
    assert_int_equal(heads.stride[1], 2);
}

static void test_row_stride(void **state) {
    (void)state;
    float x[4 * 3 * 10];
    Tensor t = tensor_at(x, DTYPE_F32, SHAPE(4, 3, 10));
    assert_int_equal(tensor_row_stride(t), 10);
    assert_int_equal(tensor_row_stride(tensor_columns(t, 2, 5)), 10);
    assert_int_equal(tensor_row_stride(tensor_at(x, DTYPE_F32, SHAPE(7))), 7);
    Tensor uneven = t; // rows 0 and 1 of each group of three
    uneven.shape[1] = 2;
    assert_int_equal(tensor_row_stride(uneven), 0);
    Tensor first = uneven; // row 0 of each group: evenly 30 apart
    first.shape[1] = 1;
    assert_int_equal(tensor_row_stride(first), 30);
    Tensor scattered = t;
    scattered.stride[2] = 2;
    assert_int_equal(tensor_row_stride(scattered), 0);
}

static void plan(Arena *a, Tensor *t) {
    t[0] = arena_take(a, DTYPE_F32, SHAPE(3, 5));
    t[1] = arena_take(a, DTYPE_BF16, SHAPE(1));
    t[2] = arena_take(a, DTYPE_F32, SHAPE(0, 5));
    t[3] = arena_take(a, DTYPE_I32, SHAPE(100));
}

static void test_arena(void **state) {
    (void)state;
    Error err;
    Backend *be = new_backend(1);
    Tensor t[4];
    Arena a = arena_measure(be, "test");
    plan(&a, t);
    assert_null(t[0].data);
    assert_int_equal(a.used, 64 + 64 + 0 + 448);
    assert_true(arena_commit(&a, &err));
    plan(&a, t);
    assert_int_equal(a.used, a.size);
    float values[15], back[15];
    for (int i = 0; i < 15; i++) values[i] = (float)i;
    tensor_download(be, STREAM_COMPUTE, back, t[0]);
    for (int i = 0; i < 15; i++) assert_true(back[i] == 0);
    tensor_upload(be, STREAM_COPY, t[0], values);
    backend_sync(be);
    tensor_download(be, STREAM_COMPUTE, back, t[0]);
    assert_memory_equal(back, values, sizeof values);
    assert_true(tensor_read_f32(be, tensor_slice(tensor_reshape(t[0], SHAPE(15)), 7, 1)) == 7);
    for (int i = 0; i < 4; i++) assert_int_equal((uintptr_t)t[i].data % be->alignment, 0);
    arena_release(&a);
    assert_null(a.base);
    assert_true(arena_commit(&a, &err)); // nothing measured, nothing to get
    backend_destroy(be);
}

static void test_arena_too_large(void **state) {
    (void)state;
    Error err;
    Backend *be = new_backend(1);
    Arena a = arena_measure(be, "activations");
    arena_take(&a, DTYPE_F32, SHAPE((size_t)1 << 60));
    assert_false(arena_commit(&a, &err));
    assert_non_null(strstr(err.text, "activations"));
    assert_non_null(strstr(err.text, "smaller"));
    backend_destroy(be);
}

// A large block begins with a large page, so that what is touched up to the end of one takes that and no
// more.
static void test_large_blocks(void **state) {
    (void)state;
    enum { BLOCKS = 4 };
    Backend *be = new_backend(1);
    const size_t large = mem_huge_page(), bytes = 3 * large + 5000, before = mem_resident_anonymous();
    char *blocks[BLOCKS];
    for (size_t i = 0; i < BLOCKS; i++) {
        blocks[i] = be->device->alloc(be, bytes);
        assert_non_null(blocks[i]);
        assert_int_equal((uintptr_t)blocks[i] % large, 0);
        memset(blocks[i], 1, large);
    }
    const size_t taken = mem_resident_anonymous() - before;
    if (taken > BLOCKS * large + large) fail_msg("%zu bytes, %zu were touched", taken, BLOCKS * large);
    for (size_t i = 0; i < BLOCKS; i++) be->device->release(be, blocks[i], bytes);
    backend_destroy(be);
}

static void test_host_memory_and_events(void **state) {
    (void)state;
    Backend *be = new_backend(1);
    char *host = be->device->host_alloc(be, 1000);
    assert_non_null(host);
    memset(host, 1, 1000);
    be->device->host_release(be, host, 1000);
    void *event = be->device->event_create(be);
    assert_non_null(event);
    be->device->event_record(be, event, STREAM_COPY);
    be->device->event_wait(be, event, STREAM_COMPUTE);
    be->device->event_destroy(be, event);
    backend_destroy(be);
}

static void test_levels(void **state) {
    (void)state;
    Error err;
    Backend *be;
    setenv("VLM_CPU_LEVEL", "generic", 1);
    be = new_backend(3);
    assert_string_equal(cpu_level_name(be), "generic");
    assert_int_equal(cpu_threads(be), 3);
    assert_non_null(strstr(be->detail, "generic, 3 threads, oneDNN "));
    backend_destroy(be);
    setenv("VLM_CPU_LEVEL", "sse9", 1);
    assert_false(backend_cpu_create(&be, 1, &err));
    assert_null(be);
    assert_non_null(strstr(err.text, "\"sse9\""));
    assert_non_null(strstr(err.text, "avx2"));
    setenv("VLM_CPU_LEVEL", "", 1);
    be = new_backend(0);
    assert_true(cpu_threads(be) >= 1);
    if (!__builtin_cpu_supports("x86-64-v4")) {
        setenv("VLM_CPU_LEVEL", "avx512", 1);
        Backend *other;
        assert_false(backend_cpu_create(&other, 1, &err));
        assert_non_null(strstr(err.text, "avx512"));
    }
    unsetenv("VLM_CPU_LEVEL");
    backend_destroy(be);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dtypes),       cmocka_unit_test(test_shapes),
        cmocka_unit_test(test_views),        cmocka_unit_test(test_row_stride),
        cmocka_unit_test(test_arena),        cmocka_unit_test(test_arena_too_large),
        cmocka_unit_test(test_large_blocks), cmocka_unit_test(test_host_memory_and_events),
        cmocka_unit_test(test_levels),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
