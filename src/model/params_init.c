// First values of the parameters.
#include "base/check.h"
#include "base/memory.h"
#include "base/random.h"
#include "model/params.h"

#include <math.h>
#include <string.h>

// Values are made in a window of host memory, a part of a parameter at a time, and uploaded from there:
// memory as large as the parameter would have to be got from the system, cleared, for each one.
enum { WINDOW_VALUES = 1 << 20, PART = 1 << 13 };

// The values of parameter `p` from `first` on.
typedef struct Window {
    const Param *p;
    float *x; // [n]
    size_t first, n;
} Window;

// A normal value takes a block of the stream, so any part of the values can be drawn by itself.
static void draw_normal(Window w, double std, const Random *r) {
#pragma omp parallel for schedule(static) if (w.n >= 8 * PART)
    for (size_t i = 0; i < w.n; i += PART)
        random_normals(w.x + i, w.n - i < PART ? w.n - i : PART, std, r, w.first + i);
}

// 1 / base^(2i/D), in float32 as torch computes it (nanoVLM, RotaryEmbedding).
static void inverse_frequencies(Window w, double base) {
    const size_t D = 2 * tensor_count(w.p->w);
    for (size_t i = 0; i < w.n; i++) w.x[i] = 1.0f / powf((float)base, (float)(2 * (w.first + i)) / (float)D);
}

static double weight_std(const Param *p, const VLMConfig *c, bool scaled) {
    if (!scaled) return 0.02;
    double std = 1.0 / sqrt((double)p->fan_in);
    size_t blocks = p->group == GROUP_VISION ? c->vit_n_blocks : c->lm_n_blocks;
    return p->init == INIT_RESIDUAL ? std / sqrt(2.0 * (double)blocks) : std;
}

// r goes on from one part of the parameter to the next.
static void first_values(Window w, const VLMConfig *config, bool scaled, Random *r) {
    switch (w.p->init) {
    case INIT_WEIGHT:
    case INIT_RESIDUAL:
        draw_normal(w, weight_std(w.p, config, scaled), r);
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
            draw_normal(w, 0.5, r);
        else
            for (size_t i = 0; i < w.n; i++) w.x[i] = (float)random_uniform(r);
        break;
    case INIT_LORA:
        for (size_t i = 0; i < w.n; i++)
            w.x[i] = (float)((2.0 * random_uniform(r) - 1.0) / sqrt((double)w.p->fan_in));
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

// window: [WINDOW_VALUES], or the parameter's values if there are fewer.
static void initialise(Params *p, size_t i, Backend *be, const VLMConfig *config, const char *init,
                       uint64_t seed, float *window) {
    const bool scaled = !strcmp(init, "scaled");
    CHECK(scaled || !strcmp(init, "nanovlm"), "init %s", init);
    Param *q = &p->items[i];
    const size_t n = tensor_count(q->w);
    if (scaled && q == p->vision.patch_b) return; // set with the weight, which stands before it
    const Tensor flat = tensor_reshape(q->w, SHAPE(n));
    Random r = random_stream(seed, RANDOM_INIT, i);
    for (size_t first = 0; first < n; first += WINDOW_VALUES) {
        const size_t here = n - first < WINDOW_VALUES ? n - first : WINDOW_VALUES;
        first_values((Window){q, window, first, here}, config, scaled, &r);
        upload(be, tensor_slice(flat, first, here), window);
    }
    if (scaled && q == p->vision.patch_w) centre_patches(p, be);
    param_refresh(q, be);
}

static float *window_for(size_t values) {
    return mem_alloc((values < WINDOW_VALUES ? values : WINDOW_VALUES) * sizeof(float));
}

void param_initialise(Params *p, size_t i, Backend *be, const VLMConfig *config, const char *init,
                      uint64_t seed) {
    float *window = window_for(tensor_count(p->items[i].w));
    initialise(p, i, be, config, init, seed, window);
    free(window);
}

void params_initialise(Params *p, Backend *be, const VLMConfig *config, const char *init, uint64_t seed) {
    float *window = window_for(WINDOW_VALUES);
    for (size_t i = 0; i < p->count; i++) initialise(p, i, be, config, init, seed, window);
    free(window);
}

void params_initialise_adapters(Params *p, Backend *be, const VLMConfig *config, uint64_t seed) {
    for (size_t i = 0; i < p->count; i++)
        if (param_is_adapter(&p->items[i])) param_initialise(p, i, be, config, "nanovlm", seed);
}
