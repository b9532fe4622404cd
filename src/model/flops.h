// How many floating-point operations a training step is, from sizes alone. What counts is what the formulas
// of the model need, a multiply-add as two: linear layers 2 M K O forward and twice that backward (the patch
// embedding once: nobody asks for the gradient of pixels), the head at target positions only, and attention 2
// products of D a pair of query and key forward, 5 backward, where a query sees itself and what comes before
// it. Norms, activations, softmax and the optimizer are not counted.
#pragma once
#include "config/config.h"

typedef struct StepShape {
    size_t B, T, I, n_targets; // sequences, positions, tiles of the batch, positions that are trained on
} StepShape;

// Forward and backward with everything trained; each sequence is one sample.
double vlm_step_flops(const VLMConfig *c, StepShape s);
