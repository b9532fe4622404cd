#include "model/flops.h"

// A linear layer from K to O values over M rows.
static double linear(double M, double K, double O) {
    return 2 * M * K * O;
}

static double vision_flops(const VLMConfig *c, double tiles) {
    const double N = (double)vlm_config_patches(c), C = (double)c->vit_hidden_dim, M = tiles * N,
                 p = (double)c->vit_patch_size;
    const double block = linear(M, C, 3 * C) + linear(M, C, C) + 2 * linear(M, C, (double)c->vit_inter_dim);
    const double attention = (4 + 10) * C * tiles * N * N;
    return 2 * linear(M, 3 * p * p, C) + (double)c->vit_n_blocks * (3 * block + attention);
}

static double projector_flops(const VLMConfig *c, double tiles) {
    const double S = (double)c->mp_pixel_shuffle_factor;
    return 3 * linear(tiles * (double)c->mp_image_token_length, S * S * (double)c->vit_hidden_dim,
                      (double)c->lm_hidden_dim);
}

static double decoder_flops(const VLMConfig *c, double B, double T) {
    const double M = B * T, C = (double)c->lm_hidden_dim,
                 keys = (double)(c->lm_n_kv_heads * vlm_config_head_dim(c));
    const double block =
        2 * linear(M, C, C) + 2 * linear(M, C, keys) + 3 * linear(M, C, (double)c->lm_inter_dim);
    const double attention = (4 + 10) * C * B * T * (T + 1) / 2;
    return (double)c->lm_n_blocks * (3 * block + attention);
}

double vlm_step_flops(const VLMConfig *c, StepShape s) {
    const double head = 3 * linear((double)s.n_targets, (double)c->lm_hidden_dim, (double)c->lm_vocab_size);
    return vision_flops(c, (double)s.I) + projector_flops(c, (double)s.I) +
           decoder_flops(c, (double)s.B, (double)s.T) + head;
}
