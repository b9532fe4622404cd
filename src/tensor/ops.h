// The operators: the one page to read before any kernel. The same list runs on every backend.
//
// Shapes: B sequences, T positions, C channels, V vocabulary, H query heads, K key/value heads, D size of a
// head, I tiles, N patches of a tile (or tokens of the vision encoder), P side of a patch, S pixel shuffle
// factor, M rows of any matrix (usually B*T), O output channels, n entries of a list. Order of arguments:
// outputs first, then inputs, weights, shapes. `dy` is the gradient of the loss by y. "assigned": the output
// is overwritten, whatever it held. "accumulated": the result is added to what it holds. An argument marked
// (opt) may be TENSOR_NONE; it is then left out of the formula or not computed. Tensors are contiguous F32
// unless said otherwise; "act" means F32 or BF16, and "acts" the same of all of them, sums and functions
// being computed in F32 and rounded once, to nearest even; "strided" means rows may lie apart (stride of the
// first dimension). Every function checks shapes and dtypes (CHECK: only a bug can break them), shows the
// call to the hooks (tensor/backend.h) and jumps through the backend's table. Nothing here allocates.
#pragma once
#include "tensor/backend.h"

#define ATTENTION_MAX_D 256       // the largest size of a head
#define LINEAR_ROUNDED  (1 << 22) // values of a weight in F32 that a product in BF16 rounds at a time, about

// ---- moving values ----
// x[...] = value; assigned. F32.
void fill(Backend *be, Tensor x, float value);
// y = x, same shape; assigned. Converts between F32 and BF16; strided rows on both sides.
void copy(Backend *be, Tensor y, Tensor x);
// y = a + b, same shape, b act; assigned; y may be a or b.
void add(Backend *be, Tensor y, Tensor a, Tensor b);
// x = factor · x, in place; x act.
void multiply(Backend *be, Tensor x, float factor);
// y[i] = x[rows[i]]: y [n, C] act, x [M, C] act (converted where they differ), rows [n] I32; assigned.
void gather_rows(Backend *be, Tensor y, Tensor x, Tensor rows);
// y[rows[i]] = x[i]: y [M, C] act, x [n, C] act, rows [n] I32, distinct; the other rows of y stay.
void scatter_rows(Backend *be, Tensor y, Tensor x, Tensor rows);
// y[rows[i]] = 0: the backward of scatter_rows for what the rows held before.
void zero_rows(Backend *be, Tensor y, Tensor rows);

// ---- linear: y = x wᵀ + b ----
// The two factors of a product are acts, and so is an assigned or accumulated y or dx, but BF16 only of BF16
// factors; b, dw and db are F32 always. Sums are F32. With x in F32 the w of linear_forward may also be
// packed, BF16 or Q8_0: it is unpacked on the way and nothing else is rounded, but x to BF16 where w is BF16,
// x has more than 8 rows, and the backend multiplies BF16. With x or dy in BF16 w may be F32: it is rounded
// to BF16 on the way, so that no copy of it need be kept. y [M, O] strided, x [M, C] strided, w [O, C], b
// (opt) [O]; assigned.
void linear_forward(Backend *be, Tensor y, Tensor x, Tensor w, Tensor b);
// Packed w in Q8_0 is taken in the order of products only: this puts w [O, C] into it where it stands and
// returns it, in Q8_TILES. Its products round x to 24 or 16 bits of the largest of 32 values.
Tensor arrange_weights(Backend *be, Tensor w);
// dx [M, C] strided = dy w (+ dx when accumulate); dy [M, O] strided.
void linear_backward_input(Backend *be, Tensor dx, Tensor dy, Tensor w, bool accumulate);
// dw [O, C] += dyᵀ x, db (opt) [O] += Σ_m dy; accumulated.
void linear_backward_weight(Backend *be, Tensor dw, Tensor db, Tensor dy, Tensor x);

// ---- normalisation over the last dimension ----
// y = (x − mean) · rstd · w + b, rstd = 1/sqrt(var + eps), var biased. y [M, C] act, x [M, C] strided, mean
// and rstd [M]; y, mean, rstd assigned. (Ba et al. 2016; PyTorch LayerNorm)
void layer_norm_forward(Backend *be, Tensor y, Tensor mean, Tensor rstd, Tensor x, Tensor w, Tensor b,
                        float eps);
// dx [M, C] strided, dw and db (opt, both or none) [C]: all accumulated, because dx meets the residual branch
// there. dy act. rounded (opt) [M, C] BF16 = dx as it then is, for the products that follow; assigned; it may
// be dy.
void layer_norm_backward(Backend *be, Tensor dx, Tensor rounded, Tensor dw, Tensor db, Tensor dy, Tensor x,
                         Tensor w, Tensor mean, Tensor rstd);
// y = x · rstd · w, rstd = 1/sqrt(mean(x²) + eps). y [M, C] act, x [M, C]; rstd [M]; assigned. (Zhang &
// Sennrich 2019)
void rms_norm_forward(Backend *be, Tensor y, Tensor rstd, Tensor x, Tensor w, float eps);
// dx [M, C], dw (opt) [C]: accumulated; dy act; rounded (opt) as in layer_norm_backward.
void rms_norm_backward(Backend *be, Tensor dx, Tensor rounded, Tensor dw, Tensor dy, Tensor x, Tensor w,
                       Tensor rstd);
// The residual stream and the norm that reads it, in one pass: sum = x + branch, and of sum what the norm's
// forward makes of x, to the same bits as after `add`. sum and x [M, C] F32, branch [M, C] and y acts; all
// outputs assigned; sum may be x. The backward is the norm's own, x being sum: dx is the gradient of both x
// and branch.
void add_layer_norm_forward(Backend *be, Tensor sum, Tensor y, Tensor mean, Tensor rstd, Tensor x,
                            Tensor branch, Tensor w, Tensor b, float eps);
void add_rms_norm_forward(Backend *be, Tensor sum, Tensor y, Tensor rstd, Tensor x, Tensor branch, Tensor w,
                          float eps);

// ---- activations, any shape, all the same; acts ----
// y = gelu(x), the tanh form: x/2 (1 + tanh(√(2/π)(x + 0.044715 x³))); assigned.
void gelu_forward(Backend *be, Tensor y, Tensor x);
// dx and y (opt) = gelu(x), made on the way, to the bits of gelu_forward; assigned; dx may be dy.
void gelu_backward(Backend *be, Tensor dx, Tensor y, Tensor dy, Tensor x);
// y = silu(gate) · up, silu(g) = g σ(g); assigned. (Shazeer 2020, SwiGLU)
void swiglu_forward(Backend *be, Tensor y, Tensor gate, Tensor up);
// dgate, dup and y (opt), as in swiglu_forward; assigned.
void swiglu_backward(Backend *be, Tensor dgate, Tensor dup, Tensor y, Tensor dy, Tensor gate, Tensor up);

// ---- rotary positions (Su et al. 2021), rotate-half form ----
// cos, sin [n, D]: both halves hold cos(p·f_i)·scaling, f_i = inv_freq[i] / divisor, p = positions[row];
// positions [n] I32, inv_freq [D/2]; everything in float32, as nanoVLM's RotaryEmbedding does it; assigned.
void rope_table(Backend *be, Tensor cos, Tensor sin, Tensor positions, Tensor inv_freq, float divisor,
                float scaling);
// x [M, H, D] act, in place: x_i cos_i + rotate_half(x)_i sin_i; row m of x uses row m mod n of cos and sin
// [n, D].
void rope_forward(Backend *be, Tensor x, Tensor cos, Tensor sin);
// dx [M, H, D] act, in place: the transposed rotation (cos and sin carry `scaling`, so this is no inverse).
void rope_backward(Backend *be, Tensor dx, Tensor cos, Tensor sin);

// ---- attention ----
// o = softmax(scale · q kᵀ + masks) v. q, o [B, Tq, H, D]; k, v [B, Tk, K, D], strided in B and T, heads
// adjacent (so slices of a fused qkv and a half-filled cache will do); query head h reads key head h / (H/K).
// causal: query i sees keys j ≤ i + Tk − Tq. mask (opt) [B, Tk] I32: keys with 0 are hidden; a query that
// sees no key at all gets the plain mean of v over its causal keys (nanoVLM in float32; spec 2). o assigned.
// lse (opt) [B, H, Tq] = log Σ exp(score) of each row, what backward needs; assigned. Never stores [Tq, Tk].
// starts (opt) [B, T] I32, causal and Tq = Tk = T only: the first position of the sample that a position
// belongs to; it either is the position itself or what the position before has. Query i then sees keys j ≥
// starts[i] only, and where it sees none the plain mean is over starts[i] … i. What samples could see of each
// other is not computed.
// q, k, v, o and their gradients are all F32 or all BF16; lse and delta are F32 always. In BF16, sums and
// softmax are F32; the weights, relative to a power of 2, are rounded to BF16 before they multiply v and
// dout, and so are the gradients of the scores. One query alone need not do so.
void attention_forward(Backend *be, Tensor o, Tensor lse, Tensor q, Tensor k, Tensor v, Tensor mask,
                       Tensor starts, float scale, bool causal);
// dq, dk, dv like q, k, v; delta [B, H, T] = Σ_d dout · o, which the others are made from; all assigned. Tq =
// Tk.
void attention_backward(Backend *be, Tensor dq, Tensor dk, Tensor dv, Tensor delta, Tensor dout, Tensor q,
                        Tensor k, Tensor v, Tensor o, Tensor lse, Tensor mask, Tensor starts, float scale,
                        bool causal);

// ---- embeddings ----
// y [M, C] = table[ids], table [V, C] F32, BF16 or Q8_TILES, ids [M] I32; assigned.
void embedding_forward(Backend *be, Tensor y, Tensor table, Tensor ids);
// dtable[ids[m]] += dy[m]; accumulated, in a fixed order.
void embedding_backward(Backend *be, Tensor dtable, Tensor dy, Tensor ids);
// patches [I*N, 3*P*P] act: the P x P squares of images [I, 3, Y, X], row-major over the grid, channel first
// inside; a remainder at the right and bottom is left out (Conv2d with kernel = stride = P, as im2col);
// assigned.
void patchify(Backend *be, Tensor patches, Tensor images, size_t P);
// y [I, N, C] = x [I, N', C] act + position [N, C]; with cls (opt) [C], N = N' + 1 and y[:, 0] = cls +
// position[0]; assigned.
void position_forward(Backend *be, Tensor y, Tensor x, Tensor position, Tensor cls);
// dx [I, N', C] act, assigned; dposition [N, C] and dcls (opt) [C] accumulated.
void position_backward(Backend *be, Tensor dx, Tensor dposition, Tensor dcls, Tensor dy);
// y [I, (h/S)(w/S), S·S·C]: S x S neighbouring patches of x [I, h·w, C], h = w, become one vector, (dy, dx)
// row-major (nanoVLM, ModalityProjector.pixel_shuffle); acts; assigned.
void pixel_shuffle_forward(Backend *be, Tensor y, Tensor x, size_t S);
void pixel_shuffle_backward(Backend *be, Tensor dx, Tensor dy, size_t S); // assigned

// ---- loss ----
// losses[m] = log Σ exp(logits[m]) − logits[m, targets[m]], and logits becomes its own gradient times dscale:
// (softmax − onehot) · dscale. logits [M, V] F32 or BF16 in place, targets [M] I32 in [0, V), losses [M]
// assigned. With dscale 0 the logits stay as they are (validation).
void cross_entropy(Backend *be, Tensor losses, Tensor logits, Tensor targets, float dscale);
// total [1] = Σ x (in double, in a fixed order) · scale; assigned. x [n].
void sum(Backend *be, Tensor total, Tensor x, float scale);

// ---- optimizer ----
// total [1] = Σ x², accumulated in double in a fixed order; assigned.
void sum_of_squares(Backend *be, Tensor total, Tensor x);
// clip [2] = {norm, min(1, max_norm / (norm + 1e-6))} with norm = sqrt(Σ squares); squares [n], one entry a
// parameter: clip_grad_norm_ of PyTorch. max_norm ≤ 0: no clipping, factor 1. Assigned.
void clip_factor(Backend *be, Tensor clip, Tensor squares, float max_norm);
// AdamW (Loshchilov & Hutter 2017) in PyTorch's order of operations (spec 6), g = grad · clip[1]:
// p *= hyper[0]; m += (g − m)(1 − beta1); v = beta2·v + (1 − beta2)·g²; p −= hyper[1] · m / (sqrt(v)/hyper[2]
// + eps). hyper [3] F32 = {1 − lr·weight_decay, lr/(1 − beta1ᵗ), sqrt(1 − beta2ᵗ)}, computed on the host in
// double; it and clip lie on the device so that a step can be captured as one graph. p, m, v updated.
// m and v are F32, or both BF16; then they are rounded up or down by a chance that is the same for the same
// arguments, so that their means are right. Or both are U8 [moment_blocks(n), MOMENT_ROW], 256 codes and an
// F32 scale a row (ops/cpu/moments8.h), rounded likewise; bytes of 0 are moments of 0. rounded (opt) BF16 =
// p; assigned. grad becomes 0 with clear, otherwise it is only read. The betas are double because 1 − beta is
// taken in double and then rounded: 1 − 0.999f is off by 1e-5.
enum { MOMENT_BLOCK = 256, MOMENT_ROW = MOMENT_BLOCK + sizeof(float) };
static inline size_t moment_blocks(size_t n) {
    return (n + MOMENT_BLOCK - 1) / MOMENT_BLOCK;
}
void adamw(Backend *be, Tensor p, Tensor m, Tensor v, Tensor rounded, Tensor grad, Tensor hyper, Tensor clip,
           double beta1, double beta2, float eps, bool clear);
