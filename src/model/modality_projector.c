#include "model/modality_projector.h"

void modality_projector_init(ModalityProjector *m, Backend *be, const VLMConfig *config,
                             const Params *params) {
    *m = (ModalityProjector){.be = be, .config = config, .params = params};
}

void modality_projector_plan(ModalityProjector *m, Arena *a, Arena *scratch, size_t I, bool gradients) {
    const VLMConfig *c = m->config;
    size_t L = c->mp_image_token_length, S = c->mp_pixel_shuffle_factor, wide = S * S * c->vit_hidden_dim;
    const Dtype act = m->params->act;
    m->shuffled = arena_take(a, act, SHAPE(I, L, wide));
    m->out = arena_take(a, act, SHAPE(I, L, c->lm_hidden_dim));
    if (!gradients) return;
    m->dshuffled = arena_take(scratch, act, SHAPE(I, L, wide));
    m->dpatches = arena_take(scratch, act, SHAPE(I, L * S * S, c->vit_hidden_dim));
}

size_t modality_projector_tile_bytes(const VLMConfig *c, Dtype act) {
    const size_t S = c->mp_pixel_shuffle_factor;
    return c->mp_image_token_length * S * S * c->vit_hidden_dim * dtype_size(act);
}

void modality_projector_shuffle(ModalityProjector *m, size_t first, Tensor x) {
    pixel_shuffle_forward(m->be, tensor_slice(m->shuffled, first, x.shape[0]), x,
                          m->config->mp_pixel_shuffle_factor);
}

void modality_projector_forward(ModalityProjector *m) {
    linear_forward(m->be, m->out, m->shuffled, m->params->projector->product, TENSOR_NONE);
}

void modality_projector_backward(ModalityProjector *m, Tensor dout, bool to_vision) {
    const Param *w = m->params->projector;
    if (tensor_exists(w->d)) linear_backward_weight(m->be, w->d, TENSOR_NONE, dout, m->shuffled);
    if (!to_vision) return;
    linear_backward_input(m->be, m->dshuffled, dout, w->product, false);
    pixel_shuffle_backward(m->be, m->dpatches, m->dshuffled, m->config->mp_pixel_shuffle_factor);
}
