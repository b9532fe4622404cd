// LINK: train
// LABELS: parity
// The run loop: what it logs and saves against nanoVLM's own run, and how it ends: too few batches, a signal,
// the time limit.
#include "base/log.h"
#include "model/checkpoint.h"
#include "support/run_case.h"
#include "train/stop.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// ---- what a run logs and saves ----

static void compare_key(const RunCase *f, const json_t *line, const json_t *ref, const char *key,
                        double limit, bool relative) {
    const double a = number(line, key), b = number(ref, key);
    expect_within(relative ? "logged norm, relative" : "logged loss, absolute",
                  fabs(a - b) / (relative ? b : 1), limit, "%s %s step %g", f->c.variant, key,
                  number(ref, "step"));
}

// One line an update with nanoVLM's keys, and one an epoch.
static void compare_log(const RunCase *f) {
    json_t *lines = read_log(f), *line;
    const json_t *steps = json_object_get(f->c.reference, "steps"),
                 *epochs = json_object_get(f->c.reference, "epoch_losses");
    size_t i, n_updates = 0, n_epochs = 0;
    json_array_foreach(lines, i, line) {
        if (json_object_get(line, "epoch_loss")) {
            const double ref = json_number_value(json_array_get(epochs, n_epochs++));
            expect_within("logged loss, absolute", fabs(number(line, "epoch_loss") - ref), 1e-3,
                          "%s epoch %zu", f->c.variant, n_epochs);
            assert_true(number(line, "epoch_duration") > 0 && number(line, "epoch_tokens_per_second") > 0);
            continue;
        }
        const json_t *ref = json_array_get(steps, n_updates++);
        assert_true(number(line, "step") == number(ref, "step"));
        compare_key(f, line, ref, "batch_loss", 5e-4, false);
        compare_key(f, line, ref, "grad_norm", 5e-4, true);
        assert_int_equal(json_object_get(line, "val_loss") != NULL, json_object_get(ref, "val_loss") != NULL);
        if (json_object_get(ref, "val_loss")) compare_key(f, line, ref, "val_loss", 5e-4, false);
        expect_within("logged learning rate, relative",
                      fabs(number(line, "lr_mp") / number(json_object_get(ref, "lr"), "MP") - 1), 1e-8,
                      "step %zu", n_updates);
    }
    assert_int_equal(n_updates, json_array_size(steps));
    assert_int_equal(n_epochs, json_array_size(epochs));
    json_decref(lines);
}

static void check_files(RunCase *f) {
    for (unsigned step = 0; step < 20; step++)
        assert_int_equal(has_checkpoint(f, step), step % 5 == 0 || step == 19);
    Config again;
    config_init(&again);
    if (!config_load(&again, in_run(f, "config.json"), &f->err)) fail_msg("%s", f->err.text);
    assert_int_equal(again.vlm.lm_vocab_size, 290);
    assert_int_equal(again.train.eval_interval, 5);
    assert_string_equal(again.vlm.vlm_checkpoint_path, f->folder);
    config_free(&again);
}

// The best validation loss of the reference decides which checkpoint is the best.
static void check_best(const RunCase *f) {
    const json_t *steps = json_object_get(f->c.reference, "steps"), *step;
    double best = INFINITY;
    size_t i;
    char name[32] = "";
    json_array_foreach(steps, i, step) {
        if (!json_object_get(step, "val_loss") || number(step, "val_loss") >= best) continue;
        best = number(step, "val_loss");
        snprintf(name, sizeof name, "step_%zu", i);
    }
    assert_string_equal(f->result.best_checkpoint, in_run(f, name));
}

static void test_reference_run(void **state) {
    (void)state;
    StringList variants = golden_cases("train", "weights_final.safetensors");
    for (size_t i = 0; i < variants.count; i++) {
        RunCase f;
        run_case_open(&f, variants.items[i]);
        if (!run(&f)) fail_msg("%s", f.err.text);
        assert_int_equal(f.result.end, RUN_COMPLETE);
        compare_log(&f);
        check_files(&f);
        check_best(&f);
        // what the last checkpoint holds is what nanoVLM's twenty updates gave
        assert_string_equal(f.result.last_checkpoint, in_run(&f, "step_19"));
        params_initialise(&f.c.model.params, f.be, &f.c.config.vlm, "nanovlm", 1);
        if (!checkpoint_load_weights(&f.c.model, f.result.last_checkpoint, &f.err))
            fail_msg("%s", f.err.text);
        if (f.c.model.plan.trained[GROUP_VISION])
            train_compare_weights(&f.c, "weights_final.safetensors",
                                  "weights of the last checkpoint, of the movement", 1e-2);
        run_case_close(&f);
    }
    printf("%zu runs compared\n", variants.count);
    string_list_free(&variants);
}

static void test_statistics(void **state) {
    (void)state;
    RunCase f;
    run_case_open(&f, "three_groups");
    f.c.config.train.stats_log_interval = 4;
    f.c.config.train.max_training_steps = 8;
    assert_true(run(&f));
    static const char *const keys[] = {
        "avg_tokens_per_second", "avg_data_load_time",    "max_data_load_time",    "avg_fw_bw_time",
        "max_fw_bw_time",        "avg_post_process_time", "max_post_process_time", "avg_images_per_sample",
        "max_images_per_sample", "min_images_per_sample",
    };
    json_t *lines = read_log(&f), *line;
    size_t i, n = 0;
    json_array_foreach(lines, i, line) {
        size_t found = 0;
        const char *key;
        json_t *value;
        json_object_foreach(line, key, value) found += strncmp(key, "training_stats/", 15) == 0;
        const bool due = json_object_get(line, "batch_loss") && (int)number(line, "step") % 4 == 0;
        assert_int_equal(found, due ? sizeof keys / sizeof *keys : 0);
        for (size_t k = 0; due && k < sizeof keys / sizeof *keys; k++) {
            char full[64];
            snprintf(full, sizeof full, "training_stats/%s", keys[k]);
            assert_true(number(line, full) >= 0);
        }
        if (due && n++ == 0) { // step 0: micro-batches 0 (three images in two sequences) and 1 (two)
            assert_true(number(line, "training_stats/avg_images_per_sample") == 1.25);
        }
    }
    assert_int_equal(n, 2);
    json_decref(lines);
    run_case_close(&f);
}

// Five batches make two updates an epoch; the fifth is dropped and the next epoch begins with the first.
static void test_incomplete_accumulation_is_dropped(void **state) {
    (void)state;
    RunCase f;
    run_case_open(&f, "three_groups");
    f.training.count = 5;
    f.c.config.train.max_training_steps = 4;
    f.c.config.train.eval_interval = 100;
    assert_true(run(&f));
    assert_int_equal(f.training.given, 5 + 4);
    assert_int_equal(f.result.epochs, 2);
    assert_int_equal(f.training.n_restarts, 1);
    assert_int_equal(f.training.epochs[0], 1);

    TrainCase c; // the same by hand
    train_case_open(&c, f.be, "three_groups");
    c.config.train.max_training_steps = 4;
    for (size_t i = 0; i < 8; i++) {
        float loss;
        assert_true(trainer_micro_step(&c.trainer, &c.micro[i % 4], &loss, &f.err));
        if (i % 2 == 1) trainer_update(&c.trainer);
    }
    float *a = tensor_values(f.be, f.c.model.params.projector->w),
          *b = tensor_values(f.be, c.model.params.projector->w);
    assert_memory_equal(a, b, tensor_bytes(c.model.params.projector->w));
    free(a);
    free(b);
    train_case_close(&c);
    run_case_close(&f);
}

static void test_no_validation(void **state) {
    (void)state;
    RunCase f;
    run_case_open(&f, "three_groups");
    f.validation.batches = NULL;
    f.c.config.train.max_training_steps = 6;
    assert_true(run(&f));
    assert_true(has_checkpoint(&f, 0) && has_checkpoint(&f, 5));
    assert_null(f.result.best_checkpoint);
    run_case_close(&f);
}

// The two newest stay, and the best, which is the first.
static void test_older_checkpoints_go(void **state) {
    (void)state;
    RunCase f;
    run_case_open(&f, "three_groups");
    f.c.config.options.keep_checkpoints = 2;
    if (!run(&f)) fail_msg("%s", f.err.text);
    assert_string_equal(f.result.best_checkpoint, in_run(&f, "step_0"));
    for (unsigned step = 0; step < 20; step++)
        assert_int_equal(has_checkpoint(&f, step), step == 0 || step == 15 || step == 19);
    run_case_close(&f);
}

// ---- how a run ends ----

static void test_too_few_batches(void **state) {
    (void)state;
    RunCase f;
    run_case_open(&f, "three_groups");
    f.training.count = 1;
    assert_false(run(&f));
    assert_non_null(strstr(f.err.text, "gradient_accumulation_steps 2"));
    run_case_close(&f);
}

static void test_run_exists_already(void **state) {
    (void)state;
    RunCase f;
    run_case_open(&f, "three_groups");
    f.c.config.train.max_training_steps = 1;
    assert_true(run(&f));
    run_result_free(&f.result);
    assert_false(run(&f));
    assert_non_null(strstr(f.err.text, "run_name"));
    run_case_close(&f);
}

static void test_batch_without_targets(void **state) {
    (void)state;
    RunCase f;
    run_case_open(&f, "three_groups");
    for (size_t i = 0; i < f.c.micro[1].B * f.c.micro[1].T; i++) f.c.micro[1].labels[i] = IGNORE_INDEX;
    f.c.config.train.max_training_steps = 3;
    assert_true(run(&f)); // no loss to speak of, but nothing is spoiled
    json_t *lines = read_log(&f);
    assert_true(json_is_null(json_object_get(json_array_get(lines, 0), "batch_loss")));
    assert_true(number(json_array_get(lines, 1), "batch_loss") > 0);
    json_decref(lines);
    run_case_close(&f);
}

static void interrupt_at_2(size_t given) {
    if (given != 2) return;
    kill(getpid(), SIGINT);
    for (int i = 0; i < 1000 && !stop_signal(); i++) usleep(10000);
}

// Ctrl-C in the first half of an accumulation: the update is finished, then saved.
static void test_signal(void **state) {
    (void)state;
    RunCase f;
    run_case_open(&f, "three_groups");
    f.training.before = interrupt_at_2;
    assert_true(run(&f));
    assert_int_equal(f.result.end, RUN_SIGNALLED);
    assert_int_equal(f.c.trainer.updates, 2);
    assert_int_equal(f.training.given, 4);
    assert_string_equal(f.result.last_checkpoint, in_run(&f, "step_1"));
    assert_true(has_checkpoint(&f, 1));
    run_case_close(&f);
}

static void wait_a_little(size_t given) {
    (void)given;
    usleep(30000);
}

static void test_time_limit(void **state) {
    (void)state;
    RunCase f;
    run_case_open(&f, "three_groups");
    f.training.before = wait_a_little;
    f.c.config.options.max_minutes.value = 0.15 / 60; // three or so updates of two batches
    assert_true(run(&f));
    assert_int_equal(f.result.end, RUN_OUT_OF_TIME);
    const uint64_t updates = f.c.trainer.updates;
    assert_true(updates >= 1 && updates < 20);
    assert_true(has_checkpoint(&f, (unsigned)updates - 1));
    run_case_close(&f);
}

int main(void) {
    log_set_level(LOG_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reference_run),
        cmocka_unit_test(test_statistics),
        cmocka_unit_test(test_incomplete_accumulation_is_dropped),
        cmocka_unit_test(test_no_validation),
        cmocka_unit_test(test_older_checkpoints_go),
        cmocka_unit_test(test_too_few_batches),
        cmocka_unit_test(test_run_exists_already),
        cmocka_unit_test(test_batch_without_targets),
        cmocka_unit_test(test_signal),
        cmocka_unit_test(test_time_limit),
    };
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    print_worst_shares();
    return failed;
}
