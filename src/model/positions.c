#include "model/positions.h"

#include <math.h>

enum { TAPS = 4 };

// Along one axis: which input places an output place is made of, and by what weights.
typedef struct Taps {
    size_t at[TAPS];
    float weight[TAPS];
} Taps;

size_t positions_side(size_t n) {
    size_t side = (size_t)(sqrt((double)n) + 0.5);
    return side * side == n ? side : 0;
}

static size_t clamp(long i, size_t n) {
    return i < 0 ? 0 : (size_t)i < n ? (size_t)i : n - 1;
}

// Keys' cubic convolution with a = -0.75 at the distances t + 1, t, 1 - t and 2 - t.
static void cubic_weights(float w[TAPS], float t) {
    const float a = -0.75f, far = t + 1, near = 1 - t, last = 2 - t;
    w[0] = ((a * far - 5 * a) * far + 8 * a) * far - 4 * a;
    w[1] = ((a + 2) * t - (a + 3)) * t * t + 1;
    w[2] = ((a + 2) * near - (a + 3)) * near * near + 1;
    w[3] = ((a * last - 5 * a) * last + 8 * a) * last - 4 * a;
}

static Taps taps_of(size_t i, size_t side_out, size_t side_in, bool bicubic) {
    Taps taps = {{0}, {0}};
    float place = (float)side_in / (float)side_out * ((float)i + 0.5f) - 0.5f;
    if (!bicubic && place < 0) place = 0;
    const long below = (long)floorf(place);
    const float t = place - (float)below;
    for (long k = 0; k < TAPS; k++) taps.at[k] = clamp(below - 1 + k, side_in);
    if (bicubic)
        cubic_weights(taps.weight, t);
    else
        taps.weight[1] = 1 - t, taps.weight[2] = t;
    return taps;
}

static void interpolate_one(float *out, const float *in, size_t side_in, size_t C, const Taps *y,
                            const Taps *x) {
    for (size_t c = 0; c < C; c++) {
        float sum = 0;
        for (int r = 0; r < TAPS; r++) {
            float row = 0;
            for (int k = 0; k < TAPS; k++) row += x->weight[k] * in[(y->at[r] * side_in + x->at[k]) * C + c];
            sum += y->weight[r] * row;
        }
        out[c] = sum;
    }
}

void positions_interpolate(float *out, size_t side_out, const float *in, size_t side_in, size_t C,
                           bool bicubic) {
    for (size_t i = 0; i < side_out; i++) {
        const Taps y = taps_of(i, side_out, side_in, bicubic);
        for (size_t j = 0; j < side_out; j++) {
            const Taps x = taps_of(j, side_out, side_in, bicubic);
            interpolate_one(out + (i * side_out + j) * C, in, side_in, C, &y, &x);
        }
    }
}
