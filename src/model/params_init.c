// First values of the parameters.
#include "base/check.h"
#include "base/memory.h"
#include "base/random.h"
#include "model/params.h"

#include <math.h>
#include <string.h>

// A normal value takes a block of the stream, so any part of the values can be drawn by itself.
static void draw_normal(float *x, size_t n, double std, const Random *r) {
    enum { PART = 1 << 14 };
#pragma omp parallel for schedule(static) if (n >= 16 * PART)
    for (size_t first = 0; first < n; first += PART) {
        const size_t end = n - first < PART ? n : first + PART;
        Random part = *r;
        random_seek(&part, first);
        for (size_t i = first; i < end; i++) x[i] = (float)(std * random_normal(&part));
    }
}

// 1 / base^(2i/D), in float32 as torch computes it (nanoVLM, RotaryEmbedding).
static void inverse_frequencies(float *x, size_t n, double base) {
    for (size_t i = 0; i < n; i++) x[i] = 1.0f / powf((float)base, (float)(2 * i) / (float)(2 * n));
}

static double weight_std(const Param *p, const VLMConfig *c, bool scaled) {
    if (!scaled) return 0.02;
    double std = 1.0 / sqrt((double)p->fan_in);
    size_t blocks = p->group == GROUP_VISION ? c->vit_n_blocks : c->lm_n_blocks;
    return p->init == INIT_RESIDUAL ? std / sqrt(2.0 * (double)blocks) : std;
}

static void first_values(float *x, const Param *p, const VLMConfig *config, bool scaled, Random *r) {
    size_t n = tensor_count(p->w);
    switch (p->init) {
    case INIT_WEIGHT:
    case INIT_RESIDUAL:
        draw_normal(x, n, weight_std(p, config, scaled), r);
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
    case INIT_LORA:
        for (size_t i = 0; i < n; i++)
            x[i] = (float)((2.0 * random_uniform(r) - 1.0) / sqrt((double)p->fan_in));
        break;
    case INIT_INV_FREQ:
        inverse_frequencies(x, n, config->lm_re_base.value);
        break;
    }
}

static void upload(Backend *be, Tensor t, const float *x) {
    tensor_upload(be, STREAM_COMPUTE, t, x);
    backend_sync(be);
}

// The convolution w of pixels in [0, 1] becomes that of 2·pixel − 1: weights doubled, bias −Σ w. A picture's
// mean would otherwise outweigh what is in it, and the first hundreds of steps go into taking it away.
static void centre_patches(Params *p, Backend *be, float *w) {
    const Param *weight = p->vision.patch_w, *bias = p->vision.patch_b;
    size_t O = weight->shape[0], fan_in = weight->fan_in;
    float *sums = mem_zeroed(O, sizeof *sums);
    for (size_t o = 0; o < O; o++)
        for (size_t i = 0; i < fan_in; i++) {
            sums[o] -= w[o * fan_in + i];
            w[o * fan_in + i] *= 2.0f;
        }
    upload(be, weight->w, w);
    upload(be, bias->w, sums);
    free(sums);
}

void param_initialise(Params *p, size_t i, Backend *be, const VLMConfig *config, const char *init,
                      uint64_t seed) {
    const bool scaled = !strcmp(init, "scaled");
    CHECK(scaled || !strcmp(init, "nanovlm"), "init %s", init);
    Param *q = &p->items[i];
    if (scaled && q == p->vision.patch_b) return; // set with the weight, which stands before it
    float *x = mem_alloc(tensor_bytes(q->w));
    Random r = random_stream(seed, RANDOM_INIT, i);
    first_values(x, q, config, scaled, &r);
    if (scaled && q == p->vision.patch_w)
        centre_patches(p, be, x);
    else
        upload(be, q->w, x);
    param_refresh(q, be);
    free(x);
}

void params_initialise(Params *p, Backend *be, const VLMConfig *config, const char *init, uint64_t seed) {
    for (size_t i = 0; i < p->count; i++) param_initialise(p, i, be, config, init, seed);
}

void params_initialise_adapters(Params *p, Backend *be, const VLMConfig *config, uint64_t seed) {
    for (size_t i = 0; i < p->count; i++)
        if (param_is_adapter(&p->items[i])) param_initialise(p, i, be, config, "nanovlm", seed);
}
