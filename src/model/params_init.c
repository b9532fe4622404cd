// First values of the parameters.
#include "base/check.h"
#include "base/memory.h"
#include "base/random.h"
#include "model/params.h"

#include <math.h>
#include <string.h>

// Values are made in pieces that fit into a core's cache and uploaded from there, by all threads, which wait
// for one another only at the end. Every piece is drawn by itself, because its numbers have fixed places in
// the stream of its parameter: one block a normal value, half a block a uniform one.
enum { PIECE_VALUES = 1 << 16 };

// The values of parameter `p` from `first` on; first is even.
typedef struct Piece {
    const Param *p;
    float *x; // [n]
    size_t first, n;
} Piece;

static void draw_uniform(Piece w, double factor, double shift, double divisor, const Random *stream) {
    Random r = *stream;
    random_seek(&r, w.first / 2);
    for (size_t i = 0; i < w.n; i++) w.x[i] = (float)((factor * random_uniform(&r) - shift) / divisor);
}

// 1 / base^(2i/D), in float32 as torch computes it (nanoVLM, RotaryEmbedding).
static void inverse_frequencies(Piece w, double base) {
    const size_t D = 2 * tensor_count(w.p->w);
    for (size_t i = 0; i < w.n; i++) w.x[i] = 1.0f / powf((float)base, (float)(2 * (w.first + i)) / (float)D);
}

static double weight_std(const Param *p, const VLMConfig *c, bool scaled) {
    if (!scaled) return 0.02;
    double std = 1.0 / sqrt((double)p->fan_in);
    size_t blocks = p->group == GROUP_VISION ? c->vit_n_blocks : c->lm_n_blocks;
    return p->init == INIT_RESIDUAL ? std / sqrt(2.0 * (double)blocks) : std;
}

static void first_values(Piece w, const VLMConfig *config, bool scaled, const Random *r) {
    switch (w.p->init) {
    case INIT_WEIGHT:
    case INIT_RESIDUAL:
        random_normals(w.x, w.n, weight_std(w.p, config, scaled), r, w.first);
        break;
    case INIT_ZERO:
        memset(w.x, 0, w.n * sizeof *w.x);
        break;
    case INIT_ONE:
        for (size_t i = 0; i < w.n; i++) w.x[i] = 1.0f;
        break;
    case INIT_POSITION:
        // Uniform in [0, 1) is meant for loading a backbone over it; from scratch, positions must be of the
        // patches' size.
        if (scaled)
            random_normals(w.x, w.n, 0.5, r, w.first);
        else
            draw_uniform(w, 1, 0, 1, r);
        break;
    case INIT_LORA:
        draw_uniform(w, 2, 1, sqrt((double)w.p->fan_in), r);
        break;
    case INIT_INV_FREQ:
        inverse_frequencies(w, config->lm_re_base.value);
        break;
    }
}

static void upload(Backend *be, Tensor t, const float *x) {
    tensor_upload(be, STREAM_COMPUTE, t, x);
    backend_sync(be);
}

// The convolution w of pixels in [0, 1] becomes that of 2·pixel − 1: weights doubled, bias −Σ w. A picture's
// mean would otherwise outweigh what is in it, and the first hundreds of steps go into taking it away.
static void centre_patches(Params *p, Backend *be) {
    const Param *weight = p->vision.patch_w, *bias = p->vision.patch_b;
    size_t O = weight->shape[0], fan_in = weight->fan_in;
    float *w = mem_alloc(tensor_bytes(weight->w)), *sums = mem_zeroed(O, sizeof *sums);
    tensor_download(be, STREAM_COMPUTE, w, weight->w);
    backend_sync(be);
    for (size_t o = 0; o < O; o++)
        for (size_t i = 0; i < fan_in; i++) {
            sums[o] -= w[o * fan_in + i];
            w[o * fan_in + i] *= 2.0f;
        }
    upload(be, weight->w, w);
    upload(be, bias->w, sums);
    free(sums);
    free(w);
}

typedef struct Drawing {
    Params *params;
    Backend *be;
    const VLMConfig *config;
    bool scaled;
    uint64_t seed;
} Drawing;

// In a parallel region, by all its threads.
static void draw(const Drawing *d, size_t i, float *values) {
    const Param *q = &d->params->items[i];
    const size_t n = tensor_count(q->w);
    const Tensor flat = tensor_reshape(q->w, SHAPE(n));
    const Random r = random_stream(d->seed, RANDOM_INIT, i);
    if (d->scaled && q == d->params->vision.patch_b) return; // set with the weight
#pragma omp for schedule(dynamic) nowait
    for (size_t first = 0; first < n; first += PIECE_VALUES) {
        const size_t here = n - first < PIECE_VALUES ? n - first : PIECE_VALUES;
        first_values((Piece){q, values, first, here}, d->config, d->scaled, &r);
        upload(d->be, tensor_slice(flat, first, here), values);
    }
}

// The parameters first … end − 1 that are wanted.
static void draw_all(const Drawing *d, size_t first, size_t end, bool (*is_wanted)(const Param *p)) {
#pragma omp parallel
    {
        float *values = mem_alloc(PIECE_VALUES * sizeof *values);
        for (size_t i = first; i < end; i++)
            if (is_wanted(&d->params->items[i])) draw(d, i, values);
        free(values);
    }
    for (size_t i = first; i < end; i++) {
        Param *p = &d->params->items[i];
        if (!is_wanted(p)) continue;
        if (d->scaled && p == d->params->vision.patch_w) centre_patches(d->params, d->be);
        param_refresh(p, d->be);
    }
}

static bool is_any(const Param *p) {
    return p != NULL;
}

static Drawing drawing(Params *p, Backend *be, const VLMConfig *config, const char *init, uint64_t seed) {
    const bool scaled = !strcmp(init, "scaled");
    CHECK(scaled || !strcmp(init, "nanovlm"), "init %s", init);
    return (Drawing){p, be, config, scaled, seed};
}

void param_initialise(Params *p, size_t i, Backend *be, const VLMConfig *config, const char *init,
                      uint64_t seed) {
    const Drawing d = drawing(p, be, config, init, seed);
    draw_all(&d, i, i + 1, is_any);
}

void params_initialise(Params *p, Backend *be, const VLMConfig *config, const char *init, uint64_t seed) {
    const Drawing d = drawing(p, be, config, init, seed);
    draw_all(&d, 0, p->count, is_any);
}

void params_initialise_adapters(Params *p, Backend *be, const VLMConfig *config, uint64_t seed) {
    const Drawing d = drawing(p, be, config, "nanovlm", seed);
    draw_all(&d, 0, p->count, param_is_adapter);
}
