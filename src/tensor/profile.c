#include "tensor/profile.h"
#include "base/check.h"
#include "base/memory.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

// The operators and how to count their work. `traffic` has a digit for each tensor of the call: how often its
// values pass through memory, 2 being a tensor that is read and written. Of rows picked from a table by a
// list (gather_rows and its like) the digit of the picked rows counts for the table too; 'r' stands for as
// many rows as the list is long.
typedef struct OpWork {
    const char *name;
    WorkKind kind;
    const char *traffic;
} OpWork;

static const OpWork works[] = {
    {"fill", WORK_MEMORY, "1"},
    {"copy", WORK_MEMORY, "11"},
    {"add", WORK_MEMORY, "111"},
    {"multiply", WORK_MEMORY, "2"},
    {"gather_rows", WORK_MEMORY, "201"},
    {"scatter_rows", WORK_MEMORY, "021"},
    {"zero_rows", WORK_MEMORY, "r1"},
    {"linear_forward", WORK_PRODUCT, "1111"},
    {"linear_backward_input", WORK_PRODUCT, "111"},
    {"linear_backward_weight", WORK_PRODUCT, "2211"},
    {"layer_norm_forward", WORK_MEMORY, "111111"},
    {"layer_norm_backward", WORK_MEMORY, "212211111"},
    {"rms_norm_forward", WORK_MEMORY, "1111"},
    {"rms_norm_backward", WORK_MEMORY, "2121111"},
    {"add_layer_norm_forward", WORK_MEMORY, "11111111"},
    {"add_rms_norm_forward", WORK_MEMORY, "111111"},
    {"gelu_forward", WORK_MEMORY, "11"},
    {"gelu_backward", WORK_MEMORY, "1111"},
    {"swiglu_forward", WORK_MEMORY, "111"},
    {"swiglu_backward", WORK_MEMORY, "111111"},
    {"rope_table", WORK_MEMORY, "1111"},
    {"rope_forward", WORK_MEMORY, "211"},
    {"rope_backward", WORK_MEMORY, "211"},
    {"attention_forward", WORK_ATTENTION, "1111111"},
    {"attention_backward", WORK_ATTENTION, "111111111111"},
    {"embedding_forward", WORK_MEMORY, "201"},
    {"embedding_backward", WORK_MEMORY, "031"},
    {"patchify", WORK_MEMORY, "11"},
    {"position_forward", WORK_MEMORY, "1111"},
    {"position_backward", WORK_MEMORY, "1221"},
    {"pixel_shuffle_forward", WORK_MEMORY, "11"},
    {"pixel_shuffle_backward", WORK_MEMORY, "11"},
    {"cross_entropy", WORK_MEMORY, "121"},
    {"sum", WORK_MEMORY, "11"},
    {"sum_of_squares", WORK_MEMORY, "11"},
    {"clip_factor", WORK_MEMORY, "11"},
    {"adamw", WORK_MEMORY, "2221211"},
};

static const OpWork *work_of(const OpCall *call) {
    for (size_t i = 0; i < sizeof works / sizeof *works; i++)
        if (!strcmp(works[i].name, call->name)) {
            CHECK(strlen(works[i].traffic) == call->count, "%s has %zu tensors", call->name, call->count);
            return &works[i];
        }
    CHECK(false, "no work is known for %s", call->name);
    return NULL;
}

static double bytes_of(const OpWork *work, const OpCall *call) {
    double bytes = 0;
    for (size_t i = 0; i < call->count; i++) {
        const Tensor t = call->tensors[i];
        if (!tensor_exists(t)) continue;
        const char digit = work->traffic[i];
        if (digit == 'r')
            bytes +=
                (double)(tensor_count(call->tensors[call->count - 1]) * tensor_cols(t) * dtype_size(t.dtype));
        else
            bytes += (digit - '0') * (double)tensor_bytes(t);
    }
    return bytes;
}

// Pairs of query and key that one head of all sequences has to look at.
static double pairs_seen(Profile *p, const OpCall *call, Tensor q, Tensor k) {
    const double B = (double)q.shape[0], Tq = (double)q.shape[1], Tk = (double)k.shape[1];
    const Tensor starts = call->tensors[call->count - 1];
    if (!call->causal) return B * Tq * Tk;
    if (!tensor_exists(starts)) return B * (Tq * (Tk - Tq) + Tq * (Tq + 1) / 2);
    const size_t n = tensor_count(starts), T = starts.shape[1];
    if (n > p->starts_count) {
        p->starts = mem_resize(p->starts, n * sizeof *p->starts);
        p->starts_count = n;
    }
    tensor_download(p->be, STREAM_COMPUTE, p->starts, starts);
    backend_sync(p->be);
    double pairs = 0;
    for (size_t i = 0; i < n; i++) pairs += (double)(i % T + 1) - p->starts[i];
    return pairs;
}

// Products: 2 M N K, whose three sizes are the sides of any two of the three matrices. Attention: two
// products of size D a pair forward, five backward, because scores are made again there.
static double flops_of(Profile *p, const OpWork *work, const OpCall *call) {
    const Tensor *t = call->tensors;
    if (work->kind == WORK_PRODUCT) {
        const bool weight = !strcmp(call->name, "linear_backward_weight");
        const Tensor rows = weight ? t[2] : t[0], other = weight ? t[3] : t[1];
        return 2.0 * (double)tensor_rows(rows) * (double)tensor_cols(rows) * (double)tensor_cols(other);
    }
    if (work->kind != WORK_ATTENTION) return 0;
    const bool backward = call->writes == 4;
    const Tensor q = t[backward ? 5 : 2], k = t[backward ? 6 : 3];
    return (backward ? 10.0 : 4.0) * (double)(q.shape[2] * q.shape[3]) * pairs_seen(p, call, q, k);
}

static double seconds_of(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void enter(Backend *be, const OpCall *call) {
    (void)call;
    Profile *p = be->hook_state;
    p->cpu = seconds_of(CLOCK_PROCESS_CPUTIME_ID);
    p->wall = seconds_of(CLOCK_MONOTONIC);
}

static ProfileRow *row_of(Profile *p, const OpWork *work) {
    for (size_t i = 0; i < p->count; i++)
        if (p->rows[i].name == work->name) return &p->rows[i];
    CHECK(p->count < PROFILE_ROWS, "more than %d operators", PROFILE_ROWS);
    p->rows[p->count] = (ProfileRow){.name = work->name, .kind = work->kind};
    return &p->rows[p->count++];
}

static void leave(Backend *be, const OpCall *call) {
    Profile *p = be->hook_state;
    const double wall = seconds_of(CLOCK_MONOTONIC) - p->wall,
                 cpu = seconds_of(CLOCK_PROCESS_CPUTIME_ID) - p->cpu;
    const OpWork *work = work_of(call);
    ProfileRow *row = row_of(p, work);
    row->calls++;
    row->wall += wall;
    row->cpu += cpu;
    row->bytes += bytes_of(work, call);
    row->flops += flops_of(p, work, call);
}

void profile_begin(Profile *p, Backend *be) {
    CHECK(!be->op_enter && !be->op_leave, "%s is watched already", be->name);
    *p = (Profile){.be = be};
    be->hook_state = p;
    profile_watch(p, true);
}

void profile_watch(Profile *p, bool watch) {
    p->be->op_enter = watch ? enter : NULL;
    p->be->op_leave = watch ? leave : NULL;
}

void profile_end(Profile *p) {
    profile_watch(p, false);
    p->be->hook_state = NULL;
    free(p->starts);
    p->starts = NULL;
}

ProfileRow profile_total(const Profile *p) {
    ProfileRow total = {.name = "all", .kind = WORK_MEMORY};
    for (size_t i = 0; i < p->count; i++) {
        total.calls += p->rows[i].calls;
        total.wall += p->rows[i].wall;
        total.cpu += p->rows[i].cpu;
        total.flops += p->rows[i].flops;
        total.bytes += p->rows[i].bytes;
    }
    return total;
}

static int by_time(const void *a, const void *b) {
    const ProfileRow *x = a, *y = b;
    return (x->wall < y->wall) - (x->wall > y->wall);
}

void profile_sort(Profile *p) {
    qsort(p->rows, p->count, sizeof *p->rows, by_time);
}
