// AdamW over the parameter table (Loshchilov & Hutter 2017; torch.optim.AdamW with its defaults), with the
// global clipping of gradients before it. Frozen groups have neither moments nor a step.
#pragma once
#include "model/vlm.h"

#define ADAMW_BETA1        0.9
#define ADAMW_BETA2        0.999
#define ADAMW_EPS          1e-8
#define ADAMW_WEIGHT_DECAY 0.01

enum { HYPER_COUNT = 3 }; // values of adamw's `hyper` (tensor/ops.h)

// How moments are kept, and whose: with several ranks each has those of its share of the trained values, and
// updates that share alone (Rajbhandari et al. 2020, ZeRO, stage 1).
typedef struct OptimizerForm {
    Dtype moments;      // F32, BF16, or U8: adamw's rows of codes
    size_t rank, ranks; // ranks 0 or 1: all of it
} OptimizerForm;

typedef struct Optimizer {
    Backend *be;
    Params *params; // borrowed
    OptimizerForm form;
    size_t *offsets;               // [params->count + 1]: trained values before this parameter
    size_t *begins[GROUP_TRAINED]; // scratch of train/moment_shares.c: [ranks + 1]
    Arena arena;                   // everything below
    // [params->count]: first and second moments of this rank's slice; absent for frozen groups and buffers,
    // and where the slice is empty
    Tensor *m, *v;
    Tensor squares; // [trained parameters]: sums of squares of the gradients, one entry a parameter
    Tensor clip;    // [2]: norm before clipping, factor
    Tensor hyper[GROUP_TRAINED];
    float *staging;                // host: [GROUP_TRAINED, HYPER_COUNT], what is uploaded to hyper
    uint64_t steps[GROUP_TRAINED]; // updates of each group so far: t of the bias correction
} Optimizer;

// Lays the moments out over an arena that only measures (o->arena.used bytes) for the parameters that have a
// gradient; params is planned, perhaps not yet allocated.
void optimizer_plan(Optimizer *o, Backend *be, Params *params, OptimizerForm form);
Dtype optimizer_moments(const TrainOptions *options);        // --moments
size_t optimizer_moment_bytes(Dtype moments, size_t values); // of one moment of so many values
// --moments and --zero, as this rank of so many has them.
OptimizerForm optimizer_form(const TrainOptions *options, size_t rank, size_t ranks);
bool optimizer_allocate(Optimizer *o, Error *err); // zeroed moments; on failure optimizer_free is still due
void optimizer_free(Optimizer *o);
// Bytes the plan takes for a configuration, without getting anything. Fails for one that vlm_config_check
// refuses.
bool optimizer_measure(size_t *bytes, Backend *be, const VLMConfig *config, const VlmPlan *plan,
                       OptimizerForm form, Error *err);

// The L2 norm over the gradients of all trained groups and the factor that brings it down to max_norm (≤ 0:
// none); both stay on the device, the gradients as they are.
void optimizer_clip(Optimizer *o, float max_norm);
float optimizer_gradient_norm(Optimizer *o); // what optimizer_clip found, before clipping; waits for it
// One AdamW step with the clipped gradients, group by group, after which these are 0. A group that has not
// `received` any gradient since the last step is left alone altogether, as PyTorch skips parameters whose
// gradient is None.
void optimizer_update(Optimizer *o, const double lr[GROUP_TRAINED], const bool received[GROUP_TRAINED]);

// Values [first, first + n) of a parameter.
typedef struct Slice {
    size_t first, n;
} Slice;
bool optimizer_is_shared(const Optimizer *o); // several ranks have a share each
// What of parameter i a rank updates; nothing of one that is not trained. The slices of all ranks follow one
// another. They begin at multiples of 64 values; with moments not in F32, whose rounding goes by the place in
// the tensor, a parameter is not divided at all: so every share has the bits that one process would have.
Slice optimizer_slice(const Optimizer *o, size_t rank, size_t i);
