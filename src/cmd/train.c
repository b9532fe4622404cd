// `vlm train`: from a configuration and a data set to checkpoints (nanoVLM, train.py). Exit status 0: done,
// also when max_minutes ended it; 130, 143 or 138: stopped by SIGINT, SIGTERM or SIGUSR1 with the work
// saved, to be started again; 1: failed, also when only the last save did; 2: wrong flags.
#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "cmd/backbones.h"
#include "cmd/cmd.h"
#include "cmd/continue_line.h"
#include "cmd/train_plan.h"
#include "cmd/train_profile.h"
#include "cmd/train_threads.h"
#include "hub/hub.h"
#include "model/checkpoint.h"
#include "base/cpu_level.h"
#include "model/lora_file.h"
#include "ops/cpu/cpu.h"
#include "train/agreement.h"
#include "train/memory_plan.h"
#include "train/resume.h"
#include "train/run.h"
#include "train/saver.h"
#include "train/stop.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

// Everything a run stands on, in the order it is opened.
typedef struct Job {
    Config config;
    Backbones backbones; // with vlm_load_backbone_weights
    char *start;         // with resume_from_vlm_checkpoint: where it lies
    char *resume_from;   // checkpoint with the trainer's state; NULL: none
    bool resume_is_exact, goes_on;
    Tokenizer *tokenizer;
    TileCache *cache; // with cache_vision
    Loader *training, *validation;
    Backend *be;
    Dtype dtype;
    Vlm model;
    Comm *comm; // NULL: one process
    RunProfile profile;
    Trainer trainer;
    HostMemory host;
} Job;

static void job_close(Job *j) {
    trainer_free(&j->trainer);
    vlm_free(&j->model);
    backend_destroy(j->be);
    loader_close(j->validation);
    loader_close(j->training);
    tile_cache_free(j->cache);
    tokenizer_free(j->tokenizer);
    backbones_close(&j->backbones);
    free(j->resume_from);
    free(j->start);
    config_free(&j->config);
}

// ---- configuration ----

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

static bool refuse_unsupported(const VLMConfig *c, Error *err) {
    if (c->lm_dropout.value > 0 || c->vit_dropout.value > 0)
        return error_set(
            err, "lm_dropout is %g and vit_dropout %g, but dropout is not part of training; set both to 0",
            c->lm_dropout.value, c->vit_dropout.value);
    return true;
}

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

static void set_text(char **field, char *text) {
    free(*field);
    *field = text;
}

// A checkpoint out of the Hub cache is only read; its runs are saved where a run without one has its place.
static void save_beside_the_cache(Job *j) {
    VLMConfig *c = &j->config.vlm;
    if (j->start && strcmp(j->start, c->vlm_checkpoint_path))
        set_text(&c->vlm_checkpoint_path, mem_strdup("checkpoints"));
}

static bool find_start(Job *j, Error *err) {
    if (j->config.train.resume_from_vlm_checkpoint &&
        !hub_resolve(&j->start, j->config.vlm.vlm_checkpoint_path, err))
        return error_prefix(err, "--vlm_checkpoint_path");
    save_beside_the_cache(j);
    return true;
}

// Looks for the state to go on from. With `auto` and a run's name only there.
static void find_state(Job *j) {
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
static bool read_state_config(Job *j, int argc, char **argv, Error *err) {
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

static bool read_config(Job *j, int argc, char **argv, Error *err) {
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

// A failure stays one: the run's next call says what it was.
static bool all_have_batches(void *comm, bool has_batch) {
    return comm_all(comm, &has_batch, "agreement on the next batch", NULL) && has_batch;
}

static bool open_loaders(Job *j, Error *err) {
    if (!memory_of_program(&j->host.program, j->be, &j->config, err)) return false;
    const LoaderRanks ranks = {comm_rank(j->comm), comm_world_size(j->comm),
                               j->comm ? all_have_batches : NULL, j->comm};
    if (!loader_open_rank(&j->training, &j->config, j->tokenizer, LOADER_TRAIN, ranks, err)) return false;
    if (j->config.train.val_size == 0 && !j->config.options.val_dataset_path) return true;
    return loader_open_rank(&j->validation, &j->config, j->tokenizer, LOADER_VALIDATION, ranks, err);
}

// Both loaders know what it knows; the run opens it once it has the weights.
static bool open_cache(Job *j, Error *err) {
    const Config *c = &j->config;
    if (!c->options.cache_vision || c->options.dry_run) return true;
    const size_t bytes = modality_projector_tile_bytes(&c->vlm, j->dtype);
    return tile_cache_create(&j->cache, c->options.cache_vision, bytes, err) &&
           loader_use_cache(j->training, j->cache, err) &&
           (!j->validation || loader_use_cache(j->validation, j->cache, err));
}

// Kept features go with weights that stay as they are.
static bool check_cache(const Job *j, Error *err) {
    if (!j->config.options.cache_vision || !vlm_trains_vision(&j->model)) return true;
    return error_set(err, "cache_vision keeps what a frozen vision encoder gives, but it is trained: set "
                          "lr_vision_backbone 0, or leave cache_vision out");
}

// The same as `vlm memory` says, with the batches that the data gives on average.
static bool log_memory(Job *j, Error *err) {
    const double mib = 1048576.0;
    MemoryPlan m, more;
    const size_t tiles = j->host.training.tiles;
    if (!memory_plan_run(&m, j->be, &j->config, &j->host, tiles, 0, err) ||
        !memory_plan_run(&more, j->be, &j->config, &j->host, tiles + 1, 0, err))
        return false;
    const size_t data = m.rows + m.samples + m.batches, rest = m.program + m.library;
    log_info(
        "memory: %.1f MiB parameters, %.1f gradients, %.1f optimizer, %.1f activations, %.1f copy for "
        "checkpoints, %.1f data, %.1f program; %.1f MiB in all with %zu tiles a batch, their mean, and %.1f "
        "for each tile more",
        (double)(m.parameters + m.copies) / mib, (double)m.gradients / mib, (double)m.moments / mib,
        (double)m.activations / mib, (double)m.checkpoint / mib, (double)data / mib, (double)rest / mib,
        (double)memory_plan_total(&m) / mib, tiles, (double)(more.activations - m.activations) / mib);
    return true;
}

static bool first_weights(Job *j, Error *err) {
    const Config *c = &j->config;
    const TrainOptions *o = &c->options;
    if (j->resume_from) return true; // the run brings them with its state
    if (c->train.resume_from_vlm_checkpoint)
        return checkpoint_load_changed(&j->model, j->start, o->interpolate_positions, o->seed, err);
    if (c->vlm.vlm_load_backbone_weights) {
        const bool ok = backbones_load(&j->backbones, &j->model, c, err);
        backbones_close(&j->backbones);
        return ok;
    }
    params_initialise(&j->model.params, j->be, &c->vlm, o->init, o->seed);
    return true;
}

// Beneath adapters are the weights a run begins with, so those come first.
static bool first_adapters(Job *j, Error *err) {
    const TrainOptions *o = &j->config.options;
    if (j->resume_from) return true;
    params_initialise_adapters(&j->model.params, j->be, &j->config.vlm, o->seed);
    return !o->lora_adapter || lora_load(&j->model.params, j->be, o->lora_adapter, err);
}

// Rank 0 speaks for all; the others only warn.
static bool open_ranks(Job *j, Error *err) {
    if (!comm_open(&j->comm, 60 * j->config.options.comm_timeout.value, err)) return false;
    if (!comm_is_first(j->comm)) log_set_level(LOG_WARNING);
    if (j->comm) log_info("ranks: %s", comm_describe(j->comm));
    return true;
}

static json_t *identity_of(const Loader *l) {
    uint64_t rows = 0, files = 0;
    if (l) loader_identity(l, &rows, &files);
    return json_pack("[I, I]", (json_int_t)rows, (json_int_t)(files >> 1));
}

// Different settings, data or kinds of processor would let the ranks drift apart without a word.
static bool compare_settings(Job *j, Error *err) {
    CpuLevel level;
    if (!cpu_level_choose(&level, err)) return false;
    json_t *facts = agreement_of_config(&j->config, VLM_VERSION ", " VLM_COMPILER);
    json_object_set_new(facts, "instructions of the processor", json_string(cpu_level_names[level]));
    const bool ok = agreement_check(j->comm, facts, err);
    json_decref(facts);
    return ok;
}

static bool compare_data(Job *j, Error *err) {
    json_t *facts = json_object();
    json_object_set_new(facts, "training data (rows, files)", identity_of(j->training));
    json_object_set_new(facts, "validation data (rows, files)", identity_of(j->validation));
    const bool ok = agreement_check(j->comm, facts, err);
    json_decref(facts);
    return ok;
}

// First of all, so that weights which do not fit are named before data is read.
static bool open_backend(Job *j, Error *err) {
    const Config *c = &j->config;
    size_t threads;
    if (!train_threads(&threads, &c->options, j->comm, err) || !backend_cpu_create(&j->be, threads, err))
        return false;
    j->dtype = vlm_dtype(c->options.dtype, j->be);
    vlm_explain_dtype(c->options.dtype, j->be);
    return backbones_check(&j->backbones, j->be, c, err);
}

static bool open_model(Job *j, Error *err) {
    const Config *c = &j->config;
    VlmPlan plan = memory_model_plan(c, j->be);
    plan.image_token_id = tokenizer_extra_id(j->tokenizer, "image_token");
    if (!vlm_create(&j->model, j->be, &c->vlm, &plan, err) ||
        !trainer_create(&j->trainer, &j->model, &c->train,
                        optimizer_form(&c->options, comm_rank(j->comm), comm_world_size(j->comm)), err))
        return false;
    if (!check_cache(j, err) || !first_weights(j, err) || !first_adapters(j, err) ||
        !trainer_join(&j->trainer, j->comm, GRADIENT_BUCKET_BYTES, err))
        return false;
    j->host = memory_of_host(c, j->host.program, comm_rank(j->comm), comm_world_size(j->comm), j->training,
                             j->validation);
    log_info("backend: %s, %s, dtype %s", j->be->name, j->be->detail, dtype_name(plan.dtype));
    params_print_summary(&j->model.params);
    return log_memory(j, err);
}

// ---- the run ----

static void report_ranks(const Job *j, double updates) {
    const CommCosts c = comm_costs(j->comm);
    if (!j->comm || updates == 0) return;
    log_info("gradients and weights: %.2f MiB sent by each rank an update, %.4f s on their way, of which "
             "training waited "
             "%.4f s; %.4f s of a processor",
             (double)c.bytes / 1048576 / updates, c.seconds / updates, c.waited / updates,
             c.processor / updates);
}

static void report_cache(const Job *j) {
    if (!j->cache) return;
    const TileCacheCounts c = tile_cache_counts(j->cache);
    log_info("cache_vision: %llu tiles were there, %llu were not; %llu kept (%.1f MiB), %llu damaged",
             (unsigned long long)c.known, (unsigned long long)c.unknown, (unsigned long long)c.kept,
             (double)c.kept * (double)tile_cache_tile_bytes(j->cache) / 1048576,
             (unsigned long long)c.damaged);
}

static void report_memory(const Job *j) {
    MemoryPlan m;
    Error err;
    const Trainer *t = &j->trainer;
    if (t->most_targets == 0 ||
        !memory_plan_run(&m, j->be, &j->config, &j->host, t->most_tiles, t->most_targets, &err))
        return;
    log_info(
        "memory: %.1f MiB resident at most; planned were %.1f for batches of %zu tiles and %zu targets, the "
        "most that came",
        (double)mem_resident_peak() / 1048576, (double)memory_plan_total(&m) / 1048576, t->most_tiles,
        t->most_targets);
}

static void report(const Job *j, const RunResult *r, int argc, char **argv) {
    const uint64_t updates = j->trainer.updates;
    const double samples = (double)(comm_world_size(j->comm) * j->config.train.batch_size *
                                    j->config.train.gradient_accumulation_steps * updates);
    if (updates > 0 && r->epochs > 0)
        log_info("average time: %.2f s an epoch, %.3f s an update, %.4f s a sample",
                 r->seconds / (double)r->epochs, r->seconds / (double)updates, r->seconds / samples);
    report_ranks(j, (double)updates);
    report_cache(j);
    report_memory(j);
    if (r->best_checkpoint) log_info("best: %s, validation loss %.4f", r->best_checkpoint, r->best_val_loss);
    if (r->last_checkpoint) log_info("last: %s", r->last_checkpoint);
    if (r->end == RUN_COMPLETE || !r->last_checkpoint) return;
    char *line = continue_line(r->last_checkpoint, argc, argv);
    log_info("to go on from there, bit for bit:\n  %s", line);
    free(line);
}

static void report_profile(Job *j, const char *run) {
    if (!j->config.options.profile || !comm_is_first(j->comm)) return;
    Error err;
    char *folder = path_join(j->config.vlm.vlm_checkpoint_path, run);
    if (!train_profile_report(&j->profile, &j->config, &j->model, j->comm, folder, &err))
        log_error("%s", err.text);
    free(folder);
}

static int exit_status(const RunResult *r) {
    if (r->save_failed || r->end == RUN_FAILED) return EXIT_FAILED;
    return r->end == RUN_SIGNALLED ? 128 + r->signal : EXIT_DONE;
}

static int print_plan(Job *j, Error *err) {
    return train_plan_print(&j->config, &j->trainer, &j->host, j->training, j->comm, err) ? EXIT_DONE
                                                                                          : EXIT_FAILED;
}

static int train(Job *j, int argc, char **argv, Error *err) {
    char date[32];
    const time_t now = time(NULL);
    strftime(date, sizeof date, "%m%d-%H%M%S", localtime(&now));
    const char *given = j->config.options.run_name;
    char *name = given ? mem_strdup(given) : run_name(&j->config, comm_world_size(j->comm), date);
    const RunPlan plan = {&j->config,
                          &j->trainer,
                          batch_source_of_loader(j->training),
                          batch_source_of_loader(j->validation),
                          name,
                          j->resume_from,
                          j->resume_is_exact,
                          j->goes_on,
                          loader_rules(j->training),
                          j->cache,
                          j->config.options.profile ? &j->profile : NULL,
                          j->comm};
    RunResult result;
    log_info("run %s: %zu updates of %zu x %zu x %zu sequences (ranks, accumulation, batch)", name,
             j->config.train.max_training_steps, comm_world_size(j->comm),
             j->config.train.gradient_accumulation_steps, j->config.train.batch_size);
    stop_gently();
    const bool ok = train_run(&plan, &result, err);
    report(j, &result, argc, argv);
    report_profile(j, name);
    const int status = exit_status(&result);
    if (ok && status == EXIT_FAILED) error_set(err, "the last checkpoint could not be saved");
    run_result_free(&result);
    free(name);
    return status;
}

// A rank that has failed tells the others; without a failure all part together.
static int end_ranks(Comm *comm, int status, Error *err) {
    const bool failed = status == EXIT_FAILED || (status != EXIT_USAGE && !comm_close(comm, err));
    if (err->text[0]) log_error("%s", err->text);
    if (status == EXIT_FAILED) comm_give_up(comm, err->text);
    return failed ? EXIT_FAILED : status;
}

int cmd_train(int argc, char **argv) {
    Job job = {0};
    Error err = {""};
    int status = EXIT_USAGE;
    config_init(&job.config);
    if (read_config(&job, argc, argv, &err)) {
        say_what_is_left_out(&job.config);
        stop_on_signals();
        bool ok = open_ranks(&job, &err) && compare_settings(&job, &err) && open_backend(&job, &err) &&
                  open_tokenizer(&job, &err) && open_loaders(&job, &err) && compare_data(&job, &err) &&
                  open_cache(&job, &err) && open_model(&job, &err);
        status = !ok                          ? EXIT_FAILED
                 : job.config.options.dry_run ? print_plan(&job, &err)
                                              : train(&job, argc, argv, &err);
    }
    status = end_ranks(job.comm, status, &err);
    job_close(&job);
    return status;
}
