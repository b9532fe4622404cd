// Which ranks of a run share the processors of a host.
#pragma once
#include "base/cores.h"
#include "dist/comm.h"

// Ranks on this rank's host with the same set of processors, itself among them, and how many of them come
// before it. A launcher that gives each rank processors of its own leaves each alone.
typedef struct Neighbours {
    size_t count, before;
} Neighbours;

// Every rank must call it. NULL: alone.
bool neighbours_find(Neighbours *n, Comm *c, Cores cores, Error *err);
// This rank's part of `threads` that all of them have; at least one.
size_t neighbours_share(Neighbours n, size_t threads);
