// MPI: point to point only, so that the order of sums is ours and a wait can end. All calls come from one
// thread, which also starts and ends MPI (MPI_THREAD_FUNNELED).
#include "dist/transport.h"

#ifdef VLM_MPI
#include "base/clock.h"
#include "base/memory.h"

#include <mpi.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { TAG_DATA = 1, TAG_LAST_WORDS };

typedef struct Mpi {
    Transport base;
    MPI_Comm channels[2]; // ring, star
    char cause[TRANSPORT_TEXT];
    char words[TRANSPORT_TEXT]; // being sent
} Mpi;

bool transport_mpi_is_built_in(void) {
    return true;
}

static bool mpi_failed(const Mpi *t, const char *what, int code, Error *err) {
    char text[MPI_MAX_ERROR_STRING];
    int n = 0;
    MPI_Error_string(code, text, &n);
    return transport_error(&t->base, what, err, "MPI: %.*s", n, text);
}

static bool hear_last_words(Mpi *t, const char *what, Error *err) {
    MPI_Status status;
    int here = 0;
    MPI_Iprobe(MPI_ANY_SOURCE, TAG_LAST_WORDS, t->channels[CHANNEL_STAR], &here, &status);
    if (!here) return true;
    MPI_Recv(t->cause, sizeof t->cause, MPI_CHAR, status.MPI_SOURCE, TAG_LAST_WORDS,
             t->channels[CHANNEL_STAR], &status);
    t->cause[sizeof t->cause - 1] = 0;
    return transport_error(&t->base, what, err, "given up, because %s", t->cause);
}

// Waits without a core of its own: training's threads have them all.
static void pause_between_tests(unsigned tests) {
    const struct timespec nap = {.tv_nsec = tests < 2000 ? 20000 : 200000};
    if (tests < 50)
        sched_yield();
    else
        nanosleep(&nap, NULL);
}

static bool complete(Mpi *t, const Exchange *e, MPI_Request requests[2], Error *err) {
    const double until = clock_seconds() + transport_patience(&t->base, e);
    for (unsigned tests = 0;; tests++) {
        int done;
        const int code = MPI_Testall(2, requests, &done, MPI_STATUSES_IGNORE);
        if (code != MPI_SUCCESS) return mpi_failed(t, e->what, code, err);
        if (done) return true;
        if (!hear_last_words(t, e->what, err)) return false;
        if (clock_seconds() > until) {
            int received = e->in_bytes == 0;
            if (!received) MPI_Test(&requests[1], &received, MPI_STATUS_IGNORE);
            return transport_timed_out(&t->base, e, !received, err);
        }
        pause_between_tests(tests);
    }
}

static bool mpi_exchange(Transport *base, const Exchange *e, Error *err) {
    Mpi *t = (Mpi *)base;
    MPI_Request requests[2] = {MPI_REQUEST_NULL, MPI_REQUEST_NULL};
    const MPI_Comm comm = t->channels[e->channel];
    int code = MPI_SUCCESS;
    if (e->in_bytes)
        code = MPI_Irecv(e->in, (int)e->in_bytes, MPI_BYTE, (int)e->from, TAG_DATA, comm, &requests[1]);
    if (code == MPI_SUCCESS && e->out_bytes)
        code = MPI_Isend(e->out, (int)e->out_bytes, MPI_BYTE, (int)e->to, TAG_DATA, comm, &requests[0]);
    return code == MPI_SUCCESS ? complete(t, e, requests, err) : mpi_failed(t, e->what, code, err);
}

// The others have a second to hear it before mpi_close ends the job.
static void mpi_tell(Transport *base, const char *text) {
    Mpi *t = (Mpi *)base;
    const size_t world = base->launch.world_size;
    snprintf(t->words, sizeof t->words, "%s", t->cause[0] ? t->cause : text);
    MPI_Request *requests = mem_alloc(world * sizeof *requests);
    for (size_t r = 0; r < world; r++) {
        requests[r] = MPI_REQUEST_NULL;
        if (r != base->launch.rank)
            MPI_Isend(t->words, sizeof t->words, MPI_CHAR, (int)r, TAG_LAST_WORDS, t->channels[CHANNEL_STAR],
                      &requests[r]);
    }
    int done = 0;
    for (double end = clock_seconds() + 1; !done && clock_seconds() < end;) {
        MPI_Testall((int)world, requests, &done, MPI_STATUSES_IGNORE);
        pause_between_tests(100);
    }
    free(requests);
}

// A world that has failed cannot part in peace: MPI_Finalize would wait for all.
static void mpi_close(Transport *base, bool in_peace) {
    const struct timespec grace = {.tv_sec = 1};
    if (!in_peace) {
        fflush(NULL);
        nanosleep(&grace, NULL);
        MPI_Abort(MPI_COMM_WORLD, EXIT_FAILURE);
    }
    Mpi *t = (Mpi *)base;
    for (int i = 0; i < 2; i++) MPI_Comm_free(&t->channels[i]);
    MPI_Finalize();
    free(t);
}

static void describe(Mpi *t) {
    char text[MPI_MAX_LIBRARY_VERSION_STRING];
    int n;
    MPI_Get_library_version(text, &n);
    snprintf(t->base.detail, sizeof t->base.detail, "MPI (%.*s)", (int)strcspn(text, ",\n"), text);
}

bool transport_open_mpi(Transport **out, const Launch *launch, double timeout, Error *err) {
    Mpi *t = mem_zeroed(1, sizeof *t);
    t->base = (Transport){*launch, timeout, "", mpi_exchange, mpi_tell, mpi_close};
    int provided, rank = 0, world = 0;
    if (MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &provided) != MPI_SUCCESS) {
        free(t);
        return error_set(err, "MPI cannot start; its own message stands above");
    }
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &world);
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    for (int i = 0; i < 2; i++) MPI_Comm_dup(MPI_COMM_WORLD, &t->channels[i]);
    describe(t);
    *out = &t->base;
    if ((size_t)rank == launch->rank && (size_t)world == launch->world_size) return true;
    return transport_error(&t->base, "meeting the other ranks", err,
                           "MPI says rank %d of %d; the launcher and this MPI do not belong together", rank,
                           world);
}

#else

bool transport_mpi_is_built_in(void) {
    return false;
}

bool transport_open_mpi(Transport **t, const Launch *launch, double timeout, Error *err) {
    (void)t, (void)launch, (void)timeout;
    return error_set(err, "this build has no MPI");
}

#endif
