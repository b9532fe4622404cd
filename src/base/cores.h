// How many processors there are for this process to compute on.
#pragma once
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

typedef struct Cores {
    size_t processors; // it may run on: hardware threads
    size_t cores;      // physical cores among them
    double quota;      // processors whose time its control group may use; INFINITY: no limit
    uint64_t set;      // a number that stands for this set of processors
} Cores;

// Where OpenMP binds threads (OMP_PROC_BIND, OMP_PLACES, GOMP_CPU_AFFINITY), the first one is bound before
// main begins: all of OpenMP's places count, not that one alone.
Cores cores_here(void);
// As pthread_create, for what is beside the threads of the operators: free to run on every processor that
// cores_here counts, whatever the thread that calls is bound to.
int cores_start_thread(pthread_t *thread, void *(*run)(void *), void *state);
// Threads that compute, all busy: one a core, because two hardware threads of a core share its multipliers,
// and no more than the quota pays for. At least one.
size_t cores_threads(Cores c);
// The quota as the files of control groups under `root` (/sys/fs/cgroup) say, versions 1 and 2, for a process
// with the memberships `groups` (the text of /proc/self/cgroup): the least on the way up from its groups.
double cores_quota(const char *root, const char *groups);
