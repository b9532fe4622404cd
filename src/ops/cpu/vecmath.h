// exp and its relatives in plain C that the compiler turns into vector code. About one unit in the last
// place.
#pragma once
#include <math.h>
#include <string.h>

static inline float float_from_bits(unsigned bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

// eˣ = 2ⁿ eʳ with n the nearest integer to x/ln 2. Adding 1.5·2²³ rounds to an integer and leaves it in the
// low bits. eʳ − 1 − r over r² is a least-maximum polynomial on |r| ≤ ln 2 / 2 (error 3e-9). 2ⁿ is applied in
// two halves, because n reaches from -150 (denormal results) to 128. Infinities and NaN come out as they
// should.
static inline float exp_f32(float x) {
    const float round = 12582912.0f;
    x = x < -104.0f ? -104.0f : x;
    x = x > 89.0f ? 89.0f : x;
    float shifted = x * 1.44269504f + round;
    float n = shifted - round;
    float r = x - n * 0x1.63p-1f; // ln 2 in two parts, the first short enough that n times it is exact
    r = r - n * -2.12194440e-4f;
    float p = 0.0013814599f;
    p = p * r + 0.008368717f;
    p = p * r + 0.04166839f;
    p = p * r + 0.16666521f;
    p = p * r + 0.49999994f;
    p = p * r * r + r + 1.0f;
    unsigned bits;
    memcpy(&bits, &shifted, sizeof bits);
    int whole = (int)(bits - 0x4b400000u), half = whole >> 1;
    return p * float_from_bits((unsigned)(half + 127) << 23) *
           float_from_bits((unsigned)(whole - half + 127) << 23);
}
