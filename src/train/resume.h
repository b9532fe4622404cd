// Going on from a checkpoint: finding it, comparing what the run is told now with what it was told then, and
// bringing trainer and data back.
#pragma once
#include "base/vec.h"
#include "train/batch_source.h"
#include "train/run_state.h"

#define RESUME_TRAINER_FILE "trainer.json"
#define RESUME_STATE_FILE   "state-rank0.safetensors"

typedef VEC(uint64_t) ResumeSteps;

// Steps of the complete checkpoints step_<n> in a run's folder, newest first; caller frees with vec_free. A
// folder that can't be read has none.
ResumeSteps resume_steps(const char *run);
// The newest complete checkpoint that `path` leads to: itself, of a run's folder, or of the runs in a folder
// (then the one saved last). NULL: none. Caller frees.
char *resume_find(const char *path);
// Compares with the run.json of the checkpoint. Fields that may change freely are not mentioned; one that
// changes later bits is logged and makes *exact false; one that changes the model is an error.
bool resume_compare(bool *exact, const Config *now, const char *checkpoint, Error *err);
// Weights, moments, counters and the place in the data. When not `exact` and the place does not fit the
// settings any more, the epoch begins anew, which is logged.
bool resume_load(RunState *state, Trainer *trainer, const BatchSource *source, const char *checkpoint,
                 bool exact, Error *err);
