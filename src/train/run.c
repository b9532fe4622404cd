#include "train/run_parts.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "train/stop.h"
#include "train/together.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { MAX_VALIDATION_BATCHES = 65 };

static bool is_due(uint64_t step, size_t interval) {
    return interval > 0 && step % interval == 0;
}

static double max_seconds(const Run *r) {
    return 60 * r->plan->config->options.max_minutes.value;
}

// Whether the run ends here, between two updates: on all ranks when it does on one.
static bool check_end(Run *r, bool *is_over, Error *err) {
    *is_over = false;
    if (r->trainer->accumulated > 0) return true;
    double votes[2] = {-1, stop_signal()};
    if (r->trainer->updates >= r->config->max_training_steps)
        votes[0] = RUN_COMPLETE;
    else if (stop_signal())
        votes[0] = RUN_SIGNALLED;
    else if (max_seconds(r) > 0 && clock_seconds() - r->started >= max_seconds(r))
        votes[0] = RUN_OUT_OF_TIME;
    if (!comm_combine(r->plan->comm, votes, 2, COMM_MAX, "whether to stop", err)) return false;
    if (votes[0] < 0) return true;
    *is_over = true;
    r->result->end = (RunEnd)votes[0];
    r->result->signal = (int)votes[1];
    return true;
}

// The error of a run that has gone astray; what its weights hold is not saved any more.
static bool not_finite(Run *r, uint64_t step, const char *what, double value, Error *err) {
    run_collect(r, true);
    const char *last = r->result->last_checkpoint;
    r->broken = true;
    return error_set(err,
                     "step %llu: the %s is %g; training cannot go on; the last good checkpoint is %s; lower "
                     "the learning rates or max_grad_norm",
                     (unsigned long long)step, what, value, last ? last : "none");
}

// ---- validation ----

// Mean of the batches' losses. *loss stays NaN when there was no batch with a target. A signal does not cut
// it short: the run that goes on would lack the number.
static bool validate(Run *r, double *loss, Error *err) {
    const BatchSource *source = &r->plan->validation;
    double sum = 0;
    size_t n = 0, read = 0;
    while (read < MAX_VALIDATION_BATCHES) {
        const Batch *batch;
        float value;
        if (progress_is_terminal())
            progress_update(0, "step %llu: validating, batch %zu", (unsigned long long)run_step(r), read + 1);
        if (!source->next(source->state, &batch, err)) return false;
        if (!batch) break;
        if (!trainer_evaluate(r->trainer, batch, &value, err)) return false;
        vision_cache_keep(r->plan->cache, r->trainer->model, batch);
        read++;
        if (r->trainer->model->n_targets > 0) sum += value, n++;
    }
    if (!isfinite(sum)) return not_finite(r, run_step(r), "validation loss", sum, err);
    if (read == 0)
        log_warning("no validation: val_size %zu gives no whole batch%s", r->config->val_size,
                    r->plan->config->options.val_dataset_path ? " of val_dataset_path" : "");
    *loss = n > 0 ? sum / (double)n : NAN;
    if (!together_mean(r->plan->comm, loss, "validation loss", err)) return false;
    const bool ok = source->restart(source->state, 0, err);
    mem_trim(); // the samples and rows that are gone lay between those of training
    return ok;
}

// *is_best: the validation loss is the lowest of the run.
static bool validate_and_log(Run *r, bool *is_best, Error *err) {
    const double started = clock_seconds();
    double loss = NAN;
    run_profile_watch(r->plan->profile, false);
    if (r->plan->validation.next && !validate(r, &loss, err)) return false;
    run_profile_watch(r->plan->profile, true);
    run_profile_add(r->plan->profile, PART_VALIDATION, started);
    if (isnan(loss)) return true;
    run_log_number(&r->log, "val_loss", loss);
    log_info("step %llu: validation loss %.4f", (unsigned long long)run_step(r), loss);
    *is_best = loss < r->result->best_val_loss;
    if (*is_best) r->result->best_val_loss = loss;
    return true;
}

// ---- one update ----

static void show_progress(Run *r, double loss) {
    if (!run_is_first(r)) return;
    const uint64_t done = r->trainer->updates, all = r->config->max_training_steps;
    if (!progress_is_terminal() && done != all && !is_due(done - 1, r->plan->config->options.log_interval))
        return;
    double lr = r->trainer->lr[GROUP_LANGUAGE], left = pace_seconds_left(&r->pace, all - done);
    for (int g = 0; g < GROUP_TRAINED && lr == 0; g++) lr = r->trainer->lr[g];
    const double until_stop = max_seconds(r) - (clock_seconds() - r->started);
    if (max_seconds(r) > 0 && until_stop < left) left = until_stop;
    char left_text[32];
    pace_format_duration(left_text, left);
    progress_update(
        0, "step %llu/%llu  loss %.4f  lr %.3g  norm %.3g  %.0f tokens/s  waiting for data %.0f%%  %s left",
        (unsigned long long)done, (unsigned long long)all, loss, lr, (double)r->trainer->grad_norm,
        (double)comm_world_size(r->plan->comm) * pace_tokens_per_second(&r->pace),
        100 * pace_waiting_share(&r->pace), left_text);
}

// One rank's batch that is not worth an update spoils it for all. *loss becomes the mean over the ranks.
static bool agree(Run *r, float *loss, Error *err) {
    double bad[2] = {r->trainer->is_spoiled, !isfinite(r->last_loss)}, mean = *loss;
    if (!r->plan->comm) return true;
    if (!comm_combine(r->plan->comm, bad, 2, COMM_MAX, "whether to skip", err) ||
        !together_mean(r->plan->comm, &mean, "batch loss", err))
        return false;
    r->trainer->is_spoiled = bad[0] > 0;
    if (bad[1] > 0) r->last_loss = NAN;
    *loss = (float)mean;
    return true;
}

static void update(Run *r) {
    const double score = r->plan->config->options.skip_spikes.value;
    const double limit = score > 0 ? spike_limit(&r->state.norms, score) : INFINITY;
    const bool is_spoiled = r->trainer->is_spoiled;
    r->trainer->norm_limit = isfinite(limit) ? (float)limit : 0;
    trainer_update(r->trainer);
    r->norm_is_bad = r->trainer->skipped && !is_spoiled;
}

static void show_batch_of(const Run *r, const Batch *batch, uint64_t step, const char *why, bool is_wanted) {
    const uint64_t number = r->state.epoch.micro_batches;
    suspects_show(&r->suspects, batch, (SuspectPage){step, number, why, is_wanted});
}

// The norm belongs to all batches of the update, of which the last one is at hand to be shown; a loss that
// was to blame has been reported with its batch.
static void report_skip(Run *r, const Batch *batch) {
    const RunState *s = &r->state;
    char why[64], *rows = suspects_rows_text(r->suspects.rows.items, r->suspects.rows.count);
    snprintf(why, sizeof why, "norm of the gradient %g", (double)r->trainer->grad_norm);
    log_warning("step %llu: skipped, with batches up to number %llu of epoch %llu: %s%s%s%s%s",
                (unsigned long long)run_step(r), (unsigned long long)s->epoch.micro_batches,
                (unsigned long long)s->epoch.number + 1, why, r->norm_is_bad ? "; made of " : "",
                r->norm_is_bad ? rows : "", r->anomaly.text[0] ? "; " : "", r->anomaly.text);
    if (r->norm_is_bad) show_batch_of(r, batch, run_step(r), why, false);
    free(rows);
}

// Counts and logs an update that was skipped; too many in a row because of values that are not finite end the
// run. Weights and moments are those before the first of them.
static bool check_update(Run *r, const Batch *batch, Error *err) {
    const Trainer *t = r->trainer;
    RunState *s = &r->state;
    const bool is_bad = !isfinite(t->grad_norm) || !isfinite(r->last_loss);
    const double loss = r->last_loss;
    r->last_loss = 0;
    s->skipped_in_a_row = is_bad ? s->skipped_in_a_row + 1 : 0;
    if (!t->skipped) return true;
    s->skipped++;
    run_log_number(&r->log, "skipped_steps", (double)s->skipped);
    report_skip(r, batch);
    r->anomaly.text[0] = '\0';
    if (s->skipped_in_a_row <= r->plan->config->options.max_skipped_steps) return true;
    return isfinite(loss) ? not_finite(r, run_step(r), "norm of the gradient", t->grad_norm, err)
                          : not_finite(r, run_step(r), "loss", loss, err);
}

// Marks values that stand out, and takes them into the windows.
static void mark_spikes(Run *r, double loss) {
    const double marked = 4; // standard deviations
    const double loss_score = spike_score(&r->state.losses, loss),
                 norm_score = spike_score(&r->state.norms, r->trainer->grad_norm);
    if (isfinite(loss_score) && loss_score > marked) run_log_number(&r->log, "loss_spike", loss_score);
    if (isfinite(norm_score) && norm_score > marked) run_log_number(&r->log, "grad_norm_spike", norm_score);
    spike_add(&r->state.losses, loss);
    spike_add(&r->state.norms, r->trainer->grad_norm);
}

// Everything that is due after an update, in nanoVLM's order.
static bool after_update(Run *r, const Batch *batch, double batch_loss, Error *err) {
    static const char *const lr_names[GROUP_TRAINED] = {"lr_mp", "lr_vision_backbone", "lr_language_backbone",
                                                        "lr_lora", "lr_lora"};
    const uint64_t step = run_step(r);
    const Trainer *t = r->trainer;
    if (!check_update(r, batch, err)) return false;
    r->state.epoch.updates++;
    run_collect(r, false);
    pace_update(&r->pace);
    run_log_number(&r->log, "batch_loss", batch_loss);
    run_log_number(&r->log, "grad_norm", t->grad_norm);
    mark_spikes(r, batch_loss);
    for (int g = 0; g < GROUP_TRAINED; g++)
        if (t->lr[g] > 0) run_log_number(&r->log, lr_names[g], t->lr[g]);
    const bool is_save_due = r->config->eval_in_epochs && is_due(step, r->config->eval_interval);
    bool is_best = false;
    const bool ok = !is_save_due || validate_and_log(r, &is_best, err);
    const bool is_log_due = is_due(step, r->config->stats_log_interval);
    if (ok && is_log_due && !together_statistics(r->plan->comm, &r->state.statistics, err)) return false;
    if (is_log_due) statistics_log(&r->state.statistics, &r->log);
    run_log_commit(&r->log, step); // before saving: a checkpoint's step stands in the log
    if (ok && is_save_due && !run_save(r, is_best, err)) return false;
    show_progress(r, batch_loss);
    return ok;
}

// ---- one micro-batch ----

static double count_tokens(const Batch *b) {
    double n = 0;
    for (size_t i = 0; i < b->B * b->T; i++) n += b->attention_mask ? b->attention_mask[i] : 1;
    return n;
}

// A loss because of which the update will be skipped.
static void report_loss(Run *r, const Batch *batch, const char *why) {
    char *rows = suspects_rows_text(batch->rows, batch->rows ? batch->n_samples : 0);
    log_warning("step %llu: the loss of batch %llu of epoch %llu, made of %s, is %s%s%s",
                (unsigned long long)r->trainer->updates, (unsigned long long)r->state.epoch.micro_batches,
                (unsigned long long)r->state.epoch.number + 1, rows, why, r->anomaly.text[0] ? ": " : "",
                r->anomaly.text);
    show_batch_of(r, batch, r->trainer->updates, why, false);
    free(rows);
}

// A finite loss joins the epoch's mean; one that is not, or is a spike, spoils the update. A batch without
// any target has none and is only reported.
static void take_loss(Run *r, const Batch *batch, float loss) {
    char why[80];
    if (r->trainer->model->n_targets == 0) {
        log_warning("step %llu: a batch has no target at all and gives no gradient",
                    (unsigned long long)r->trainer->updates);
        return;
    }
    const double limit = r->plan->config->options.skip_spikes.value;
    const double score = limit > 0 ? spike_score(&r->state.losses, loss) : 0;
    if (isfinite(loss)) {
        r->state.epoch.loss_sum += loss;
        if (!(limit > 0 && score > limit)) return;
        snprintf(why, sizeof why, "%g, %.3g standard deviations above the last ones", (double)loss, score);
    } else {
        r->last_loss = loss;
        snprintf(why, sizeof why, "%g", (double)loss);
    }
    r->trainer->is_spoiled = true;
    report_loss(r, batch, why);
}

static bool micro_batch(Run *r, const Batch *batch, double waited, Error *err) {
    const double start = clock_seconds(), tokens = count_tokens(batch);
    const double ranks = (double)comm_world_size(r->plan->comm);
    float loss;
    if (!trainer_micro_step(r->trainer, batch, &loss, err)) return false;
    const double computed = clock_seconds();
    run_profile_batch(r->plan->profile, batch, waited, start);
    vision_cache_keep(r->plan->cache, r->trainer->model, batch);
    run_profile_add(r->plan->profile, PART_KEEPING, computed);
    r->state.epoch.micro_batches++;
    suspects_add(&r->suspects, batch, r->trainer->accumulated == 1);
    if (r->plan->config->options.dump_batch_step == (int64_t)r->trainer->updates)
        show_batch_of(r, batch, r->trainer->updates, "asked for by dump_batch_step", true);
    take_loss(r, batch, loss);
    const bool is_update = r->trainer->accumulated == r->config->gradient_accumulation_steps;
    if (is_update && !agree(r, &loss, err)) return false;
    const double updating = clock_seconds();
    if (is_update) update(r);
    if (is_update) run_profile_add(r->plan->profile, PART_UPDATE, updating);
    const double end = clock_seconds();
    Statistics *statistics = &r->state.statistics;
    r->state.epoch.tokens += tokens;
    r->state.epoch.is_logged = false;
    statistics_add(statistics, STATISTIC_TOKENS_PER_SECOND, ranks * tokens / (end - start));
    statistics_add(statistics, STATISTIC_DATA_LOAD_TIME, waited);
    statistics_add(statistics, STATISTIC_FW_BW_TIME, computed - start);
    statistics_add(statistics, STATISTIC_POST_PROCESS_TIME, end - computed);
    for (size_t b = 0; b < batch->B; b++)
        statistics_add(statistics, STATISTIC_IMAGES_PER_SAMPLE, (double)batch->n_images / (double)batch->B);
    pace_micro_batch(&r->pace, tokens, waited, end - start);
    return !is_update || after_update(r, batch, loss, err);
}

// ---- epochs ----

// nanoVLM divides the sum of the losses by their number less one, and so does this, but for a single loss.
static bool finish_epoch(Run *r, Error *err) {
    Epoch *e = &r->state.epoch;
    if (e->micro_batches == 0 || r->trainer->updates == 0 || e->is_logged) return true;
    double sums[2] = {e->loss_sum, e->tokens}; // over the ranks; the loss becomes a mean
    if (!comm_combine(r->plan->comm, sums, 2, COMM_SUM, "the epoch", err)) return false;
    sums[0] /= (double)comm_world_size(r->plan->comm);
    const double seconds = clock_seconds() - r->epoch_started;
    const double loss = sums[0] / (double)(e->micro_batches > 1 ? e->micro_batches - 1 : 1);
    run_log_number(&r->log, "epoch", (double)(e->number + 1));
    run_log_number(&r->log, "epoch_loss", loss);
    run_log_number(&r->log, "epoch_duration", seconds);
    run_log_number(&r->log, "epoch_tokens_per_second", sums[1] / seconds);
    run_log_commit(&r->log, run_step(r));
    e->is_logged = true;
    log_info("epoch %llu: step %llu/%zu, mean loss %.4f, %.1f s, %.0f tokens/s",
             (unsigned long long)e->number + 1, (unsigned long long)r->trainer->updates,
             r->config->max_training_steps, loss, seconds, sums[1] / seconds);
    if (r->plan->training.report) r->plan->training.report(r->plan->training.state, e->number + 1);
    return true;
}

static bool train_epoch(Run *r, Error *err) {
    const BatchSource *source = &r->plan->training;
    for (;;) {
        const Batch *batch;
        bool is_over;
        if (!check_end(r, &is_over, err)) return false;
        if (is_over) break;
        const double asked = clock_seconds();
        if (!source->next(source->state, &batch, err)) return false;
        if (!batch) break;
        if (!micro_batch(r, batch, clock_seconds() - asked, err)) return false;
    }
    const bool is_cut = r->result->end == RUN_SIGNALLED || r->result->end == RUN_OUT_OF_TIME;
    return is_cut || finish_epoch(r, err); // a cut one ends in the process that goes on with it
}

static bool train_epochs(Run *r, Error *err) {
    const BatchSource *source = &r->plan->training;
    for (;;) {
        const uint64_t number = r->state.epoch.number;
        r->result->epochs = number + 1;
        if (!train_epoch(r, err)) return false;
        trainer_drop_accumulation(r->trainer);
        bool is_over;
        if (!check_end(r, &is_over, err)) return false;
        if (is_over) return true;
        if (r->state.epoch.updates == 0)
            return error_set(err,
                             "%s: an epoch has %llu batches, but an update takes gradient_accumulation_steps "
                             "%zu; give more data, fewer accumulation steps or a smaller batch_size",
                             r->config->train_dataset_path, (unsigned long long)r->state.epoch.micro_batches,
                             r->config->gradient_accumulation_steps);
        if (!source->restart(source->state, number + 1, err)) return false;
        r->state.epoch = (Epoch){.number = number + 1};
        r->epoch_started = clock_seconds();
    }
}

// ---- a whole run ----

// Memory, the state to go on from, and the log behind it.
static bool begin(Run *r, Error *err) {
    const Config *config = r->plan->config;
    r->folder = path_join(config->vlm.vlm_checkpoint_path, r->plan->run_name);
    r->started = r->epoch_started = clock_seconds();
    r->state.best_val_loss = INFINITY;
    suspects_open(&r->suspects, r->folder, r->plan->rules, config->options.dump_batch,
                  comm_rank(r->plan->comm), comm_world_size(r->plan->comm));
    if (run_is_first(r) && !saver_open(&r->saver, r->trainer, config, err)) return false;
    if (r->plan->resume_from && !run_load(r, err)) return false;
    if (r->plan->cache) vision_cache_open(r->plan->cache, r->trainer->model);
    r->log = (RunLog){.file = -1};
    if (!run_is_first(r)) return true;
    return r->plan->goes_on ? run_log_reopen(&r->log, r->folder, config, r->state.log_size, err)
                            : run_log_open(&r->log, r->folder, config, err);
}

bool train_run(const RunPlan *plan, RunResult *result, Error *err) {
    const Config *config = plan->config;
    *result = (RunResult){.end = RUN_FAILED, .best_val_loss = INFINITY};
    Run r = {.plan = plan, .config = &config->train, .trainer = plan->trainer, .result = result};
    if (config->options.detect_anomaly) anomaly_attach(&r.anomaly, plan->trainer->model->be);
    bool ok = begin(&r, err);
    run_profile_begin(plan->profile, plan->trainer->model->be);
    if (ok) {
        ok = train_epochs(&r, err);
        progress_end();
        if (!ok) result->end = RUN_FAILED;
        run_collect(&r, true);
        bool save_is_due = r.saved != r.trainer->updates || result->save_failed;
        ok = ok && comm_any(plan->comm, &save_is_due, "whether to save", err);
        const bool alone = !plan->comm; // ranks of which one has failed cannot put a checkpoint together
        if (save_is_due && !r.broken && (ok || alone)) {
            Error save_err = {""};
            if (!run_save(&r, false, &save_err) && ok) ok = error_set(err, "%s", save_err.text);
        }
        const double written = clock_seconds();
        run_collect(&r, true);
        run_profile_add(plan->profile, PART_SAVING, written);
        if (!ok) run_rescue(&r);
        run_log_close(&r.log);
    }
    run_profile_end(plan->profile);
    result->seconds = r.seconds_before + clock_seconds() - r.started;
    anomaly_detach(&r.anomaly);
    saver_close(&r.saver);
    suspects_close(&r.suspects);
    vec_free(&r.place);
    free(r.folder);
    return ok;
}

void run_result_free(RunResult *result) {
    free(result->last_checkpoint);
    free(result->best_checkpoint);
    *result = (RunResult){0};
}
