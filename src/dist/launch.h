// Who this process is among the processes of its run, from what its launcher put in the environment.
#pragma once
#include "base/error.h"

#include <stddef.h>

typedef struct Launch {
    size_t rank, world_size, local_rank;
    size_t local_world_size; // ranks on this host; 0: not told
    bool mpi;                // through MPI, else through sockets
    char address[256];       // of rank 0, for sockets
    char port[8];
} Launch;

// mpirun, srun, or RANK and WORLD_SIZE as torchrun sets them (also by hand); none of these: a world of one.
// Half a set of variables, numbers that make no sense and a launcher this build cannot serve are errors that
// name the variable.
bool launch_read(Launch *l, Error *err);
