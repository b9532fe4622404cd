#include "cmd/train_job.h"

#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "cmd/continue_line.h"
#include "hub/hub.h"
#include "train/resume.h"

#include <stdlib.h>
#include <string.h>

static void set_text(char **field, char *text) {
    free(*field);
    *field = text;
}

// A run that starts from a checkpoint takes its configuration from there; flags still go first.
static bool read_checkpoint_config(Config *c, const char *folder, const char *file, int argc, char **argv,
                                   Error *err) {
    char *path = path_join(folder, file);
    char **extended = mem_zeroed((size_t)argc + 3, sizeof *extended);
    memcpy(extended, argv, (size_t)argc * sizeof *argv);
    extended[argc] = "--config";
    extended[argc + 1] = path;
    config_free(c);
    config_init(c);
    bool ok = config_parse(c, (FieldSet){0}, argc + 2, extended, err);
    if (!ok) error_prefix(err, "--resume_from_vlm_checkpoint");
    free(extended);
    free(path);
    return ok;
}

// ---- where it starts ----

// The last `levels` names of a path taken off; caller frees.
static char *above(const char *path, int levels) {
    char *copy = mem_strdup(path);
    while (levels-- > 0) {
        size_t n = strlen(copy);
        while (n > 1 && copy[n - 1] == '/') copy[--n] = '\0';
        char *slash = strrchr(copy, '/');
        char *shorter = slash ? mem_strndup(copy, slash > copy ? (size_t)(slash - copy) : 1)
                              : mem_strdup(strcmp(copy, ".") && strcmp(copy, "..") ? "." : "..");
        free(copy);
        copy = shorter;
    }
    return copy;
}

// A checkpoint out of the Hub cache is only read; its runs are saved where a run without one has its place.
static void save_beside_the_cache(TrainJob *j) {
    VLMConfig *c = &j->config.vlm;
    if (j->start && strcmp(j->start, c->vlm_checkpoint_path))
        set_text(&c->vlm_checkpoint_path, mem_strdup("checkpoints"));
}

static bool find_start(TrainJob *j, Error *err) {
    if (j->config.train.resume_from_vlm_checkpoint &&
        !hub_resolve(&j->start, j->config.vlm.vlm_checkpoint_path, err))
        return error_prefix(err, "--vlm_checkpoint_path");
    save_beside_the_cache(j);
    return true;
}

// Looks for the state to go on from. With `auto` and a run's name only there.
static void find_state(TrainJob *j) {
    const Config *c = &j->config;
    const bool is_auto = !strcmp(c->options.resume, "auto");
    if (c->options.resume_weights_only || !(is_auto || c->train.resume_from_vlm_checkpoint)) return;
    if (is_auto && c->options.run_name) {
        char *run = path_join(c->vlm.vlm_checkpoint_path, c->options.run_name);
        j->resume_from = resume_find(run);
        j->goes_on = true;
        free(run);
    }
    const char *start = j->start ? j->start : c->vlm.vlm_checkpoint_path;
    if (!j->goes_on) j->resume_from = resume_find(start);
    if (!j->resume_from && c->train.resume_from_vlm_checkpoint && !is_auto)
        log_info(
            "%s holds no trainer's state: only the weights are taken, step, moments and place in the data "
            "begin anew",
            start);
}

// The run goes on in its own folder, or under another name in a folder beside it.
static bool read_state_config(TrainJob *j, int argc, char **argv, Error *err) {
    Config *c = &j->config;
    char *run = above(j->resume_from, 1);
    const char *slash = strrchr(run, '/'), *name = slash ? slash + 1 : run;
    const bool ok = read_checkpoint_config(c, j->resume_from, "run.json", argc, argv, err) &&
                    resume_compare(&j->resume_is_exact, c, j->resume_from, err);
    if (ok && (!has_flag(argc, argv, "run_name") || !c->options.run_name))
        set_text(&c->options.run_name, mem_strdup(name));
    if (ok) set_text(&c->vlm.vlm_checkpoint_path, above(run, 1));
    j->goes_on = ok && !strcmp(c->options.run_name, name);
    free(run);
    return ok;
}

// ---- the whole ----

static bool refuse_unsupported(const VLMConfig *c, Error *err) {
    if (c->lm_dropout.value > 0 || c->vit_dropout.value > 0)
        return error_set(
            err, "lm_dropout is %g and vit_dropout %g, but dropout is not part of training; set both to 0",
            c->lm_dropout.value, c->vit_dropout.value);
    return true;
}

bool train_job_configure(TrainJob *j, int argc, char **argv, Error *err) {
    Config *c = &j->config;
    if (!config_parse(c, (FieldSet){0}, argc, argv, err)) return false;
    if (!find_start(j, err)) return false;
    find_state(j);
    const bool from_weights = !j->resume_from && c->train.resume_from_vlm_checkpoint;
    if (j->resume_from && !read_state_config(j, argc, argv, err)) return false;
    if (from_weights && !has_flag(argc, argv, "config")) {
        if (!read_checkpoint_config(c, j->start, "config.json", argc, argv, err)) return false;
        save_beside_the_cache(j);
    }
    if (j->resume_from || from_weights) c->vlm.vlm_load_backbone_weights = false;
    if (c->vlm.vlm_load_backbone_weights && !backbones_open(&j->backbones, c, argc, argv, err)) return false;
    return train_config_check(c, err) && refuse_unsupported(&c->vlm, err);
}
