// The processes of a run ("ranks") and what they say to each other: sums over all of them, broadcast, gather,
// agreement. Started by mpirun, by srun, by torchrun or by hand (dist/launch.h), they talk through MPI or
// through sockets of their own; both move bytes only (dist/transport.h), so the order of every sum, and with
// it every bit, is the same. A world of one is NULL: every function takes it and does what one process needs.
//
// A thread of its own does all the talking, in the order it was asked. Every rank must ask for the same
// things in the same order, from one thread. What fails, on this rank or on another, stays failed: all later
// calls return false with the same error, which names the rank, what it was about and what this rank waited
// for.
#pragma once
#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

typedef struct Comm Comm;

// What a world of several ranks works in, whatever its size.
#define COMM_SCRATCH_BYTES ((size_t)4 << 20)

// Finds the ranks of this run from the environment and meets them. No word for timeout_seconds, here and in
// every later call, is an error. *c is NULL for a world of one.
bool comm_open(Comm **c, double timeout_seconds, Error *err);
// Waits for the others to get here too, then parts from them. NULL is fine.
bool comm_close(Comm *c, Error *err);
// Instead of comm_close: tells the other ranks why this one gives up, and whatever they wait for fails with
// this text. Through MPI, where no rank may leave alone, it ends the program with status 1.
void comm_give_up(Comm *c, const char *reason);

size_t comm_rank(const Comm *c); // 0 of 1 for NULL
size_t comm_world_size(const Comm *c);
const char *comm_describe(const Comm *c); // "4 ranks over MPI (Open MPI 4.1.4)"
static inline bool comm_is_first(const Comm *c) {
    return comm_rank(c) == 0;
}

// x[i] becomes factor · the sum of x[i] over the ranks, the same bits on each. Returns at once; x must be
// left alone until comm_wait, which waits for everything started. `what` is kept, for errors ("gradients").
void comm_sum_start(Comm *c, float *x, size_t n, float factor, const char *what);
bool comm_wait(Comm *c, Error *err);
// Every rank has its own part of x, the part of rank r being [first[r], first[r + 1]); afterwards each has
// all.
void comm_share_start(Comm *c, float *x, const size_t *first, const char *what);

// The small things, through a channel of their own.
typedef enum CommCombine { COMM_SUM, COMM_MEAN, COMM_MIN, COMM_MAX } CommCombine;
enum { COMM_SMALL_BYTES = 4096, COMM_COMBINED = 64 };
// x[i] combined over the ranks in their order; n at most COMM_COMBINED.
bool comm_combine(Comm *c, double *x, size_t n, CommCombine how, const char *what, Error *err);
bool comm_any(Comm *c, bool *flag, const char *what, Error *err); // *flag becomes: is it true on any rank
bool comm_all(Comm *c, bool *flag, const char *what, Error *err);
bool comm_barrier(Comm *c, const char *what, Error *err);
// At most COMM_SMALL_BYTES of rank 0 to all.
bool comm_broadcast(Comm *c, void *bytes, size_t n, const char *what, Error *err);
// bytes[n] of every rank into all[world_size][n] of rank 0, in the ranks' order; elsewhere all may be NULL.
bool comm_gather(Comm *c, const void *bytes, size_t n, void *all, const char *what, Error *err);

// n bytes of rank `from`, any number, into bytes[n] of rank 0; on the others nothing happens.
bool comm_collect(Comm *c, size_t from, void *bytes, size_t n, const char *what, Error *err);

// What it has cost so far.
typedef struct CommCosts {
    uint64_t bytes;         // sent by this rank for sums and shares
    double seconds, waited; // in them; of these, for which a caller had to wait
    double processor;       // time in them of the thread that talks
} CommCosts;
CommCosts comm_costs(Comm *c);
