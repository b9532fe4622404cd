#include "base/random.h"
#include "base/kernels/normals.h"
#include "base/kernels/philox.h"

#include <math.h>
#include <string.h>

void philox4x32(uint32_t out[4], const uint32_t counter[4], const uint32_t key[2]) {
    const PhiloxBlock c =
        philox_rounds((PhiloxBlock){counter[0], counter[1], counter[2], counter[3]}, key[0], key[1]);
    out[0] = c.c0, out[1] = c.c1, out[2] = c.c2, out[3] = c.c3;
}

Random random_stream(uint64_t seed, RandomPurpose purpose, uint64_t index) {
    Random r = {.used = 4};
    // The purpose is folded into the key's high word; multiplied, so that neighbouring seeds stay apart.
    r.key[0] = (uint32_t)seed;
    r.key[1] = (uint32_t)(seed >> 32) ^ ((uint32_t)purpose * 0x9E3779B9u);
    r.counter[2] = (uint32_t)index;
    r.counter[3] = (uint32_t)(index >> 32);
    return r;
}

void random_seek(Random *r, uint64_t block) {
    r->counter[0] = (uint32_t)block;
    r->counter[1] = (uint32_t)(block >> 32);
    r->used = 4;
}

uint32_t random_u32(Random *r) {
    if (r->used == 4) {
        philox4x32(r->block, r->counter, r->key);
        if (++r->counter[0] == 0) r->counter[1]++;
        r->used = 0;
    }
    return r->block[r->used++];
}

uint64_t random_below(Random *r, uint64_t n) {
    uint64_t limit =
        UINT64_MAX - UINT64_MAX % n; // a multiple of n; draws at or above it would favour small values
    uint64_t x;
    do {
        x = (uint64_t)random_u32(r) << 32;
        x |= random_u32(r);
    } while (x >= limit);
    return x % n;
}

double random_uniform(Random *r) {
    uint64_t high = random_u32(r) >> 5, low = random_u32(r) >> 6; // 27 + 26 = 53 bits
    return (double)(high << 26 | low) * 0x1p-53;
}

double random_normal(Random *r) {
    double u = 1.0 - random_uniform(r); // (0, 1], so that the logarithm is finite
    double v = random_uniform(r);
    return sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v);
}

static NormalsKernel *normals_kernel(void) { // every level gives the same bits
    CpuLevel level;
    Error err;
    if (!cpu_level_choose(&level, &err)) return normals_generic;
#ifdef CPU_LEVELS_X86
    if (level >= CPU_AVX512) return normals_avx512;
    if (level >= CPU_AVX2) return normals_avx2;
#endif
    return normals_generic;
}

void random_normals(float *x, size_t n, double std, const Random *r, uint64_t block) {
    NormalsKernel *const kernel = normals_kernel();
    float values[NORMALS];
    int32_t doubtful[NORMALS];
    for (size_t done = 0; done < n; done += NORMALS) {
        const size_t here = n - done < NORMALS ? n - done : NORMALS;
        Random part = *r;
        random_seek(&part, block + done);
        size_t left = kernel(values, doubtful, std, part.key, part.counter);
        for (size_t i = 0; left > 0; i++) {
            if (!doubtful[i]) continue;
            random_seek(&part, block + done + i);
            values[i] = (float)(std * random_normal(&part));
            left--;
        }
        memcpy(x + done, values, here * sizeof *x);
    }
}

void random_permutation(size_t *out, size_t n, Random *r) {
    for (size_t i = 0; i < n; i++) out[i] = i;
    for (size_t i = n; i > 1; i--) {
        size_t j = (size_t)random_below(r, i), t = out[i - 1];
        out[i - 1] = out[j];
        out[j] = t;
    }
}
