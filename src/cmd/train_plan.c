#include "cmd/train_plan.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/memory.h"
#include "base/mib.h"
#include "train/pace.h"
#include "train/saver.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

// ---- time ----

typedef struct Timing {
    size_t batches;
    double waited, computed, update; // seconds; the first two of all batches
    double tokens, targets, tiles;
    bool is_epoch; // the batches are all of the epoch
} Timing;

static void count(Timing *t, const Batch *b) {
    for (size_t i = 0; i < b->B * b->T; i++) {
        t->tokens += b->attention_mask ? b->attention_mask[i] : 1;
        t->targets += b->labels[i] != IGNORE_INDEX;
    }
    t->tiles += (double)b->n_tiles;
}

static bool time_batches(Timing *t, Trainer *trainer, Loader *training, Error *err) {
    enum { TIMED = 10 };
    *t = (Timing){0};
    while (t->batches < TIMED) {
        const Batch *batch;
        float loss;
        const double asked = clock_seconds();
        if (!loader_next(training, &batch, err)) return false;
        t->is_epoch = !batch;
        if (!batch) break;
        const double came = clock_seconds();
        if (!trainer_micro_step(trainer, batch, &loss, err)) return false;
        t->waited += came - asked;
        t->computed += clock_seconds() - came;
        t->batches++;
        count(t, batch);
    }
    const double start = clock_seconds();
    trainer_update(trainer);
    t->update = clock_seconds() - start;
    return t->batches > 0 || error_set(err, "the training data gives no batch");
}

static double seconds_of_update(const Config *c, const Timing *t) {
    return (double)c->train.gradient_accumulation_steps * (t->waited + t->computed) / (double)t->batches +
           t->update;
}

// Updates of an epoch; exact: the epoch was read to its end. Reads on for a few seconds without training,
// because the first batches tell little: the packer has taken the samples for them from a heap that must be
// filled first.
static bool count_epoch(double *updates, bool *exact, const Config *c, const Timing *t, Loader *training,
                        Comm *comm, Error *err) {
    const double seconds = 5, start = clock_seconds();
    const LoaderCounts timed = loader_counts(training);
    const Batch *batch = NULL;
    bool is_over = t->is_epoch;
    while (!is_over) {
        if (!loader_next(training, &batch, err)) return false;
        is_over = !batch || clock_seconds() - start > seconds;
        if (!comm_any(comm, &is_over, "whether to read on", err)) return false;
    }
    const LoaderCounts read = loader_counts(training);
    const double more = (double)(read.batches - timed.batches) / fmax((double)(read.rows - timed.rows), 1);
    double batches = (double)read.batches;
    *exact = !batch;
    if (!*exact) batches += more * (double)(loader_rows(training) - read.rows);
    *updates = floor(batches / (double)c->train.gradient_accumulation_steps);
    return true;
}

// What cache_vision will keep of an epoch, equal pictures counted as often as they come.
static void print_cache(const Config *c, const Timing *t, Dtype dtype, double updates) {
    if (!c->options.cache_vision) return;
    const double tile = (double)tile_cache_entry_bytes(modality_projector_tile_bytes(&c->vlm, dtype)),
                 tiles =
                     updates * (double)c->train.gradient_accumulation_steps * t->tiles / (double)t->batches;
    printf("cache_vision             %12.3f MiB a tile; %.0f tiles of an epoch or so take %.1f MiB\n",
           in_mib(tile), tiles, in_mib(tiles * tile));
}

static bool print_epoch(const Config *c, const Timing *t, Dtype dtype, Loader *training, Comm *comm,
                        Error *err) {
    double updates;
    bool exact;
    char length[32];
    if (!count_epoch(&updates, &exact, c, t, training, comm, err)) return false;
    pace_format_duration(length, updates * seconds_of_update(c, t));
    printf("an epoch                 %12.0f updates%s from %llu rows, %s; %.2f epochs in all\n", updates,
           exact ? "" : " or so", (unsigned long long)loader_rows(training), length,
           updates > 0 ? (double)c->train.max_training_steps / updates : 0);
    print_cache(c, t, dtype, updates);
    return true;
}

static void print_time(const Config *c, const Timing *t) {
    const double n = (double)t->batches, a = (double)c->train.gradient_accumulation_steps;
    const double update = seconds_of_update(c, t);
    char whole[32];
    pace_format_duration(whole, update * (double)c->train.max_training_steps);
    printf("tokens of an update      %12.0f, %.0f of them targets (mean of %zu batches)\n", a * t->tokens / n,
           a * t->targets / n, t->batches);
    printf("time of an update        %12.3f s, %.0f%% of it waiting for data; %.0f tokens/s\n", update,
           100 * a * t->waited / n / update, a * t->tokens / n / update);
    printf("%-8zu updates         %12s, without validation and checkpoints\n", c->train.max_training_steps,
           whole);
}

// ---- memory and disk ----

// As `vlm memory` works it out: for the largest of the batches that were timed, and of those that may be.
static bool print_memory(const Config *c, const Trainer *t, const HostMemory *host, Error *err) {
    const struct {
        size_t tiles, targets;
        const char *what;
    } cases[] = {{t->most_tiles, t->most_targets, "the most of these batches"},
                 {loader_max_tiles(c), 0, "the most there can be"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        MemoryPlan m;
        if (!memory_plan_run(&m, t->model->be, c, host, cases[i].tiles, cases[i].targets, err)) return false;
        printf("%-24s %12.1f MiB with %zu tiles a batch, %s\n", i ? "" : "memory",
               in_mib(memory_plan_total(&m)), cases[i].tiles, cases[i].what);
    }
    printf("%-24s %12.1f MiB so far, without a copy for checkpoints\n", "", in_mib(mem_resident_peak()));
    return true;
}

// The folder itself or the nearest one above it that is there; caller frees.
static char *existing_folder(const char *path) {
    char *folder = mem_strdup(path), *slash;
    while (!file_exists(folder)) {
        slash = strrchr(folder, '/');
        if (slash == folder)
            slash[1] = '\0';
        else if (slash)
            *slash = '\0';
        else
            strcpy(folder, "."); // a name has at least one letter
    }
    return folder;
}

static double checkpoints_kept(const Config *c) {
    const size_t all = (c->train.max_training_steps - 1) / c->train.eval_interval + 2,
                 keep = c->options.keep_checkpoints;
    return (double)(keep > 0 && keep + 2 < all ? keep + 2
                                               : all); // the best, and the one that is being written
}

static bool print_disk(const Config *c, const Trainer *t, Error *err) {
    char *folder = existing_folder(c->vlm.vlm_checkpoint_path);
    struct statvfs disk;
    bool ok = access(folder, W_OK) == 0 && statvfs(folder, &disk) == 0;
    if (ok && !file_is_folder(folder)) ok = false, errno = ENOTDIR;
    if (!ok) {
        error_set(err, "%s: checkpoints can't be written there: %s; give another --vlm_checkpoint_path",
                  folder, strerror(errno));
    } else {
        const double one = (double)saver_disk_bytes(&t->model->params, optimizer_moments(&c->options)),
                     all = one * checkpoints_kept(c), space = (double)disk.f_bavail * (double)disk.f_frsize;
        printf("a checkpoint             %12.1f MiB; %.0f at a time take %.1f MiB of %.1f free in %s%s\n",
               in_mib(one), checkpoints_kept(c), in_mib(all), in_mib(space), folder,
               all > space ? ": too little, use --keep_checkpoints" : "");
    }
    free(folder);
    return ok;
}

bool train_plan_print(const Config *c, Trainer *t, const HostMemory *host, Loader *training, Comm *comm,
                      Error *err) {
    Timing timing;
    const Params *p = &t->model->params;
    size_t trained = 0, total = 0;
    if (!time_batches(&timing, t, training, err)) return false;
    for (int g = 0; g < GROUP_TRAINED; g++) {
        total += params_total(p, (ParamGroup)g);
        trained += params_trained(p, (ParamGroup)g);
    }
    printf("parameters               %12zu, %zu of them trained\n", total, trained);
    for (int g = 0; g < GROUP_TRAINED; g++)
        if (params_total(p, (ParamGroup)g) > 0)
            printf("  %-20s   %12zu, %zu of them trained\n", param_group_names[g],
                   params_total(p, (ParamGroup)g), params_trained(p, (ParamGroup)g));
    printf("an update                %12zu batches of %zu x %zu positions\n",
           c->train.gradient_accumulation_steps, c->train.batch_size, c->vlm.lm_max_length);
    if (!print_memory(c, t, host, err)) return false;
    print_time(c, &timing);
    if (!print_epoch(c, &timing, t->model->plan.dtype, training, comm, err)) return false;
    return print_disk(c, t, err);
}
