#include "model/flops.h"

static double values_of(const Param *w) {
    return (double)tensor_count(w->w);
}

// The linear layer of w and its adapter over M rows; input: its gradient is wanted.
static double linear(const Param *w, double M, bool input) {
    const double adapter = w->lora_a ? values_of(w->lora_a) + values_of(w->lora_b) : 0;
    return 2 * M * (values_of(w) * (1 + input + w->trained) + adapter * (2 + input));
}

static bool trains_vision(const Params *p) {
    return params_trained(p, GROUP_VISION) + params_trained(p, GROUP_LORA_VISION) > 0;
}

static double vision_flops(const Params *p, const VLMConfig *c, double tiles) {
    const bool backward = trains_vision(p);
    const double N = (double)vlm_config_patches(c), M = tiles * N;
    const double attention = (4 + backward * 10) * (double)c->vit_hidden_dim * tiles * N * N;
    double total = linear(p->vision.patch_w, M, false) + (double)c->vit_n_blocks * attention;
    for (size_t i = 0; i < c->vit_n_blocks; i++) {
        const VisionBlockParams *b = &p->vision.blocks[i];
        total += linear(b->qkv_w, M, backward) + linear(b->out_w, M, backward) +
                 linear(b->fc1_w, M, backward) + linear(b->fc2_w, M, backward);
    }
    return total;
}

static double decoder_flops(const Params *p, const VLMConfig *c, double B, double T) {
    const double M = B * T, attention = (4 + 10) * (double)c->lm_hidden_dim * M * (T + 1) / 2;
    double total = (double)c->lm_n_blocks * attention;
    for (size_t i = 0; i < c->lm_n_blocks; i++) {
        const DecoderBlockParams *b = &p->decoder.blocks[i];
        const Param *const all[] = {b->gate, b->up, b->down, b->q, b->k, b->v, b->out};
        for (size_t k = 0; k < sizeof all / sizeof *all; k++) total += linear(all[k], M, true);
    }
    return total;
}

double vlm_step_flops(const Params *p, const VLMConfig *c, StepShape s) {
    const double vectors = (double)(s.I * c->mp_image_token_length);
    return vision_flops(p, c, (double)s.I) + linear(p->projector, vectors, trains_vision(p)) +
           decoder_flops(p, c, (double)s.B, (double)s.T) + linear(p->decoder.head, (double)s.n_targets, true);
}
