// GELU (tanh form) and SwiGLU, element by element. All tensors of a call have the same dtype.
#include "ops/cpu/kernels.h"
#include "ops/cpu/lanes.h"

// (1 + tanh u)/2 = σ(2u), so gelu(x) = x σ(z), z = 2 √(2/π) (x + 0.044715 x³).
#define GELU_LINEAR 1.5957691216f
#define GELU_CUBIC  0.0713548163f // GELU_LINEAR · 0.044715
#define GELU_FAR    9.9f          // where z is 85: what lies farther out is 0 or x already
#define SILU_FAR    86.0f

// The three results and the three operands of the operators here; what an operator has not is NULL.
typedef struct Streams {
    char *out[3];
    const char *in[3];
} Streams;

// V vectors x of `in`, their squares near 0, and σ(z). One function, for the same bits in both directions.
ALWAYS_INLINE void gelu_sigmoid(Sigmoid *s, Lanes *x, Lanes *square, const char *in, const Dtype dtype,
                                size_t i, const size_t V) {
    Lanes near[CHAINS], z[CHAINS];
    FOR_CHAINS(v) x[v] = load_lanes(in, dtype, i + v * LANES);
    FOR_CHAINS(v) near[v] = within(x[v], GELU_FAR);
    FOR_CHAINS(v) square[v] = near[v] * near[v];
    FOR_CHAINS(v) z[v] = GELU_LINEAR + GELU_CUBIC * square[v];
    FOR_CHAINS(v) z[v] *= near[v];
    sigmoid_lanes(s, z, V);
}

ALWAYS_INLINE void gelu_values(Streams s, const Dtype dtype, size_t i, const size_t V) {
    Lanes x[CHAINS], square[CHAINS];
    Sigmoid sigma;
    gelu_sigmoid(&sigma, x, square, s.in[0], dtype, i, V);
    FOR_CHAINS(v) store_lanes(s.out[0], dtype, i + v * LANES, x[v] * sigma.plus[v]);
}

ALWAYS_INLINE void gelu_backward_values(Streams s, const Dtype dtype, size_t i, const size_t V) {
    Lanes x[CHAINS], square[CHAINS];
    Sigmoid sigma;
    gelu_sigmoid(&sigma, x, square, s.in[1], dtype, i, V);
    FOR_CHAINS(v) {
        const Lanes dy = load_lanes(s.in[0], dtype, i + v * LANES);
        const Lanes y = x[v] * sigma.plus[v], slope = GELU_LINEAR + 3 * GELU_CUBIC * square[v]; // dz/dx
        store_lanes(s.out[0], dtype, i + v * LANES, dy * (sigma.plus[v] + y * sigma.minus[v] * slope));
        if (s.out[1]) store_lanes(s.out[1], dtype, i + v * LANES, y);
    }
}

ALWAYS_INLINE void swiglu_values(Streams s, const Dtype dtype, size_t i, const size_t V) {
    Lanes gate[CHAINS], near[CHAINS];
    Sigmoid sigma;
    FOR_CHAINS(v) gate[v] = load_lanes(s.in[0], dtype, i + v * LANES);
    FOR_CHAINS(v) near[v] = within(gate[v], SILU_FAR);
    sigmoid_lanes(&sigma, near, V);
    FOR_CHAINS(v) {
        const Lanes up = load_lanes(s.in[1], dtype, i + v * LANES);
        store_lanes(s.out[0], dtype, i + v * LANES, gate[v] * sigma.plus[v] * up);
    }
}

// d silu(g)/dg = σ(g) (1 + g (1 − σ(g)))
ALWAYS_INLINE void swiglu_backward_values(Streams s, const Dtype dtype, size_t i, const size_t V) {
    Lanes gate[CHAINS], near[CHAINS];
    Sigmoid sigma;
    FOR_CHAINS(v) gate[v] = load_lanes(s.in[1], dtype, i + v * LANES);
    FOR_CHAINS(v) near[v] = within(gate[v], SILU_FAR);
    sigmoid_lanes(&sigma, near, V);
    FOR_CHAINS(v) {
        const size_t at = i + v * LANES;
        const Lanes dy = load_lanes(s.in[0], dtype, at), up = load_lanes(s.in[2], dtype, at);
        const Lanes silu = gate[v] * sigma.plus[v];
        store_lanes(s.out[0], dtype, at, dy * up * (sigma.plus[v] + silu * sigma.minus[v]));
        store_lanes(s.out[1], dtype, at, dy * silu);
        if (s.out[2]) store_lanes(s.out[2], dtype, at, silu * up);
    }
}

// n values of an operator, whole vectors; with the dtype known it becomes one loop for F32 and one for BF16.
typedef void Piece(Streams s, Dtype dtype, size_t n);
#define PIECE_LOOP(values, s, dtype, n)                                                                      \
    do {                                                                                                     \
        size_t i = 0;                                                                                        \
        for (; i + CHAINS * LANES <= n; i += CHAINS * LANES) values##_values(s, dtype, i, CHAINS);           \
        for (; i < n; i += LANES) values##_values(s, dtype, i, 1);                                           \
    } while (0)
#define PIECE_OF(values)                                                                                     \
    static void values##_piece(Streams s, Dtype dtype, size_t n) {                                           \
        if (dtype == DTYPE_BF16)                                                                             \
            PIECE_LOOP(values, s, DTYPE_BF16, n);                                                            \
        else                                                                                                 \
            PIECE_LOOP(values, s, DTYPE_F32, n);                                                             \
    }
PIECE_OF(gelu)
PIECE_OF(gelu_backward)
PIECE_OF(swiglu)
PIECE_OF(swiglu_backward)

// The streams from value `at` on.
static Streams streams_at(Streams s, Dtype dtype, size_t at) {
    for (size_t i = 0; i < 3; i++) {
        s.out[i] = s.out[i] ? s.out[i] + at * bytes_of(dtype) : NULL;
        s.in[i] = s.in[i] ? s.in[i] + at * bytes_of(dtype) : NULL;
    }
    return s;
}

// The last n values, fewer than a vector has.
static void piece_of_rest(Piece *piece, Streams s, Dtype dtype, size_t n) {
    char room[6][LANES * sizeof(float)] = {0};
    for (size_t i = 0; i < 3; i++)
        if (s.in[i]) memcpy(room[i], s.in[i], n * bytes_of(dtype));
    piece((Streams){{room[3], room[4], s.out[2] ? room[5] : NULL}, {room[0], room[1], room[2]}}, dtype,
          LANES);
    for (size_t i = 0; i < 3; i++)
        if (s.out[i]) memcpy(s.out[i], room[3 + i], n * bytes_of(dtype));
}

static void for_pieces(Backend *be, Piece *piece, Tensor x, Streams s) {
    size_t n = tensor_count(x);
#pragma omp parallel for num_threads(threads_for(be, n))
    for (size_t p = 0; p < pieces(n); p++) {
        size_t length = piece_length(n, p), whole = length / LANES * LANES;
        piece(streams_at(s, x.dtype, p * PIECE), x.dtype, whole);
        if (whole < length)
            piece_of_rest(piece, streams_at(s, x.dtype, p * PIECE + whole), x.dtype, length - whole);
    }
}

void KERNEL(gelu_forward)(Backend *be, Tensor y, Tensor x) {
    for_pieces(be, gelu_piece, x, (Streams){{y.data}, {x.data}});
}
void KERNEL(gelu_backward)(Backend *be, Tensor dx, Tensor y, Tensor dy, Tensor x) {
    for_pieces(be, gelu_backward_piece, x, (Streams){{dx.data, y.data}, {dy.data, x.data}});
}
void KERNEL(swiglu_forward)(Backend *be, Tensor y, Tensor gate, Tensor up) {
    for_pieces(be, swiglu_piece, gate, (Streams){{y.data}, {gate.data, up.data}});
}
void KERNEL(swiglu_backward)(Backend *be, Tensor dgate, Tensor dup, Tensor y, Tensor dy, Tensor gate,
                             Tensor up) {
    for_pieces(be, swiglu_backward_piece, gate,
               (Streams){{dgate.data, dup.data, y.data}, {dy.data, gate.data, up.data}});
}
