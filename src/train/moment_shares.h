// What the ranks tell each other when each has the moments of its share alone (train/optimizer.h,
// OptimizerForm).
#pragma once
#include "dist/comm.h"
#include "train/optimizer.h"

// After an update: all ranks get the weights the others have updated, and make the copies for products from
// them. True at once when nothing is shared; false: comm failed, which its next call reports.
bool moment_shares_spread(const Optimizer *o, Comm *comm);
// All moments come to rank 0, into m[i] and v[i], its memory for those of parameter i (elsewhere not read;
// NULL for parameters that are not trained). Every rank calls it between two updates.
bool moment_shares_gather(const Optimizer *o, Comm *comm, char *const *m, char *const *v, Error *err);
