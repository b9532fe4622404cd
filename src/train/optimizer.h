// AdamW over the parameter table (Loshchilov & Hutter 2017; torch.optim.AdamW with its defaults), with the
// global clipping of gradients before it. Frozen groups have neither moments nor a step.
#pragma once
#include "model/vlm.h"

#define ADAMW_BETA1        0.9
#define ADAMW_BETA2        0.999
#define ADAMW_EPS          1e-8
#define ADAMW_WEIGHT_DECAY 0.01

enum { HYPER_COUNT = 3 }; // values of adamw's `hyper` (tensor/ops.h)

typedef struct Optimizer {
    Backend *be;
    Params *params; // borrowed
    Dtype moments;  // F32, BF16, or U8: adamw's rows of codes
    Arena arena;    // everything below
    Tensor *m, *v;  // [params->count]: first and second moments; absent for frozen groups and buffers
    Tensor squares; // [trained parameters]: sums of squares of the gradients, one entry a parameter
    Tensor clip;    // [2]: norm before clipping, factor
    Tensor hyper[GROUP_TRAINED];
    float *staging;                // host: [GROUP_TRAINED, HYPER_COUNT], what is uploaded to hyper
    uint64_t steps[GROUP_TRAINED]; // updates of each group so far: t of the bias correction
} Optimizer;

// Lays the moments out over an arena that only measures (o->arena.used bytes) for the parameters that have a
// gradient; params is planned, perhaps not yet allocated.
void optimizer_plan(Optimizer *o, Backend *be, Params *params, Dtype moments);
Dtype optimizer_moments(const TrainOptions *options);        // --moments
size_t optimizer_moment_bytes(Dtype moments, size_t values); // of one moment of so many values
bool optimizer_allocate(Optimizer *o, Error *err); // zeroed moments; on failure optimizer_free is still due
void optimizer_free(Optimizer *o);
// Bytes the plan takes for a configuration, without getting anything. Fails for one that vlm_config_check
// refuses.
bool optimizer_measure(size_t *bytes, Backend *be, const VLMConfig *config, const VlmPlan *plan,
                       Dtype moments, Error *err);

// The L2 norm over the gradients of all trained groups and the factor that brings it down to max_norm (≤ 0:
// none); both stay on the device, the gradients as they are.
void optimizer_clip(Optimizer *o, float max_norm);
float optimizer_gradient_norm(Optimizer *o); // what optimizer_clip found, before clipping; waits for it
// One AdamW step with the clipped gradients, group by group, after which these are 0. A group that has not
// `received` any gradient since the last step is left alone altogether, as PyTorch skips parameters whose
// gradient is None.
void optimizer_update(Optimizer *o, const double lr[GROUP_TRAINED], const bool received[GROUP_TRAINED]);
