// What a training run stands on. Only train*.c include this.
#pragma once
#include "cmd/backbones.h"
#include "data/loader.h"
#include "data/tile_cache.h"
#include "dist/comm.h"
#include "train/memory_plan.h"
#include "train/run_profile.h"
#include "train/trainer.h"

// In the order in which it is opened.
typedef struct TrainJob {
    Config config;
    Backbones backbones; // with vlm_load_backbone_weights
    char *start;         // with resume_from_vlm_checkpoint: where it lies
    char *resume_from;   // checkpoint with the trainer's state; NULL: none
    bool resume_is_exact, goes_on;
    Tokenizer *tokenizer;
    TileCache *cache; // with cache_vision
    Loader *training, *validation;
    Backend *be;
    Dtype dtype;
    Vlm model;
    Comm *comm; // NULL: one process
    RunProfile profile;
    Trainer trainer;
    HostMemory host;
} TrainJob;

// Everything up to resume's fields, from the flags of the command line and what they name: the configuration
// of the checkpoint that the run starts from, or goes on from. Expects config_init(&j->config).
bool train_job_configure(TrainJob *j, int argc, char **argv, Error *err);
// All the rest, but comm_close is the caller's. Every rank calls it; says in the log what it is.
bool train_job_open(TrainJob *j, Error *err);
void train_job_close(TrainJob *j); // however far it was opened
