// First values of the parameters.
#include "base/check.h"
#include "base/memory.h"
#include "base/random.h"
#include "model/params.h"

#include <math.h>
#include <string.h>

static void draw_normal(float *x, size_t n, double std, Random *r) {
    for (size_t i = 0; i < n; i++) x[i] = (float)(std * random_normal(r));
}

// 1 / base^(2i/D), in float32 as torch computes it (nanoVLM, RotaryEmbedding).
static void inverse_frequencies(float *x, size_t n, double base) {
    for (size_t i = 0; i < n; i++) x[i] = 1.0f / powf((float)base, (float)(2 * i) / (float)(2 * n));
}

static double weight_std(const Param *p, bool scaled) {
    return scaled ? 1.0 / sqrt((double)p->fan_in) : 0.02;
}

static void first_values(float *x, const Param *p, const VLMConfig *config, bool scaled, Random *r) {
    size_t n = tensor_count(p->w);
    switch (p->init) {
    case INIT_WEIGHT:
    case INIT_EMBEDDING:
        draw_normal(x, n, weight_std(p, scaled), r);
        break;
    case INIT_ZERO:
        memset(x, 0, n * sizeof *x);
        break;
    case INIT_ONE:
        for (size_t i = 0; i < n; i++) x[i] = 1.0f;
        break;
    case INIT_POSITION:
        // Uniform in [0, 1) is meant for loading a backbone over it; from scratch, positions must be of the
        // patches' size.
        if (scaled)
            draw_normal(x, n, 0.5, r);
        else
            for (size_t i = 0; i < n; i++) x[i] = (float)random_uniform(r);
        break;
    case INIT_INV_FREQ:
        inverse_frequencies(x, n, config->lm_re_base.value);
        break;
    }
}

void params_initialise(Params *p, Backend *be, const VLMConfig *config, const char *init, uint64_t seed) {
    bool scaled = !strcmp(init, "scaled");
    CHECK(scaled || !strcmp(init, "nanovlm"), "init %s", init);
    size_t largest = 0;
    for (size_t i = 0; i < p->count; i++)
        if (tensor_bytes(p->items[i].w) > largest) largest = tensor_bytes(p->items[i].w);
    float *x = mem_alloc(largest);
    for (size_t i = 0; i < p->count; i++) {
        Random r = random_stream(seed, RANDOM_INIT, i);
        first_values(x, &p->items[i], config, scaled, &r);
        tensor_upload(be, STREAM_COMPUTE, p->items[i].w, x);
        backend_sync(be);
    }
    free(x);
}
