// What the ranks of a run put together at its steps. Every rank calls these at the same places; comm NULL, a
// world of one, changes nothing.
#pragma once
#include "base/vec.h"
#include "dist/comm.h"
#include "train/statistics.h"

// The mean of x over the ranks that have one; NaN: this rank has none, or afterwards, no rank has.
bool together_mean(Comm *comm, double *x, const char *what, Error *err);
// All series come to rank 0; elsewhere they are empty afterwards.
bool together_statistics(Comm *comm, Statistics *s, Error *err);
// The places in the data, one behind the other with their sizes, come to rank 0 in `place`.
bool together_places(Comm *comm, CharVec *place, Error *err);
// This rank's part of what together_places made with as many ranks; false: it is not of so many.
bool together_own_place(const Comm *comm, const void **place, size_t *size);
