// What the files of a run share: its state while it goes on, and how it keeps and finds it.
#pragma once
#include "base/vec.h"
#include "train/anomaly.h"
#include "train/pace.h"
#include "train/run.h"
#include "train/saver.h"
#include "train/suspects.h"

typedef struct Run {
    const RunPlan *plan;
    const TrainConfig *config;
    Trainer *trainer;
    RunResult *result;
    char *folder;
    RunLog log;
    RunState state; // epoch and statistics always; the rest is brought up to date for a checkpoint
    Saver saver;
    CharVec place;
    Pace pace;
    double started, epoch_started;
    double seconds_before; // of this run, in the processes before this one
    uint64_t saved;        // updates done at the last attempt to save
    bool saved_best;       // the save under way is of the best validation loss
    Anomaly anomaly;       // with detect_anomaly
    float last_loss;       // the last one that was not finite
    Suspects suspects;     // rows and pages of batches that were skipped
    bool norm_is_bad;      // why the last update was skipped, and not a loss
    bool broken;           // loss or gradient were not finite: the weights are not worth saving
} Run;

// Number of the last update in logs, checkpoints and the schedule.
static inline uint64_t run_step(const Run *r) {
    return r->trainer->updates - 1;
}

static inline bool run_is_first(const Run *r) {
    return comm_is_first(r->plan->comm);
}

// Takes note of a save that came to its end; wait: and waits for it.
void run_collect(Run *r, bool wait);
// Begins to save the state after the last update; rank 0 does it for all, and all call it.
bool run_save(Run *r, bool is_best, Error *err);
// Goes on from plan->resume_from.
bool run_load(Run *r, Error *err);
// When another rank has failed: rank 0 saves what it has, if that is whole, beside the checkpoints. Only its
// name finds it: it lacks the places in the data, so the epoch begins anew behind it, while the newest of the
// others goes on bit for bit.
void run_rescue(Run *r);
