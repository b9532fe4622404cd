#include "cmd/train_report.h"

#include "base/log.h"
#include "base/memory.h"
#include "base/mib.h"
#include "cmd/continue_line.h"

#include <stdlib.h>

static void report_ranks(const TrainJob *j, double updates) {
    const CommCosts c = comm_costs(j->comm);
    if (!j->comm || updates == 0) return;
    log_info("gradients and weights: %.2f MiB sent by each rank an update, %.4f s on their way, of which "
             "training waited %.4f s; %.4f s of a processor",
             in_mib(c.bytes) / updates, c.seconds / updates, c.waited / updates, c.processor / updates);
}

static void report_cache(const TrainJob *j) {
    if (!j->cache) return;
    const TileCacheCounts c = tile_cache_counts(j->cache);
    log_info("cache_vision: %llu tiles were there, %llu were not; %llu kept (%.1f MiB), %llu damaged",
             (unsigned long long)c.known, (unsigned long long)c.unknown, (unsigned long long)c.kept,
             in_mib((double)c.kept * (double)tile_cache_tile_bytes(j->cache)), (unsigned long long)c.damaged);
}

static void report_memory(const TrainJob *j) {
    MemoryPlan m;
    Error err;
    const Trainer *t = &j->trainer;
    if (t->most_targets == 0 ||
        !memory_plan_run(&m, j->be, &j->config, &j->host, t->most_tiles, t->most_targets, &err))
        return;
    log_info(
        "memory: %.1f MiB resident at most; planned were %.1f for batches of %zu tiles and %zu targets, the "
        "most that came",
        in_mib(mem_resident_peak()), in_mib(memory_plan_total(&m)), t->most_tiles, t->most_targets);
}

void train_report(const TrainJob *j, const RunResult *r, int argc, char **argv) {
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
