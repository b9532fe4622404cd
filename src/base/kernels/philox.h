// The ten rounds of Philox4x32-10 (Salmon et al. 2011), for random.c and for the kernels that draw many at a
// time.
#pragma once
#include <stdint.h>

typedef struct PhiloxBlock {
    uint32_t c0, c1, c2, c3;
} PhiloxBlock;

static inline PhiloxBlock philox_rounds(PhiloxBlock c, uint32_t k0, uint32_t k1) {
    for (int round = 0; round < 10; round++) {
        const uint64_t p0 = (uint64_t)0xD2511F53u * c.c0, p1 = (uint64_t)0xCD9E8D57u * c.c2;
        c.c0 = (uint32_t)(p1 >> 32) ^ c.c1 ^ k0;
        c.c2 = (uint32_t)(p0 >> 32) ^ c.c3 ^ k1;
        c.c1 = (uint32_t)p1;
        c.c3 = (uint32_t)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return c;
}
