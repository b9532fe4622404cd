// What a training run says when it has ended.
#pragma once
#include "cmd/train_job.h"
#include "train/run.h"

// To the log: times, ranks, cache and memory, the checkpoints, and the command line that goes on. argv: of
// the run.
void train_report(const TrainJob *j, const RunResult *r, int argc, char **argv);
