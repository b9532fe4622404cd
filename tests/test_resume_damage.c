// LINK: train
// LABELS: parity
// Checkpoints whose files are damaged: cut anywhere, with bytes that nobody wrote, missing, or of another
// model. Going on from one is an error that names the file, or works where nothing read was touched; never
// worse.
#include "base/log.h"
#include "base/memory.h"
#include "ops/cpu/cpu.h"
#include "support/folders.h"
#include "support/train_case.h"
#include "train/resume.h"
#include "train/saver.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *folder;
static Backend *be;
static TrainCase c;

// ---- a source whose place is a number ----

static bool nothing_next(void *state, const Batch **batch, Error *err) {
    (void)state, (void)err;
    *batch = NULL;
    return true;
}

static bool restart(void *state, uint64_t epoch, Error *err) {
    (void)state, (void)epoch, (void)err;
    return true;
}

static bool restore(void *state, const void *place, size_t size, Error *err) {
    (void)state;
    return (size == 8 && !memcmp(place, "place 42", 8)) || error_set(err, "no place");
}

static const BatchSource source = {.next = nothing_next, .restart = restart, .restore = restore};

// ---- the checkpoint ----

static const char *in_checkpoint(const char *name) { // valid until the next call
    static char path[128];
    snprintf(path, sizeof path, "%s/step_1/%s", folder, name);
    return path;
}

static void write_checkpoint(void) {
    Saver s;
    Error err;
    RunState state = {.updates = 2, .world_size = 1, .best_val_loss = 1};
    CharVec place = {0};
    char *path = mem_printf("%s/step_1", folder), *saved;
    bool ok;
    vec_extend(&place, "place 42", 8);
    for (size_t i = 0; i < 4; i++) {
        float loss;
        assert_true(trainer_micro_step(&c.trainer, &c.micro[i], &loss, &err));
        if (i % 2) trainer_update(&c.trainer);
    }
    memcpy(state.steps, c.trainer.optimizer.steps, sizeof state.steps);
    assert_true(saver_open(&s, &c.trainer, &c.config, &err));
    saver_begin(&s, path, &state, &place);
    assert_true(saver_collect(&s, true, &saved, &ok, &err));
    if (!ok) fail_msg("%s", err.text);
    saver_close(&s);
    vec_free(&place);
    free(saved);
    free(path);
}

// What `vlm train` does with it: compares the settings, then loads.
static bool go_on(Error *err) {
    RunState state;
    bool exact;
    char *path = mem_printf("%s/step_1", folder);
    err->text[0] = '\0';
    const bool ok = resume_compare(&exact, &c.config, path, err) &&
                    resume_load(&state, &c.trainer, &source, path, true, err);
    assert_true(ok || err->text[0]);
    free(path);
    return ok;
}

static void expect_error(const char *file) {
    Error err;
    if (go_on(&err)) fail_msg("%s: nothing was noticed", file);
    if (!strstr(err.text, file)) fail_msg("no %s in: %s", file, err.text);
}

// ---- tests ----

static const char *const files[] = {RESUME_STATE_FILE, "model.safetensors", "run.json", RESUME_TRAINER_FILE};

static void write_file(const char *name, const char *bytes, size_t n) {
    FILE *f = fopen(in_checkpoint(name), "wb"); // not synced, unlike the project's own way
    assert_true(f && fwrite(bytes, 1, n, f) == n && fclose(f) == 0);
}

static void test_whole(void **state) {
    (void)state;
    Error err;
    if (!go_on(&err)) fail_msg("%s", err.text);
    assert_int_equal(c.trainer.updates, 2);
}

// Every cut loses something; a cut of white space at the end of a JSON file does not.
static void test_cut(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char *bytes;
        size_t size;
        Error err;
        assert_true(file_read(&bytes, &size, in_checkpoint(files[i]), &err));
        const size_t end = bytes[size - 1] == '\n' ? size - 1 : size;
        for (size_t cut = 0; cut < end; cut = cut < 40 ? cut + 3 : cut + 1 + (size - cut) / 3) {
            write_file(files[i], bytes, cut);
            expect_error(files[i]);
        }
        write_file(files[i], bytes, end - 1);
        expect_error(files[i]);
        write_file(files[i], bytes, size);
        free(bytes);
    }
}

static void test_missing(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char *there = mem_strdup(in_checkpoint(files[i])), *away = mem_strdup(in_checkpoint("away"));
        assert_int_equal(rename(there, away), 0);
        expect_error(files[i]);
        assert_int_equal(rename(away, there), 0);
        free(there);
        free(away);
    }
}

// Any byte anywhere, or a digit or letter in place of another: then the text is read, and what it says is
// wrong.
static void change(char *bytes, size_t parsed, bool any, unsigned *seed) {
    for (int tries = 0; tries < 1000; tries++) {
        char *at = bytes + (size_t)rand_r(seed) % parsed;
        const bool is_digit = isdigit((unsigned char)*at), is_letter = islower((unsigned char)*at);
        if (!any && !is_digit && !is_letter) continue;
        *at = any ? (char)rand_r(seed) : (char)(is_digit ? '0' + rand_r(seed) % 10 : 'a' + rand_r(seed) % 26);
        return;
    }
}

// Bytes at random in what is parsed: the JSON texts and the heads of the safetensors files.
static void test_changed(void **state) {
    (void)state;
    unsigned seed = 7;
    size_t noticed = 0, tries = 0;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char *bytes, *changed;
        size_t size;
        Error err;
        assert_true(file_read(&bytes, &size, in_checkpoint(files[i]), &err));
        const size_t parsed = strstr(files[i], ".json") ? size : 8 + (size_t) * (const uint32_t *)bytes;
        assert_true(parsed <= size);
        changed = mem_alloc(size);
        for (int n = 0; n < 120; n++, tries++) {
            memcpy(changed, bytes, size);
            if (n < 10) changed[n % 8] = (char)rand_r(&seed); // a safetensors file's size of the head
            for (int k = n % 3; k >= 0; k--) change(changed, parsed, n % 4 == 0, &seed);
            write_file(files[i], changed, size);
            noticed += !go_on(&err);
        }
        write_file(files[i], bytes, size);
        free(changed);
        free(bytes);
    }
    print_message("%zu of %zu changes are errors\n", noticed, tries);
    assert_true(noticed > tries / 3 && noticed < tries);
    test_whole(NULL);
}

// A file that is whole but not this run's.
static void test_of_another_kind(void **state) {
    (void)state;
    char *bytes, *place;
    size_t size;
    Error err;
    assert_true(file_read(&bytes, &size, in_checkpoint(RESUME_STATE_FILE), &err));
    assert_non_null(place = memmem(bytes, size, "place 42", 8));
    place[6] = '5';
    write_file(RESUME_STATE_FILE, bytes, size);
    expect_error("the place in the data does not fit");
    place[6] = '4';
    assert_non_null(place = memmem(bytes, size, "\"m.", 3));
    place[1] = 'x';
    write_file(RESUME_STATE_FILE, bytes, size);
    expect_error(" is missing or not F32");
    place[1] = 'm';
    write_file(RESUME_STATE_FILE, bytes, size);
    free(bytes);
    test_whole(NULL);
}

// ---- program ----

static int open_case(void **state) {
    (void)state;
    Error err;
    log_set_level(LOG_ERROR);
    folder = make_folder();
    if (!backend_cpu_create(&be, 1, &err)) return 1;
    train_case_open(&c, be, "three_groups");
    c.config.options.save_in_background = false;
    write_checkpoint();
    return 0;
}

static int close_case(void **state) {
    (void)state;
    train_case_close(&c);
    backend_destroy(be);
    remove_folder(folder);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole),           cmocka_unit_test(test_cut),
        cmocka_unit_test(test_missing),         cmocka_unit_test(test_changed),
        cmocka_unit_test(test_of_another_kind),
    };
    return cmocka_run_group_tests(tests, open_case, close_case);
}
