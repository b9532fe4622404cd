// The CPU backend: OpenMP kernels and oneDNN matrix products, compiled once per instruction level and chosen
// at start.
#pragma once
#include "tensor/backend.h"

// threads 0: one per physical core. VLM_CPU_LEVEL=generic|avx2|avx512 forces a lower level than the machine
// has; a level it lacks is an error. backend_destroy frees it.
bool backend_cpu_create(Backend **be, size_t threads, Error *err);
int cpu_threads(const Backend *be);            // the number of threads its kernels use
const char *cpu_level_name(const Backend *be); // "generic", "avx2" or "avx512"
