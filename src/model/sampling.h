// From logits to the next token (nanoVLM, models/utils.py top_k_top_p_filtering, and generate).
#pragma once
#include "base/random.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct Sampler {
    size_t V;
    float *probs;    // [V]
    uint32_t *order; // [V]: indices by falling logit, scratch
} Sampler;

void sampler_init(Sampler *s, size_t V);
void sampler_free(Sampler *s);
// The filter and the softmax, into s->probs: keep the logits ≥ the top_k-th (ties stay; 0 or ≥ V: all); if
// top_p < 1, of those by falling logit the ones whose cumulative softmax, their own share included, is ≤
// top_p, and always the first; then softmax(logits / temperature). The temperature does not enter the filter.
// temperature > 0.
void sampler_filter(Sampler *s, const float *logits, size_t top_k, double top_p, double temperature);
int32_t sampler_draw(Sampler *s, Random *r);   // a token by s->probs
int32_t argmax(const float *logits, size_t V); // the first of the greatest
