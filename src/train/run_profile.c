#include "train/run_profile.h"
#include "base/clock.h"

const char *const run_part_names[RUN_PARTS] = {"waiting for data", "forward and backward", "update",
                                               "keeping features", "validation",           "checkpoints"};

void run_profile_begin(RunProfile *p, Backend *be) {
    if (!p) return;
    *p = (RunProfile){.began = clock_seconds()};
    profile_begin(&p->operators, be);
}

void run_profile_end(RunProfile *p) {
    if (!p) return;
    p->whole = clock_seconds() - p->began;
    profile_end(&p->operators);
}

void run_profile_batch(RunProfile *p, const Batch *batch, double waited, double start) {
    if (!p) return;
    p->seconds[PART_DATA] += waited;
    run_profile_add(p, PART_STEP, start);
    p->batches++;
    p->tiles += batch->n_tiles;
}

void run_profile_add(RunProfile *p, RunPart part, double since) {
    if (!p) return;
    p->seconds[part] += clock_seconds() - since;
    p->updates += part == PART_UPDATE;
}

void run_profile_watch(RunProfile *p, bool watch) {
    if (p) profile_watch(&p->operators, watch);
}
