// From the vision encoder's patches to vectors in the decoder's embedding space: pixel shuffle, one linear
// layer without bias (nanoVLM, models/modality_projector.py; Shi et al. 2016 for the shuffle).
#pragma once
#include "model/params.h"

typedef struct ModalityProjector {
    Backend *be;
    const VLMConfig *config;
    const Params *params;
    Tensor shuffled;  // [I, L, S*S*C], L = mp_image_token_length
    Tensor out;       // [I, L, C of the decoder]
    Tensor dshuffled; // like shuffled
    Tensor dpatches;  // [I, N, C]: gradient of the vision encoder's output
} ModalityProjector;

// config and params are borrowed; modality_projector_plan takes the memory.
void modality_projector_init(ModalityProjector *m, Backend *be, const VLMConfig *config,
                             const Params *params);
// gradients: room for what flows back to the vision encoder, in scratch as the encoder's
// (vision_encoder_plan).
void modality_projector_plan(ModalityProjector *m, Arena *arena, Arena *scratch, size_t I, bool gradients);
// Bytes of one tile of m->shuffled, when it is of this dtype.
size_t modality_projector_tile_bytes(const VLMConfig *config, Dtype act);
// x [n, N, C] of the tiles from number `first` on into m->shuffled.
void modality_projector_shuffle(ModalityProjector *m, size_t first, Tensor x);
// m->shuffled to m->out.
void modality_projector_forward(ModalityProjector *m);
// dout like out: accumulates the projector's gradient if it is trained; with to_vision also fills
// m->dpatches.
void modality_projector_backward(ModalityProjector *m, Tensor dout, bool to_vision);
