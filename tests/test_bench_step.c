// LINK: config
// RUNS: vlm
// COST: 19
// `vlm bench step`: what it counts against a count by hand, that the operators' work is the step's, and what
// it refuses.
#include "support/golden.h"
#include "support/program.h"

#include "base/memory.h"

#include <jansson.h>
#include <math.h>
#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

static double number(const json_t *object, const char *key) {
    const json_t *value = json_object_get(object, key);
    if (!json_is_number(value)) fail_msg("%s is no number", key);
    return json_number_value(value);
}

static json_t *run(const char *flags) {
    char *line = mem_printf("bench step --preset tiny --threads 1 --ceiling 0 --json %s", flags);
    ProgramResult r = program_run(line);
    json_t *object = json_loads(r.out, 0, NULL);
    if (r.status || !object) fail_msg("vlm %s: status %d\n%s\n%s", line, r.status, r.out, r.err);
    program_result_free(&r);
    free(line);
    return object;
}

// tiny with 1 sequence of 32 tokens, 1 tile, 16 targets, by hand, each product as 2 M K O:
static const double patches = 2 * 2.0 * 64 * 192 * 128; // forward and the weight's gradient
static const double vision_block = 3 * 2.0 * 64 * (128 * 384 + 128 * 128 + 2 * 128 * 512) // 4 of these
                                   + 14.0 * 128 * 64 * 64;
static const double projector = 3 * 2.0 * 16 * 512 * 192;
static const double decoder_block =
    3 * 2.0 * 32 * (2 * 192 * 192 + 2 * 192 * 64 + 3 * 192 * 512) // 6 of these
    + 14.0 * 192 * (32 * 33 / 2);
static const double head = 3 * 2.0 * 16 * 192 * 386;

static double gflop_of_operators(const json_t *r) {
    const json_t *row;
    double sum = 0;
    size_t at;
    json_array_foreach(json_object_get(r, "operators"), at, row) sum += number(row, "gflop");
    return sum;
}

static void work_is_what_a_hand_counts(void **state) {
    (void)state;
    static const char *const dtypes[] = {"f32", "bf16"};
    const double expected = patches + 4 * vision_block + projector + 6 * decoder_block + head;
    assert_true(expected == 815693824.0);
    for (size_t i = 0; i < COUNT(dtypes); i++) {
        char *flags = mem_printf("--seq 32 --tiles 1 --targets 0.5 --steps 2 --dtype %s", dtypes[i]);
        json_t *r = run(flags), *row;
        double share = 0;
        size_t at;
        json_array_foreach(json_object_get(r, "operators"), at, row) {
            share += number(row, "share");
            assert_true(number(row, "calls") > 0 && number(row, "bound") > 0);
        }
        assert_true(fabs(number(r, "gflop") * 1e9 - expected) < 1);
        assert_true(fabs(gflop_of_operators(r) * 1e9 - expected) < 1);
        assert_true(share > 0 && share <= 1);
        json_decref(r);
        free(flags);
    }
}

// Rank 2 on all linear layers: their matrices are frozen, adapters and the projector are trained. The
// operators make x Aᵀ again, which does not count.
static void work_of_adapters_is_what_a_hand_counts(void **state) {
    (void)state;
    const double vision = 2 * 2.0 * 64 * (128 * 384 + 128 * 128 + 2 * 128 * 512) +
                          3 * 2.0 * 64 * 2 * (128 + 384 + 128 + 128 + 2 * (128 + 512)) + 14.0 * 128 * 64 * 64;
    const double decoder = 2 * 2.0 * 32 * (2 * 192 * 192 + 2 * 192 * 64 + 3 * 192 * 512) +
                           3 * 2.0 * 32 * 2 * (2 * (192 + 192) + 2 * (192 + 64) + 3 * (192 + 512)) +
                           14.0 * 192 * (32 * 33 / 2);
    const double expected = patches / 2 + 4 * vision + projector + 6 * decoder + head * 2 / 3;
    const double again = 4 * 2.0 * 64 * 2 * (3 * 128 + 512) + 6 * 2.0 * 32 * 2 * (6 * 192 + 512);
    json_t *r = run("--seq 32 --tiles 1 --targets 0.5 --steps 1 --lora_rank 2");
    assert_true(fabs(number(r, "gflop") * 1e9 - expected) < 1);
    assert_true(fabs(gflop_of_operators(r) * 1e9 - expected - again) < 1);
    assert_true(number(r, "trained") == 512 * 192 + 2 * (4 * 2048 + 6 * 3392));
    json_decref(r);
}

static void what_is_frozen_has_no_work(void **state) {
    (void)state;
    const double vision = 2.0 * 64 * (128 * 384 + 128 * 128 + 2 * 128 * 512) + 4.0 * 128 * 64 * 64;
    const double expected = patches / 2 + 4 * vision + projector * 2 / 3 + 6 * decoder_block + head;
    json_t *r = run("--seq 32 --tiles 1 --targets 0.5 --steps 1 --freeze vision_encoder.*");
    assert_true(fabs(number(r, "gflop") * 1e9 - expected) < 1);
    assert_true(fabs(gflop_of_operators(r) * 1e9 - expected) < 1);
    json_decref(r);
}

static void all_fields_are_there(void **state) {
    (void)state;
    static const char *const positive[] = {
        "first",      "step_min",     "step_median", "step_cpu_min",   "optimizer",
        "start_up",   "tokens_per_s", "gflops",      "ceiling_gflops", "ceiling_share",
        "memory_gbs", "peak_rss_mb",  "loss",
    };
    json_t *r = run("--batch 2 --seq 64 --tiles 2 --steps 3 --profile 0");
    for (size_t i = 0; i < COUNT(positive); i++)
        if (!(number(r, positive[i]) > 0)) fail_msg("%s is %g", positive[i], number(r, positive[i]));
    assert_true(number(r, "params") == 3360448 && number(r, "trained") == 3360448);
    assert_true(number(r, "batch") == 2 && number(r, "seq") == 64 && number(r, "tiles") == 4);
    assert_true(number(r, "targets") == 2 * 19); // 0.3 of 64, rounded down
    assert_true(number(r, "step_median") >= number(r, "step_min"));
    assert_int_equal(json_array_size(json_object_get(r, "operators")), 0);
    json_decref(r);
}

static void people_get_a_table(void **state) {
    (void)state;
    program_expect("bench step --preset tiny --seq 32 --tiles 0 --steps 1 --threads 1 --ceiling 0", 0,
                   "outside of operators", "");
}

// Sanitizers have memory of their own, which grows with what libraries do while it is looked at.
#ifdef __SANITIZE_ADDRESS__
enum { SANITIZED = true };
#else
enum { SANITIZED = false };
#endif

// What a run takes, as the kernel counted, beside what the plans say without running; also by `vlm memory`,
// which holds more on the host.
static void memory_is_known_before(void **state) {
    (void)state;
    static const char *const kinds[] = {"--dtype f32", "--dtype bf16",
                                        "--dtype bf16 --lora_rank 16 --lora_targets q_proj,v_proj"};
    for (size_t i = 0; i < COUNT(kinds); i++) {
        char *flags = mem_printf("--batch 4 --seq 512 --tiles 4 --steps 1 --profile 0 %s", kinds[i]);
        json_t *r = run(flags);
        const double peak = number(r, "peak_rss_mb"), planned = number(r, "planned_rss_mb");
        if (SANITIZED)
            assert_true(planned < peak);
        else if (fabs(planned - peak) > 0.02 * peak)
            fail_msg("%s: %g MiB, planned %g", kinds[i], peak, planned);
        char *line = mem_printf("memory --preset tiny --lm_base_vocab_size 320 --lm_vocab_size "
                                "386 --batch_size 4 --prefetch_factor 1 --val_size 0 --tiles 4 "
                                "--targets 0.3 --attention full --json %s",
                                kinds[i]);
        ProgramResult m = program_run(line);
        free(line);
        json_t *plan = json_loads(m.out, 0, NULL);
        if (m.status || !plan) fail_msg("status %d\n%s\n%s", m.status, m.out, m.err);
        // two batches instead of one, copies for a checkpoint in the background, and room for more tiles
        const double extra = number(plan, "batches") / 2 + number(plan, "checkpoint") + number(plan, "pages");
        const double difference = number(plan, "total") - extra - planned;
        if (!SANITIZED && fabs(difference) > 2)
            fail_msg("%s: vlm memory differs by %g MiB", kinds[i], difference);
        program_result_free(&m);
        json_decref(plan);
        json_decref(r);
        free(flags);
    }
}

static void what_makes_no_step_is_refused(void **state) {
    (void)state;
    static const struct {
        const char *flags, *err;
    } cases[] = {
        {"--steps 0", "--steps: found \"0\""},
        {"--seq 32 --tiles 2", "2 tiles of 16 tokens and 3 before them do not fit into --seq 32"},
        {"--targets 0", "no target"},
        {"--seq 2 --tiles 0", "no target"},
        {"--dtype f16", "--dtype"},
        {"--preset huge", "--preset"},
        {"--nonsense 1", "--nonsense"},
        {"--lora_rank 5000", "--lora_rank"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        const bool preset = strstr(cases[i].flags, "--preset") != NULL;
        char *line = mem_printf("bench step%s %s", preset ? "" : " --preset tiny", cases[i].flags);
        program_expect(line, 2, "", cases[i].err);
        free(line);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(work_is_what_a_hand_counts),
        cmocka_unit_test(work_of_adapters_is_what_a_hand_counts),
        cmocka_unit_test(what_is_frozen_has_no_work),
        cmocka_unit_test(all_fields_are_there),
        cmocka_unit_test(people_get_a_table),
        cmocka_unit_test(memory_is_known_before),
        cmocka_unit_test(what_makes_no_step_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
