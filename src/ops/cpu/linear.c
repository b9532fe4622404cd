// y = x wᵀ + b: three matrix products, and the bias. Factors are both F32 or both BF16, or w is still to be
// rounded.
#include "ops/cpu/kernels.h"
#include "tensor/ops.h"

#include <string.h>

// One factor or result of a product, with its rows.
typedef struct Operand {
    Tensor t;
    bool transposed;
} Operand;

static GemmMatrix gemm_matrix(Operand o) {
    return (GemmMatrix){o.t.data, tensor_row_stride(o.t), o.transposed, o.t.dtype};
}

static void product_f32(Backend *be, GemmSize size, Tensor c, bool accumulate, Operand a, Operand b) {
    Matrix mc = matrix(c), ma = matrix(a.t), mb = matrix(b.t);
    gemm(cpu_threads(be), size, mc.data, mc.stride, accumulate, ma.data, ma.stride, a.transposed, mb.data,
         mb.stride, b.transposed);
}

static void to_each_row(Backend *be, Tensor y, Tensor b) {
    Matrix my = matrix(y);
#pragma omp parallel for num_threads(threads_for(be, my.rows *my.cols))
    for (size_t i = 0; i < my.rows; i++) memcpy(row(my, i), b.data, my.cols * sizeof(float));
}

// A packed F32 tensor of the shape of t, in scratch.
static Tensor floats_like(Tensor t, float **scratch) {
    Tensor f = tensor_at(*scratch, DTYPE_F32, 2, (size_t[]){tensor_rows(t), tensor_cols(t)});
    *scratch += tensor_count(t);
    f.ndim = 2;
    return f;
}

static Tensor as_matrix(Tensor t) {
    size_t rows = tensor_rows(t), step = tensor_row_stride(t);
    return (Tensor){t.data, t.dtype, 2, {rows, tensor_cols(t)}, {step, 1}};
}

static void round_to_bf16(Backend *be, Tensor x) {
    float *values = floats(x);
#pragma omp parallel for simd num_threads(threads_for(be, tensor_count(x)))
    for (size_t i = 0; i < tensor_count(x); i++) values[i] = f32_from_bf16(bf16_from_f32(values[i]));
}

// Where the processor has no products of BF16: by way of F32.
static void product_by_floats(Backend *be, GemmSize size, Tensor c, bool accumulate, Operand a, Operand b,
                              Tensor bias) {
    Tensor mc = as_matrix(c), ma = as_matrix(a.t), mb = as_matrix(b.t);
    size_t count = tensor_count(mc) + tensor_count(ma) + tensor_count(mb);
    float *scratch = cpu_scratch(be, count * sizeof *scratch);
    Tensor fc = floats_like(mc, &scratch), fa = floats_like(ma, &scratch), fb = floats_like(mb, &scratch);
    KERNEL(copy)(be, fa, ma);
    KERNEL(copy)(be, fb, mb);
    if (mb.dtype == DTYPE_F32) round_to_bf16(be, fb);
    if (accumulate) KERNEL(copy)(be, fc, mc);
    if (tensor_exists(bias)) to_each_row(be, fc, bias);
    product_f32(be, size, fc, accumulate || tensor_exists(bias), (Operand){fa, a.transposed},
                (Operand){fb, b.transposed});
    KERNEL(copy)(be, mc, fc);
}

// c = op(a) op(b) + bias (+ c when accumulate; then there is no bias). The one place that looks at dtypes.
static void product(Backend *be, GemmSize size, Tensor c, bool accumulate, Operand a, Operand b,
                    Tensor bias) {
    if (a.t.dtype == DTYPE_F32) {
        if (tensor_exists(bias)) to_each_row(be, c, bias); // the product is then added to it
        product_f32(be, size, c, accumulate || tensor_exists(bias), a, b);
    } else if (be->bf16) {
        gemm_bf16(cpu_threads(be), size, gemm_matrix((Operand){c, false}), accumulate, gemm_matrix(a),
                  gemm_matrix(b), floats(bias));
    } else {
        product_by_floats(be, size, c, accumulate, a, b, bias);
    }
}

// Columns [n, n + cols) of op(w) in BF16, rounded into scratch if they are F32.
static Operand weight_block(Backend *be, Operand w, size_t n, size_t cols, size_t most) {
    const Tensor t = w.transposed ? tensor_slice(w.t, n, cols) : tensor_columns(w.t, n, cols);
    if (t.dtype == DTYPE_BF16) return (Operand){t, w.transposed};
    const Tensor rounded =
        tensor_at(cpu_scratch(be, most), DTYPE_BF16, SHAPE(tensor_rows(t), tensor_cols(t)));
    KERNEL(copy)(be, rounded, t);
    return (Operand){rounded, w.transposed};
}

// The same where b is a weight. In BF16 it goes in blocks, so that what is rounded mostly stays in the
// caches; each holds all that a value of c is a sum of. A weight that is BF16 already goes in the same
// blocks, for the same bits.
static void product_by_weight(Backend *be, GemmSize size, Tensor c, bool accumulate, Operand a, Operand w,
                              Tensor bias) {
    if (a.t.dtype == DTYPE_F32 || !be->bf16) {
        product(be, size, c, accumulate, a, w, bias);
        return;
    }
    const size_t width = gemm_weight_columns(size);
    for (size_t n = 0; n < size.N; n += width) {
        const size_t cols = size.N - n < width ? size.N - n : width;
        const Operand block = weight_block(be, (Operand){as_matrix(w.t), w.transposed}, n, cols,
                                           width * size.K * sizeof(uint16_t));
        gemm_bf16(cpu_threads(be), (GemmSize){size.M, cols, size.K},
                  gemm_matrix((Operand){tensor_columns(as_matrix(c), n, cols), false}), accumulate,
                  gemm_matrix(a), gemm_matrix(block), tensor_exists(bias) ? floats(bias) + n : NULL);
    }
}

void KERNEL(linear_forward)(Backend *be, Tensor y, Tensor x, Tensor w, Tensor b) {
    if (KERNEL(linear_by_rows)(be, y, x, w, b)) return;
    GemmSize size = {tensor_rows(y), tensor_cols(y), tensor_cols(x)};
    product_by_weight(be, size, y, false, (Operand){x, false}, (Operand){w, true}, b);
}

void KERNEL(linear_backward_input)(Backend *be, Tensor dx, Tensor dy, Tensor w, bool accumulate) {
    GemmSize size = {tensor_rows(dx), tensor_cols(dx), tensor_cols(dy)};
    product_by_weight(be, size, dx, accumulate, (Operand){dy, false}, (Operand){w, false}, TENSOR_NONE);
}

// out[c] += Σ_m dy[m, c] for a strip of columns; blocks of rows keep the rounding errors of long sums small.
static void add_column_sums(float *out, Tensor dy, size_t first, size_t width) {
    enum { BLOCK_ROWS = 64 };
    size_t rows = tensor_rows(dy), stride = tensor_row_stride(dy);
    float total[STRIP] = {0};
    for (size_t m0 = 0; m0 < rows; m0 += BLOCK_ROWS) {
        size_t m1 = m0 + BLOCK_ROWS < rows ? m0 + BLOCK_ROWS : rows;
        float part[STRIP] = {0}, room[STRIP];
        for (size_t m = m0; m < m1; m++) {
            const float *in = load_floats(dy, m * stride + first, width, room);
            for (size_t c = 0; c < width; c++) part[c] += in[c];
        }
        for (size_t c = 0; c < STRIP; c++) total[c] += part[c];
    }
    for (size_t c = 0; c < width; c++) out[first + c] += total[c];
}

void KERNEL(linear_backward_weight)(Backend *be, Tensor dw, Tensor db, Tensor dy, Tensor x) {
    GemmSize size = {tensor_rows(dw), tensor_cols(dw), tensor_rows(x)};
    product(be, size, dw, true, (Operand){dy, true}, (Operand){x, false}, TENSOR_NONE);
    if (!tensor_exists(db)) return;
    size_t cols = tensor_cols(dy);
#pragma omp parallel for num_threads(threads_for(be, tensor_count(dy)))
    for (size_t s = 0; s < strips(cols); s++)
        add_column_sums(floats(db), dy, s * STRIP, strip_width(cols, s));
}
