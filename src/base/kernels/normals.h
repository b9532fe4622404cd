// Normal values many at a time, one function a level of instructions. Only base/random.c and the kernel
// itself include this.
#pragma once
#include "base/cpu_level.h"

#include <stddef.h>
#include <stdint.h>

enum { NORMALS = 64 }; // values of a call

// out[i] = (float)(std · random_normal), each of the block i behind the counter's, where doubtful[i] is 0;
// where it is 1, nearly never, the formula itself must decide how the value is rounded. How many are
// doubtful. std is not negative.
typedef size_t NormalsKernel(float *out, int32_t *doubtful, double std, const uint32_t key[2],
                             const uint32_t counter[4]);

extern NormalsKernel *const normals_generic;
#ifdef CPU_LEVELS_X86
extern NormalsKernel *const normals_avx2, *const normals_avx512;
#endif
