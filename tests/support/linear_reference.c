#include "support/linear_reference.h"
#include "base/half.h"

#include <math.h>
#include <string.h>

// ---- products ----

void ref_linear(double **a, const OpCase *c) {
    size_t M = c->args[1].shape[0], C = c->args[1].shape[1], O = c->args[2].shape[0];
    for (size_t m = 0; m < M; m++)
        for (size_t o = 0; o < O; o++) {
            const double *x = a[1] + m * C, *w = a[2] + o * C;
            double s[4] = {a[3] ? a[3][o] : 0}; // four, because one sum waits for each of its additions
            for (size_t k = 0; k < C; k++) s[k % 4] += x[k] * w[k];
            a[0][m * O + o] = s[0] + s[1] + s[2] + s[3];
        }
}

void ref_linear_input(double **a, const OpCase *c) {
    size_t M = c->args[1].shape[0], O = c->args[1].shape[1], C = c->args[2].shape[1];
    for (size_t m = 0; m < M; m++) {
        double *dx = a[0] + m * C;
        if (!c->flag) memset(dx, 0, C * sizeof *dx);
        for (size_t o = 0; o < O; o++)
            for (size_t k = 0; k < C; k++) dx[k] += a[1][m * O + o] * a[2][o * C + k];
    }
}

void ref_linear_weight(double **a, const OpCase *c) {
    size_t M = c->args[2].shape[0], O = c->args[2].shape[1], C = c->args[3].shape[1];
    for (size_t m = 0; m < M; m++)
        for (size_t o = 0; o < O; o++) {
            double g = a[2][m * O + o];
            for (size_t k = 0; k < C; k++) a[0][o * C + k] += g * a[3][m * C + k];
            if (a[1]) a[1][o] += g;
        }
}

static void round_weight(double **a, const OpCase *c) {
    for (size_t i = 0, n = arg_count(&c->args[2]); i < n; i++)
        a[2][i] = f32_from_bf16(bf16_from_f32((float)a[2][i]));
}

void ref_linear_rounding(double **a, const OpCase *c) {
    round_weight(a, c);
    ref_linear(a, c);
}

void ref_linear_input_rounding(double **a, const OpCase *c) {
    round_weight(a, c);
    ref_linear_input(a, c);
}

// ---- norms ----

// The row's mean and 1/sqrt(var + eps), or for RMSNorm 0 and 1/sqrt(mean of squares + eps).
static double row_statistics(double *mean, const double *x, size_t C, bool centred) {
    double s = 0;
    *mean = 0;
    for (size_t i = 0; centred && i < C; i++) *mean += x[i] / (double)C;
    for (size_t i = 0; i < C; i++) s += (x[i] - *mean) * (x[i] - *mean) / (double)C;
    return 1 / sqrt(s + EPS);
}

void ref_norm(double *y, double *mean, double *rstd, const double *x, const double *w, const double *b,
              const Arg *shape, bool centred) {
    size_t M = shape->shape[0], C = shape->shape[1];
    for (size_t m = 0; m < M; m++) {
        double mu, r = row_statistics(&mu, x + m * C, C, centred);
        for (size_t i = 0; y && i < C; i++) y[m * C + i] = (x[m * C + i] - mu) * r * w[i] + (b ? b[i] : 0);
        if (mean) mean[m] = mu;
        if (rstd) rstd[m] = r;
    }
}

// Σ dy y, the function whose gradient backward is: the row of x[at], or the column of w[at].
double norm_loss(const double *dy, const double *x, const double *w, const Arg *shape, bool centred,
                 bool by_x, size_t at) {
    const size_t C = shape->shape[1], first = by_x ? at / C : 0, end = by_x ? first + 1 : shape->shape[0];
    double loss = 0;
    for (size_t m = first; m < end; m++) {
        double mu, r = row_statistics(&mu, x + m * C, C, centred);
        for (size_t i = by_x ? 0 : at; i < (by_x ? C : at + 1); i++)
            loss += dy[m * C + i] * (x[m * C + i] - mu) * r * w[i];
    }
    return loss;
}

// dx before the call + rstd (g − Σ g/C − n Σ g n/C), g = dy w, n = (x − mean) rstd; dx itself is held against
// differences.
void ref_rounded(double *rounded, const double *dx, const double *dy, const double *x, const double *w,
                 const Arg *shape, bool centred) {
    size_t M = shape->shape[0], C = shape->shape[1];
    for (size_t m = 0; rounded && m < M; m++) {
        double mu, r = row_statistics(&mu, x + m * C, C, centred), s = 0, sn = 0;
        for (size_t i = m * C; i < (m + 1) * C; i++) {
            s += centred ? dy[i] * w[i % C] / (double)C : 0;
            sn += dy[i] * w[i % C] * (x[i] - mu) * r / (double)C;
        }
        for (size_t i = m * C; i < (m + 1) * C; i++)
            rounded[i] = dx[i] + r * (dy[i] * w[i % C] - s - (x[i] - mu) * r * sn);
    }
}
