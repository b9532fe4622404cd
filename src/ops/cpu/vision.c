// What only the vision side needs: patches, position embeddings, pixel shuffle.
#include "ops/cpu/kernels.h"

#include <string.h>

static void put_floats(Tensor t, size_t at, size_t n, const float *from) {
    if (t.dtype == DTYPE_F32)
        memcpy(floats(t) + at, from, n * sizeof *from);
    else
        store_floats(t, at, n, from);
}

void KERNEL(patchify)(Backend *be, Tensor patches, Tensor images, size_t P) {
    size_t I = images.shape[0], Y = images.shape[2], X = images.shape[3], rows = Y / P, cols = X / P;
#pragma omp parallel for num_threads(threads_for(be, tensor_count(patches)))
    for (size_t n = 0; n < I * rows * cols; n++) {
        size_t tile = n / (rows * cols), y0 = n / cols % rows * P, x0 = n % cols * P;
        for (size_t channel = 0; channel < 3; channel++)
            for (size_t y = 0; y < P; y++) {
                const float *in = floats(images) + ((tile * 3 + channel) * Y + y0 + y) * X + x0;
                size_t at = n * 3 * P * P + (channel * P + y) * P;
                put_floats(patches, at, P, in);
            }
    }
}

// y = the C values of x from `at` on, plus place.
static void add_places(float *y, Tensor x, size_t at, const float *place, size_t C) {
    float room[PIECE];
    for (size_t p = 0; p < pieces(C); p++) {
        size_t c0 = p * PIECE, n = piece_length(C, p);
        const float *in = load_floats(x, at + c0, n, room);
        for (size_t c = 0; c < n; c++) y[c0 + c] = in[c] + place[c0 + c];
    }
}

void KERNEL(position_forward)(Backend *be, Tensor y, Tensor x, Tensor position, Tensor cls) {
    size_t I = y.shape[0], N = y.shape[1], C = y.shape[2], extra = tensor_exists(cls) ? 1 : 0;
#pragma omp parallel for num_threads(threads_for(be, I *N *C))
    for (size_t r = 0; r < I * N; r++) {
        size_t tile = r / N, n = r % N;
        bool first = n < extra;
        add_places(floats(y) + r * C, first ? cls : x, first ? 0 : (tile * (N - extra) + n - extra) * C,
                   floats(position) + n * C, C);
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
                put_floats(dx, (tile * (N - extra) + n - extra) * C, C, g);
        }
}

// A run of S neighbouring patches of one line lies together on both sides. `wide` is [I, (h/S)(w/S), S·S·C],
// `fine` [I, h·w, C].
static void shuffle(Backend *be, Tensor wide, Tensor fine, size_t S, bool to_wide) {
    size_t C = fine.shape[2], cells = wide.shape[1], across = 0, run = S * C, size = dtype_size(fine.dtype);
    while (across * across < cells) across++;
#pragma omp parallel for num_threads(threads_for(be, tensor_count(wide)))
    for (size_t cell = 0; cell < wide.shape[0] * cells; cell++) {
        size_t tile = cell / cells, y = cell % cells / across, x = cell % across;
        for (size_t line = 0; line < S; line++) {
            char *w = wide.data + (cell * S + line) * run * size;
            char *f = fine.data + ((tile * across * S + y * S + line) * across + x) * run * size;
            memcpy(to_wide ? w : f, to_wide ? f : w, run * size);
        }
    }
}

void KERNEL(pixel_shuffle_forward)(Backend *be, Tensor y, Tensor x, size_t S) {
    shuffle(be, y, x, S, true);
}
void KERNEL(pixel_shuffle_backward)(Backend *be, Tensor dx, Tensor dy, size_t S) {
    shuffle(be, dy, dx, S, false);
}
