// LINK: format
// safetensors: files of the real library are written again to the same bytes; what is damaged is refused.
#include "support/folders.h"
#include "support/golden.h"
#include "base/memory.h"
#include "format/safetensors.h"

#include <ftw.h>
#include <jansson.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static bool fill_from_file(void *context, size_t i, void *dst) {
    const SafetensorsEntry *e = safetensors_entry(context, i);
    if (e->bytes) memcpy(dst, e->data, e->bytes);
    return true;
}

static bool fill_never(void *context, size_t i, void *dst) {
    (void)context, (void)i, (void)dst;
    return false;
}

static void assert_same_file(const char *path, const char *expected) {
    Error err;
    char *a, *b;
    size_t na, nb;
    if (!file_read(&a, &na, path, &err) || !file_read(&b, &nb, expected, &err)) fail_msg("%s", err.text);
    if (na != nb || memcmp(a, b, na)) fail_msg("%s: written again it is another file", expected);
    free(a);
    free(b);
}

// The pairs of __metadata__, read by hand, because the reader only looks keys up.
static size_t metadata_pairs(const char *(**pairs)[2], json_t **header, const char *path) {
    Error err;
    char *bytes;
    size_t size, n = 0;
    if (!file_read(&bytes, &size, path, &err)) fail_msg("%s", err.text);
    uint64_t length;
    memcpy(&length, bytes, 8);
    *header = json_loadb(bytes + 8, length, 0, NULL);
    json_t *metadata = json_object_get(*header, "__metadata__"), *value;
    *pairs = mem_zeroed(json_object_size(metadata) + 1, sizeof **pairs);
    const char *key;
    json_object_foreach(metadata, key, value)(*pairs)[n][0] = key,
                                       (*pairs)[n++][1] = json_string_value(value);
    free(bytes);
    return n;
}

static void write_again(const char *path, const char *copy) {
    Error err;
    Safetensors *st;
    if (!safetensors_open(&st, path, &err)) fail_msg("%s", err.text);
    size_t n = safetensors_count(st);
    SafetensorsSpec *specs = mem_zeroed(n + 1, sizeof *specs);
    for (size_t i = 0; i < n; i++) {
        const SafetensorsEntry *e = safetensors_entry(st, i);
        specs[i] = (SafetensorsSpec){e->name, e->dtype, e->ndim, {0}};
        memcpy(specs[i].shape, e->shape, sizeof e->shape);
        assert_ptr_equal(safetensors_find(st, e->name), e);
    }
    const char *(*pairs)[2];
    json_t *header;
    size_t n_pairs = metadata_pairs(&pairs, &header, path);
    for (size_t i = 0; i < n_pairs; i++)
        assert_string_equal(safetensors_metadata(st, pairs[i][0]), pairs[i][1]);
    bool ok =
        safetensors_write(copy, specs, n, (const char *const(*)[2])pairs, n_pairs, fill_from_file, st, &err);
    if (!ok) fail_msg("%s", err.text);
    free(specs);
    free(pairs);
    json_decref(header);
    safetensors_close(st);
}

static size_t files_written_again;

static int visit(const char *path, const struct stat *s, int kind, struct FTW *walk) {
    (void)s, (void)walk;
    const char *dot = strrchr(path, '.');
    if (kind != FTW_F || !dot || strcmp(dot, ".safetensors")) return 0;
    char *copy = path_join(test_folder, "copy");
    write_again(path, copy);
    assert_same_file(copy, path);
    free(copy);
    files_written_again++;
    return 0;
}

static void test_same_bytes_as_the_library(void **state) {
    (void)state;
    assert_int_equal(nftw(golden_root(), visit, 8, FTW_PHYS), 0);
    printf("%zu files written again to the same bytes\n", files_written_again);
    assert_true(files_written_again > 0);
}

// Writes length + header + data bytes and returns whether it opens; err holds the message.
static bool opens_with_length(size_t length, const char *header, size_t data, Error *err) {
    char *path = path_join(test_folder, "small"), *bytes = mem_zeroed(1, 8 + strlen(header) + data + 1);
    memcpy(bytes, &(uint64_t){length}, 8);
    memcpy(bytes + 8, header, strlen(header));
    Error written;
    if (!file_write_text(path, bytes, 8 + strlen(header) + data, &written)) fail_msg("%s", written.text);
    Safetensors *st;
    err->text[0] = '\0';
    bool ok = safetensors_open(&st, path, err);
    safetensors_close(st);
    free(bytes);
    free(path);
    return ok;
}

static bool opens(const char *header, size_t data, Error *err) {
    return opens_with_length(strlen(header), header, data, err);
}

#define ENTRY(name, dtype, shape, a, b)                                                                      \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" #a "," #b "]}"

static void test_what_is_accepted(void **state) {
    (void)state;
    Error err;
    assert_true(opens("{}", 0, &err));
    assert_true(opens("{}      ", 0, &err));
    assert_true(opens("{" ENTRY("s", "F32", "[]", 0, 4) "}", 4, &err));
    assert_true(
        opens("{" ENTRY("empty", "F32", "[0,5]", 4, 4) "," ENTRY("s", "F32", "[1]", 0, 4) "}", 4, &err));
    assert_true(opens("{" ENTRY("b", "BF16", "[2,1]", 4, 8) "," ENTRY("a", "U8", "[4]", 0, 4) "}", 8, &err));
}

static const struct {
    const char *header;
    size_t data;
    const char *message; // a part of the error
} refused[] = {
    {"", 0, "does not begin with '{'"},
    {"[]", 0, "does not begin with '{'"},
    {" {}", 0, "does not begin with '{'"},
    {"{", 0, "not valid JSON"},
    {"{}x", 0, "not valid JSON"},
    {"{}", 1, "1 bytes follow the last tensor"},
    {"{\"a\":1}", 0, "tensor a: expected a map"},
    {"{\"a\":{}}", 0, "tensor a: expected a map"},
    {"{\"__metadata__\":[]}", 0, "not a map of strings"},
    {"{\"__metadata__\":{\"k\":1}}", 0, "'k' is not a string"},
    {"{" ENTRY("a", "F31", "[1]", 0, 4) "}", 4, "dtype 'F31' is not supported"},
    {"{" ENTRY("a", "F32", "1", 0, 4) "}", 4, "shape is not a list"},
    {"{" ENTRY("a", "F32", "[-1]", 0, 4) "}", 4, "shape[0] is not a non-negative integer"},
    {"{" ENTRY("a", "F32", "[1.0]", 0, 4) "}", 4, "shape[0] is not a non-negative integer"},
    {"{" ENTRY("a", "F32", "[1,1,1,1,1,1,1,1,1]", 0, 4) "}", 4, "9 dimensions"},
    {"{" ENTRY("a", "F32", "[4611686018427387904,4]", 0, 4) "}", 4, "overflows"},
    {"{" ENTRY("a", "F32", "[4611686018427387904]", 0, 0) "}", 0, "overflows"},
    {"{" ENTRY("a", "F32", "[1]", 0, 8) "}", 4, "[0, 8] lie outside the 4 bytes"},
    {"{" ENTRY("a", "F32", "[1]", -4, 0) "}", 4, "lie outside"},
    {"{" ENTRY("a", "F32", "[1]", 4, 0) "}", 4, "lie outside"},
    {"{" ENTRY("a", "F32", "[2]", 0, 4) "}", 4, "hold 4 bytes"},
    {"{" ENTRY("a", "F32", "[1]", 0, 9223372036854775808) "}", 4, "not valid JSON"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", 4, "not a list of two integers"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],\"x\":1}}", 4, "expected a map"},
    {"{" ENTRY("a", "U8", "[1]", 0, 1) "," ENTRY("a", "U8", "[1]", 1, 2) "}", 2, "not valid JSON: duplicate"},
    {"{" ENTRY("a", "U8", "[2]", 0, 2) "," ENTRY("b", "U8", "[2]", 1, 3) "}", 3, "overlapping"},
    {"{" ENTRY("a", "U8", "[1]", 0, 1) "," ENTRY("b", "U8", "[1]", 2, 3) "}", 3, "leaving a hole"},
    {"{" ENTRY("a", "U8", "[1]", 1, 2) "}", 2, "leaving a hole"},
};

static void test_what_is_refused(void **state) {
    (void)state;
    Error err;
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        if (opens(refused[i].header, refused[i].data, &err)) fail_msg("accepted: %s", refused[i].header);
        if (!strstr(err.text, refused[i].message))
            fail_msg("%s: message is: %s", refused[i].header, err.text);
    }
    assert_false(opens_with_length(3, "{}", 0, &err));
    assert_non_null(strstr(err.text, "truncated"));
    static const uint64_t lengths[] = {100000001, (uint64_t)1 << 60, UINT64_MAX - 7, UINT64_MAX};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        assert_false(opens_with_length(lengths[i], "{}", 0, &err));
        assert_non_null(strstr(err.text, "over the limit"));
    }
    Safetensors *st;
    assert_false(safetensors_open(&st, "/nowhere/at/all", &err));
    assert_null(st);
}

static bool fill_bytes(void *context, size_t i, void *dst) {
    const struct {
        const void *bytes;
        size_t size;
    } *values = context;
    memcpy(dst, values[i].bytes, values[i].size);
    return true;
}

static void test_conversion(void **state) {
    (void)state;
    uint16_t bf16[] = {0x3f80, 0xc0a0, 0x0000},
             f16[] = {0x3c00, 0xc500, 0x0001, 0x8000, 0x7bff, 0xfc00, 0x0400};
    double f64[] = {1.5, -0.1};
    struct {
        const void *bytes;
        size_t size;
    } values[] = {{bf16, sizeof bf16}, {f16, sizeof f16}, {f64, sizeof f64}, {"\1\2", 2}};
    SafetensorsSpec specs[] = {{"b", DTYPE_BF16, 1, {3}},
                               {"h", DTYPE_F16, 1, {7}},
                               {"d", DTYPE_F64, 1, {2}},
                               {"u", DTYPE_U8, 2, {1, 2}}};
    char *path = path_join(test_folder, "kinds");
    Error err;
    Safetensors *st;
    assert_true(safetensors_write(path, specs, 4, NULL, 0, fill_bytes, values, &err));
    assert_true(safetensors_open(&st, path, &err));
    assert_null(safetensors_metadata(st, "format"));
    assert_null(safetensors_find(st, "c"));
    assert_string_equal(safetensors_entry(st, 0)->name, "d"); // the widest first
    float x[7], b[] = {1, -5, 0}, h[] = {1, -5, 0x1p-24f, -0.0f, 65504, -INFINITY, 0x1p-14f},
                d[] = {1.5f, -0.1f};
    assert_true(safetensors_to_f32(x, safetensors_find(st, "b"), &err));
    assert_memory_equal(x, b, sizeof b);
    assert_true(safetensors_to_f32(x, safetensors_find(st, "h"), &err));
    assert_memory_equal(x, h, sizeof h);
    assert_true(safetensors_to_f32(x, safetensors_find(st, "d"), &err));
    assert_memory_equal(x, d, sizeof d);
    assert_false(safetensors_to_f32(x, safetensors_find(st, "u"), &err));
    assert_non_null(strstr(err.text, "dtype U8"));
    safetensors_close(st);
    free(path);
}

// A file size limit stands for the full disk: the write must fail, and the file that stood there must stay.
static int write_under_limit(const char *path) {
    Error err;
    SafetensorsSpec spec = {"big", DTYPE_F32, 1, {1 << 20}};
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &(struct rlimit){1 << 16, 1 << 16});
    char *zeros = mem_zeroed(1 << 20, 4);
    struct {
        const void *bytes;
        size_t size;
    } values = {zeros, 4 << 20};
    bool ok = safetensors_write(path, &spec, 1, NULL, 0, fill_bytes, &values, &err);
    free(zeros);
    return !ok && strstr(err.text, "File too large") ? 0 : 1;
}

static void expect_untouched(const char *path) {
    Error err;
    char *bytes, *temporary = mem_printf("%s.tmp", path);
    size_t size;
    assert_true(file_read(&bytes, &size, path, &err));
    assert_string_equal(bytes, "old");
    assert_false(file_exists(temporary));
    free(bytes);
    free(temporary);
}

static void test_failed_write_leaves_the_old_file(void **state) {
    (void)state;
    Error err;
    char *path = path_join(test_folder, "model");
    assert_true(file_write_text(path, "old", 3, &err));
    pid_t child = fork();
    if (child == 0) _exit(write_under_limit(path));
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    expect_untouched(path);
    SafetensorsSpec spec = {"a", DTYPE_F32, 0, {0}};
    assert_false(safetensors_write(path, &spec, 1, NULL, 0, fill_never, NULL, &err));
    assert_non_null(strstr(err.text, "tensor a"));
    expect_untouched(path);
    const char *const bad[][2] = {{"k", "\xff"}};
    assert_false(safetensors_write(path, &spec, 1, bad, 1, fill_never, NULL, &err));
    assert_non_null(strstr(err.text, "not UTF-8"));
    assert_false(safetensors_write("/nowhere/file", &spec, 1, NULL, 0, fill_never, NULL, &err));
    free(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_bytes_as_the_library),
        cmocka_unit_test(test_what_is_accepted),
        cmocka_unit_test(test_what_is_refused),
        cmocka_unit_test(test_conversion),
        cmocka_unit_test(test_failed_write_leaves_the_old_file),
    };
    return cmocka_run_group_tests(tests, make_test_folder, remove_test_folder);
}
