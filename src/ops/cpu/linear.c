// y = x wᵀ + b: three matrix products, and the bias.
#include "ops/cpu/kernels.h"

#include <string.h>

void KERNEL(linear_forward)(Backend *be, Tensor y, Tensor x, Tensor w, Tensor b) {
    if (KERNEL(linear_by_rows)(be, y, x, w, b)) return;
    Matrix my = matrix(y), mx = matrix(x), mw = matrix(w);
    bool bias = tensor_exists(b);
    if (bias) { // the product is then added to it
#pragma omp parallel for num_threads(threads_for(be, my.rows *my.cols))
        for (size_t i = 0; i < my.rows; i++) memcpy(row(my, i), b.data, my.cols * sizeof(float));
    }
    gemm(cpu_threads(be), (GemmSize){my.rows, my.cols, mx.cols}, my.data, my.stride, bias, mx.data, mx.stride,
         false, mw.data, mw.stride, true);
}

void KERNEL(linear_backward_input)(Backend *be, Tensor dx, Tensor dy, Tensor w, bool accumulate) {
    Matrix mdx = matrix(dx), mdy = matrix(dy), mw = matrix(w);
    gemm(cpu_threads(be), (GemmSize){mdx.rows, mdx.cols, mdy.cols}, mdx.data, mdx.stride, accumulate,
         mdy.data, mdy.stride, false, mw.data, mw.stride, false);
}

// out[c] += Σ_m dy[m, c] for a strip of columns; blocks of rows keep the rounding errors of long sums small.
static void add_column_sums(float *out, Matrix dy, size_t first, size_t width) {
    enum { BLOCK_ROWS = 64 };
    float total[STRIP] = {0};
    for (size_t m0 = 0; m0 < dy.rows; m0 += BLOCK_ROWS) {
        size_t m1 = m0 + BLOCK_ROWS < dy.rows ? m0 + BLOCK_ROWS : dy.rows;
        float part[STRIP] = {0};
        for (size_t m = m0; m < m1; m++) {
            const float *in = row(dy, m) + first;
            for (size_t c = 0; c < width; c++) part[c] += in[c];
        }
        for (size_t c = 0; c < STRIP; c++) total[c] += part[c];
    }
    for (size_t c = 0; c < width; c++) out[first + c] += total[c];
}

void KERNEL(linear_backward_weight)(Backend *be, Tensor dw, Tensor db, Tensor dy, Tensor x) {
    Matrix mdw = matrix(dw), mdy = matrix(dy), mx = matrix(x);
    gemm(cpu_threads(be), (GemmSize){mdw.rows, mdw.cols, mx.rows}, mdw.data, mdw.stride, true, mdy.data,
         mdy.stride, true, mx.data, mx.stride, false);
    if (!tensor_exists(db)) return;
#pragma omp parallel for num_threads(threads_for(be, mdy.rows *mdy.cols))
    for (size_t s = 0; s < strips(mdy.cols); s++)
        add_column_sums(floats(db), mdy, s * STRIP, strip_width(mdy.cols, s));
}
