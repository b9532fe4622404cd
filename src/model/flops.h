// How many floating-point operations a training step is, from sizes and what is trained of them. What counts
// is what the formulas of the model need, a multiply-add as two: linear layers 2 M K O forward, and backward
// as much for the gradient of their input, which goes through to the first layer (but for the patch
// embedding: nobody asks for the gradient of pixels), and for that of a weight that is trained; adapters all
// three. The vision encoder has no backward when nothing in it is trained. The head counts at target
// positions only, and attention 2 products of D a pair of query and key forward, 5 backward, where a query
// sees itself and what comes before it. Norms, activations, softmax and the optimizer are not counted, nor
// what is made again.
#pragma once
#include "model/params.h"

typedef struct StepShape {
    size_t B, T, I, n_targets; // sequences, positions, tiles of the batch, positions that are trained on
} StepShape;

// Forward and backward; p: of the configuration, planned or allocated. Each sequence is one sample.
double vlm_step_flops(const Params *p, const VLMConfig *c, StepShape s);
