#include "support/attention_reference.h"
#include "base/memory.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

// Where the rows of sequence b's key head for query head h begin in k or v; they lie K · D values apart.
static const double *key_head(const double *x, const Sizes *s, size_t b, size_t h) {
    return x + (b * s->Tk * s->K + h / (s->H / s->K)) * s->D;
}

static double dot(const double *x, const double *y, size_t n) {
    double sum[2] = {0};
    for (size_t d = 0; d + 1 < n; d += 2) sum[0] += x[d] * y[d], sum[1] += x[d + 1] * y[d + 1];
    return sum[0] + sum[1] + (n % 2 ? x[n - 1] * y[n - 1] : 0);
}

// The weights of query i over its keys, and log Σ exp. A query that sees no key weighs all keys of its past
// (of its sample's) alike.
static double weights(double *w, const Problem *p, size_t b, size_t h, size_t i) {
    size_t reach = p->causal ? i + p->s.Tk - p->s.Tq + 1 : p->s.Tk, visible = 0;
    size_t first = p->starts ? (size_t)p->starts[b * p->s.Tk + i] : 0;
    const double *q = p->q + ((b * p->s.Tq + i) * p->s.H + h) * p->s.D, *k = key_head(p->k, &p->s, b, h);
    double largest = -INFINITY, sum = 0;
    for (size_t j = first; j < reach; j++) {
        bool shown = !p->mask || p->mask[b * p->s.Tk + j] != 0;
        w[j] = shown ? dot(q, k + j * p->s.K * p->s.D, p->s.D) * p->scale : -INFINITY;
        visible += w[j] > -INFINITY;
        largest = fmax(largest, w[j]);
    }
    for (size_t j = first; j < reach; j++) sum += w[j] = visible ? exp(w[j] - largest) : 1;
    for (size_t j = 0; j < p->s.Tk; j++) w[j] = j >= first && j < reach ? w[j] / sum : 0;
    return visible ? largest + log(sum) : -FLT_MAX;
}

// The row of o of one query, and its lse.
static double attend_row(double *o, double *w, const Problem *p, size_t b, size_t h, size_t i) {
    const Sizes *s = &p->s;
    double lse = weights(w, p, b, h, i);
    for (size_t d = 0; d < s->D; d++) o[d] = 0;
    const double *v = key_head(p->v, s, b, h);
    for (size_t j = 0; j < s->Tk; j++, v += s->K * s->D)
        for (size_t d = 0, n = w[j] != 0 ? s->D : 0; d < n; d++) o[d] += w[j] * v[d];
    return lse;
}

double attention_reference(const Problem *p, const double *dout, Part part) {
    const Sizes *s = &p->s;
    double *w = mem_zeroed(s->Tk, sizeof *w), o[256], loss = 0;
    for (size_t b = part.b0; b < part.b1; b++)
        for (size_t h = part.h0; h < part.h1; h++)
            for (size_t i = part.i0; i < part.i1; i++) {
                double lse = attend_row(o, w, p, b, h, i);
                size_t at = ((b * s->Tq + i) * s->H + h) * s->D;
                if (p->lse) p->lse[(b * s->H + h) * s->Tq + i] = lse;
                if (p->o) memcpy(p->o + at, o, s->D * sizeof *o);
                for (size_t d = 0; dout && d < s->D; d++) loss += dout[at + d] * o[d];
            }
    free(w);
    return loss;
}
