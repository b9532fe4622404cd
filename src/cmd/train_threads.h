// How many threads a run computes with.
#pragma once
#include "config/config.h"
#include "dist/comm.h"

// What --threads says, or this rank's share of the host's cores; says which. Every rank must call it.
bool train_threads(size_t *threads, const TrainOptions *o, Comm *comm, Error *err);
