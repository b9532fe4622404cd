// Python's `random` as far as nanoVLM's packer uses it: MT19937 (Matsumoto and Nishimura 1998) seeded with an
// integer, and random.shuffle. Same seed, same order as CPython.
#pragma once
#include <stddef.h>
#include <stdint.h>

#define MT19937_WORDS 624

typedef struct PythonRandom {
    uint32_t state[MT19937_WORDS];
    size_t used; // words of state already given out
} PythonRandom;

void python_random_seed(PythonRandom *r, uint64_t seed);               // random.seed(seed)
uint32_t python_random_u32(PythonRandom *r);                           // getrandbits(32)
void python_random_shuffle(PythonRandom *r, size_t *values, size_t n); // random.shuffle
