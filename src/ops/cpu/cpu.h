// The CPU backend: OpenMP kernels and oneDNN matrix products, compiled once per instruction level and chosen
// at start.
#pragma once
#include "tensor/backend.h"

// threads 0: as base/cores.h says. VLM_CPU_LEVEL=generic|avx2|avx512|avx512bf16|amx forces a lower level than
// the machine has; a level it lacks is an error. backend_destroy frees it.
bool backend_cpu_create(Backend **be, size_t threads, Error *err);
int cpu_threads(const Backend *be); // the number of threads its kernels use
// At least `bytes` of memory for what a kernel needs within one call; its content is not kept. Grows and
// stays.
void *cpu_scratch(Backend *be, size_t bytes);
const char *cpu_level_name(const Backend *be); // "generic", "avx2", "avx512", "avx512bf16" or "amx"
