#include "cmd/bench_ceiling.h"
#include "base/memory.h"
#include "ops/cpu/cpu.h"
#include "ops/cpu/gemm.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SQUARE = 2048, TRIAD_VALUES = 1 << 24 };

double bench_seconds(BenchTime t, const Backend *be) {
    return cpu_threads(be) == 1 ? t.cpu : t.wall;
}

static double product_seconds(const Backend *be, bool bf16, GemmSize s, char *x, char *w, float *y) {
    const BenchTime begin = bench_now();
    if (bf16)
        gemm_bf16(cpu_threads(be), s, (GemmMatrix){y, s.N, false, DTYPE_BF16}, false,
                  (GemmMatrix){x, s.K, false, DTYPE_BF16}, (GemmMatrix){w, s.K, true, DTYPE_BF16}, NULL);
    else
        gemm(cpu_threads(be), s, y, s.N, false, (float *)x, s.K, false, (float *)w, s.K, true);
    return bench_seconds(bench_since(begin), be);
}

// Zeros would do for the speed of the products, but not for the power they draw.
static char *small_values(size_t n, bool bf16) {
    char *values = mem_alloc(n * (bf16 ? 2 : 4));
    for (size_t i = 0; i < n; i++) {
        const float value = (float)((i * 2654435761u >> 8) % 4096) / 2048 - 1;
        if (bf16)
            memcpy(values + 2 * i, (const char *)&value + 2, 2);
        else
            memcpy(values + 4 * i, &value, 4);
    }
    return values;
}

static double product_rate(const Backend *be, bool bf16, GemmSize s, double seconds) {
    const double flops = 2.0 * (double)s.M * (double)s.N * (double)s.K;
    char *x = small_values(s.M * s.K, bf16), *w = small_values(s.N * s.K, bf16);
    float *y = mem_zeroed(s.M * s.N, sizeof *y);
    const BenchTime begin = bench_now();
    double fastest = INFINITY;
    do {
        const double t = product_seconds(be, bf16, s, x, w, y);
        fastest = t < fastest ? t : fastest;
    } while (bench_since(begin).wall < seconds);
    free(x);
    free(w);
    free(y);
    return bench_rate(flops * 1e-9, fastest);
}

static double ceiling_products(const Backend *be, Dtype dtype, const GemmSize *sizes, size_t n,
                               double seconds) {
    const bool bf16 = dtype == DTYPE_BF16 && be->bf16;
    double best = product_rate(be, bf16, (GemmSize){SQUARE, SQUARE, SQUARE}, seconds);
    for (size_t i = 0; i < n; i++) best = fmax(best, product_rate(be, bf16, sizes[i], seconds));
    return best;
}

double ceiling_of_model(const Backend *be, Dtype dtype, const VLMConfig *c, ModelRows rows, double seconds) {
    const GemmSize sizes[] = {
        {rows.positions, c->lm_inter_dim, c->lm_hidden_dim},
        {rows.positions, c->lm_hidden_dim, c->lm_inter_dim},
        {rows.patches, c->vit_inter_dim, c->vit_hidden_dim},
        {rows.patches, c->vit_hidden_dim, c->vit_inter_dim},
    };
    return ceiling_products(be, dtype, sizes, rows.patches ? 4 : 2, seconds);
}

double ceiling_memory(const Backend *be, double seconds) {
    const size_t n = TRIAD_VALUES;
    float *a = mem_zeroed(n, sizeof *a), *b = (float *)small_values(n, false),
          *c = (float *)small_values(n, false);
    const BenchTime begin = bench_now();
    double fastest = INFINITY;
    do {
        const BenchTime round = bench_now();
#pragma omp parallel for simd num_threads(cpu_threads(be))
        for (size_t i = 0; i < n; i++) a[i] = b[i] + 3.0f * c[i];
        fastest = fmin(fastest, bench_seconds(bench_since(round), be));
    } while (bench_since(begin).wall < seconds);
    free(a);
    free(b);
    free(c);
    return bench_rate(3e-9 * (double)(n * sizeof *a), fastest);
}
