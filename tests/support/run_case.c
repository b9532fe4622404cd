#include "support/run_case.h"
#include "support/folders.h"

#include "base/memory.h"
#include "ops/cpu/cpu.h"
#include "train/stop.h"

#include <stdio.h>
#include <stdlib.h>

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

void run_case_open(RunCase *f, const char *variant) {
    *f = (RunCase){.folder = make_folder()};
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

bool run_with_rules(RunCase *f, const SampleRules *rules) {
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

bool run(RunCase *f) {
    return run_with_rules(f, NULL);
}

void run_case_close(RunCase *f) {
    run_result_free(&f->result);
    train_case_close(&f->c);
    backend_destroy(f->be);
    remove_folder(f->folder);
}

const char *in_run(const RunCase *f, const char *name) {
    static char path[256];
    snprintf(path, sizeof path, "%s/run/%s", f->folder, name);
    return path;
}

bool has_checkpoint(const RunCase *f, unsigned step) {
    char name[64];
    snprintf(name, sizeof name, "step_%u/model.safetensors", step);
    return file_exists(in_run(f, name));
}

json_t *read_log(const RunCase *f) {
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

double number(const json_t *object, const char *key) {
    const json_t *value = json_object_get(object, key);
    if (!json_is_number(value)) fail_msg("no number %s", key);
    return json_number_value(value);
}
