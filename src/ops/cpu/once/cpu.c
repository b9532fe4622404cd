// The CPU backend: its memory, its threads, and the kernels of the level of instructions.
#include "ops/cpu/cpu.h"
#include "base/check.h"
#include "base/cores.h"
#include "base/cpu_level.h"
#include "base/memory.h"
#include "ops/cpu/gemm.h"
#include "ops/cpu/rehearsal.h"
#include "tensor/ops_table.h"

#include <omp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int cpu_threads(const Backend *be) {
    return ((const CpuState *)be->state)->threads;
}
const char *cpu_level_name(const Backend *be) {
    return ((const CpuState *)be->state)->level;
}

// ---- memory; every call is complete when it returns, so streams and events have nothing to do ----

// Address space from a large page's begin on, and no further than it was asked for: a large page that reached
// over its end, or into a neighbour, would take memory that nobody uses.
static char *map_aligned(size_t bytes) {
    const size_t large = mem_huge_page(), page = (size_t)sysconf(_SC_PAGESIZE);
    const size_t size = (bytes + page - 1) / page * page, room = size < large ? 0 : large - page;
    char *p =
        mmap(NULL, size + room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) return NULL;
    const size_t before = room > 0 ? (large - (uintptr_t)p % large) % large : 0;
    if (before > 0) munmap(p, before);
    if (room > before) munmap(p + before + size, room - before);
    return p + before;
}

static void *cpu_alloc(Backend *be, size_t bytes) {
    (void)be; // pages come zeroed, and exist only once they are touched
    void *p = map_aligned(bytes ? bytes : 1);
    if (p) madvise(p, bytes, MADV_HUGEPAGE); // saves address look-ups where the system allows it
    return p;
}

static void cpu_release(Backend *be, void *memory, size_t bytes) {
    (void)be;
    munmap(memory, bytes ? bytes : 1);
}

// By all threads where there is much of it: what is uploaded at the start goes to pages that don't exist yet,
// and often comes from a file's, so the system has more to do than to copy.
static void cpu_upload(Backend *be, Stream stream, void *device, const void *host, size_t bytes) {
    (void)stream;
    enum { PART = 1 << 18 };
#pragma omp parallel for schedule(static) num_threads(cpu_threads(be)) if (bytes >= 4 * PART)
    for (size_t i = 0; i < bytes; i += PART)
        memcpy((char *)device + i, (const char *)host + i, bytes - i < PART ? bytes - i : PART);
}

static void cpu_download(Backend *be, Stream stream, void *host, const void *device, size_t bytes) {
    (void)be, (void)stream;
    memcpy(host, device, bytes);
}

void *cpu_scratch(Backend *be, size_t bytes) {
    CpuState *s = be->state;
    if (bytes <= s->scratch_bytes) return s->scratch;
    if (s->scratch) cpu_release(be, s->scratch, s->scratch_bytes);
    s->scratch = cpu_alloc(be, bytes);
    s->scratch_bytes = bytes;
    CHECK(s->scratch, "no memory for %zu bytes of scratch", bytes);
    return s->scratch;
}

static void *cpu_event_create(Backend *be) {
    return be;
}
static void cpu_event_destroy(Backend *be, void *event) {
    (void)be, (void)event;
}
static void cpu_event(Backend *be, void *event, Stream stream) {
    (void)be, (void)event, (void)stream;
}
static void cpu_sync(Backend *be) {
    (void)be;
}

static size_t cpu_workspace(const Backend *be) {
    const CpuState *s = be->state;
    return s->scratch_bytes + gemm_bf16_scratch();
}

static void cpu_destroy(Backend *be) {
    CpuState *s = be->state;
    if (s->scratch) cpu_release(be, s->scratch, s->scratch_bytes);
    free(be->state);
    free(be);
}

static const BackendDevice device = {
    .alloc = cpu_alloc,
    .release = cpu_release,
    .host_alloc = cpu_alloc,
    .host_release = cpu_release,
    .upload = cpu_upload,
    .download = cpu_download,
    .event_create = cpu_event_create,
    .event_destroy = cpu_event_destroy,
    .event_record = cpu_event,
    .event_wait = cpu_event,
    .sync = cpu_sync,
    .destroy = cpu_destroy,
    .rehearsal = cpu_rehearsal,
    .workspace = cpu_workspace,
    .pieces = gemm_bf16_primitives,
};

// ---- levels ----

extern const BackendOps cpu_table_generic;
#ifdef CPU_LEVELS_X86
extern const BackendOps cpu_table_avx2, cpu_table_avx512, cpu_table_avx512bf16, cpu_table_amx;
#endif

static const struct Level {
    const char *title;
    const BackendOps *ops;
} levels[CPU_LEVELS] = {
    [CPU_GENERIC] = {"generic", &cpu_table_generic},
#ifdef CPU_LEVELS_X86
    [CPU_AVX2] = {"AVX2", &cpu_table_avx2},
    [CPU_AVX512] = {"AVX-512", &cpu_table_avx512},
    [CPU_AVX512_BF16] = {"AVX-512 BF16", &cpu_table_avx512bf16},
    [CPU_AMX] = {"AMX", &cpu_table_amx},
#endif
};

bool backend_cpu_create(Backend **be, size_t threads, Error *err) {
    CpuLevel level;
    *be = NULL;
    if (!cpu_level_choose(&level, err)) return false;
    if (threads > CPU_SETSIZE) return error_set(err, "%zu threads; at most %d will do", threads, CPU_SETSIZE);
    if (threads == 0) threads = cores_threads(cores_here());
    omp_set_num_threads((int)threads); // of this host thread, for what it does beside operators
    // Below AVX-512 oneDNN has ways of its own for few rows a thread; with AMX it cuts sums as the rows'
    // number is.
    const bool rows_alone = level == CPU_AVX512 || level == CPU_AVX512_BF16;
    gemm_limit_level(cpu_level_names[level]);
    CpuState *state = mem_zeroed(1, sizeof *state);
    *state = (CpuState){.threads = (int)threads, .level = cpu_level_names[level]};
    *be = mem_zeroed(1, sizeof **be);
    **be = (Backend){.name = "cpu",
                     .rows_alone = rows_alone,
                     .bf16 = level >= CPU_AVX512_BF16,
                     .alignment = 64,
                     .ops = levels[level].ops,
                     .device = &device,
                     .state = state};
    char library[64];
    gemm_describe(library, sizeof library);
    snprintf((*be)->detail, sizeof(*be)->detail, "%s, %zu thread%s, %s", levels[level].title, threads,
             threads == 1 ? "" : "s", library);
    if (rows_alone)
        snprintf((*be)->arithmetic, sizeof(*be)->arithmetic, "%s, %s", levels[level].title, library);
    else
        memcpy((*be)->arithmetic, (*be)->detail, sizeof(*be)->arithmetic);
    return true;
}
