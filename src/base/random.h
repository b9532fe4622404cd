// Counter-based random numbers (Philox4x32-10; Salmon et al., "Parallel random numbers: as easy as 1, 2, 3",
// SC 2011). A stream is named by a seed, a purpose and an index, so that no two uses share numbers and the
// value drawn for sample i never depends on threads or on what was drawn before.
#pragma once
#include <stddef.h>
#include <stdint.h>

typedef enum RandomPurpose {
    RANDOM_INIT = 1, // initial weights; index = parameter number
    RANDOM_SHUFFLE,  // order of rows; index = epoch
    RANDOM_PACK,     // order of packs; index = buffer number
    RANDOM_GENERATE, // sampling of tokens; index = row of the batch
    RANDOM_SYNTH,    // synthetic pictures; index = row
    RANDOM_TEST,
} RandomPurpose;

typedef struct Random {
    uint32_t key[2], counter[4]; // counter[0..1]: block number within the stream; [2..3]: index
    uint32_t block[4];
    unsigned used; // words of block already given out
} Random;

void philox4x32(uint32_t out[4], const uint32_t counter[4], const uint32_t key[2]); // one block of ten rounds
// The stream from its beginning.
Random random_stream(uint64_t seed, RandomPurpose purpose, uint64_t index);
void random_seek(Random *r, uint64_t block); // to the stream's block of four words with this number
uint32_t random_u32(Random *r);
uint64_t random_below(Random *r, uint64_t n); // uniform in [0, n), without bias; n > 0
double random_uniform(Random *r);             // [0, 1), 53 bits
double random_normal(Random *r);              // N(0, 1), Box-Muller, two uniforms a value
// x[i] = (float)(std · N(0, 1)) drawn from block `block` + i, to the bit what random_seek and random_normal
// give, at any level of instructions. std is not negative.
void random_normals(float *x, size_t n, double std, const Random *r, uint64_t block);
void random_permutation(size_t *out, size_t n, Random *r); // Fisher-Yates over 0 … n-1
