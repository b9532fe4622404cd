// LINK: train
// RUNS: vlm
// `vlm train --profile`: the parts of the run add up to the whole, the operators to forward, backward and
// update, and the numbers of the run are those without it.
#include "support/golden.h"
#include "support/small_run.h"

#include "base/memory.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static ProgramResult train(const char *run, const char *more, int status) {
    char *flags = mem_printf("--val_size 30 --eval_interval 2 --max_training_steps 6 %s", more),
         *line = small_run_line(run, flags);
    ProgramResult r = program_run(line);
    if (r.status != status) fail_msg("vlm %s: status %d\n%s", line, r.status, r.err);
    free(line);
    free(flags);
    return r;
}

static double number(const json_t *object, const char *key) {
    const json_t *value = json_object_get(object, key);
    if (!json_is_number(value)) fail_msg("no number %s", key);
    return json_number_value(value);
}

static double losses(const char *run) { // their sum, to be compared to the bit
    char *path = small_run_file(run, "log.jsonl"), *text = program_read_text(path), *rest = text;
    double sum = 0;
    for (char *line = strtok_r(rest, "\n", &rest); line; line = strtok_r(rest, "\n", &rest)) {
        json_t *object = json_loads(line, 0, NULL);
        if (json_object_get(object, "batch_loss")) sum += number(object, "batch_loss");
        if (json_object_get(object, "val_loss")) sum += number(object, "val_loss");
        json_decref(object);
    }
    free(text);
    free(path);
    return sum;
}

static void check_parts(const json_t *profile) {
    static const char *const parts[] = {"waiting for data", "forward and backward", "update", "validation",
                                        "checkpoints"};
    const json_t *seconds = json_object_get(profile, "seconds");
    double sum = number(seconds, "the rest") + number(seconds, "keeping features");
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        assert_true(number(seconds, parts[i]) > 0);
        sum += number(seconds, parts[i]);
    }
    assert_true(fabs(sum / number(seconds, "all") - 1) < 1e-9);
    assert_true(number(seconds, "the rest") >= 0);
}

// Twelve batches; what validation computes is not among them. The operators' share of forward, backward and
// update.
static double check_operators(const json_t *profile) {
    const json_t *seconds = json_object_get(profile, "seconds"), *row;
    double sum = 0, calls = 0;
    size_t i;
    json_array_foreach(json_object_get(profile, "operators"), i, row) {
        sum += number(row, "wall") * 12;
        assert_true(number(row, "bound") > 0);
        if (!strcmp(json_string_value(json_object_get(row, "name")), "cross_entropy"))
            calls = number(row, "calls");
    }
    const double whole = number(seconds, "forward and backward") + number(seconds, "update");
    assert_true(calls == 1 && sum <= whole * (1 + 1e-9));
    return sum / whole;
}

static double check_profile(const char *run) { // the operators' share
    char *path = small_run_file(run, "profile.json");
    json_t *profile = json_load_file(path, 0, NULL);
    assert_non_null(profile);
    assert_true(number(profile, "batches") == 12 && number(profile, "updates") == 6);
    check_parts(profile);
    const double share = check_operators(profile);
    json_decref(profile);
    free(path);
    return share;
}

static void tells_where_the_time_went(void **state) {
    (void)state;
    ProgramResult r = train("profiled", "--profile", 0);
    static const char *const said[] = {"waiting for data",     "checkpoints", "linear_forward", "adamw",
                                       "outside of operators", "12 batches"};
    for (size_t i = 0; i < sizeof said / sizeof *said; i++)
        if (!strstr(r.out, said[i])) fail_msg("no %s in: %s", said[i], r.out);
    assert_non_null(strstr(r.err, "threads: 1 for operators (as given; "));
    program_result_free(&r);
    double share = check_profile("profiled");
    // On a busy machine other programs' turns may fall between operators: then again.
    for (int i = 0; share <= 0.3 && i < 4; i++) {
        char *run = mem_printf("again%d", i);
        ProgramResult again = train(run, "--profile", 0);
        share = check_profile(run);
        program_result_free(&again);
        free(run);
    }
    assert_true(share > 0.3);
}

static void changes_nothing_and_is_off_by_default(void **state) {
    (void)state;
    ProgramResult r = train("plain", "", 0);
    char *path = small_run_file("plain", "profile.json");
    assert_true(losses("plain") == losses("profiled") && losses("plain") > 0);
    assert_string_equal(r.out, "");
    assert_false(file_exists(path));
    program_result_free(&r);
    free(path);
}

static void two_watchers_are_refused(void **state) {
    (void)state;
    ProgramResult r = train("both", "--profile --detect_anomaly", 2);
    assert_non_null(strstr(r.err, "profile and detect_anomaly cannot both watch"));
    program_result_free(&r);
}

static int set_up(void **state) {
    (void)state;
    return make_small_run_data(150);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tells_where_the_time_went),
        cmocka_unit_test(changes_nothing_and_is_off_by_default),
        cmocka_unit_test(two_watchers_are_refused),
    };
    return cmocka_run_group_tests(tests, set_up, remove_test_folder);
}
