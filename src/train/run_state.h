// The numbers of a run that a resume needs beside weights, moments and the place in the data: trainer.json of
// a checkpoint.
#pragma once
#include "train/spikes.h"
#include "train/statistics.h"
#include "train/trainer.h"

#define RUN_STATE_VERSION 1

typedef struct Epoch {
    uint64_t number; // from 0
    uint64_t micro_batches, updates;
    uint64_t is_logged; // its line stands in the log
    double loss_sum, tokens, seconds;
} Epoch;

typedef struct RunState {
    uint64_t updates, steps[GROUP_TRAINED];
    uint64_t rank, world_size;
    uint64_t log_size; // bytes of log.jsonl at this moment
    Epoch epoch;
    Statistics statistics;
    uint64_t skipped, skipped_in_a_row; // updates
    SpikeWindow losses, norms;          // of the updates
    double seconds;                     // of training so far
    double best_val_loss;               // INFINITY: none
    char best_checkpoint[32];           // name within the run's folder; empty: none
    char run_name[256];
} RunState;

char *run_state_text(const RunState *s); // JSON; caller frees
bool run_state_read(RunState *s, const char *path, Error *err);
