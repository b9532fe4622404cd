// What only the vision side needs: patches, position embeddings, pixel shuffle.
#include "ops/cpu/kernels.h"

#include <string.h>

void KERNEL(patchify)(Backend *be, Tensor patches, Tensor images, size_t P) {
    size_t I = images.shape[0], Y = images.shape[2], X = images.shape[3], rows = Y / P, cols = X / P;
#pragma omp parallel for num_threads(threads_for(be, tensor_count(patches)))
    for (size_t n = 0; n < I * rows * cols; n++) {
        size_t tile = n / (rows * cols), y0 = n / cols % rows * P, x0 = n % cols * P;
        float *out = floats(patches) + n * 3 * P * P;
        for (size_t channel = 0; channel < 3; channel++)
            for (size_t y = 0; y < P; y++) {
                const float *in = floats(images) + ((tile * 3 + channel) * Y + y0 + y) * X + x0;
                memcpy(out + (channel * P + y) * P, in, P * sizeof(float));
            }
    }
}

void KERNEL(position_forward)(Backend *be, Tensor y, Tensor x, Tensor position, Tensor cls) {
    size_t I = y.shape[0], N = y.shape[1], C = y.shape[2], extra = tensor_exists(cls) ? 1 : 0;
#pragma omp parallel for num_threads(threads_for(be, I *N *C))
    for (size_t r = 0; r < I * N; r++) {
        size_t tile = r / N, n = r % N;
        const float *in = n < extra ? floats(cls) : floats(x) + (tile * (N - extra) + n - extra) * C;
        const float *place = floats(position) + n * C;
        float *out = floats(y) + r * C;
        for (size_t c = 0; c < C; c++) out[c] = in[c] + place[c];
    }
}

static void add_to(float *y, const float *x, size_t n) {
    for (size_t i = 0; i < n; i++) y[i] += x[i];
}

// A token's place a task: its gradient is the sum over the tiles, in order.
void KERNEL(position_backward)(Backend *be, Tensor dx, Tensor dposition, Tensor dcls, Tensor dy) {
    size_t I = dy.shape[0], N = dy.shape[1], C = dy.shape[2], extra = tensor_exists(dcls) ? 1 : 0;
#pragma omp parallel for num_threads(threads_for(be, I *N *C))
    for (size_t n = 0; n < N; n++)
        for (size_t tile = 0; tile < I; tile++) {
            const float *g = floats(dy) + (tile * N + n) * C;
            add_to(floats(dposition) + n * C, g, C);
            if (n < extra)
                add_to(floats(dcls), g, C);
            else
                memcpy(floats(dx) + (tile * (N - extra) + n - extra) * C, g, C * sizeof(float));
        }
}

// A run of S neighbouring patches of one line lies together on both sides. `wide` is [I, (h/S)(w/S), S·S·C],
// `fine` [I, h·w, C].
static void shuffle(Backend *be, Tensor wide, Tensor fine, size_t S, bool to_wide) {
    size_t C = fine.shape[2], cells = wide.shape[1], across = 0, run = S * C;
    while (across * across < cells) across++;
#pragma omp parallel for num_threads(threads_for(be, tensor_count(wide)))
    for (size_t cell = 0; cell < wide.shape[0] * cells; cell++) {
        size_t tile = cell / cells, y = cell % cells / across, x = cell % across;
        for (size_t line = 0; line < S; line++) {
            float *w = floats(wide) + (cell * S + line) * run;
            float *f = floats(fine) + ((tile * across * S + y * S + line) * across + x) * run;
            memcpy(to_wide ? w : f, to_wide ? f : w, run * sizeof(float));
        }
    }
}

void KERNEL(pixel_shuffle_forward)(Backend *be, Tensor y, Tensor x, size_t S) {
    shuffle(be, y, x, S, true);
}
void KERNEL(pixel_shuffle_backward)(Backend *be, Tensor dx, Tensor dy, size_t S) {
    shuffle(be, dy, dx, S, false);
}
