// A training run (nanoVLM, train.py: train): epochs over a source of batches, and on each update what is due
// then: validation, checkpoint, statistics, log, progress line.
#pragma once
#include "data/sample.h"
#include "train/batch_source.h"
#include "train/run_profile.h"
#include "train/vision_cache.h"
#include "train/trainer.h"

typedef struct RunPlan {
    const Config *config; // borrowed, as everything here
    Trainer *trainer;     // fresh: no update done
    BatchSource training, validation;
    const char *run_name;
    const char *resume_from; // a complete checkpoint (train/resume.h) to begin behind; NULL: none
    bool resume_is_exact;    // as resume_compare says
    bool goes_on; // the run's log may be there already; what the checkpoint does not know is cut off
    const SampleRules *rules; // for pages of batches (dump_batch); NULL: none are written
    TileCache *cache;         // which the batches' sources use; opened once the weights are there; NULL: none
    RunProfile *profile;      // filled in; NULL: none
    Comm *comm;               // with the other ranks, which the trainer has joined; NULL: one process
} RunPlan;

typedef enum RunEnd {
    RUN_COMPLETE, // max_training_steps updates
    RUN_OUT_OF_TIME,
    RUN_SIGNALLED, // Ctrl-C, SIGTERM or SIGUSR1 (train/stop.h)
    RUN_FAILED,
} RunEnd;

typedef struct RunResult {
    RunEnd end;
    int signal;            // of RUN_SIGNALLED, on whichever rank it came
    bool save_failed;      // the last attempt to save did
    char *last_checkpoint; // folder of the last save that succeeded; NULL: none
    char *best_checkpoint; // folder of the lowest validation loss; NULL: none
    double best_val_loss;  // INFINITY: none
    double seconds;        // of the whole run
    uint64_t epochs;       // begun
} RunResult;

// Trains until max_training_steps, max_minutes or a signal; the update step in work is always finished.
// From a checkpoint it goes on as if it had never stopped: the same bits of losses and weights.
// Checkpoints (train/saver.h) are <vlm_checkpoint_path>/<run_name>/step_<n>, n counting updates from 0 as
// nanoVLM does; the state at the end is saved too. A save that fails is reported and tried again when the
// next is due. Fails (RUN_FAILED) when no more batches can be had or the loss or the gradient is not finite;
// in the first case the work so far is still saved. max_minutes does not bend the learning rate, which goes
// by max_training_steps.
// Several ranks stop at the same update, log means over them (tokens are sums) and save on rank 0; when one
// fails, all do; rank 0, if it is another one, still saves weights and moments as rescued_<n>, which no
// automatic resume takes.
bool train_run(const RunPlan *plan, RunResult *result, Error *err);
void run_result_free(RunResult *result);
