// LINK: base
// Normal values drawn many at a time have the bits of the formula, at every level of instructions, also where
// the fast formulas cannot decide.
#include "support/golden.h"

#include "base/cpu_level.h"
#include "base/random.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void expect_same(const float *x, size_t n, double std, Random r, uint64_t block) {
    for (size_t i = 0; i < n; i++) {
        random_seek(&r, block + i);
        const float expected = (float)(std * random_normal(&r));
        if (memcmp(&x[i], &expected, sizeof expected))
            fail_msg("block %llu + %zu: %a instead of %a", (unsigned long long)block, i, x[i], expected);
    }
}

static void same_bits(void **state) {
    (void)state;
    enum { MOST = 300000 };
    static const size_t counts[] = {0, 1, 63, 64, 65, 200, MOST};
    static const uint64_t blocks[] = {0, 1, 12345, 0xfffffff0, 0xfffffffffff0};
    static const double stds[] = {0.02, 1, 0, 1e-30, 1e-43, 3.7};
    float *x = malloc((MOST + 1) * sizeof *x);
    assert_non_null(x);
    for (size_t c = 0; c < sizeof counts / sizeof *counts; c++)
        for (size_t b = 0; b < sizeof blocks / sizeof *blocks; b++)
            for (size_t s = 0; s < (counts[c] < MOST || b == 0 ? sizeof stds / sizeof *stds : 1); s++) {
                const Random r = random_stream(17 + b, RANDOM_TEST, 1ull << 40 | c);
                x[counts[c]] = 77;
                random_normals(x, counts[c], stds[s], &r, blocks[b]);
                expect_same(x, counts[c], stds[s], r, blocks[b]);
                assert_true(x[counts[c]] == 77);
            }
    free(x);
}

// The counter whose block is `words`: Philox backwards. The inverse of an odd number modulo 2^32 by Newton.
static uint32_t inverse(uint32_t a) {
    uint32_t x = a;
    for (int i = 0; i < 5; i++) x *= 2 - a * x;
    return x;
}

static void counter_of(uint32_t c[4], const uint32_t words[4], const uint32_t key[2]) {
    const uint32_t m0 = 0xD2511F53u, m1 = 0xCD9E8D57u;
    memcpy(c, words, 4 * sizeof *c);
    for (uint32_t round = 10; round-- > 0;) {
        const uint32_t c0 = c[3] * inverse(m0), c2 = c[1] * inverse(m1);
        const uint32_t high0 = (uint32_t)((uint64_t)m0 * c0 >> 32),
                       high1 = (uint32_t)((uint64_t)m1 * c2 >> 32);
        c[1] = c[0] ^ high1 ^ (key[0] + round * 0x9E3779B9u);
        c[3] = c[2] ^ high0 ^ (key[1] + round * 0xBB67AE85u);
        c[0] = c0, c[2] = c2;
    }
}

// A stream whose block is made of u's words (1 − u = high · 2^-27 + low · 2^-53) and v's.
static uint64_t block_with(Random *r, uint64_t u, uint64_t v) {
    const uint32_t words[4] = {(uint32_t)(u >> 26) << 5, (uint32_t)(u & 0x3ffffff) << 6,
                               (uint32_t)(v >> 26) << 5, (uint32_t)(v & 0x3ffffff) << 6};
    uint32_t again[4];
    *r = random_stream(5, RANDOM_TEST, 0);
    counter_of(r->counter, words, r->key);
    philox4x32(again, r->counter, r->key);
    assert_memory_equal(again, words, sizeof words);
    return (uint64_t)r->counter[1] << 32 | r->counter[0];
}

// Ends of both intervals, quarters of the circle (whose cosine is what rounding the angle left) and their
// neighbours, and logarithms on both sides of where the reduction turns.
static void edges(void **state) {
    (void)state;
    const uint64_t one = 1ull << 53, root = (uint64_t)((1 - M_SQRT1_2) * (double)one);
    const uint64_t points[] = {0,
                               1,
                               2,
                               one / 8,
                               one / 4 - 1,
                               one / 4,
                               one / 4 + 1,
                               one / 2 - 1,
                               one / 2,
                               root - 1,
                               root,
                               root + 1,
                               root + 2,
                               one / 2 + 1,
                               one / 4 * 3 - 1,
                               one / 4 * 3,
                               one / 4 * 3 + 1,
                               one - 2,
                               one - 1};
    const size_t n = sizeof points / sizeof *points;
    float x[3];
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < n; k++) {
            Random r;
            const uint64_t block = block_with(&r, points[i], points[k]);
            random_normals(x, 3, 0.02, &r, block);
            expect_same(x, 3, 0.02, r, block);
        }
}

static int at_level(void **state) {
    Error err;
    CpuLevel level;
    setenv("VLM_CPU_LEVEL", *state, 1);
    if (!cpu_level_choose(&level, &err)) unsetenv("VLM_CPU_LEVEL"); // the machine lacks it
    return 0;
}

#define AT(test, level)                                                                                      \
    { #test " " level, test, at_level, NULL, (void *)level }

int main(void) {
    const struct CMUnitTest tests[] = {AT(same_bits, "generic"), AT(same_bits, "avx2"),
                                       AT(same_bits, "avx512"),  AT(edges, "generic"),
                                       AT(edges, "avx2"),        AT(edges, "avx512")};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
