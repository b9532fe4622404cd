// The level of x86-64 instructions this process uses. Rooms with kernels compile them once a level
// (cmake/cpu_levels.cmake) and keep a table of them, indexed by CpuLevel.
#pragma once
#include "base/error.h"

typedef enum CpuLevel { CPU_GENERIC, CPU_AVX2, CPU_AVX512, CPU_AVX512_BF16, CPU_AMX, CPU_LEVELS } CpuLevel;

extern const char *const cpu_level_names[CPU_LEVELS]; // "generic", "avx2", "avx512", "avx512bf16", "amx"

// The best level of this machine, or what the variable VLM_CPU_LEVEL says; an error when it names a level
// that the machine lacks or none at all. Processors other than x86-64 have CPU_GENERIC alone.
bool cpu_level_choose(CpuLevel *level, Error *err);
