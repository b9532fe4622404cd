// LayerNorm and RMSNorm over the last dimension, and the residual stream's sum before them. The gradients of
// the weights are made in the same pass as that of x: a task is a part of the rows and keeps sums of its own.
#include "ops/cpu/kernels.h"
#include "ops/cpu/lanes.h"
#include "ops/cpu/norm_parts.h"

#include <math.h>

ALWAYS_INLINE float total_of_four(const Lanes s[4]) {
    return total_of((s[0] + s[1]) + (s[2] + s[3]));
}

// ---- forward ----

// A row of x (+ branch, and then the sum is written) and what becomes of it; what an operator has not is
// NULL.
typedef struct ForwardRow {
    const char *x, *branch, *w, *b;
    char *sum, *y;
    size_t C;
} ForwardRow;

typedef struct Statistics {
    float mean, rstd;
} Statistics;

// Σ x² or, for a mean, Σ x. The sum with the branch is made on the way.
ALWAYS_INLINE float sum_row(ForwardRow r, const Dtype act, const bool adds, const bool squares) {
    Lanes s[4] = {0};
    FOR_VECTORS(r.C, i, n, k, {
        Lanes x = load_some(r.x, DTYPE_F32, i, n);
        if (adds) {
            x += load_some(r.branch, act, i, n);
            store_some(r.sum, DTYPE_F32, i, n, x);
        }
        s[k] += x * (squares ? x : lanes_of(1));
    });
    return total_of_four(s);
}

ALWAYS_INLINE float sum_of_squares_about(const char *x, float mean, size_t C) {
    Lanes s[4] = {0};
    FOR_VECTORS(C, i, n, k, {
        Lanes d = load_some(x, DTYPE_F32, i, n) - mean;
        if (n < LANES) d = first_of(d, n);
        s[k] += d * d;
    });
    return total_of_four(s);
}

// y = (x − mean) · rstd · w + b; RMSNorm has neither mean nor b.
ALWAYS_INLINE void write_row(ForwardRow r, const char *x, Statistics s, const Dtype act, const bool centred) {
    FOR_VECTORS(r.C, i, n, k, {
        const Lanes v = load_some(x, DTYPE_F32, i, n), w = load_some(r.w, DTYPE_F32, i, n);
        const Lanes y =
            centred ? (v - s.mean) * s.rstd * w + load_some(r.b, DTYPE_F32, i, n) : v * s.rstd * w;
        store_some(r.y, act, i, n, y);
        (void)k;
    });
}

ALWAYS_INLINE Statistics norm_row(ForwardRow r, float eps, const Dtype act, const bool adds,
                                  const bool centred) {
    const float first = sum_row(r, act, adds, !centred), size = (float)r.C;
    const char *x = adds ? r.sum : r.x;
    Statistics s = {centred ? first / size : 0, 0};
    const float squares = centred ? sum_of_squares_about(x, s.mean, r.C) : first;
    s.rstd = 1.0f / sqrtf(squares / size + eps);
    write_row(r, x, s, act, centred);
    return s;
}

// With what is known of a call made a constant, once each.
typedef Statistics NormRow(ForwardRow r, float eps);
#define NORM_ROW(name, adds, centred)                                                                        \
    static Statistics name##_f32(ForwardRow r, float eps) {                                                  \
        return norm_row(r, eps, DTYPE_F32, adds, centred);                                                   \
    }                                                                                                        \
    static Statistics name##_bf16(ForwardRow r, float eps) {                                                 \
        return norm_row(r, eps, DTYPE_BF16, adds, centred);                                                  \
    }
NORM_ROW(layer_norm, false, true)
NORM_ROW(rms_norm, false, false)
NORM_ROW(add_layer_norm, true, true)
NORM_ROW(add_rms_norm, true, false)

// mean and b may be absent; branch and sum both, if `of_row` adds none.
static void norm_forward(Backend *be, NormRow *of_row, Tensor sum, Tensor y, Tensor mean, Tensor rstd,
                         Tensor x, Tensor branch, Tensor w, Tensor b, float eps) {
    const Matrix mx = matrix(x);
    const size_t C = mx.cols, act = bytes_of(y.dtype);
#pragma omp parallel for num_threads(threads_for(be, mx.rows *C))
    for (size_t m = 0; m < mx.rows; m++) {
        const ForwardRow r = {.x = (const char *)row(mx, m),
                              .branch = branch.data ? branch.data + m * C * act : NULL,
                              .sum = sum.data ? sum.data + m * C * sizeof(float) : NULL,
                              .y = y.data + m * C * act,
                              .w = w.data,
                              .b = b.data,
                              .C = C};
        const Statistics s = of_row(r, eps);
        if (mean.data) floats(mean)[m] = s.mean;
        floats(rstd)[m] = s.rstd;
    }
}

void KERNEL(layer_norm_forward)(Backend *be, Tensor y, Tensor mean, Tensor rstd, Tensor x, Tensor w, Tensor b,
                                float eps) {
    norm_forward(be, y.dtype == DTYPE_BF16 ? layer_norm_bf16 : layer_norm_f32, TENSOR_NONE, y, mean, rstd, x,
                 TENSOR_NONE, w, b, eps);
}
void KERNEL(rms_norm_forward)(Backend *be, Tensor y, Tensor rstd, Tensor x, Tensor w, float eps) {
    norm_forward(be, y.dtype == DTYPE_BF16 ? rms_norm_bf16 : rms_norm_f32, TENSOR_NONE, y, TENSOR_NONE, rstd,
                 x, TENSOR_NONE, w, TENSOR_NONE, eps);
}
void KERNEL(add_layer_norm_forward)(Backend *be, Tensor sum, Tensor y, Tensor mean, Tensor rstd, Tensor x,
                                    Tensor branch, Tensor w, Tensor b, float eps) {
    norm_forward(be, y.dtype == DTYPE_BF16 ? add_layer_norm_bf16 : add_layer_norm_f32, sum, y, mean, rstd, x,
                 branch, w, b, eps);
}
void KERNEL(add_rms_norm_forward)(Backend *be, Tensor sum, Tensor y, Tensor rstd, Tensor x, Tensor branch,
                                  Tensor w, float eps) {
    norm_forward(be, y.dtype == DTYPE_BF16 ? add_rms_norm_bf16 : add_rms_norm_f32, sum, y, TENSOR_NONE, rstd,
                 x, branch, w, TENSOR_NONE, eps);
}

// ---- backward ----

// So many rows at a time, for which sums over rows are read and written once. Their own sums are made one row
// after the other, because memory is faster that way.
enum { GROUP = NORM_GROUP };
#define FOR_ROWS(m) for (size_t m = 0; m < R; m++)

typedef struct BackwardRows {
    const char *dy[GROUP], *x[GROUP], *w;
    char *dx[GROUP], *rounded[GROUP]; // rounded: NULL, or where dx goes in BF16
    float mean[GROUP], rstd[GROUP];
    float *dw, *db; // sums of this part of the rows, in whole vectors
    size_t C;
    bool centred;
} BackwardRows;

// Σ dy w and Σ dy w n of row m.
ALWAYS_INLINE void sum_gradients(float *sum_g, float *sum_gn, const BackwardRows *r, size_t m,
                                 const Dtype act) {
    const char *from = r->dy[m], *in = r->x[m], *weight = r->w;
    const float mean = r->mean[m], rstd = r->rstd[m];
    Lanes s[4] = {0}, sn[4] = {0};
    FOR_VECTORS(r->C, i, n, k, {
        const Lanes g = load_some(from, act, i, n) * load_some(weight, DTYPE_F32, i, n);
        s[k] += g;
        sn[k] += g * ((load_some(in, DTYPE_F32, i, n) - mean) * rstd);
    });
    *sum_g = total_of_four(s);
    *sum_gn = total_of_four(sn);
}

// With n = (x − mean) · rstd: y = n w + b, so dx = rstd (dy w − Σ(dy w)/C − n Σ(dy w n)/C). RMSNorm is the
// same with mean 0 and without the middle term. dw = Σ dy n, db = Σ dy, over rows.
ALWAYS_INLINE void backward_rows(const BackwardRows *rows, const Dtype act, const bool weights,
                                 const size_t R) {
    const BackwardRows r = *rows; // nothing that is written can be part of it
    float mean_g[GROUP], mean_gn[GROUP];
    FOR_ROWS(m) sum_gradients(&mean_g[m], &mean_gn[m], rows, m, act);
    FOR_ROWS(m) {
        mean_g[m] = r.centred ? mean_g[m] / (float)r.C : 0;
        mean_gn[m] /= (float)r.C;
    }
    FOR_VECTORS(r.C, i, n, k, {
        const Lanes w = load_some(r.w, DTYPE_F32, i, n);
        Lanes dw = weights ? *(const Lanes *)(r.dw + i) : lanes_of(0),
              db = weights ? *(const Lanes *)(r.db + i) : lanes_of(0);
        FOR_ROWS(m) {
            const Lanes dy = load_some(r.dy[m], act, i, n);
            const Lanes normed = (load_some(r.x[m], DTYPE_F32, i, n) - r.mean[m]) * r.rstd[m];
            const Lanes dx =
                load_some(r.dx[m], DTYPE_F32, i, n) + r.rstd[m] * (dy * w - mean_g[m] - normed * mean_gn[m]);
            store_some(r.dx[m], DTYPE_F32, i, n, dx);
            if (r.rounded[m]) store_some(r.rounded[m], DTYPE_BF16, i, n, dx);
            dw += dy * normed;
            db += dy;
        }
        if (weights) {
            *(Lanes *)(r.dw + i) = dw;
            *(Lanes *)(r.db + i) = db;
        }
        (void)k;
    });
}

typedef void NormRowsBackward(const BackwardRows *r, bool all);
#define NORM_ROWS_BACKWARD(name, act, weights)                                                               \
    static void name(const BackwardRows *r, bool all) {                                                      \
        if (all)                                                                                             \
            backward_rows(r, act, weights, GROUP);                                                           \
        else                                                                                                 \
            backward_rows(r, act, weights, 1);                                                               \
    }
NORM_ROWS_BACKWARD(backward_f32, DTYPE_F32, false)
NORM_ROWS_BACKWARD(backward_bf16, DTYPE_BF16, false)
NORM_ROWS_BACKWARD(weights_backward_f32, DTYPE_F32, true)
NORM_ROWS_BACKWARD(weights_backward_bf16, DTYPE_BF16, true)

typedef struct NormGradients {
    Tensor dx, rounded, dy, x, w, mean, rstd; // as the operators take them
    NormRowsBackward *of_rows;
} NormGradients;

static BackwardRows rows_from(const NormGradients *g, size_t first, size_t n, float *dw, float *db) {
    const Matrix x = matrix(g->x), dx = matrix(g->dx);
    BackwardRows r = {.w = g->w.data, .dw = dw, .db = db, .C = x.cols, .centred = g->mean.data != NULL};
    for (size_t k = 0; k < n; k++) {
        const size_t m = first + k, at = m * x.cols;
        r.dy[k] = g->dy.data + at * bytes_of(g->dy.dtype);
        r.x[k] = (const char *)row(x, m);
        r.dx[k] = (char *)row(dx, m);
        r.rounded[k] = g->rounded.data ? g->rounded.data + at * sizeof(uint16_t) : NULL;
        r.mean[k] = r.centred ? floats(g->mean)[m] : 0;
        r.rstd[k] = floats(g->rstd)[m];
    }
    return r;
}

static void part_backward(const NormGradients *g, size_t first, size_t end, float *dw, float *db) {
    for (size_t m = first, n; m < end; m += n) {
        n = end - m < GROUP ? 1 : GROUP;
        const BackwardRows r = rows_from(g, m, n, dw, db);
        g->of_rows(&r, n == GROUP);
    }
}

// to += the sums of all parts, each `step` after the other, for a strip of columns.
static void add_parts(float *to, const float *sums, size_t parts, size_t step, size_t width) {
    float total[STRIP] = {0};
    for (size_t p = 0; p < parts; p++)
        for (size_t c = 0; c < width; c++) total[c] += sums[p * step + c];
    for (size_t c = 0; c < width; c++) to[c] += total[c];
}

static void norm_backward(Backend *be, Tensor dw, Tensor db, NormGradients g) {
    const size_t M = tensor_rows(g.x), C = tensor_cols(g.x);
    const NormParts cut = norm_parts(M, C);
    const size_t rows = cut.rows, parts = cut.parts, width = cut.width;
    const int threads = threads_for(be, M * C);
    const bool weights = tensor_exists(dw);
    float *sums = weights ? cpu_scratch(be, cut.scratch_bytes) : NULL;
    if (weights)
        g.of_rows = g.dy.dtype == DTYPE_BF16 ? weights_backward_bf16 : weights_backward_f32;
    else
        g.of_rows = g.dy.dtype == DTYPE_BF16 ? backward_bf16 : backward_f32;
#pragma omp parallel for num_threads(threads)
    for (size_t p = 0; p < parts; p++) {
        const size_t first = p * rows, end = first + rows < M ? first + rows : M;
        float *part = weights ? sums + p * 2 * width : NULL;
        if (weights) memset(part, 0, 2 * width * sizeof *part);
        part_backward(&g, first, end, part, weights ? part + width : NULL);
    }
    if (!weights) return;
#pragma omp parallel for num_threads(threads_for(be, parts *width))
    for (size_t s = 0; s < strips(C); s++) {
        const size_t c = s * STRIP, n = strip_width(C, s);
        add_parts(floats(dw) + c, sums + c, parts, 2 * width, n);
        if (db.data) add_parts(floats(db) + c, sums + width + c, parts, 2 * width, n);
    }
}

void KERNEL(layer_norm_backward)(Backend *be, Tensor dx, Tensor rounded, Tensor dw, Tensor db, Tensor dy,
                                 Tensor x, Tensor w, Tensor mean, Tensor rstd) {
    norm_backward(be, dw, db, (NormGradients){dx, rounded, dy, x, w, mean, rstd, NULL});
}
void KERNEL(rms_norm_backward)(Backend *be, Tensor dx, Tensor rounded, Tensor dw, Tensor dy, Tensor x,
                               Tensor w, Tensor rstd) {
    norm_backward(be, dw, TENSOR_NONE, (NormGradients){dx, rounded, dy, x, w, TENSOR_NONE, rstd, NULL});
}
