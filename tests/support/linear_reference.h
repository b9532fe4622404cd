// Linear layers and norms written out in double, as references of an OpCase or the parts of one. Sizes come
// from the arguments' shapes: x [M, C], w [O, C], y [M, O].
#pragma once
#include "support/op_case.h"

// ---- products: arguments as the operators take them ----

void ref_linear(double **a, const OpCase *c);        // y, x, w, b (opt): y = x wᵀ + b
void ref_linear_input(double **a, const OpCase *c);  // dx, dy, w: dx (+)= dy w; c->flag: it is added
void ref_linear_weight(double **a, const OpCase *c); // dw, db (opt), dy, x: dw += dyᵀ x, db += Σ dy
// The same with w rounded to BF16 first, in place.
void ref_linear_rounding(double **a, const OpCase *c);
void ref_linear_input_rounding(double **a, const OpCase *c);

// ---- norms of the rows of x, of this shape; centred: LayerNorm, else RMSNorm ----

#define EPS 1e-5f

// y, mean, rstd and b may be NULL; without b there is no bias.
void ref_norm(double *y, double *mean, double *rstd, const double *x, const double *w, const double *b,
              const Arg *shape, bool centred);
// Σ dy y, the function whose gradient backward is, of those terms alone that depend on x[at] or (by_x false)
// w[at].
double norm_loss(const double *dy, const double *x, const double *w, const Arg *shape, bool centred,
                 bool by_x, size_t at);
// dx before the call + the gradient of x, in closed form; `rounded` may be NULL.
void ref_rounded(double *rounded, const double *dx, const double *dy, const double *x, const double *w,
                 const Arg *shape, bool centred);
