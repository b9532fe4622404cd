#include "data/python_random.h"
#include "base/check.h"

#define SHIFT 397

static void seed_word(uint32_t s[MT19937_WORDS], uint32_t seed) {
    s[0] = seed;
    for (uint32_t i = 1; i < MT19937_WORDS; i++) s[i] = 1812433253u * (s[i - 1] ^ s[i - 1] >> 30) + i;
}

// The generator's init_by_array: CPython passes the 32-bit words of the seed, lowest first.
void python_random_seed(PythonRandom *r, uint64_t seed) {
    const uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    const size_t length = key[1] ? 2 : 1;
    uint32_t *s = r->state;
    seed_word(s, 19650218u);
    size_t i = 1, j = 0;
    for (size_t k = 0; k < MT19937_WORDS; k++) { // longer than the key, so it decides the number of rounds
        s[i] = (s[i] ^ (s[i - 1] ^ s[i - 1] >> 30) * 1664525u) + key[j] + (uint32_t)j;
        j = (j + 1) % length;
        if (++i == MT19937_WORDS) s[0] = s[MT19937_WORDS - 1], i = 1;
    }
    for (size_t k = 0; k < MT19937_WORDS - 1; k++) {
        s[i] = (s[i] ^ (s[i - 1] ^ s[i - 1] >> 30) * 1566083941u) - (uint32_t)i;
        if (++i == MT19937_WORDS) s[0] = s[MT19937_WORDS - 1], i = 1;
    }
    s[0] = 0x80000000u;
    r->used = MT19937_WORDS;
}

static void refill(PythonRandom *r) {
    uint32_t *s = r->state;
    for (size_t i = 0; i < MT19937_WORDS; i++) {
        uint32_t y = (s[i] & 0x80000000u) | (s[(i + 1) % MT19937_WORDS] & 0x7fffffffu);
        s[i] = s[(i + SHIFT) % MT19937_WORDS] ^ y >> 1 ^ (y & 1 ? 0x9908b0dfu : 0);
    }
    r->used = 0;
}

uint32_t python_random_u32(PythonRandom *r) {
    if (r->used == MT19937_WORDS) refill(r);
    uint32_t y = r->state[r->used++];
    y ^= y >> 11;
    y ^= y << 7 & 0x9d2c5680u;
    y ^= y << 15 & 0xefc60000u;
    return y ^ y >> 18;
}

// randrange(n), 0 < n ≤ 2³²
static size_t below(PythonRandom *r, size_t n) {
    CHECK(n > 0 && n <= UINT32_MAX, "n = %zu", n);
    int bits = 64 - __builtin_clzll(n);
    uint32_t x;
    do x = python_random_u32(r) >> (32 - bits);
    while (x >= n);
    return x;
}

void python_random_shuffle(PythonRandom *r, size_t *values, size_t n) {
    for (size_t i = n; i-- > 1;) {
        size_t j = below(r, i + 1), t = values[i];
        values[i] = values[j];
        values[j] = t;
    }
}
