// The arithmetic of training: micro-batches that add up gradients, and the update that uses them (nanoVLM,
// train.py). It knows nothing of files, clocks or epochs; train/run.h adds those.
#pragma once
#include "model/vlm.h"
#include "train/gradient_sync.h"
#include "train/optimizer.h"

typedef struct Trainer {
    Vlm *model;                // borrowed
    const TrainConfig *config; // borrowed
    Optimizer optimizer;
    size_t accumulated;              // micro-batches in the gradients
    bool received[GROUP_TRAINED];    // groups that these micro-batches gave a gradient
    bool is_spoiled;                 // these micro-batches are not worth an update: the next one is skipped
    float norm_limit;                // a gradient above it is not either; 0: none
    bool is_torn;                    // the ranks could not spread an update: the weights are of no step
    size_t most_tiles, most_targets; // of a batch, of all it was given
    bool skipped;                    // the last update was: weights and moments are as before
    uint64_t updates;                // updates done; number n is step n - 1 of logs and checkpoints
    // of the last update
    double lr[GROUP_TRAINED]; // 0 for frozen groups
    float grad_norm;          // before clipping
    GradientSync sync;        // with the other ranks, after trainer_join
} Trainer;

// What a run trains: groups with a learning rate above 0 (the others are frozen and have no gradients), and
// what adapters and patterns of --freeze make of them. Beneath adapters, vision encoder and language model
// are frozen whatever their learning rates unless lora_base is trained. Texts are borrowed.
void trainer_plan(VlmPlan *plan, const Config *config);

// Gets the optimizer's memory, for moments of this form. model was created for training by trainer_plan. A
// form for several ranks needs trainer_join before the first update.
bool trainer_create(Trainer *t, Vlm *model, const TrainConfig *config, OptimizerForm form, Error *err);
void trainer_free(Trainer *t);
// From now on the last micro-batch of an update averages the gradients over the ranks while its backward
// runs. comm is borrowed (NULL: one process). Fails when the ranks do not have the same weights. After a
// failure of comm, trainer_micro_step fails too.
bool trainer_join(Trainer *t, Comm *comm, size_t bucket_bytes, Error *err);

// Forward and backward of one micro-batch; adds the gradient of loss / gradient_accumulation_steps. *loss is
// the mean over the batch's targets, NaN when it has none.
bool trainer_micro_step(Trainer *t, const Batch *batch, float *loss, Error *err);
// Clips, sets the learning rates, steps and zeroes the gradients. When the norm is not finite or above the
// limit, or the micro-batches are spoiled, there is no step, but the update counts. With shared moments the
// ranks spread their parts of the weights; if that fails the weights are torn, and the next call to comm says
// why.
void trainer_update(Trainer *t);
// Forgets the micro-batches since the last update (nanoVLM: an incomplete accumulation at an epoch's end).
void trainer_drop_accumulation(Trainer *t);
// The loss of one batch without gradients.
bool trainer_evaluate(Trainer *t, const Batch *batch, float *loss, Error *err);
