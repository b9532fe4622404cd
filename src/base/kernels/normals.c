// Compiled once a level of instructions; nothing but the function may be visible outside.
#include "base/kernels/normals.h"
#include "base/kernels/philox.h"

#include <math.h>
#include <string.h>

#define LN_2   0x1.62e42fefa39efp-1
#define TWO_PI 0x1.921fb54442d18p+2

// The blocks first … first + NORMALS − 1 of Philox4x32-10 (base/random.c), word by word.
static void draw_words(uint32_t words[restrict 4][NORMALS], const uint32_t key[2],
                       const uint32_t counter[4]) {
    const uint64_t first = (uint64_t)counter[1] << 32 | counter[0];
    for (uint32_t i = 0; i < NORMALS; i++) {
        const uint32_t low = (uint32_t)first + i, high = (uint32_t)(first >> 32) + (low < i);
        const PhiloxBlock c = philox_rounds((PhiloxBlock){low, high, counter[2], counter[3]}, key[0], key[1]);
        words[0][i] = c.c0, words[1][i] = c.c1, words[2][i] = c.c2, words[3][i] = c.c3;
    }
}

static inline double uniform(uint32_t high, uint32_t low) { // random_uniform
    return ((double)(int32_t)(high >> 5) * 0x1p26 + (double)(int32_t)(low >> 6)) * 0x1p-53;
}

// ln u, of u in (0, 1]: u = 2^k m with m in [√½, √2), ln m = 2 artanh s with s = (m − 1) / (m + 1).
static inline double log_of(double u) {
    const uint64_t one = 0x3ff0000000000000, root = 0x3fe6a09e667f3bcd, exponent = 0xfff0000000000000;
    uint64_t bits, k_bits;
    double m, k;
    memcpy(&bits, &u, sizeof bits);
    const uint64_t scaled = bits - root + one; // its exponent is k
    bits -= (scaled & exponent) - one;
    k_bits = scaled >> 52 | 0x4330000000000000; // 2^52 + 1023 + k
    memcpy(&m, &bits, sizeof m);
    memcpy(&k, &k_bits, sizeof k);
    k -= 0x1p52 + 1023;
    const double s = (m - 1) / (m + 1), z = s * s;
    double sum = 1.0 / 19;
    sum = sum * z + 1.0 / 17;
    sum = sum * z + 1.0 / 15;
    sum = sum * z + 1.0 / 13;
    sum = sum * z + 1.0 / 11;
    sum = sum * z + 1.0 / 9;
    sum = sum * z + 1.0 / 7;
    sum = sum * z + 1.0 / 5;
    sum = sum * z + 1.0 / 3;
    return k * LN_2 + 2 * (s + s * z * sum);
}

// cos 2πv, of v in [0, 1): −sin x with x = 2π (¼ − |v − ½|) between −π/2 and π/2.
static inline double cos_of(double v) {
    const double x = TWO_PI * (0.25 - fabs(v - 0.5)), z = x * x;
    double sum = -1.0 / 121645100408832000; // 1 / 19!
    sum = sum * z + 1.0 / 355687428096000;
    sum = sum * z - 1.0 / 1307674368000;
    sum = sum * z + 1.0 / 6227020800;
    sum = sum * z - 1.0 / 39916800;
    sum = sum * z + 1.0 / 362880;
    sum = sum * z - 1.0 / 5040;
    sum = sum * z + 1.0 / 120;
    sum = sum * z - 1.0 / 6;
    return -(x + x * z * sum);
}

// What is made here and the exact formula in double differ by less than 2^-47 of the radius: the two series
// by 2^-49 and 2^-51, the angle that random_normal rounds by 2^-50, the rest by some 2^-52. A value that
// stays the same float 2^-44 of the radius below and above is therefore that formula's.
static size_t normals(float *restrict out, int32_t *restrict doubtful, double std, const uint32_t key[2],
                      const uint32_t counter[4]) {
    uint32_t words[4][NORMALS];
    int32_t n = 0;
    draw_words(words, key, counter);
    for (size_t i = 0; i < NORMALS; i++) {
        const double radius = std * sqrt(-2.0 * log_of(1.0 - uniform(words[0][i], words[1][i])));
        const double value = radius * cos_of(uniform(words[2][i], words[3][i])), error = radius * 0x1p-44;
        const float below = (float)(value - error), above = (float)(value + error);
        out[i] = below;
        doubtful[i] = below != above || below == 0;
        n += doubtful[i];
    }
    return (size_t)n;
}

#define PASTE(level)  normals_##level
#define EXPAND(level) PASTE(level)
NormalsKernel *const EXPAND(CPU_LEVEL) = normals;
