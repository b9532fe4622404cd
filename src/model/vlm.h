// The whole model: vision encoder, projector, decoder, the splice of pictures into text and the loss
// (nanoVLM, models/vision_language_model.py).
#pragma once
#include "base/batch.h"
#include "model/language_model.h"
#include "model/modality_projector.h"
#include "model/vision_encoder.h"

// What memory is planned for.
typedef struct VlmPlan {
    size_t max_batch, max_positions, max_tiles; // B, T, I at most
    bool training;                              // keep activations and gradients
    bool trained[GROUP_TRAINED]; // of no meaning without training; adaptation narrows it, and adds its
                                 // adapters
    int32_t image_token_id;
    bool documents; // a sample attends to itself only, its positions from 0, in batches that have starts
    Dtype dtype;    // of the products and of what lies between operators: F32, or BF16 for mixed precision
    Recompute recompute;
    bool tile_features; // batches may bring features of tiles, if the vision encoder is not trained
    Adaptation adaptation;
    size_t max_targets; // positions of a batch that are trained on; 0: all may be
} VlmPlan;

// What `--dtype auto|bf16|f32` means on this backend; explain logs it where it isn't what one would expect.
Dtype vlm_dtype(const char *choice, const Backend *be);
void vlm_explain_dtype(const char *choice, const Backend *be);

typedef struct Vlm {
    Backend *be;
    const VLMConfig *config; // borrowed
    VlmPlan plan;
    Params params;
    // everything below; laid out anew for each batch's shape, within what the plan measured
    Arena activations, scratch; // scratch: what pictures and text use by turns
    VisionEncoder vision;
    ModalityProjector projector;
    LanguageModel decoder;
    // of the batch in work
    size_t B, T, I, n_targets;
    size_t n_encoded;             // of the I tiles; the others' features came with the batch
    const TileFeatures *features; // the batch's, or NULL
    const float *pixels;          // its tiles', until vlm_embed
    bool has_mask;
    Tensor input_ids, mask;      // [B*T], [B, T] I32
    Tensor image_rows;           // [I*L] I32: rows of the decoder's input that pictures fill
    Tensor target_rows, targets; // [n_targets] I32
    Tensor dvectors;             // [I*L, C] gradient of the projector's output
    Tensor hidden,
        logits; // [chunk, C], [chunk, V], of plan.dtype: the head runs over target positions in chunks
    Tensor losses, loss; // [n_targets], [1]
    int32_t *staging;    // host: image_rows, target_rows, targets
} Vlm;

// Checks the configuration, lays everything out and gets the memory; parameters are zero. config is borrowed.
bool vlm_create(Vlm *m, Backend *be, const VLMConfig *config, const VlmPlan *plan, Error *err);
// For generation alone: with its parameters in this form. The configuration of a decoder alone needs only the
// fields of the decoder.
bool vlm_create_form(Vlm *m, Backend *be, const VLMConfig *config, const VlmPlan *plan,
                     const ParamsForm *form, Error *err);
void vlm_free(Vlm *m);

size_t vlm_activation_bytes(const Vlm *m); // as planned

// Bytes the plan takes, without getting them; copies: of weights in BF16 (params_bf16_bytes).
typedef struct VlmMemory {
    size_t parameters, copies, gradients, activations, forgotten; // forgotten: those in Vlm.scratch
    size_t largest;                                               // parameter, in F32
} VlmMemory;
bool vlm_measure(VlmMemory *memory, Backend *be, const VLMConfig *config, const VlmPlan *plan, Error *err);

// Takes a batch in: checks it (token ids in the vocabulary, as many image tokens as tiles need), lays out the
// activations and uploads. batch->labels, attention_mask and starts may be NULL (no targets; no
// padding; a sequence is one sample).
bool vlm_set_batch(Vlm *m, const Batch *batch, Error *err);
// Whether the vision encoder changes. If not, batches may bring features of tiles, which are then not
// encoded.
bool vlm_trains_vision(const Vlm *m);
// Of a tile of the batch in work, to be brought back by a later batch with the same tile: the same bits.
// `bytes` holds modality_projector_tile_bytes.
void vlm_tile_features(const Vlm *m, size_t tile, void *bytes);
// Token embeddings with the pictures' vectors written over the image tokens, into the decoder's input.
void vlm_embed(Vlm *m);
// vlm_set_batch, vlm_embed, decoder and the mean cross-entropy over the batch's targets, left in m->loss (NaN
// without targets). dscale > 0: training; the gradient of dscale · loss by hidden states and head is taken in
// the same pass, for vlm_backward to go on from. dscale 0: validation.
bool vlm_forward(Vlm *m, const Batch *batch, float dscale, Error *err);
float vlm_loss(Vlm *m); // reads m->loss; waits for it
// Accumulates the gradients of all trained groups.
void vlm_backward(Vlm *m);
// logits [n, V] = head of rows `rows` [n] I32 of the decoder's output, using hidden [n, C] as scratch.
void vlm_head(Vlm *m, Tensor logits, Tensor hidden, Tensor rows);
