// `vlm train`: from a configuration and a data set to checkpoints (nanoVLM, train.py). Exit status 0: done,
// also when max_minutes ended it; 130 or 143: stopped by SIGINT or SIGTERM with the work saved; 1: failed,
// also when only the last save did; 2: wrong flags.
#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "cmd/backbones.h"
#include "cmd/cmd.h"
#include "cmd/continue_line.h"
#include "model/checkpoint.h"
#include "ops/cpu/cpu.h"
#include "train/run.h"
#include "train/stop.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

// Everything a run stands on, in the order it is opened.
typedef struct Job {
    Config config;
    Backbones backbones; // with vlm_load_backbone_weights
    Tokenizer *tokenizer;
    Loader *training, *validation;
    Backend *be;
    Vlm model;
    Trainer trainer;
} Job;

static void job_close(Job *j) {
    trainer_free(&j->trainer);
    vlm_free(&j->model);
    backend_destroy(j->be);
    loader_close(j->validation);
    loader_close(j->training);
    tokenizer_free(j->tokenizer);
    backbones_close(&j->backbones);
    config_free(&j->config);
}

// ---- configuration ----

// A run that starts from a checkpoint takes the model's configuration from there; flags still go first.
static bool read_checkpoint_config(Config *c, int argc, char **argv, Error *err) {
    char *path = path_join(c->vlm.vlm_checkpoint_path, "config.json");
    char **extended = mem_zeroed((size_t)argc + 3, sizeof *extended);
    memcpy(extended, argv, (size_t)argc * sizeof *argv);
    extended[argc] = "--config";
    extended[argc + 1] = path;
    config_free(c);
    config_init(c);
    bool ok = config_parse(c, (FieldSet){0}, argc + 2, extended, err);
    if (!ok) error_prefix(err, "--resume_from_vlm_checkpoint");
    c->vlm.vlm_load_backbone_weights = false;
    free(extended);
    free(path);
    return ok;
}

static bool refuse_unsupported(const VLMConfig *c, Error *err) {
    if (c->lm_dropout.value > 0 || c->vit_dropout.value > 0)
        return error_set(
            err, "lm_dropout is %g and vit_dropout %g, but dropout is not part of training; set both to 0",
            c->lm_dropout.value, c->vit_dropout.value);
    return true;
}

static bool read_config(Job *j, int argc, char **argv, Error *err) {
    Config *c = &j->config;
    if (!config_parse(c, (FieldSet){0}, argc, argv, err)) return false;
    if (c->train.resume_from_vlm_checkpoint && !has_flag(argc, argv, "config") &&
        !read_checkpoint_config(c, argc, argv, err))
        return false;
    if (c->train.resume_from_vlm_checkpoint) c->vlm.vlm_load_backbone_weights = false;
    if (c->vlm.vlm_load_backbone_weights && !backbones_open(&j->backbones, c, argc, argv, err)) return false;
    return train_config_check(c, err) && refuse_unsupported(&c->vlm, err);
}

static void say_what_is_left_out(const Config *c) {
    const struct {
        bool is_on;
        const char *text;
    } parts[] = {
        {c->train.log_wandb, "W&B (log_wandb)"},
        {c->train.use_lmms_eval, "evaluation jobs (use_lmms_eval)"},
        {c->vlm.hf_repo_name != NULL, "pushing to the Hub (hf_repo_name)"},
        {c->train.compile, "compilation (compile)"},
    };
    char text[256] = "";
    size_t used = 0;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (parts[i].is_on)
            used +=
                (size_t)snprintf(text + used, sizeof text - used, "%s%s", used ? ", " : "", parts[i].text);
    if (used)
        log_info("not part of this build and left out: %s; metrics go to log.jsonl in the run's folder",
                 text);
}

// ---- opening ----

static bool open_tokenizer(Job *j, Error *err) {
    const VLMConfig *c = &j->config.vlm;
    ChatTemplate chat;
    if (!tokenizer_open(&j->tokenizer, c->lm_tokenizer, &c->vlm_extra_tokens, err)) return false;
    const size_t tokens = tokenizer_vocab_size(j->tokenizer);
    if (tokens > c->lm_vocab_size)
        return error_set(err,
                         "%s has %zu tokens with vlm_extra_tokens, but lm_vocab_size is %zu; raise "
                         "lm_vocab_size (and lm_base_vocab_size) or give another --lm_tokenizer",
                         c->lm_tokenizer, tokens, c->lm_vocab_size);
    return chat_template_init(&chat, j->tokenizer, c->lm_chat_template, err);
}

static bool open_loaders(Job *j, Error *err) {
    if (!loader_open(&j->training, &j->config, j->tokenizer, LOADER_TRAIN, err)) return false;
    if (j->config.train.val_size == 0 && !j->config.options.val_dataset_path) return true;
    return loader_open(&j->validation, &j->config, j->tokenizer, LOADER_VALIDATION, err);
}

static void log_memory(const Job *j) {
    const double mib = 1048576.0;
    const double parts[] = {(double)(j->model.params.values.size + j->model.params.products.size),
                            (double)j->model.params.gradients.size, (double)j->trainer.optimizer.arena.size,
                            (double)j->model.activations.size};
    log_info("memory: %.1f MiB parameters, %.1f gradients, %.1f optimizer, %.1f activations; %.1f MiB in all",
             parts[0] / mib, parts[1] / mib, parts[2] / mib, parts[3] / mib,
             (parts[0] + parts[1] + parts[2] + parts[3]) / mib);
}

static bool first_weights(Job *j, Error *err) {
    const Config *c = &j->config;
    const TrainOptions *o = &c->options;
    if (c->train.resume_from_vlm_checkpoint)
        return checkpoint_load_changed(&j->model, c->vlm.vlm_checkpoint_path, o->interpolate_positions,
                                       o->seed, err);
    if (c->vlm.vlm_load_backbone_weights) {
        const bool ok = backbones_load(&j->backbones, &j->model, c, err);
        backbones_close(&j->backbones);
        return ok;
    }
    params_initialise(&j->model.params, j->be, &c->vlm, o->init, o->seed);
    return true;
}

// First of all, so that weights which do not fit are named before data is read.
static bool open_backend(Job *j, Error *err) {
    const Config *c = &j->config;
    return backend_cpu_create(&j->be, c->options.threads, err) &&
           backbones_check(&j->backbones, j->be, c, err);
}

static bool open_model(Job *j, Error *err) {
    const Config *c = &j->config;
    VlmPlan plan = {
        .max_batch = c->train.batch_size,
        .max_positions = c->vlm.lm_max_length,
        .max_tiles = loader_max_tiles(c),
        .training = true,
        .image_token_id = tokenizer_extra_id(j->tokenizer, "image_token"),
        .documents = train_options_documents(&c->options),
        .dtype = vlm_dtype(c->options.dtype, j->be),
        .recompute = recompute_from(c->options.recompute),
    };
    trainer_trained_groups(plan.trained, &c->train);
    if (!vlm_create(&j->model, j->be, &c->vlm, &plan, err) ||
        !trainer_create(&j->trainer, &j->model, &c->train, err))
        return false;
    if (!first_weights(j, err)) return false;
    log_info("backend: %s, %s, dtype %s", j->be->name, j->be->detail, dtype_name(plan.dtype));
    params_print_summary(&j->model.params);
    log_memory(j);
    return true;
}

// ---- the run ----

static void report(const Job *j, const RunResult *r, int argc, char **argv) {
    const uint64_t updates = j->trainer.updates;
    const double samples =
        (double)(j->config.train.batch_size * j->config.train.gradient_accumulation_steps * updates);
    if (updates > 0)
        log_info("average time: %.2f s an epoch, %.3f s an update, %.4f s a sample",
                 r->seconds / (double)r->epochs, r->seconds / (double)updates, r->seconds / samples);
    if (r->best_checkpoint) log_info("best: %s, validation loss %.4f", r->best_checkpoint, r->best_val_loss);
    if (r->last_checkpoint) log_info("last: %s", r->last_checkpoint);
    if (r->end == RUN_COMPLETE || !r->last_checkpoint) return;
    char *line = continue_line(r->last_checkpoint, argc, argv);
    log_info("to go on from these weights (step, moments and data position begin anew):\n  %s", line);
    free(line);
}

static int exit_status(const RunResult *r) {
    if (r->save_failed || r->end == RUN_FAILED) return EXIT_FAILED;
    return r->end == RUN_SIGNALLED ? 128 + stop_signal() : EXIT_DONE;
}

static int train(Job *j, int argc, char **argv, Error *err) {
    char date[32];
    const time_t now = time(NULL);
    strftime(date, sizeof date, "%m%d-%H%M%S", localtime(&now));
    const char *given = j->config.options.run_name;
    char *name = given ? mem_strdup(given) : run_name(&j->config, 1, date);
    const RunPlan plan = {&j->config, &j->trainer, batch_source_of_loader(j->training),
                          batch_source_of_loader(j->validation), name};
    RunResult result;
    log_info("run %s: %zu updates of %zu x %zu sequences", name, j->config.train.max_training_steps,
             j->config.train.gradient_accumulation_steps, j->config.train.batch_size);
    stop_gently();
    const bool ok = train_run(&plan, &result, err);
    report(j, &result, argc, argv);
    const int status = exit_status(&result);
    if (ok && status == EXIT_FAILED) error_set(err, "the last checkpoint could not be saved");
    run_result_free(&result);
    free(name);
    return status;
}

int cmd_train(int argc, char **argv) {
    Job job = {0};
    Error err = {""};
    int status = EXIT_USAGE;
    config_init(&job.config);
    if (read_config(&job, argc, argv, &err)) {
        say_what_is_left_out(&job.config);
        stop_on_signals();
        bool ok = open_backend(&job, &err) && open_tokenizer(&job, &err) && open_loaders(&job, &err) &&
                  open_model(&job, &err);
        status = ok ? train(&job, argc, argv, &err) : EXIT_FAILED;
    }
    if (err.text[0]) log_error("%s", err.text);
    job_close(&job);
    return status;
}
