// A run of train_run over the batches of nanoVLM's own run (support/train_case.h), in a folder of its own.
#pragma once
#include "support/train_case.h"
#include "train/run.h"

typedef struct ListSource {
    Batch *batches;
    size_t count, next;
    size_t given;                    // of all epochs
    void (*before)(size_t given);    // called before batch number `given` (from 0); may be NULL
    uint64_t epochs[16], n_restarts; // numbers that restart was asked for
} ListSource;

typedef struct RunCase {
    char *folder;
    Backend *be;
    TrainCase c;
    ListSource training, validation;
    RunResult result;
    Error err;
} RunCase;

void run_case_open(RunCase *f, const char *variant);
void run_case_close(RunCase *f);
bool run(RunCase *f);
bool run_with_rules(RunCase *f, const SampleRules *rules);

const char *in_run(const RunCase *f,
                   const char *name); // a file of the run's folder; valid until the next call
bool has_checkpoint(const RunCase *f, unsigned step);
json_t *read_log(const RunCase *f);                   // array of the lines of log.jsonl
double number(const json_t *object, const char *key); // fails the test when there is none
