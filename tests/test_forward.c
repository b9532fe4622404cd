// LINK: format
// LABELS: parity
// RUNS: vlm
// `vlm forward` against nanoVLM's logits for the reference checkpoints, llama.cpp's for a GGUF file, and what
// it says about inputs that do not fit.
#include "base/memory.h"
#include "support/program.h"
#include "support/reference.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const double forward_limit = 1e-5; // as in test_model.c

static void compare_file(const char *written, const char *reference, const char *tensor, const char *as,
                         double limit) {
    Safetensors *ours, *theirs;
    Error err;
    if (!safetensors_open(&ours, written, &err) || !safetensors_open(&theirs, reference, &err))
        fail_msg("%s", err.text);
    float *x = reference_f32(ours, tensor), *ref = reference_f32(theirs, as);
    if (!x || !ref) fail_msg("%s or %s lacks %s", written, reference, tensor);
    const size_t n = safetensors_find(theirs, as)->count;
    assert_int_equal(safetensors_find(ours, tensor)->count, n);
    expect_within("forward command, relative", relative_l2(x, ref, n), limit, "%s %s", reference, tensor);
    free(x);
    free(ref);
    safetensors_close(ours);
    safetensors_close(theirs);
}

static long long image_token(const char *name) {
    json_t *meta = reference_json("model/%s/meta.json", name);
    const long long id = json_integer_value(json_object_get(meta, "image_token_id"));
    json_decref(meta);
    return id;
}

static void test_reference_models(void **state) {
    (void)state;
    char *out = program_temporary("forward.safetensors");
    StringList cases = golden_cases("model", "forward.safetensors");
    size_t compared = 0;
    for (size_t i = 0; i < cases.count; i++) {
        char *folder = golden_path("model/%s", cases.items[i]);
        char *reference = golden_path("model/%s/forward.safetensors", cases.items[i]);
        Safetensors *st = reference_open("model/%s/forward.safetensors", cases.items[i]);
        const bool whole = safetensors_find(st, "logits") != NULL;
        safetensors_close(st);
        char *line = mem_printf("forward --checkpoint %s --inputs %s/batch.safetensors --out %s --hidden "
                                "--threads 1 --image_token_id %lld",
                                folder, folder, out, whole ? image_token(cases.items[i]) : 0);
        if (whole) {
            program_expect(line, 0, "", "");
            compare_file(out, reference, "logits", "logits", forward_limit);
            compare_file(out, reference, "hidden", "decoder.norm", forward_limit);
            compared++;
        }
        free(line);
        free(folder);
        free(reference);
    }
    assert_true(compared > 0);
    string_list_free(&cases);
    unlink(out);
    free(out);
}

// A random Llama and llama.cpp's logits of it; tests/golden/interop/make_llama.py made both.
static void test_llama_cpp(void **state) {
    (void)state;
    const char *reference = "tests/golden/interop/llama.safetensors";
    char *out = program_temporary("forward.safetensors");
    char *line =
        mem_printf("forward --checkpoint tests/golden/interop/tiny.gguf --inputs %s --out %s --threads 1",
                   reference, out);
    program_expect(line, 0, "", "");
    compare_file(out, reference, "logits", "logits", forward_limit);
    unlink(out);
    free(line);
    free(out);
}

static bool no_values(void *context, size_t i, void *dst) {
    const SafetensorsSpec *specs = context;
    size_t n = 1;
    for (int d = 0; d < specs[i].ndim; d++) n *= specs[i].shape[d];
    memset(dst, 0x7f, n * dtype_size(specs[i].dtype));
    return true;
}

static void expect_refused(const SafetensorsSpec *specs, size_t n, const char *why) {
    char *in = program_temporary("inputs.safetensors"), *out = program_temporary("outputs.safetensors");
    char *folder = golden_path("model/a_base");
    Error err;
    if (!safetensors_write(in, specs, n, NULL, 0, no_values, (void *)specs, &err)) fail_msg("%s", err.text);
    char *line =
        mem_printf("forward --checkpoint %s --inputs %s --out %s --image_token_id 276", folder, in, out);
    program_expect(line, 1, "", why);
    assert_false(file_exists(out));
    unlink(in);
    free(line);
    free(folder);
    free(in);
    free(out);
}

#define REFUSED(why, ...)                                                                                    \
    expect_refused((const SafetensorsSpec[]){__VA_ARGS__},                                                   \
                   sizeof((const SafetensorsSpec[]){__VA_ARGS__}) / sizeof(SafetensorsSpec), why)

static void test_wrong_inputs(void **state) {
    (void)state;
    const SafetensorsSpec ids = {"input_ids", DTYPE_I32, 2, {1, 4}};
    REFUSED("outside lm_vocab_size 290", ids);
    REFUSED("input_ids is missing or empty", {"other", DTYPE_I32, 2, {1, 4}});
    REFUSED("input_ids is missing or empty", {"input_ids", DTYPE_I32, 2, {1, 0}});
    REFUSED("input_ids is a F32 tensor of 2 dimensions", {"input_ids", DTYPE_F32, 2, {1, 4}});
    REFUSED("input_ids is a I32 tensor of 1 dimensions", {"input_ids", DTYPE_I32, 1, {4}});
    REFUSED("which is no token", {"input_ids", DTYPE_I64, 2, {1, 4}});
    REFUSED("attention_mask is [1, 3], input_ids [1, 4]", ids, {"attention_mask", DTYPE_I32, 2, {1, 3}});
    REFUSED("images does not have the shape [I, 3, 16, 16]", ids, {"images", DTYPE_F32, 4, {1, 3, 16, 8}});
    REFUSED("expected F32, BF16, F16 or F64", ids, {"images", DTYPE_I32, 4, {1, 3, 16, 16}});
}

static void test_wrong_flags(void **state) {
    (void)state;
    program_expect("forward", 2, "", "--checkpoint: not given");
    program_expect("forward --checkpoint a --out b", 2, "", "--inputs: not given");
    program_expect("forward --checkpoint /none --inputs a --out b", 1, "", "/none: no such file or folder");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reference_models),
        cmocka_unit_test(test_llama_cpp),
        cmocka_unit_test(test_wrong_inputs),
        cmocka_unit_test(test_wrong_flags),
    };
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    print_worst_shares();
    return failed;
}
