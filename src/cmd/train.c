// `vlm train`: from a configuration and a data set to checkpoints (nanoVLM, train.py). Exit status 0: done,
// also when max_minutes ended it; 130, 143 or 138: stopped by SIGINT, SIGTERM or SIGUSR1 with the work
// saved, to be started again; 1: failed, also when only the last save did; 2: wrong flags.
#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "cmd/cmd.h"
#include "cmd/train_job.h"
#include "cmd/train_plan.h"
#include "cmd/train_profile.h"
#include "cmd/train_report.h"
#include "train/stop.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

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

static void report_profile(TrainJob *j, const char *run) {
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

static int print_plan(TrainJob *j, Error *err) {
    return train_plan_print(&j->config, &j->trainer, &j->host, j->training, j->comm, err) ? EXIT_DONE
                                                                                          : EXIT_FAILED;
}

static int train(TrainJob *j, int argc, char **argv, Error *err) {
    char date[32];
    const time_t now = time(NULL);
    strftime(date, sizeof date, "%m%d-%H%M%S", localtime(&now));
    const char *given = j->config.options.run_name;
    char *name = given ? mem_strdup(given) : run_name(&j->config, comm_world_size(j->comm), date);
    const RunPlan plan = {.config = &j->config,
                          .trainer = &j->trainer,
                          .training = batch_source_of_loader(j->training),
                          .validation = batch_source_of_loader(j->validation),
                          .run_name = name,
                          .resume_from = j->resume_from,
                          .resume_is_exact = j->resume_is_exact,
                          .goes_on = j->goes_on,
                          .rules = loader_rules(j->training),
                          .cache = j->cache,
                          .profile = j->config.options.profile ? &j->profile : NULL,
                          .comm = j->comm};
    RunResult result;
    log_info("run %s: %zu updates of %zu x %zu x %zu sequences (ranks, accumulation, batch)", name,
             j->config.train.max_training_steps, comm_world_size(j->comm),
             j->config.train.gradient_accumulation_steps, j->config.train.batch_size);
    stop_gently();
    const bool ok = train_run(&plan, &result, err);
    train_report(j, &result, argc, argv);
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
    TrainJob job = {0};
    Error err = {""};
    int status = EXIT_USAGE;
    config_init(&job.config);
    if (train_job_configure(&job, argc, argv, &err)) {
        say_what_is_left_out(&job.config);
        stop_on_signals();
        const bool ok = train_job_open(&job, &err);
        status = !ok                          ? EXIT_FAILED
                 : job.config.options.dry_run ? print_plan(&job, &err)
                                              : train(&job, argc, argv, &err);
    }
    status = end_ranks(job.comm, status, &err);
    train_job_close(&job);
    return status;
}
