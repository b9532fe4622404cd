// A backend is a device: its memory, its streams and a table of operators (tensor/ops.h). Model and trainer
// hold a Backend * and know no more. Everything is asynchronous in principle, because a GPU is: work put on a
// stream runs in the stream's order, host memory given to an upload must stay as it is until the stream has
// passed it, and a download is complete only after backend_sync or the event behind it. The CPU backend
// finishes each call at once.
#pragma once
#include "base/error.h"
#include "tensor/tensor.h"

#include <stdint.h>

typedef struct Backend Backend;

typedef enum Stream { STREAM_COMPUTE, STREAM_COPY } Stream;

// The hooks see every operator call with its tensors: first the ones it writes, then the ones it only reads.
// The guard backend of the tests opens exactly these tensors' memory for the call; profilers and detectors of
// NaN fit here.
typedef struct OpCall {
    const char *name;
    const Tensor *tensors; // absent ones have data NULL
    size_t writes, count;  // tensors[0 .. writes) are written (and may be read), the rest only read
    bool causal;           // of attention: no query sees what comes after it
} OpCall;

typedef struct BackendOps BackendOps; // the operators; declared in tensor/ops_table.h

// Memory and order: what every device must offer beside its operators. alloc returns zeroed memory or NULL.
// Several host threads may upload at once, each to a place of its own, and wait (sync).
typedef struct BackendDevice {
    void *(*alloc)(Backend *be, size_t bytes);
    void (*release)(Backend *be, void *memory, size_t bytes);
    void *(*host_alloc)(Backend *be, size_t bytes); // host memory that copies fast (pinned on a GPU)
    void (*host_release)(Backend *be, void *memory, size_t bytes);
    void (*upload)(Backend *be, Stream stream, void *device, const void *host, size_t bytes);
    void (*download)(Backend *be, Stream stream, void *host, const void *device, size_t bytes);
    void *(*event_create)(Backend *be);
    void (*event_destroy)(Backend *be, void *event);
    void (*event_record)(Backend *be, void *event,
                         Stream stream); // the event is reached when the stream gets here
    void (*event_wait)(Backend *be, void *event, Stream stream); // the stream waits for the event
    void (*sync)(Backend *be);                                   // the host waits for all streams
    void (*destroy)(Backend *be);
    // A twin on which a plan is gone through without running it: its memory is addresses alone, and its
    // operators compute nothing, but get ready what they take beside their tensors: the library's code, and a
    // count of scratch. NULL: operators take nothing. workspace: bytes of scratch so far.
    Backend *(*rehearsal)(Backend *be);
    size_t (*workspace)(const Backend *be);
    size_t (*pieces)(
        size_t *most); // of code made for shapes: how many there are now, and are kept at most; or NULL
} BackendDevice;

struct Backend {
    const char *name; // "cpu", "cuda", …
    char detail[128]; // what was chosen at start, for `vlm version` and logs: "AVX2, 2 threads, oneDNN 2.6.3"
    char arithmetic[128]; // the part of it that decides the last bits of a forward: "AVX-512, oneDNN 2.6.3"
    bool rows_alone;      // a row of a linear layer's output has the same bits whatever rows are beside it
    bool bf16;            // has products of BF16; without, BF16 tensors work too, but slowly
    size_t alignment;     // of every tensor in this backend's memory, in bytes; a power of two
    const BackendOps *ops;
    const BackendDevice *device;
    void (*op_enter)(Backend *be, const OpCall *call); // NULL: nobody watches
    void (*op_leave)(Backend *be, const OpCall *call);
    void *hook_state; // of whoever set the hooks
    void *state;      // of the backend
};

void backend_destroy(Backend *be);
size_t backend_pieces(Backend *be, size_t *most); // BackendDevice, or 0 of 0
void backend_sync(Backend *be);
// Copies the whole of a contiguous tensor; host holds tensor_bytes(t) bytes.
void tensor_upload(Backend *be, Stream stream, Tensor t, const void *host);
void tensor_download(Backend *be, Stream stream, void *host, Tensor t);
float tensor_read_f32(Backend *be, Tensor t); // one value: download and sync

// ---- arenas: memory planned before the run ----
// A plan is a function that takes its tensors from an arena one by one. It runs twice: over an arena without
// memory, which only adds up sizes, and again after arena_commit has got that many bytes. So sizes are known
// exactly without running (`vlm memory`), and nothing is allocated in a step.
typedef struct Arena {
    Backend *be;
    const char *name; // for messages: "activations"
    char *base;       // NULL while measuring
    size_t used, size;
} Arena;

Arena arena_measure(Backend *be, const char *name); // an empty one without memory; name is borrowed
Tensor arena_take(Arena *a, Dtype dtype, int ndim, const size_t *shape); // data is NULL while measuring
// Gets the memory for what was measured (a->used bytes, zeroed) and rewinds, ready for the plan's second run.
bool arena_commit(Arena *a, Error *err);
void arena_release(Arena *a);
