#include "dist/launch.h"
#include "dist/transport.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct Launcher {
    const char *name;
    const char *sign; // set by this launcher alone, not empty
    const char *rank, *world_size, *local_rank, *local_world_size;
    bool mpi;
} Launcher;

// The first whose sign is there counts. SLURM_STEP_NUM_TASKS, unlike SLURM_NTASKS, is not there in a batch
// script outside srun.
static const Launcher launchers[] = {
    {"mpirun", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE",
     "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE", true},
    {"torchrun", "WORLD_SIZE", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", false},
    {"torchrun", "RANK", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", false},
    {"srun", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "", false},
};

static const char *variable(const char *name) {
    const char *value = *name ? getenv(name) : NULL;
    return value ? value : "";
}

enum { MAX_RANKS = 65536 };

static bool read_number(size_t *value, const char *name, const char *launcher, size_t most, Error *err) {
    const char *text = variable(name);
    char *end;
    errno = 0;
    const unsigned long n = strtoul(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end || errno || n > most)
        return error_set(err, "%s is \"%s\", expected a whole number of at most %zu; %s sets it beside %s",
                         name, text, most, launcher, launcher[0] == 't' ? "RANK and WORLD_SIZE" : "the rank");
    *value = n;
    return true;
}

// The first host of a list like "node[03-07,11],other2".
static void first_host(char *host, size_t size, const char *list) {
    const size_t prefix = strcspn(list, "[,");
    size_t number = 0;
    if (list[prefix] == '[') number = strcspn(list + prefix + 1, "-,]");
    snprintf(host, size, "%.*s%.*s", (int)prefix, list, (int)number, list + prefix + (number ? 1 : 0));
}

// Where rank 0 listens. torchrun's own store already sits on MASTER_PORT when the agent keeps it.
static bool find_address(Launch *l, const Launcher *launcher, Error *err) {
    const bool slurm = !strcmp(launcher->name, "srun");
    size_t port;
    snprintf(l->address, sizeof l->address, "%s", variable("MASTER_ADDR"));
    if (!l->address[0] && slurm) first_host(l->address, sizeof l->address, variable("SLURM_STEP_NODELIST"));
    if (!l->address[0] && slurm) first_host(l->address, sizeof l->address, variable("SLURM_JOB_NODELIST"));
    if (!l->address[0])
        return error_set(err,
                         "%s started rank %zu of %zu, but MASTER_ADDR is not set: give the host of rank 0, "
                         "and MASTER_PORT, a free port there",
                         launcher->name, l->rank, l->world_size);
    if (slurm && !variable("MASTER_PORT")[0])
        port = 20000 + strtoul(variable("SLURM_JOB_ID"), NULL, 10) % 12000; // below the ephemeral ports
    else if (!read_number(&port, "MASTER_PORT", launcher->name, 65534, err))
        return false;
    if (!strcmp(variable("TORCHELASTIC_USE_AGENT_STORE"), "True")) port++;
    snprintf(l->port, sizeof l->port, "%zu", port);
    return true;
}

static const Launcher *find_launcher(void) {
    for (size_t i = 0; i < sizeof launchers / sizeof *launchers; i++)
        if (variable(launchers[i].sign)[0]) return &launchers[i];
    return NULL;
}

static bool choose_transport(Launch *l, const Launcher *launcher, Error *err) {
    l->mpi = launcher->mpi || (!strcmp(launcher->name, "srun") && variable("PMIX_RANK")[0]);
    if (l->mpi && transport_mpi_is_built_in()) return true;
    if (launcher->mpi && !variable("MASTER_ADDR")[0])
        return error_set(err,
                         "%s started %zu ranks, but this build has no MPI; build with libopenmpi-dev "
                         "installed, or give its sockets a place: mpirun -x MASTER_ADDR=<host of rank 0> "
                         "-x MASTER_PORT=<port>",
                         launcher->name, l->world_size);
    l->mpi = false;
    return find_address(l, launcher, err);
}

bool launch_read(Launch *l, Error *err) {
    *l = (Launch){.world_size = 1, .local_world_size = 1};
    const Launcher *launcher = find_launcher();
    if (!launcher) return true;
    const char *name = launcher->name;
    if (!read_number(&l->world_size, launcher->world_size, name, MAX_RANKS, err) ||
        !read_number(&l->rank, launcher->rank, name, MAX_RANKS, err))
        return false;
    if (l->rank >= l->world_size)
        return error_set(err, "%s is %zu, expected less than %s, which is %zu", launcher->rank, l->rank,
                         launcher->world_size, l->world_size);
    if (variable(launcher->local_rank)[0] &&
        !read_number(&l->local_rank, launcher->local_rank, name, MAX_RANKS, err))
        return false;
    if (l->world_size == 1) return true;
    l->local_world_size = 0;
    if (variable(launcher->local_world_size)[0] &&
        !read_number(&l->local_world_size, launcher->local_world_size, name, MAX_RANKS, err))
        return false;
    return choose_transport(l, launcher, err);
}
