// LINK: train
// LABELS: parity
// Updates of a run that go astray: a loss or gradient that is no number or stands out, what is said of the
// batches it came from, and the operator that made it.
#include "base/log.h"
#include "support/run_case.h"
#include "train/anomaly.h"
#include "train/spikes.h"
#include "train/suspects.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// A picture with a NaN makes the loss one: the run ends, names the step, and does not save what may be
// spoiled.
static void test_loss_is_not_finite(void **state) {
    (void)state;
    RunCase f;
    run_case_open(&f, "three_groups");
    f.c.micro[5].images[0] = NAN; // second micro-batch of step 2
    f.c.config.options.max_skipped_steps = 0;
    assert_false(run(&f));
    assert_int_equal(f.result.end, RUN_FAILED);
    assert_non_null(strstr(f.err.text, "step 2: the loss is"));
    assert_non_null(strstr(f.err.text, in_run(&f, "step_0")));
    assert_false(has_checkpoint(&f, 1) || has_checkpoint(&f, 2));
    run_case_close(&f);
}

static void test_validation_loss_is_not_finite(void **state) {
    (void)state;
    RunCase f;
    run_case_open(&f, "three_groups");
    f.c.validation[1].images[7] = INFINITY;
    assert_false(run(&f));
    assert_non_null(strstr(f.err.text, "step 0: the validation loss is"));
    assert_false(has_checkpoint(&f, 0));
    run_case_close(&f);
}

// Skipped: the run goes on, and the step has left no trace in the weights.
static void test_step_is_skipped(void **state) {
    (void)state;
    RunCase f;
    run_case_open(&f, "three_groups");
    const float kept = f.c.micro[5].images[0];
    f.c.micro[5].images[0] = NAN;
    f.c.config.train.max_training_steps = 3;
    f.c.config.train.eval_interval = 100;
    f.validation.batches = NULL;
    assert_true(run(&f));
    json_t *lines = read_log(&f);
    assert_null(json_object_get(json_array_get(lines, 1), "skipped_steps"));
    assert_true(number(json_array_get(lines, 2), "skipped_steps") == 1);
    assert_true(json_is_null(json_object_get(json_array_get(lines, 2), "batch_loss")));
    json_decref(lines);
    assert_int_equal(f.c.trainer.optimizer.steps[GROUP_LANGUAGE], 2);

    TrainCase c; // two steps by hand
    train_case_open(&c, f.be, "three_groups");
    c.config.train.max_training_steps = 3;
    c.micro[5].images[0] = kept;
    for (size_t i = 0; i < 4; i++) {
        float loss;
        assert_true(trainer_micro_step(&c.trainer, &c.micro[i], &loss, &f.err));
        if (i % 2 == 1) trainer_update(&c.trainer);
    }
    for (size_t i = 0; i < c.model.params.count; i++) {
        float *a = tensor_values(f.be, f.c.model.params.items[i].w),
              *b = tensor_values(f.be, c.model.params.items[i].w);
        assert_memory_equal(a, b, tensor_bytes(c.model.params.items[i].w));
        free(a);
        free(b);
    }
    train_case_close(&c);
    run_case_close(&f);
}

// ---- what a skipped step was made of ----

static void expect_rows_text(const char *text, const size_t *rows, size_t n) {
    char *made = suspects_rows_text(rows, n);
    assert_string_equal(made, text);
    free(made);
}

static void test_rows_as_text(void **state) {
    (void)state;
    static const size_t some[] = {17, 3, 4, 2, 40, 3, 41};
    size_t many[100];
    for (size_t i = 0; i < 100; i++) many[i] = 3 * i;
    expect_rows_text("unknown rows", NULL, 0);
    expect_rows_text("rows 2-4,17,40-41 of the data set", some, 7);
    char *text = suspects_rows_text(many, 100);
    assert_non_null(strstr(text, ",117 and 60 more of the data set"));
    free(text);
}

static void expect_page(const RunCase *f, const char *name, bool there, const char *words) {
    char file[96], *page = NULL;
    size_t size;
    Error err;
    snprintf(file, sizeof file, "batches/%s", name);
    if (!there) {
        assert_false(file_exists(in_run(f, file)));
        return;
    }
    if (!file_read(&page, &size, in_run(f, file), &err)) fail_msg("%s", err.text);
    if (!strstr(page, words)) fail_msg("\"%s\" is not in %s", words, file);
    assert_true(size > 40 && !strcmp(page + size - 15, "</body></html>\n"));
    free(page);
}

static Tokenizer *open_rules(SampleRules *rules, const RunCase *f) { // caller frees
    Tokenizer *tokenizer;
    Error err;
    char *path = golden_path("model/tokenizer");
    assert_true(tokenizer_load(&tokenizer, path, &f->c.config.vlm.vlm_extra_tokens, &err) &&
                sample_rules_init(rules, &f->c.config, tokenizer, &err));
    free(path);
    return tokenizer;
}

// Pages of the first two of three bad batches and of the step asked for, each with its rows; a folder that
// cannot be made costs the pages alone.
static void test_bad_batches_are_shown(void **state) {
    (void)state;
    for (int is_blocked = 0; is_blocked < 2; is_blocked++) {
        RunCase f;
        run_case_open(&f, "three_groups");
        size_t rows[64];
        for (size_t i = 0; i < 64; i++) rows[i] = 100 + i;
        for (size_t i = 0; i < f.c.n_micro; i++) f.c.micro[i].rows = rows + i, f.c.micro[i].n_samples = 2;
        f.c.micro[1].images[0] = f.c.micro[5].images[9] = NAN; // of six batches: steps 0, 2 and 3
        f.c.config.train.max_training_steps = 5;
        f.c.config.options.dump_batch = 2;
        f.c.config.options.dump_batch_step = 4;
        f.validation.batches = NULL;
        SampleRules rules;
        Tokenizer *tokenizer = open_rules(&rules, &f);
        if (is_blocked) {
            assert_true(file_make_folders(in_run(&f, "x"), &f.err));
            assert_true(file_write_text(in_run(&f, "batches"), "", 0, &f.err));
        }
        if (!run_with_rules(&f, &rules)) fail_msg("%s", f.err.text);
        expect_page(&f, "step_0_batch_2.html", !is_blocked, ": row 101</h2>");
        expect_page(&f, "step_2_batch_6.html", !is_blocked, "1 values are not finite");
        expect_page(&f, "step_3_batch_2.html", false, "");
        expect_page(&f, "step_4_batch_3.html", !is_blocked, "asked for by dump_batch_step");
        expect_page(&f, "step_4_batch_4.html", !is_blocked, ": row 103</h2>");
        tokenizer_free(tokenizer);
        run_case_close(&f);
    }
}

// ---- an operator that makes a NaN ----

static const char *spoiled_op;
static int spoiled_calls;

static void spoil(Backend *be, const OpCall *call) {
    if (strcmp(call->name, spoiled_op) != 0 || spoiled_calls++ != 3) return;
    const float value = NAN;
    be->device->upload(be, STREAM_COMPUTE, call->tensors[0].data, &value, sizeof value);
}

static void test_operator_is_named(void **state) {
    (void)state;
    static const char *const ops[] = {"rms_norm_forward", "gelu_backward", "linear_forward"};
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++) {
        RunCase f;
        run_case_open(&f, "three_groups");
        f.c.config.train.max_training_steps = 4;
        f.c.config.train.eval_interval = 100;
        f.validation.batches = NULL;
        spoiled_op = ops[i], spoiled_calls = 0;
        f.be->op_leave = spoil;
        Anomaly a;
        anomaly_attach(&a, f.be); // as detect_anomaly does
        assert_true(run(&f));
        if (strncmp(a.text, ops[i], strlen(ops[i])) != 0) fail_msg("%s instead of %s", a.text, ops[i]);
        assert_non_null(strstr(a.text, "made the first NaN, in its output 1 of shape"));
        anomaly_detach(&a);
        assert_true(f.be->op_leave == spoil);
        json_t *lines = read_log(&f), *line;
        size_t k, n_skipped = 0;
        json_array_foreach(lines, k, line) n_skipped += json_object_get(line, "skipped_steps") != NULL;
        assert_int_equal(n_skipped, 1);
        json_decref(lines);
        run_case_close(&f);
    }
}

// ---- values that stand out ----

static void test_spikes(void **state) {
    (void)state;
    SpikeWindow w = {0};
    for (int i = 0; i < SPIKE_WARM_UP - 1; i++) spike_add(&w, i % 2);
    assert_true(spike_score(&w, 100) == 0 && isinf(spike_limit(&w, 3)));
    spike_add(&w, 1);
    spike_add(&w, NAN); // left out
    assert_int_equal(w.count, SPIKE_WARM_UP);
    assert_true(fabs(spike_score(&w, 3.0) - 5) < 1e-12); // mean and deviation are 1/2
    assert_true(fabs(spike_limit(&w, 5) - 3) < 1e-12);
    for (int i = 0; i < SPIKE_WINDOW; i++) spike_add(&w, 7);
    assert_true(spike_score(&w, 100) == 0); // all equal
}

// A gradient above the limit gives no step, and the update counts.
static void test_spike_is_skipped(void **state) {
    (void)state;
    for (int skip = 0; skip < 2; skip++) {
        RunCase f;
        run_case_open(&f, "three_groups");
        f.c.config.train.max_training_steps = 1;
        f.c.config.train.eval_interval = 100;
        f.c.config.options.skip_spikes = (Number){skip ? 1e-3 : 0, false};
        f.validation.batches = NULL;
        assert_true(run(&f));
        assert_false(f.c.trainer.skipped); // no window yet
        f.c.trainer.norm_limit = skip ? 1e-6f : 0;
        float loss;
        assert_true(trainer_micro_step(&f.c.trainer, &f.c.micro[2], &loss, &f.err));
        trainer_update(&f.c.trainer);
        assert_int_equal(f.c.trainer.skipped, skip);
        assert_int_equal(f.c.trainer.optimizer.steps[GROUP_LANGUAGE], 2 - skip);
        run_case_close(&f);
    }
}

static int32_t *spiked_labels; // of the batch that stands out
static size_t n_spiked, spiked_batch;

static void turn_labels(size_t given) {
    if (given != spiked_batch && given != spiked_batch + 1) return;
    for (size_t i = 0; i < n_spiked; i++) // turned and, one batch later, turned back
        if (spiked_labels[i] != IGNORE_INDEX) spiked_labels[i] = 289 - spiked_labels[i];
}

// One batch learnt by heart, then once with labels of another world: marked, and with skip_spikes the run
// goes on with the weights from before.
static void test_spike_in_a_run(void **state) {
    (void)state;
    enum { STEPS = 170, SPIKE = 160 };
    for (int skip = 0; skip < 2; skip++) {
        RunCase f;
        run_case_open(&f, "three_groups");
        f.c.config.train.gradient_accumulation_steps = 1;
        f.c.config.train.max_training_steps = STEPS;
        f.c.config.train.eval_in_epochs = false;
        f.c.config.options.skip_spikes = (Number){skip ? 6 : 0, false};
        f.validation.batches = NULL;
        f.training.count = 1;
        spiked_labels = f.c.micro[0].labels, n_spiked = f.c.micro[0].B * f.c.micro[0].T, spiked_batch = SPIKE;
        f.training.before = turn_labels;
        SampleRules rules;
        Tokenizer *tokenizer = open_rules(&rules, &f);
        if (!run_with_rules(&f, &rules)) fail_msg("%s", f.err.text);
        expect_page(&f, "step_160_batch_1.html", skip, " standard deviations above the last ones");
        tokenizer_free(tokenizer);
        json_t *lines = read_log(&f), *line;
        size_t i, marked = 0, skipped = 0;
        json_array_foreach(lines, i, line) {
            if (!json_object_get(line, "batch_loss")) continue;
            const bool is_spike = number(line, "step") == SPIKE;
            marked += is_spike && json_object_get(line, "loss_spike") != NULL;
            if (json_object_get(line, "skipped_steps")) skipped += is_spike ? 1 : 100;
        }
        assert_int_equal(marked, 1);
        assert_int_equal(skipped, skip);
        assert_int_equal(f.c.trainer.optimizer.steps[GROUP_LANGUAGE], STEPS - skip);
        json_decref(lines);
        run_case_close(&f);
    }
}

int main(void) {
    log_set_level(LOG_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_loss_is_not_finite),
        cmocka_unit_test(test_step_is_skipped),
        cmocka_unit_test(test_rows_as_text),
        cmocka_unit_test(test_bad_batches_are_shown),
        cmocka_unit_test(test_operator_is_named),
        cmocka_unit_test(test_spikes),
        cmocka_unit_test(test_spike_is_skipped),
        cmocka_unit_test(test_spike_in_a_run),
        cmocka_unit_test(test_validation_loss_is_not_finite),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
