// LINK: train
// LABELS: parity
// The run loop: what it logs and saves against nanoVLM's own run, and how it ends when something goes wrong:
// too few batches, a loss that is no number, a full disk, a signal, the time limit.
#include "base/log.h"
#include "base/memory.h"
#include "model/checkpoint.h"
#include "ops/cpu/cpu.h"
#include "support/folders.h"
#include "support/train_case.h"
#include "train/anomaly.h"
#include "train/run.h"
#include "train/run_log.h"
#include "train/spikes.h"
#include "train/stop.h"
#include "train/suspects.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

// ---- a run in a folder of its own ----

typedef struct ListSource {
    Batch *batches;
    size_t count, next;
    size_t given;                    // of all epochs
    void (*before)(size_t given);    // called before batch number `given` (from 0); may be NULL
    uint64_t epochs[16], n_restarts; // numbers that restart was asked for
} ListSource;

static bool list_next(void *state, const Batch **batch, Error *err) {
    (void)err;
    ListSource *s = state;
    *batch = s->next < s->count ? &s->batches[s->next++] : NULL;
    if (*batch && s->before) s->before(s->given);
    if (*batch) s->given++;
    return true;
}

static bool list_restart(void *state, uint64_t epoch, Error *err) {
    (void)err;
    ListSource *s = state;
    s->next = 0;
    s->epochs[s->n_restarts++ % 16] = epoch;
    return true;
}

typedef struct Fixture {
    char folder[64];
    Backend *be;
    TrainCase c;
    ListSource training, validation;
    RunResult result;
    Error err;
} Fixture;

static void fixture_open(Fixture *f, const char *variant) {
    *f = (Fixture){.folder = "/tmp/vlm_train_XXXXXX"};
    assert_non_null(mkdtemp(f->folder));
    stop_on_signals(); // before the backend's threads, which must block them too
    if (!backend_cpu_create(&f->be, 0, &f->err)) fail_msg("%s", f->err.text);
    train_case_open(&f->c, f->be, variant);
    free(f->c.config.vlm.vlm_checkpoint_path);
    f->c.config.vlm.vlm_checkpoint_path = mem_strdup(f->folder);
    f->c.config.options.save_in_background = false; // tests fill the disk for some saves and not for others
    f->training = (ListSource){.batches = f->c.micro, .count = f->c.n_micro};
    f->validation = (ListSource){.batches = f->c.validation, .count = f->c.n_validation};
    stop_gently();
}

static bool run_with_rules(Fixture *f, const SampleRules *rules) {
    const BatchSource training = {.next = list_next, .restart = list_restart, .state = &f->training};
    const BatchSource validation = {.next = list_next, .restart = list_restart, .state = &f->validation};
    const RunPlan plan = {.config = &f->c.config,
                          .trainer = &f->c.trainer,
                          .training = training,
                          .validation = f->validation.batches ? validation : (BatchSource){0},
                          .run_name = "run",
                          .rules = rules};
    return train_run(&plan, &f->result, &f->err);
}

static bool run(Fixture *f) {
    return run_with_rules(f, NULL);
}

static void fixture_close(Fixture *f) {
    run_result_free(&f->result);
    train_case_close(&f->c);
    backend_destroy(f->be);
    remove_folder_tree(f->folder);
}

// A file of the run's folder; valid until the next call.
static const char *in_run(const Fixture *f, const char *name) {
    static char path[256];
    snprintf(path, sizeof path, "%s/run/%s", f->folder, name);
    return path;
}

static bool has_checkpoint(const Fixture *f, unsigned step) {
    char name[64];
    snprintf(name, sizeof name, "step_%u/model.safetensors", step);
    return file_exists(in_run(f, name));
}

static json_t *read_log(const Fixture *f) { // array of the lines
    FILE *stream = fopen(in_run(f, "log.jsonl"), "r");
    assert_non_null(stream);
    json_t *lines = json_array(), *line;
    char text[4096];
    while (fgets(text, sizeof text, stream)) {
        json_error_t where;
        if (!(line = json_loads(text, 0, &where))) fail_msg("%s in: %s", where.text, text);
        json_array_append_new(lines, line);
    }
    fclose(stream);
    return lines;
}

static double number(const json_t *object, const char *key) {
    const json_t *value = json_object_get(object, key);
    if (!json_is_number(value)) fail_msg("no number %s", key);
    return json_number_value(value);
}

// ---- what a run logs and saves ----

static void compare_key(const Fixture *f, const json_t *line, const json_t *ref, const char *key,
                        double limit, bool relative) {
    const double a = number(line, key), b = number(ref, key);
    expect_within(relative ? "logged norm, relative" : "logged loss, absolute",
                  fabs(a - b) / (relative ? b : 1), limit, "%s %s step %g", f->c.variant, key,
                  number(ref, "step"));
}

// One line an update with nanoVLM's keys, and one an epoch.
static void compare_log(const Fixture *f) {
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

static void check_files(Fixture *f) {
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
static void check_best(const Fixture *f) {
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
    FileList variants = golden_cases("train", "weights_final.safetensors");
    for (size_t i = 0; i < variants.count; i++) {
        Fixture f;
        fixture_open(&f, variants.names[i]);
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
        fixture_close(&f);
    }
    printf("%zu runs compared\n", variants.count);
    file_list_free(&variants);
}

static void test_statistics(void **state) {
    (void)state;
    Fixture f;
    fixture_open(&f, "three_groups");
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
    fixture_close(&f);
}

// Five batches make two updates an epoch; the fifth is dropped and the next epoch begins with the first.
static void test_incomplete_accumulation_is_dropped(void **state) {
    (void)state;
    Fixture f;
    fixture_open(&f, "three_groups");
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
    fixture_close(&f);
}

static void test_no_validation(void **state) {
    (void)state;
    Fixture f;
    fixture_open(&f, "three_groups");
    f.validation.batches = NULL;
    f.c.config.train.max_training_steps = 6;
    assert_true(run(&f));
    assert_true(has_checkpoint(&f, 0) && has_checkpoint(&f, 5));
    assert_null(f.result.best_checkpoint);
    fixture_close(&f);
}

// ---- how a run ends ----

static void test_too_few_batches(void **state) {
    (void)state;
    Fixture f;
    fixture_open(&f, "three_groups");
    f.training.count = 1;
    assert_false(run(&f));
    assert_non_null(strstr(f.err.text, "gradient_accumulation_steps 2"));
    fixture_close(&f);
}

static void test_run_exists_already(void **state) {
    (void)state;
    Fixture f;
    fixture_open(&f, "three_groups");
    f.c.config.train.max_training_steps = 1;
    assert_true(run(&f));
    run_result_free(&f.result);
    assert_false(run(&f));
    assert_non_null(strstr(f.err.text, "run_name"));
    fixture_close(&f);
}

// A picture with a NaN makes the loss one: the run ends, names the step, and does not save what may be
// spoiled.
static void test_loss_is_not_finite(void **state) {
    (void)state;
    Fixture f;
    fixture_open(&f, "three_groups");
    f.c.micro[5].images[0] = NAN; // second micro-batch of step 2
    f.c.config.options.max_skipped_steps = 0;
    assert_false(run(&f));
    assert_int_equal(f.result.end, RUN_FAILED);
    assert_non_null(strstr(f.err.text, "step 2: the loss is"));
    assert_non_null(strstr(f.err.text, in_run(&f, "step_0")));
    assert_false(has_checkpoint(&f, 1) || has_checkpoint(&f, 2));
    fixture_close(&f);
}

// Skipped: the run goes on, and the step has left no trace in the weights.
static void test_step_is_skipped(void **state) {
    (void)state;
    Fixture f;
    fixture_open(&f, "three_groups");
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
    fixture_close(&f);
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

static void expect_page(const Fixture *f, const char *name, bool there, const char *words) {
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

static Tokenizer *open_rules(SampleRules *rules, const Fixture *f) { // caller frees
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
        Fixture f;
        fixture_open(&f, "three_groups");
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
        fixture_close(&f);
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
        Fixture f;
        fixture_open(&f, "three_groups");
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
        fixture_close(&f);
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
        Fixture f;
        fixture_open(&f, "three_groups");
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
        fixture_close(&f);
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
        Fixture f;
        fixture_open(&f, "three_groups");
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
        fixture_close(&f);
    }
}

static void test_validation_loss_is_not_finite(void **state) {
    (void)state;
    Fixture f;
    fixture_open(&f, "three_groups");
    f.c.validation[1].images[7] = INFINITY;
    assert_false(run(&f));
    assert_non_null(strstr(f.err.text, "step 0: the validation loss is"));
    assert_false(has_checkpoint(&f, 0));
    fixture_close(&f);
}

static void test_batch_without_targets(void **state) {
    (void)state;
    Fixture f;
    fixture_open(&f, "three_groups");
    for (size_t i = 0; i < f.c.micro[1].B * f.c.micro[1].T; i++) f.c.micro[1].labels[i] = IGNORE_INDEX;
    f.c.config.train.max_training_steps = 3;
    assert_true(run(&f)); // no loss to speak of, but nothing is spoiled
    json_t *lines = read_log(&f);
    assert_true(json_is_null(json_object_get(json_array_get(lines, 0), "batch_loss")));
    assert_true(number(json_array_get(lines, 1), "batch_loss") > 0);
    json_decref(lines);
    fixture_close(&f);
}

static void interrupt_at_2(size_t given) {
    if (given != 2) return;
    kill(getpid(), SIGINT);
    for (int i = 0; i < 1000 && !stop_signal(); i++) usleep(10000);
}

// Ctrl-C in the first half of an accumulation: the update is finished, then saved.
static void test_signal(void **state) {
    (void)state;
    Fixture f;
    fixture_open(&f, "three_groups");
    f.training.before = interrupt_at_2;
    assert_true(run(&f));
    assert_int_equal(f.result.end, RUN_SIGNALLED);
    assert_int_equal(f.c.trainer.updates, 2);
    assert_int_equal(f.training.given, 4);
    assert_string_equal(f.result.last_checkpoint, in_run(&f, "step_1"));
    assert_true(has_checkpoint(&f, 1));
    fixture_close(&f);
}

static void wait_a_little(size_t given) {
    (void)given;
    usleep(30000);
}

static void test_time_limit(void **state) {
    (void)state;
    Fixture f;
    fixture_open(&f, "three_groups");
    f.training.before = wait_a_little;
    f.c.config.options.max_minutes.value = 0.15 / 60; // three or so updates of two batches
    assert_true(run(&f));
    assert_int_equal(f.result.end, RUN_OUT_OF_TIME);
    const uint64_t updates = f.c.trainer.updates;
    assert_true(updates >= 1 && updates < 20);
    assert_true(has_checkpoint(&f, (unsigned)updates - 1));
    fixture_close(&f);
}

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

static void run_with_full_disk(Fixture *f, size_t from, size_t until) {
    full_from = from, full_until = until;
    fixture_open(f, "three_groups");
    f->training.before = fill_and_free_disk;
    const bool ok = run(f);
    limit_files(false);
    if (!ok) fail_msg("%s", f->err.text); // saving fails, training goes on
    assert_int_equal(f->c.trainer.updates, 20);
}

static void test_disk_full_for_a_while(void **state) {
    (void)state;
    Fixture f;
    run_with_full_disk(&f, 6, 24); // saves of steps 5 and 10 fail
    assert_true(has_checkpoint(&f, 0) && !has_checkpoint(&f, 5) && !has_checkpoint(&f, 10) &&
                has_checkpoint(&f, 15));
    assert_false(file_exists(in_run(&f, "step_5")) || file_exists(in_run(&f, "step_5.tmp")));
    assert_false(f.result.save_failed);
    assert_string_equal(f.result.last_checkpoint, in_run(&f, "step_19"));
    fixture_close(&f);
}

// The same with the thread that writes: it has ended with step 5's checkpoint when step 10 is to be saved.
static void test_disk_full_in_background(void **state) {
    (void)state;
    for (int is_freed = 0; is_freed < 2; is_freed++) {
        Fixture f;
        full_from = 0, full_until = is_freed ? 22 : SIZE_MAX;
        fixture_open(&f, "three_groups");
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
        fixture_close(&f);
    }
}

static void test_disk_full_at_the_end(void **state) {
    (void)state;
    Fixture f;
    run_with_full_disk(&f, 24, SIZE_MAX);
    assert_true(f.result.save_failed);
    assert_string_equal(f.result.last_checkpoint, in_run(&f, "step_10"));
    if (!checkpoint_load_weights(&f.c.model, f.result.last_checkpoint, &f.err)) fail_msg("%s", f.err.text);
    fixture_close(&f);
}

// ---- a folder that vanishes ----

static const Fixture *vanishing;

// Once the thread has written step 10's checkpoint: what it does not know of is removed whole.
static void remove_folder(size_t given) {
    if (given != 25) return;
    for (int i = 0; i < 1000 && !has_checkpoint(vanishing, 10); i++) usleep(10000);
    remove_folder_tree(vanishing->folder);
}

// What comes after it is there again: log, config.json and checkpoints.
static void test_folder_vanishes(void **state) {
    (void)state;
    for (int background = 0; background < 2; background++) {
        Fixture f;
        fixture_open(&f, "three_groups");
        f.c.config.options.save_in_background = background;
        f.training.before = remove_folder, vanishing = &f;
        if (!run(&f)) fail_msg("%s", f.err.text);
        assert_int_equal(f.c.trainer.updates, 20);
        assert_false(f.result.save_failed);
        assert_true(has_checkpoint(&f, 15) && has_checkpoint(&f, 19) && !has_checkpoint(&f, 5));
        assert_true(file_exists(in_run(&f, "config.json")));
        json_t *lines = read_log(&f);
        assert_true(number(json_array_get(lines, 0), "step") == 12); // batches 24 and 25
        assert_true(number(json_array_get(lines, json_array_size(lines) - 1), "step") == 19);
        json_decref(lines);
        fixture_close(&f);
    }
}

// Lines that find no room are lost whole; those before and after stand.
static void test_log_on_full_disk(void **state) {
    (void)state;
    Fixture f;
    fixture_open(&f, "three_groups");
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
    fixture_close(&f);
}

int main(void) {
    log_set_level(LOG_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reference_run),
        cmocka_unit_test(test_statistics),
        cmocka_unit_test(test_incomplete_accumulation_is_dropped),
        cmocka_unit_test(test_no_validation),
        cmocka_unit_test(test_too_few_batches),
        cmocka_unit_test(test_run_exists_already),
        cmocka_unit_test(test_loss_is_not_finite),
        cmocka_unit_test(test_step_is_skipped),
        cmocka_unit_test(test_rows_as_text),
        cmocka_unit_test(test_bad_batches_are_shown),
        cmocka_unit_test(test_operator_is_named),
        cmocka_unit_test(test_spikes),
        cmocka_unit_test(test_spike_is_skipped),
        cmocka_unit_test(test_spike_in_a_run),
        cmocka_unit_test(test_validation_loss_is_not_finite),
        cmocka_unit_test(test_batch_without_targets),
        cmocka_unit_test(test_signal),
        cmocka_unit_test(test_time_limit),
        cmocka_unit_test(test_disk_full_for_a_while),
        cmocka_unit_test(test_disk_full_at_the_end),
        cmocka_unit_test(test_disk_full_in_background),
        cmocka_unit_test(test_folder_vanishes),
        cmocka_unit_test(test_log_on_full_disk),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    print_worst_shares();
    return failed;
}
