#include "dist/comm.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/cores.h"
#include "base/memory.h"
#include "dist/transport.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

// A large sum runs in segments, so that each rank's part of one fits this scratch memory.
enum { SCRATCH_FLOATS = COMM_SCRATCH_BYTES / sizeof(float), MAX_PENDING = 4096 };

typedef enum JobKind {
    JOB_SUM,
    JOB_SHARE,
    JOB_GATHER,
    JOB_COLLECT,
    JOB_BROADCAST,
    JOB_OPEN,
    JOB_CLOSE
} JobKind;

typedef struct Job {
    JobKind kind;
    const char *what;
    float *x; // sum, share
    size_t n; // floats, or bytes
    float factor;
    const size_t *first; // share
    const void *mine;    // gather
    void *bytes;         // gather: all; broadcast; collect
    size_t from;         // collect
    bool in_peace;       // close
} Job;

struct Comm {
    Launch launch;
    double timeout;
    Transport *transport; // of the thread alone, as is scratch
    float *scratch;
    size_t *parts;    // where the parts of a segment begin
    double *gathered; // scratch of comm_combine, on rank 0: [world_size, COMM_COMBINED]
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    Job jobs[MAX_PENDING]; // a ring: [done, asked)
    size_t asked, done;
    bool failed;
    Error error;
    CommCosts costs;
    char detail[160];
};

// ---- large sums: reduce-scatter and all-gather around the ring (Patarasuk & Yuan 2009) ----

// In pieces, for MPI counts in int.
static bool exchange_all(Transport *t, Exchange e, Error *err) {
    enum { MOST = 1 << 30 };
    const size_t out = e.out_bytes, in = e.in_bytes;
    for (size_t at = 0; at < out || at < in; at += MOST) {
        Exchange piece = e;
        piece.out_bytes = at < out ? (out - at < MOST ? out - at : MOST) : 0;
        piece.in_bytes = at < in ? (in - at < MOST ? in - at : MOST) : 0;
        if (piece.out_bytes) piece.out = (const char *)e.out + at;
        if (piece.in_bytes) piece.in = (char *)e.in + at;
        if (!t->exchange(t, &piece, err)) return false;
    }
    return true;
}

typedef struct Ring {
    Transport *t;
    size_t rank, world, next, before;
    const char *what;
} Ring;

static Ring ring_of(const Comm *c, const char *what) {
    const size_t rank = c->launch.rank, world = c->launch.world_size;
    return (Ring){c->transport, rank, world, (rank + 1) % world, (rank + world - 1) % world, what};
}

static bool pass_on(const Ring *r, const float *out, size_t n_out, float *in, size_t n_in, Error *err) {
    const Exchange e = {.channel = CHANNEL_RING,
                        .out = out,
                        .out_bytes = n_out * sizeof *out,
                        .to = r->next,
                        .in = in,
                        .in_bytes = n_in * sizeof *in,
                        .from = r->before,
                        .what = r->what};
    return exchange_all(r->t, e, err);
}

// Part p of n values in `world` parts.
static size_t part_begin(size_t n, size_t p, size_t world) {
    return n / world * p + (p < n % world ? p : n % world);
}

// Each rank's own part goes round until all have all; rank r has part r + shift.
static bool all_gather(const Ring *r, float *x, const size_t *first, size_t shift, Error *err) {
    for (size_t step = 0; step + 1 < r->world; step++) {
        const size_t out = (r->rank + shift + r->world - step) % r->world,
                     in = (out + r->world - 1) % r->world;
        if (!pass_on(r, x + first[out], first[out + 1] - first[out], x + first[in], first[in + 1] - first[in],
                     err))
            return false;
    }
    return true;
}

// Part p is added up in the order p, p + 1, … of the ranks: fixed by the world alone.
static bool sum_segment(const Ring *r, float *x, size_t n, float factor, float *scratch, size_t *first,
                        Error *err) {
    for (size_t p = 0; p <= r->world; p++) first[p] = part_begin(n, p, r->world);
    for (size_t step = 0; step + 1 < r->world; step++) {
        const size_t out = (r->rank + r->world - step) % r->world, in = (out + r->world - 1) % r->world;
        const size_t n_in = first[in + 1] - first[in];
        float *part = x + first[in];
        if (!pass_on(r, x + first[out], first[out + 1] - first[out], scratch, n_in, err)) return false;
        for (size_t i = 0; i < n_in; i++) part[i] = scratch[i] + part[i];
    }
    const size_t own = (r->rank + 1) % r->world;
    for (size_t i = first[own]; i < first[own + 1]; i++) x[i] *= factor;
    return all_gather(r, x, first, 1, err);
}

static bool do_sum(Comm *c, const Job *j, Error *err) {
    const Ring r = ring_of(c, j->what);
    const size_t most = (SCRATCH_FLOATS - 1) * r.world;
    for (size_t begin = 0; begin < j->n; begin += most) {
        const size_t left = j->n - begin;
        if (!sum_segment(&r, j->x + begin, left < most ? left : most, j->factor, c->scratch, c->parts, err))
            return false;
    }
    c->costs.bytes += 2 * (r.world - 1) * j->n / r.world * sizeof *j->x;
    return true;
}

static bool do_share(Comm *c, const Job *j, Error *err) {
    const Ring r = ring_of(c, j->what);
    c->costs.bytes += (j->first[r.world] - j->first[0]) * (r.world - 1) / r.world * sizeof *j->x;
    return all_gather(&r, j->x, j->first, 0, err);
}

// ---- small things: to and from rank 0 ----

// Goes before every small message, so that ranks that are at different places do not take one for another.
typedef struct Words {
    uint64_t bytes;
    char what[56];
} Words;

static bool send_words(Comm *c, size_t to, const Job *j, const void *bytes, Error *err) {
    Words w = {.bytes = j->n};
    snprintf(w.what, sizeof w.what, "%s", j->what);
    Exchange e = {.channel = CHANNEL_STAR, .out = &w, .out_bytes = sizeof w, .to = to, .what = j->what};
    if (!c->transport->exchange(c->transport, &e, err)) return false;
    e.out = bytes, e.out_bytes = j->n;
    return exchange_all(c->transport, e, err);
}

static bool receive_words(Comm *c, size_t from, const Job *j, void *bytes, Error *err) {
    Words w;
    Exchange e = {.channel = CHANNEL_STAR, .in = &w, .in_bytes = sizeof w, .from = from, .what = j->what};
    if (!c->transport->exchange(c->transport, &e, err)) return false;
    w.what[sizeof w.what - 1] = 0;
    if (w.bytes != j->n || strncmp(w.what, j->what, sizeof w.what - 1))
        return transport_error(c->transport, j->what, err,
                               "rank %zu is at \"%s\" with %llu bytes, expected %zu; all ranks need the same "
                               "program and settings",
                               from, w.what, (unsigned long long)w.bytes, j->n);
    e.in = bytes, e.in_bytes = j->n;
    return exchange_all(c->transport, e, err);
}

static bool do_gather(Comm *c, const Job *j, Error *err) {
    if (c->launch.rank > 0) return send_words(c, 0, j, j->mine, err);
    char *all = j->bytes;
    if (j->n) memcpy(all, j->mine, j->n);
    for (size_t r = 1; r < c->launch.world_size; r++)
        if (!receive_words(c, r, j, all + r * j->n, err)) return false;
    return true;
}

static bool do_broadcast(Comm *c, const Job *j, Error *err) {
    if (c->launch.rank > 0) return receive_words(c, 0, j, j->bytes, err);
    for (size_t r = 1; r < c->launch.world_size; r++)
        if (!send_words(c, r, j, j->bytes, err)) return false;
    return true;
}

static bool do_collect(Comm *c, const Job *j, Error *err) {
    if (c->launch.rank == 0) return receive_words(c, j->from, j, j->bytes, err);
    return send_words(c, 0, j, j->bytes, err);
}

// ---- the thread ----

static bool do_open(Comm *c, Error *err) {
    return (c->launch.mpi ? transport_open_mpi : transport_open_tcp)(&c->transport, &c->launch, c->timeout,
                                                                     err);
}

static bool do_job(Comm *c, const Job *j, Error *err) {
    switch (j->kind) {
    case JOB_OPEN:
        return do_open(c, err);
    case JOB_SUM:
        return do_sum(c, j, err);
    case JOB_SHARE:
        return do_share(c, j, err);
    case JOB_GATHER:
        return do_gather(c, j, err);
    case JOB_COLLECT:
        return do_collect(c, j, err);
    case JOB_BROADCAST:
        return do_broadcast(c, j, err);
    case JOB_CLOSE:
        break;
    }
    if (!j->in_peace && !c->failed && c->transport) c->transport->tell(c->transport, j->what);
    if (c->transport) c->transport->close(c->transport, j->in_peace);
    c->transport = NULL;
    return true;
}

static double processor_seconds(void) { // of this thread
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void run_job(Comm *c, const Job *j) {
    Error err = {""};
    const bool skip = c->failed && j->kind != JOB_CLOSE; // only this thread sets failed
    const double start = clock_seconds(), began = processor_seconds();
    const bool ok = !skip && do_job(c, j, &err), large = j->kind == JOB_SUM || j->kind == JOB_SHARE;
    if (!ok && !skip && c->transport) c->transport->tell(c->transport, err.text);
    pthread_mutex_lock(&c->lock);
    if (!ok && !skip) c->failed = true, c->error = err;
    if (large) {
        c->costs.seconds += clock_seconds() - start;
        c->costs.processor += processor_seconds() - began;
    }
    c->done++;
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->lock);
}

static void *talk(void *state) {
    Comm *c = state;
    for (bool open = true; open;) {
        pthread_mutex_lock(&c->lock);
        while (c->done == c->asked) pthread_cond_wait(&c->changed, &c->lock);
        const Job j = c->jobs[c->done % MAX_PENDING];
        pthread_mutex_unlock(&c->lock);
        open = j.kind != JOB_CLOSE;
        run_job(c, &j);
    }
    return NULL;
}

static void ask(Comm *c, Job j) {
    pthread_mutex_lock(&c->lock);
    while (c->asked - c->done == MAX_PENDING) pthread_cond_wait(&c->changed, &c->lock);
    c->jobs[c->asked++ % MAX_PENDING] = j;
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->lock);
}

static bool finish(Comm *c, Error *err) {
    pthread_mutex_lock(&c->lock);
    while (c->done < c->asked) pthread_cond_wait(&c->changed, &c->lock);
    const bool ok = !c->failed;
    if (!ok && err) *err = c->error;
    pthread_mutex_unlock(&c->lock);
    return ok;
}

// Signals go to the threads that wait for them (train/stop.h).
static void start_thread(Comm *c) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const int failed = cores_start_thread(&c->thread, talk, c);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    CHECK(!failed, "no thread to talk to the other ranks: error %d", failed);
}

static void end_thread(Comm *c, Job last) {
    ask(c, last);
    pthread_join(c->thread, NULL);
    pthread_mutex_destroy(&c->lock);
    pthread_cond_destroy(&c->changed);
    free(c->scratch);
    free(c->parts);
    free(c->gathered);
    free(c);
}

bool comm_open(Comm **out, double timeout, Error *err) {
    Launch launch;
    *out = NULL;
    if (!launch_read(&launch, err)) return false;
    if (launch.world_size == 1) return true;
    Comm *c = mem_zeroed(1, sizeof *c);
    *c = (Comm){.launch = launch, .timeout = timeout};
    c->scratch = mem_alloc(SCRATCH_FLOATS * sizeof *c->scratch);
    c->parts = mem_zeroed(launch.world_size + 1, sizeof *c->parts);
    if (launch.rank == 0) c->gathered = mem_zeroed(launch.world_size * COMM_COMBINED, sizeof *c->gathered);
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->changed, NULL);
    start_thread(c);
    ask(c, (Job){.kind = JOB_OPEN, .what = "meeting the other ranks"});
    if (!finish(c, err)) {
        end_thread(c, (Job){.kind = JOB_CLOSE, .what = err->text});
        return false;
    }
    snprintf(c->detail, sizeof c->detail, "%zu ranks over %s", launch.world_size, c->transport->detail);
    *out = c;
    return true;
}

bool comm_close(Comm *c, Error *err) {
    if (!c) return true;
    const bool ok = comm_barrier(c, "parting", err);
    Error text = c->error;
    end_thread(c, (Job){.kind = JOB_CLOSE, .what = text.text, .in_peace = ok});
    return ok;
}

void comm_give_up(Comm *c, const char *reason) {
    if (!c) return;
    char text[TRANSPORT_TEXT];
    snprintf(text, sizeof text, "rank %zu: %s", c->launch.rank, reason);
    end_thread(c, (Job){.kind = JOB_CLOSE, .what = text});
}

// ---- what callers see ----

size_t comm_rank(const Comm *c) {
    return c ? c->launch.rank : 0;
}

size_t comm_world_size(const Comm *c) {
    return c ? c->launch.world_size : 1;
}

const char *comm_describe(const Comm *c) {
    return c ? c->detail : "1 rank";
}

void comm_sum_start(Comm *c, float *x, size_t n, float factor, const char *what) {
    if (c) ask(c, (Job){.kind = JOB_SUM, .x = x, .n = n, .factor = factor, .what = what});
}

void comm_share_start(Comm *c, float *x, const size_t *first, const char *what) {
    if (c) ask(c, (Job){.kind = JOB_SHARE, .x = x, .first = first, .what = what});
}

bool comm_wait(Comm *c, Error *err) {
    if (!c) return true;
    const double start = clock_seconds();
    const bool ok = finish(c, err);
    c->costs.waited += clock_seconds() - start;
    return ok;
}

bool comm_gather(Comm *c, const void *bytes, size_t n, void *all, const char *what, Error *err) {
    CHECK(n <= COMM_SMALL_BYTES, "%s: %zu bytes are too many", what, n);
    if (!c) {
        if (n) memcpy(all, bytes, n);
        return true;
    }
    ask(c, (Job){.kind = JOB_GATHER, .mine = bytes, .n = n, .bytes = all, .what = what});
    return finish(c, err);
}

bool comm_broadcast(Comm *c, void *bytes, size_t n, const char *what, Error *err) {
    CHECK(n <= COMM_SMALL_BYTES, "%s: %zu bytes are too many", what, n);
    if (!c) return true;
    ask(c, (Job){.kind = JOB_BROADCAST, .bytes = bytes, .n = n, .what = what});
    return finish(c, err);
}

bool comm_collect(Comm *c, size_t from, void *bytes, size_t n, const char *what, Error *err) {
    if (!c || from == 0 || (c->launch.rank > 0 && c->launch.rank != from)) return true;
    ask(c, (Job){.kind = JOB_COLLECT, .from = from, .bytes = bytes, .n = n, .what = what});
    return finish(c, err);
}

static double combined(double a, double b, CommCombine how) {
    if (how == COMM_MIN) return b < a ? b : a;
    if (how == COMM_MAX) return b > a ? b : a;
    return a + b;
}

bool comm_combine(Comm *c, double *x, size_t n, CommCombine how, const char *what, Error *err) {
    CHECK(n <= COMM_COMBINED, "%s: %zu values are too many", what, n);
    if (!c || n == 0) return true;
    const size_t world = c->launch.world_size;
    if (!comm_gather(c, x, n * sizeof *x, c->gathered, what, err)) return false;
    for (size_t i = 0; c->launch.rank == 0 && i < n; i++) {
        for (size_t r = 1; r < world; r++) x[i] = combined(x[i], c->gathered[r * n + i], how);
        if (how == COMM_MEAN) x[i] /= (double)world;
    }
    return comm_broadcast(c, x, n * sizeof *x, what, err);
}

bool comm_any(Comm *c, bool *flag, const char *what, Error *err) {
    double x = *flag;
    if (!comm_combine(c, &x, 1, COMM_MAX, what, err)) return false;
    *flag = x > 0;
    return true;
}

bool comm_all(Comm *c, bool *flag, const char *what, Error *err) {
    bool missing = !*flag;
    if (!comm_any(c, &missing, what, err)) return false;
    *flag = !missing;
    return true;
}

bool comm_barrier(Comm *c, const char *what, Error *err) {
    bool here = true;
    return comm_all(c, &here, what, err);
}

CommCosts comm_costs(Comm *c) {
    if (!c) return (CommCosts){0};
    pthread_mutex_lock(&c->lock);
    const CommCosts costs = c->costs;
    pthread_mutex_unlock(&c->lock);
    return costs;
}
