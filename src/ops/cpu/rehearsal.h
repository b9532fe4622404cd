// Within the CPU backend: its state, and its twin for rehearsals (tensor/backend.h).
#pragma once
#include "ops/cpu/cpu.h"

typedef struct CpuState {
    int threads;
    const char *level;
    void *scratch;                       // of cpu_scratch
    size_t scratch_bytes, library_bytes; // library: of a rehearsal alone
} CpuState;

Backend *cpu_rehearsal(Backend *be); // backend_destroy frees it
