#include "support/guard_backend.h"
#include "base/check.h"
#include "base/memory.h"
#include "ops/cpu/cpu.h"

#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static size_t page_size(void) {
    return (size_t)sysconf(_SC_PAGESIZE);
}

static void protect(const void *data, size_t bytes, int protection) {
    if (bytes == 0) return;
    uintptr_t page = page_size(), first = (uintptr_t)data / page * page;
    uintptr_t end = ((uintptr_t)data + bytes + page - 1) / page * page;
    CHECK(mprotect((void *)first, end - first, protection) == 0, "%zu bytes at %p", bytes, data);
}

// Several threads upload at once, perhaps to the same page.
static pthread_mutex_t uploading = PTHREAD_MUTEX_INITIALIZER;

static Backend *cpu_of(const Backend *be) {
    return be->hook_state;
}

static void *guard_alloc(Backend *be, size_t bytes) {
    (void)be;
    void *p = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

static void guard_release(Backend *be, void *memory, size_t bytes) {
    (void)be;
    munmap(memory, bytes);
}

static void *guard_host_alloc(Backend *be, size_t bytes) {
    return cpu_of(be)->device->host_alloc(cpu_of(be), bytes);
}

static void guard_host_release(Backend *be, void *memory, size_t bytes) {
    cpu_of(be)->device->host_release(cpu_of(be), memory, bytes);
}

static void guard_upload(Backend *be, Stream stream, void *device, const void *host, size_t bytes) {
    (void)be, (void)stream;
    pthread_mutex_lock(&uploading);
    protect(device, bytes, PROT_READ | PROT_WRITE);
    memcpy(device, host, bytes);
    protect(device, bytes, PROT_NONE);
    pthread_mutex_unlock(&uploading);
}

static void guard_download(Backend *be, Stream stream, void *host, const void *device, size_t bytes) {
    (void)be, (void)stream;
    protect(device, bytes, PROT_READ);
    memcpy(host, device, bytes);
    protect(device, bytes, PROT_NONE);
}

static void *guard_event_create(Backend *be) {
    return cpu_of(be)->device->event_create(cpu_of(be));
}
static void guard_event_destroy(Backend *be, void *event) {
    cpu_of(be)->device->event_destroy(cpu_of(be), event);
}
static void guard_event(Backend *be, void *event, Stream stream) {
    (void)be, (void)event, (void)stream;
}
static void guard_sync(Backend *be) {
    (void)be;
}

static void guard_destroy(Backend *be) {
    backend_destroy(cpu_of(be));
    free(be);
}

static const BackendDevice device = {
    .alloc = guard_alloc,
    .release = guard_release,
    .host_alloc = guard_host_alloc,
    .host_release = guard_host_release,
    .upload = guard_upload,
    .download = guard_download,
    .event_create = guard_event_create,
    .event_destroy = guard_event_destroy,
    .event_record = guard_event,
    .event_wait = guard_event,
    .sync = guard_sync,
    .destroy = guard_destroy,
};

// Outputs last, because a page may hold both kinds (parts of one tensor, or an output that is also an input).
static void open_pages(Backend *be, const OpCall *call) {
    (void)be;
    for (size_t i = call->count; i-- > 0;) {
        Tensor t = call->tensors[i];
        if (t.data) protect(t.data, tensor_span(t), i < call->writes ? PROT_READ | PROT_WRITE : PROT_READ);
    }
}

static void close_pages(Backend *be, const OpCall *call) {
    (void)be;
    for (size_t i = 0; i < call->count; i++)
        if (call->tensors[i].data) protect(call->tensors[i].data, tensor_span(call->tensors[i]), PROT_NONE);
}

bool backend_guard_create(Backend **be, Error *err) {
    Backend *cpu;
    *be = NULL;
    if (!backend_cpu_create(&cpu, 0, err)) return false;
    *be = mem_zeroed(1, sizeof **be);
    **be = *cpu; // the operators find the CPU's state where they expect it
    (*be)->name = "guard";
    (*be)->alignment = page_size();
    (*be)->device = &device;
    (*be)->op_enter = open_pages;
    (*be)->op_leave = close_pages;
    (*be)->hook_state = cpu;
    return true;
}

// The child leaves no core file, and a sanitizer's own handler must not turn the signal into an exit.
static bool faults(volatile void *address, bool write) {
    pid_t child = fork();
    CHECK(child >= 0, "fork failed");
    if (child == 0) {
        struct rlimit no_core = {0, 0};
        setrlimit(RLIMIT_CORE, &no_core);
        signal(SIGSEGV, SIG_DFL);
        volatile char *byte = address;
        char value = *byte;
        if (write) *byte = value;
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child, "waitpid failed");
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV;
}

bool read_faults(const volatile void *address) {
    return faults((volatile void *)address, false);
}
bool write_faults(volatile void *address) {
    return faults(address, true);
}
