// Where the time of a run goes: the parts of its loop, and of forward, backward and update each operator.
#pragma once
#include "base/batch.h"
#include "tensor/profile.h"

typedef enum RunPart {
    PART_DATA, // waiting for the next batch
    PART_STEP, // forward and backward
    PART_UPDATE,
    PART_KEEPING, // of features, with cache_vision
    PART_VALIDATION,
    PART_SAVING, // copying and waiting for checkpoints
    RUN_PARTS
} RunPart;
extern const char *const run_part_names[RUN_PARTS];

typedef struct RunProfile {
    Profile operators; // of PART_STEP and PART_UPDATE
    double seconds[RUN_PARTS];
    double whole; // seconds of the run's loop, all parts and the rest
    size_t batches, tiles, updates;
    double began;
} RunProfile;

// All of them take NULL and then do nothing.
void run_profile_begin(RunProfile *p, Backend *be); // nobody else may watch the backend until run_profile_end
void run_profile_end(RunProfile *p);
// A batch for which `waited` seconds were waited, and whose forward began at `start` and is done, as is its
// backward.
void run_profile_batch(RunProfile *p, const Batch *batch, double waited, double start);
// Adds the time since `since` (clock_seconds) to a part.
void run_profile_add(RunProfile *p, RunPart part, double since);
void run_profile_watch(RunProfile *p, bool watch); // operators count from now on, or do not
