// GELU (tanh form) and SwiGLU, element by element.
#include "ops/cpu/kernels.h"
#include "ops/cpu/vecmath.h"

// (1 + tanh u)/2 = σ(2u), so gelu(x) = x σ(z), z = 2 √(2/π) (x + 0.044715 x³).
#define GELU_LINEAR 1.5957691216f
#define GELU_CUBIC  0.0713548163f // GELU_LINEAR · 0.044715

// As target_floats for a result that nobody may want.
static float *wanted_floats(Tensor t, size_t at, float *room) {
    return tensor_exists(t) ? target_floats(t, at, room) : room;
}

static void gelu_piece(float *y, const float *x, size_t n) {
#pragma omp simd
    for (size_t i = 0; i < n; i++) {
        float v = x[i];
        y[i] = v * sigmoid_f32(v * (GELU_LINEAR + GELU_CUBIC * v * v)).plus;
    }
}

void KERNEL(gelu_forward)(Backend *be, Tensor y, Tensor x) {
    size_t n = tensor_count(y);
#pragma omp parallel for num_threads(threads_for(be, n))
    for (size_t p = 0; p < pieces(n); p++) {
        size_t at = p * PIECE, length = piece_length(n, p);
        float room[2][PIECE], *out = target_floats(y, at, room[0]);
        gelu_piece(out, load_floats(x, at, length, room[1]), length);
        store_floats(y, at, length, out);
    }
}

static void gelu_backward_piece(float *dx, float *y, const float *dy, const float *x, size_t n) {
#pragma omp simd
    for (size_t i = 0; i < n; i++) {
        float v = x[i];
        Sigmoid s = sigmoid_f32(v * (GELU_LINEAR + GELU_CUBIC * v * v));
        y[i] = v * s.plus;
        float slope = GELU_LINEAR + 3 * GELU_CUBIC * v * v;      // dz/dx
        dx[i] = dy[i] * (s.plus + v * s.plus * s.minus * slope); // in this order 0 meets no infinity
    }
}

void KERNEL(gelu_backward)(Backend *be, Tensor dx, Tensor y, Tensor dy, Tensor x) {
    size_t n = tensor_count(dx);
#pragma omp parallel for num_threads(threads_for(be, n))
    for (size_t p = 0; p < pieces(n); p++) {
        size_t at = p * PIECE, length = piece_length(n, p);
        float room[4][PIECE], *out = target_floats(dx, at, room[0]), *again = wanted_floats(y, at, room[3]);
        gelu_backward_piece(out, again, load_floats(dy, at, length, room[1]),
                            load_floats(x, at, length, room[2]), length);
        store_floats(dx, at, length, out);
        if (tensor_exists(y)) store_floats(y, at, length, again);
    }
}

static void swiglu_piece(float *y, const float *gate, const float *up, size_t n) {
#pragma omp simd
    for (size_t i = 0; i < n; i++) y[i] = gate[i] * sigmoid_f32(gate[i]).plus * up[i];
}

void KERNEL(swiglu_forward)(Backend *be, Tensor y, Tensor gate, Tensor up) {
    size_t n = tensor_count(y);
#pragma omp parallel for num_threads(threads_for(be, n))
    for (size_t p = 0; p < pieces(n); p++) {
        size_t at = p * PIECE, length = piece_length(n, p);
        float room[3][PIECE], *out = target_floats(y, at, room[0]);
        swiglu_piece(out, load_floats(gate, at, length, room[1]), load_floats(up, at, length, room[2]),
                     length);
        store_floats(y, at, length, out);
    }
}

// d silu(g)/dg = σ(g) (1 + g (1 − σ(g)))
static void swiglu_backward_piece(float *dgate, float *dup, float *y, const float *dy, const float *gate,
                                  const float *up, size_t n) {
#pragma omp simd
    for (size_t i = 0; i < n; i++) {
        float g = gate[i], d = dy[i], u = up[i];
        Sigmoid s = sigmoid_f32(g);
        dgate[i] = d * u * (s.plus + g * s.plus * s.minus);
        dup[i] = d * g * s.plus;
        y[i] = g * s.plus * u;
    }
}

void KERNEL(swiglu_backward)(Backend *be, Tensor dgate, Tensor dup, Tensor y, Tensor dy, Tensor gate,
                             Tensor up) {
    size_t n = tensor_count(dy);
#pragma omp parallel for num_threads(threads_for(be, n))
    for (size_t p = 0; p < pieces(n); p++) {
        size_t at = p * PIECE, length = piece_length(n, p);
        float room[6][PIECE], *again = wanted_floats(y, at, room[5]);
        float *out_gate = target_floats(dgate, at, room[0]), *out_up = target_floats(dup, at, room[1]);
        swiglu_backward_piece(out_gate, out_up, again, load_floats(dy, at, length, room[2]),
                              load_floats(gate, at, length, room[3]), load_floats(up, at, length, room[4]),
                              length);
        store_floats(dgate, at, length, out_gate);
        store_floats(dup, at, length, out_up);
        if (tensor_exists(y)) store_floats(y, at, length, again);
    }
}
