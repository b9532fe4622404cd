// Matrix products by oneDNN's sgemm, which its versions 2 and 3 both have.
#include "ops/cpu/gemm.h"
#include "base/check.h"

#include <dnnl.h>
#include <omp.h>
#include <stdio.h>
#include <string.h>

void gemm(int threads, GemmSize size, float *c, size_t ldc, bool accumulate, const float *a, size_t lda,
          bool a_transposed, const float *b, size_t ldb, bool b_transposed) {
    omp_set_num_threads(threads); // of this host thread; the library asks for it at every call
    dnnl_status_t status = dnnl_sgemm(a_transposed ? 'T' : 'N', b_transposed ? 'T' : 'N', (dnnl_dim_t)size.M,
                                      (dnnl_dim_t)size.N, (dnnl_dim_t)size.K, 1.0f, a, (dnnl_dim_t)lda, b,
                                      (dnnl_dim_t)ldb, accumulate ? 1.0f : 0.0f, c, (dnnl_dim_t)ldc);
    CHECK(status == dnnl_success, "oneDNN's sgemm says %d for %zu x %zu x %zu", (int)status, size.M, size.N,
          size.K);
}

void gemm_prepare(int threads) {
    enum { N = 64 };
    static float a[N * N], b[N * N], c[N * N];
    for (int kind = 0; kind < 8; kind++)
        gemm(threads, (GemmSize){N, N, N}, c, N, kind & 4, a, N, kind & 1, b, N, kind & 2);
}

void gemm_limit_level(const char *level) {
    if (strcmp(level, "generic") == 0) dnnl_set_max_cpu_isa(dnnl_cpu_isa_sse41);
    if (strcmp(level, "avx2") == 0) dnnl_set_max_cpu_isa(dnnl_cpu_isa_avx2);
    if (strcmp(level, "avx512bf16") == 0) dnnl_set_max_cpu_isa(dnnl_cpu_isa_avx512_core_bf16);
}

void gemm_describe(char *text, size_t size) {
    const dnnl_version_t *v = dnnl_version();
    snprintf(text, size, "oneDNN %d.%d.%d", v->major, v->minor, v->patch);
}
