// A run's checkpoints: made, found again, and the last one when another rank has failed.
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "train/moment_shares.h"
#include "train/resume.h"
#include "train/run_parts.h"
#include "train/together.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// ---- saving ----

static void remember(char **slot, const char *path) {
    free(*slot);
    *slot = mem_strdup(path);
}

void run_collect(Run *r, bool wait) {
    Error err;
    char *path;
    bool ok;
    if (!saver_collect(&r->saver, wait, &path, &ok, &err)) return;
    r->result->save_failed = !ok;
    if (ok) {
        remember(&r->result->last_checkpoint, path);
        if (r->saved_best) {
            remember(&r->result->best_checkpoint, path);
            snprintf(r->state.best_checkpoint, sizeof r->state.best_checkpoint, "%s", strrchr(path, '/') + 1);
        }
        log_info("saved %s", path);
    } else {
        log_error("%s (%s stands; saving is tried again when it is due next)", err.text,
                  r->result->last_checkpoint ? r->result->last_checkpoint : "no earlier checkpoint");
    }
    free(path);
}

// The numbers as they stand now, and the places in the data.
static bool update_state(Run *r, Error *err) {
    Comm *comm = r->plan->comm;
    RunState *s = &r->state;
    double means[2] = {s->epoch.loss_sum, s->epoch.tokens};
    if (!comm_combine(comm, means, 2, COMM_MEAN, "the epoch so far", err) ||
        !together_statistics(comm, &s->statistics, err))
        return false;
    s->epoch.loss_sum = means[0], s->epoch.tokens = means[1];
    s->updates = r->trainer->updates;
    memcpy(s->steps, r->trainer->optimizer.steps, sizeof s->steps);
    s->world_size = comm_world_size(comm);
    s->log_size = r->log.size;
    s->epoch.seconds = clock_seconds() - r->epoch_started;
    s->seconds = r->seconds_before + clock_seconds() - r->started;
    s->best_val_loss = r->result->best_val_loss;
    snprintf(s->run_name, sizeof s->run_name, "%s", r->plan->run_name);
    vec_clear(&r->place);
    if (!r->plan->training.save) return true;
    r->plan->training.save(r->plan->training.state, &r->place);
    return together_places(comm, &r->place, err);
}

static bool gather_moments(Run *r, Error *err) {
    const Optimizer *o = &r->trainer->optimizer;
    return !optimizer_is_shared(o) || moment_shares_gather(o, r->plan->comm, r->saver.m, r->saver.v, err);
}

bool run_save(Run *r, bool is_best, Error *err) {
    char name[32];
    snprintf(name, sizeof name, "step_%llu", (unsigned long long)run_step(r));
    char *path = path_join(r->folder, name);
    const double started = clock_seconds();
    run_collect(r, true);
    if (!update_state(r, err) || !gather_moments(r, err)) {
        free(path);
        return false;
    }
    RunState state = r->state; // r->state learns of a new best checkpoint once it stands
    if (is_best) memcpy(state.best_checkpoint, name, sizeof name);
    r->saved = r->trainer->updates;
    r->saved_best = is_best;
    if (run_is_first(r)) saver_begin(&r->saver, path, &state, &r->place);
    run_collect(r, false);
    run_profile_add(r->plan->profile, PART_SAVING, started);
    free(path);
    return true;
}

// ---- going on ----

static char *beside(const char *path, const char *name) { // in the same folder; caller frees
    const char *slash = strrchr(path, '/');
    return slash ? mem_printf("%.*s/%s", (int)(slash - path), path, name) : mem_strdup(name);
}

bool run_load(Run *r, Error *err) {
    const RunPlan *p = r->plan;
    if (!resume_load(&r->state, r->trainer, &p->training, p->resume_from, p->resume_is_exact, err))
        return false;
    r->saved = r->trainer->updates;
    r->seconds_before = r->state.seconds;
    r->epoch_started -= r->state.epoch.seconds;
    r->result->best_val_loss = r->state.best_val_loss;
    r->result->last_checkpoint = mem_strdup(p->resume_from);
    if (r->state.best_checkpoint[0])
        r->result->best_checkpoint = beside(p->resume_from, r->state.best_checkpoint);
    log_info("goes on from %s: update %llu of epoch %llu, %s", p->resume_from,
             (unsigned long long)r->trainer->updates, (unsigned long long)r->state.epoch.number + 1,
             !p->resume_is_exact                               ? "with changed settings"
             : r->state.world_size == comm_world_size(p->comm) ? "bit for bit"
                                                               : "with another number of ranks");
    return true;
}

// ---- when another rank has failed ----

// Rank 0 has all it takes, unless moments are shared or an update was under way.
static bool can_rescue(const Run *r) {
    const Trainer *t = r->trainer;
    return r->plan->comm && run_is_first(r) && !r->broken && !t->is_torn && r->saved != t->updates &&
           !optimizer_is_shared(&t->optimizer);
}

void run_rescue(Run *r) {
    if (!can_rescue(r)) return;
    const Trainer *t = r->trainer;
    Error err;
    bool ok;
    char *path = mem_printf("%s/rescued_%llu", r->folder, (unsigned long long)run_step(r)), *saved;
    RunState state = r->state;
    state.updates = t->updates;
    memcpy(state.steps, t->optimizer.steps, sizeof state.steps);
    state.world_size = 0; // of no number of ranks
    state.log_size = r->log.size;
    state.best_val_loss = r->result->best_val_loss;
    snprintf(state.run_name, sizeof state.run_name, "%s", r->plan->run_name);
    vec_clear(&r->place);
    saver_begin(&r->saver, path, &state, &r->place);
    if (saver_collect(&r->saver, true, &saved, &ok, &err)) free(saved);
    if (ok)
        log_warning(
            "another rank has failed; weights and moments of its last update are saved in %s: with "
            "--resume_from_vlm_checkpoint true --vlm_checkpoint_path %s training goes on from there and "
            "begins its epoch anew; %s goes on bit for bit",
            path, path, r->result->last_checkpoint ? r->result->last_checkpoint : "no checkpoint");
    else
        log_error("%s", err.text);
    free(path);
}
