#include "base/cpu_level.h"

#include <stdlib.h>
#include <string.h>
#if defined(CPU_LEVELS_X86) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

const char *const cpu_level_names[CPU_LEVELS] = {"generic", "avx2", "avx512", "avx512bf16", "amx"};

#if defined(CPU_LEVELS_X86) && defined(__linux__)
// Linux keeps room for a thread's tiles only in processes that ask for it (arch_prctl, the kernel's
// documentation of "xstate features"); what is granted holds for all threads.
static bool tiles_granted(void) {
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
}
#else
static bool tiles_granted(void) {
    return false;
}
#endif

static bool supported(CpuLevel level) {
#ifdef CPU_LEVELS_X86
    if (level == CPU_AVX2) return __builtin_cpu_supports("x86-64-v3");
    if (level == CPU_AVX512) return __builtin_cpu_supports("x86-64-v4");
    if (level == CPU_AVX512_BF16)
        return __builtin_cpu_supports("x86-64-v4") && __builtin_cpu_supports("avx512bf16") &&
               __builtin_cpu_supports("avx512vnni");
    if (level == CPU_AMX)
        return supported(CPU_AVX512_BF16) && __builtin_cpu_supports("amx-tile") &&
               __builtin_cpu_supports("amx-bf16") && tiles_granted();
#endif
    return level == CPU_GENERIC;
}

bool cpu_level_choose(CpuLevel *level, Error *err) {
    const char *forced = getenv("VLM_CPU_LEVEL");
    for (int i = CPU_LEVELS - 1; i >= 0; i--) { // best first
        *level = (CpuLevel)i;
        if (!forced || !*forced) {
            if (supported(*level)) return true;
        } else if (strcmp(forced, cpu_level_names[i]) == 0) {
            if (supported(*level)) return true;
            return error_set(err, "VLM_CPU_LEVEL is %s, but this machine lacks these instructions; unset it",
                             forced);
        }
    }
    return error_set(
        err,
        "VLM_CPU_LEVEL is \"%s\", expected generic, avx2, avx512, avx512bf16 or amx (on x86-64), "
        "or nothing",
        forced);
}
