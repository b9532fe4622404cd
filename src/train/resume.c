#include "train/resume.h"
#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "format/safetensors.h"
#include "model/checkpoint.h"
#include "train/together.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

// ---- finding ----

static bool holds(const char *folder, const char *name) {
    char *path = path_join(folder, name);
    const bool there = file_exists(path);
    free(path);
    return there;
}

static bool is_complete(const char *folder) {
    return holds(folder, RESUME_TRAINER_FILE) && holds(folder, RESUME_STATE_FILE) &&
           holds(folder, "run.json") && holds(folder, "model.safetensors") && holds(folder, "config.json");
}

static bool step_of(uint64_t *step, const char *name) {
    char *end;
    if (strncmp(name, "step_", 5) != 0 || !isdigit((unsigned char)name[5])) return false;
    *step = strtoull(name + 5, &end, 10);
    return *end == '\0'; // step_5.tmp is half made
}

static int newest_first(const void *a, const void *b) {
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x < y) - (x > y);
}

ResumeSteps resume_steps(const char *run) {
    ResumeSteps steps = {0};
    StringList list;
    uint64_t step;
    if (!file_list(&list, run, NULL)) return steps;
    for (size_t i = 0; i < list.count; i++) {
        char *path = path_join(run, list.items[i]);
        if (step_of(&step, list.items[i]) && is_complete(path)) vec_push(&steps, step);
        free(path);
    }
    string_list_free(&list);
    if (steps.count) qsort(steps.items, steps.count, sizeof *steps.items, newest_first);
    return steps;
}

static char *newest_of_run(const char *run) {
    ResumeSteps steps = resume_steps(run);
    char *path = steps.count ? mem_printf("%s/step_%llu", run, (unsigned long long)steps.items[0]) : NULL;
    vec_free(&steps);
    return path;
}

static double saved_at(const char *checkpoint) {
    struct stat info = {0};
    char *path = path_join(checkpoint, RESUME_TRAINER_FILE);
    if (stat(path, &info) != 0) info = (struct stat){0};
    free(path);
    return (double)info.st_mtim.tv_sec + 1e-9 * (double)info.st_mtim.tv_nsec;
}

static char *newest_of_runs(const char *folder) {
    StringList list;
    char *newest = NULL;
    if (!file_list(&list, folder, NULL)) return NULL;
    for (size_t i = 0; i < list.count; i++) {
        char *run = path_join(folder, list.items[i]), *found = newest_of_run(run);
        free(run);
        if (found && (!newest || saved_at(found) > saved_at(newest))) {
            char *older = newest;
            newest = found;
            found = older;
        }
        free(found);
    }
    string_list_free(&list);
    return newest;
}

char *resume_find(const char *path) {
    if (is_complete(path)) return mem_strdup(path);
    if (holds(path, "model.safetensors")) return NULL; // weights alone
    char *found = newest_of_run(path);
    return found ? found : newest_of_runs(path);
}

// ---- what may change ----

static const char *const free_fields[] = {
    // where things are, how fast they go, what is told, when it ends
    "vlm_checkpoint_path",
    "hf_repo_name",
    "vlm_load_backbone_weights",
    "vit_model_type",
    "lm_model_type",
    "lm_tokenizer",
    "eval_in_epochs",
    "eval_interval",
    "stats_log_interval",
    "compile",
    "resume_from_vlm_checkpoint",
    "train_dataset_path",
    "wandb_entity",
    "log_wandb",
    "use_lmms_eval",
    "lmms_eval_tasks",
    "lmms_eval_limit",
    "lmms_eval_batch_size",
    "device",
    "threads",
    "num_workers",
    "profile",
    "cache_vision",
    "prefetch_factor",
    "val_dataset_path",
    "init",
    "lora_adapter",
    "interpolate_positions",
    "run_name",
    "log_interval",
    "max_minutes",
    "comm_timeout",
    "zero",
    "resume",
    "resume_weights_only",
    "keep_checkpoints",
    "max_skipped_steps",
    "detect_anomaly",
    "dump_batch",
    "dump_batch_step",
    "dry_run",
    "save_in_background"};

// Of VLMConfig: read by the data alone, so that the model stays what it is.
static const char *const data_fields[] = {"lm_max_length", "lm_chat_template", "max_img_size",
                                          "resize_to_max_side_len"};

static bool is_in(const char *const *names, size_t n, const char *name) {
    for (size_t i = 0; i < n; i++)
        if (!strcmp(names[i], name)) return true;
    return false;
}
#define IS_IN(names, name) is_in(names, sizeof(names) / sizeof *(names), name)

static bool compare_field(bool *exact, FieldSet now, FieldSet then, const Field *field, Error *err) {
    json_t *a = fields_get_json(then, field), *b = fields_get_json(now, field);
    const bool same = json_equal(a, b);
    bool ok = true;
    if (!same && !IS_IN(free_fields, field->name)) {
        char *old = json_dumps(a, JSON_ENCODE_ANY), *new = json_dumps(b, JSON_ENCODE_ANY);
        if (now.table == &vlm_config_table && !IS_IN(data_fields, field->name)) {
            ok = error_set(
                err,
                "%s was %.200s and is %.200s: this is another model; leave it as it was, or take the "
                "weights alone with --resume_weights_only",
                field->name, old, new);
        } else {
            log_warning("%s was %s and is %s: the run goes on, but no longer bit for bit", field->name, old,
                        new);
            *exact = false;
        }
        free(old);
        free(new);
    }
    json_decref(a);
    json_decref(b);
    return ok;
}

bool resume_compare(bool *exact, const Config *now, const char *checkpoint, Error *err) {
    Config then;
    FieldSet a[3], b[3];
    char *path = path_join(checkpoint, "run.json");
    config_init(&then);
    *exact = true;
    bool ok = config_load(&then, path, err);
    config_sets((Config *)now, a);
    config_sets(&then, b);
    for (int i = 0; i < 3; i++)
        for (size_t k = 0; ok && k < a[i].table->count; k++)
            ok = compare_field(exact, a[i], b[i], &a[i].table->fields[k], err);
    config_free(&then);
    free(path);
    return ok;
}

// ---- bringing it back ----

// `part` of what is saved as a whole, whoever has had which share of it.
static bool load_part(Trainer *t, const Safetensors *st, const char *prefix, const Param *p, Slice part,
                      Tensor to, Error *err) {
    char name[96];
    snprintf(name, sizeof name, "%s%s", prefix, p->name);
    const SafetensorsEntry *e = safetensors_find(st, name);
    const size_t n = tensor_count(p->w);
    if (!e || e->dtype != to.dtype || e->bytes != optimizer_moment_bytes(to.dtype, n))
        return error_set(err,
                         "%s: %s is missing or not %s with %zu values; give the --moments it was saved with "
                         "(and the flags of its adapters), or take the weights alone with "
                         "--resume_weights_only",
                         safetensors_path(st), name, dtype_name(to.dtype), n);
    tensor_upload(t->model->be, STREAM_COMPUTE, to,
                  (const char *)e->data + optimizer_moment_bytes(to.dtype, part.first));
    backend_sync(t->model->be);
    return true;
}

// What model.safetensors holds merged, as it was.
static bool load_adapted(Trainer *t, const Safetensors *st, Error *err) {
    const Params *p = &t->model->params;
    for (size_t i = 0; i < p->count; i++) {
        if (!p->items[i].lora_a && !param_is_adapter(&p->items[i])) continue;
        const Slice all = {0, tensor_count(p->items[i].w)};
        if (!load_part(t, st, "w.", &p->items[i], all, p->items[i].w, err)) return false;
        param_refresh(&p->items[i], t->model->be);
    }
    return true;
}

// A group that was frozen until now has none yet.
static bool load_moments(Trainer *t, const Safetensors *st, const uint64_t steps[GROUP_TRAINED], Error *err) {
    const Params *p = &t->model->params;
    for (size_t i = 0; i < p->count; i++) {
        if (!tensor_exists(t->optimizer.m[i]) || steps[p->items[i].group] == 0) continue;
        const Slice part = optimizer_slice(&t->optimizer, t->optimizer.form.rank, i);
        if (!load_part(t, st, "m.", &p->items[i], part, t->optimizer.m[i], err) ||
            !load_part(t, st, "v.", &p->items[i], part, t->optimizer.v[i], err))
            return false;
    }
    return true;
}

static bool load_place(const Comm *comm, const BatchSource *source, const Safetensors *st, uint64_t epoch,
                       bool exact, Error *err) {
    const SafetensorsEntry *e = safetensors_find(st, "loader");
    if (!source->restore)
        return error_set(err, "%s: this source of batches has no place to go back to", safetensors_path(st));
    const void *place = e ? e->data : NULL;
    size_t size = e ? e->bytes : 0;
    if (!e)
        error_set(err, "%s: it holds no place in the data", safetensors_path(st));
    else if (!together_own_place(comm, &place, &size))
        error_set(err, "%s: its place in the data is not that of %zu ranks", safetensors_path(st),
                  comm_world_size(comm));
    else if (source->restore(source->state, place, size, err))
        return true;
    if (exact) {
        error_prefix(err, "%s: the place in the data does not fit (--resume_weights_only begins anew)",
                     safetensors_path(st));
        return false;
    }
    log_warning("%s: epoch %llu begins anew", err->text, (unsigned long long)epoch + 1);
    err->text[0] = '\0';
    return source->restart(source->state, epoch, err);
}

static bool same_ranks(const RunState *s, const Trainer *t) {
    return s->world_size == comm_world_size(t->sync.comm);
}

static bool load_state(RunState *s, Trainer *t, const BatchSource *source, const char *path, bool exact,
                       Error *err) {
    Safetensors *st;
    if (!safetensors_open(&st, path, err)) return false;
    const bool ok = load_adapted(t, st, err) && load_moments(t, st, s->steps, err) &&
                    load_place(t->sync.comm, source, st, s->epoch.number, exact && same_ranks(s, t), err);
    safetensors_close(st);
    return ok;
}

bool resume_load(RunState *s, Trainer *t, const BatchSource *source, const char *checkpoint, bool exact,
                 Error *err) {
    char *json = path_join(checkpoint, RESUME_TRAINER_FILE),
         *state = path_join(checkpoint, RESUME_STATE_FILE);
    const bool ok = run_state_read(s, json, err) && checkpoint_load_weights(t->model, checkpoint, err) &&
                    load_state(s, t, source, state, exact, err);
    // what the ranks had put together at rank 0 for the checkpoint
    if (!comm_is_first(t->sync.comm)) s->statistics = (Statistics){0};
    t->updates = s->updates;
    memcpy(t->optimizer.steps, s->steps, sizeof s->steps);
    free(state);
    free(json);
    return ok;
}
