// The peak of resident memory that training will take, worked out from the plans without getting any of it:
// tensors that a step touches count, addresses that are only reserved do not.
#pragma once
#include "model/vlm.h"
#include "train/optimizer.h"

typedef struct MemoryPlan {
    size_t program;     // the program itself as it stands, before a model is made
    size_t parameters;  // F32
    size_t copies;      // in BF16, for the products: of all weights, or of one at a time
    size_t gradients;   // of trained groups
    size_t moments;     // AdamW's
    size_t activations; // of the batch
    size_t batches;     // on the host: token ids, labels, masks and pixels of batches in preparation
    size_t checkpoint;  // what checkpoints are written from in the background
    size_t library;     // code and buffers that oneDNN and OpenMP take once they work: an estimate
} MemoryPlan;

// What a run takes beside the model.
typedef struct HostMemory {
    size_t n_batches;  // of the plan's size, on the host at a time
    size_t tile_bytes; // that a batch brings of each tile with cache_vision; 0: without
    OptimizerForm optimizer;
    bool checkpoint_copy; // only rank 0 has one
} HostMemory;

// Called before anything is allocated, so that `program` is what it says.
bool memory_plan(MemoryPlan *m, Backend *be, const VLMConfig *config, const VlmPlan *plan, HostMemory host,
                 Error *err);
size_t memory_plan_total(const MemoryPlan *m);
