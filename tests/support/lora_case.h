// A small model, with adapters or parts that are frozen, and a packed batch with one tile a sequence.
#pragma once
#include "model/vlm.h"
#include "support/random_batch.h"

typedef struct LoraKind {
    size_t rank;
    bool guard;
    Dtype dtype;
    Recompute recompute;
    const char *targets, *freeze, *train_only, *base;
    size_t blocks; // of both parts; 0: one of the vision encoder, two of the decoder
} LoraKind;

typedef struct LoraCase {
    Config config;
    Backend *be;
    Vlm model;
    Batch batch;
} LoraCase;

bool lora_try_open(LoraCase *c, const LoraKind *k, Error *err); // to be closed in either case
void lora_open(LoraCase *c, const LoraKind *k);
void lora_close(LoraCase *c);

float *lora_values(LoraCase *c, Tensor t); // caller frees
void lora_set_values(LoraCase *c, const Param *p, const float *x);
// Random values in all adapters: B begins at 0, so that they would do nothing.
void lora_randomise(LoraCase *c);
float lora_loss(LoraCase *c, float dscale); // of a forward over the batch
