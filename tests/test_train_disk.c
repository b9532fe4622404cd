// LINK: train
// LABELS: parity
// The folder of a run fails it: a full disk under checkpoints and log, a folder that vanishes.
#include "base/log.h"
#include "model/checkpoint.h"
#include "support/folders.h"
#include "support/run_case.h"
#include "train/run_log.h"

#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

// ---- a disk that is full ----

static size_t full_from, full_until; // batches between which files cannot grow

static void limit_files(bool full) {
    struct rlimit limit;
    getrlimit(RLIMIT_FSIZE, &limit);
    limit.rlim_cur = full ? 32768 : limit.rlim_max; // less than a checkpoint, more than the log
    setrlimit(RLIMIT_FSIZE, &limit);
}

static void fill_and_free_disk(size_t given) {
    limit_files(given >= full_from && given < full_until);
}

static void run_with_full_disk(RunCase *f, size_t from, size_t until) {
    full_from = from, full_until = until;
    run_case_open(f, "three_groups");
    f->training.before = fill_and_free_disk;
    const bool ok = run(f);
    limit_files(false);
    if (!ok) fail_msg("%s", f->err.text); // saving fails, training goes on
    assert_int_equal(f->c.trainer.updates, 20);
}

static void test_disk_full_for_a_while(void **state) {
    (void)state;
    RunCase f;
    run_with_full_disk(&f, 6, 24); // saves of steps 5 and 10 fail
    assert_true(has_checkpoint(&f, 0) && !has_checkpoint(&f, 5) && !has_checkpoint(&f, 10) &&
                has_checkpoint(&f, 15));
    assert_false(file_exists(in_run(&f, "step_5")) || file_exists(in_run(&f, "step_5.tmp")));
    assert_false(f.result.save_failed);
    assert_string_equal(f.result.last_checkpoint, in_run(&f, "step_19"));
    run_case_close(&f);
}

// The same with the thread that writes: it has ended with step 5's checkpoint when step 10 is to be saved.
static void test_disk_full_in_background(void **state) {
    (void)state;
    for (int is_freed = 0; is_freed < 2; is_freed++) {
        RunCase f;
        full_from = 0, full_until = is_freed ? 22 : SIZE_MAX;
        run_case_open(&f, "three_groups");
        f.c.config.options.save_in_background = true;
        f.training.before = fill_and_free_disk;
        const bool ok = run(&f);
        limit_files(false);
        if (!ok) fail_msg("%s", f.err.text);
        assert_int_equal(f.c.trainer.updates, 20);
        assert_false(has_checkpoint(&f, 0) || has_checkpoint(&f, 5));
        assert_int_equal(has_checkpoint(&f, 15) && has_checkpoint(&f, 19), is_freed);
        assert_int_equal(f.result.save_failed, !is_freed);
        if (!is_freed) assert_null(f.result.last_checkpoint);
        assert_false(file_exists(in_run(&f, "step_5.tmp")) || file_exists(in_run(&f, "step_19.tmp")));
        run_case_close(&f);
    }
}

static void test_disk_full_at_the_end(void **state) {
    (void)state;
    RunCase f;
    run_with_full_disk(&f, 24, SIZE_MAX);
    assert_true(f.result.save_failed);
    assert_string_equal(f.result.last_checkpoint, in_run(&f, "step_10"));
    if (!checkpoint_load_weights(&f.c.model, f.result.last_checkpoint, &f.err)) fail_msg("%s", f.err.text);
    run_case_close(&f);
}

// ---- a folder that vanishes ----

static const RunCase *vanishing;

// Once the thread has written step 10's checkpoint: what it does not know of is removed whole.
static void remove_it(size_t given) {
    if (given != 25) return;
    for (int i = 0; i < 1000 && !has_checkpoint(vanishing, 10); i++) usleep(10000);
    remove_folder_tree(vanishing->folder);
}

// What comes after it is there again: log, config.json and checkpoints.
static void test_folder_vanishes(void **state) {
    (void)state;
    for (int background = 0; background < 2; background++) {
        RunCase f;
        run_case_open(&f, "three_groups");
        f.c.config.options.save_in_background = background;
        f.training.before = remove_it, vanishing = &f;
        if (!run(&f)) fail_msg("%s", f.err.text);
        assert_int_equal(f.c.trainer.updates, 20);
        assert_false(f.result.save_failed);
        assert_true(has_checkpoint(&f, 15) && has_checkpoint(&f, 19) && !has_checkpoint(&f, 5));
        assert_true(file_exists(in_run(&f, "config.json")));
        json_t *lines = read_log(&f);
        assert_true(number(json_array_get(lines, 0), "step") == 12); // batches 24 and 25
        assert_true(number(json_array_get(lines, json_array_size(lines) - 1), "step") == 19);
        json_decref(lines);
        run_case_close(&f);
    }
}

// Lines that find no room are lost whole; those before and after stand.
static void test_log_on_full_disk(void **state) {
    (void)state;
    RunCase f;
    run_case_open(&f, "three_groups");
    char *folder = path_join(f.folder, "run");
    RunLog log;
    if (!run_log_open(&log, folder, &f.c.config, &f.err)) fail_msg("%s", f.err.text);
    struct rlimit before, small;
    getrlimit(RLIMIT_FSIZE, &before);
    small = before;
    for (uint64_t step = 0; step < 60; step++) {
        small.rlim_cur = step >= 5 && step < 50 ? 500 : before.rlim_max;
        setrlimit(RLIMIT_FSIZE, &small);
        run_log_number(&log, "batch_loss", 1.0 / (double)(step + 3));
        run_log_commit(&log, step);
    }
    setrlimit(RLIMIT_FSIZE, &before);
    run_log_close(&log);
    json_t *lines = read_log(&f);
    const size_t n = json_array_size(lines);
    assert_true(n > 15 && n < 30); // 500 bytes hold a dozen of them
    assert_true(number(json_array_get(lines, n - 1), "step") == 59);
    assert_true(number(json_array_get(lines, n - 10), "step") == 50);
    assert_true(number(json_array_get(lines, n - 11), "step") < 20);
    assert_true(number(json_array_get(lines, 0), "batch_loss") == 0.333333333);
    json_decref(lines);
    free(folder);
    run_case_close(&f);
}

int main(void) {
    log_set_level(LOG_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_disk_full_for_a_while),   cmocka_unit_test(test_disk_full_at_the_end),
        cmocka_unit_test(test_disk_full_in_background), cmocka_unit_test(test_folder_vanishes),
        cmocka_unit_test(test_log_on_full_disk),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
