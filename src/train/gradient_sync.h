// Data parallelism: the mean of the gradients over the ranks, in buckets that are on their way while the
// backward still computes the next ones (as PyTorch's DistributedDataParallel, Li et al. 2020). The buckets
// and their order follow from the parameter table alone, so the ranks agree on them whatever their batches
// hold. Gradients must lie in memory of the host.
#pragma once
#include "dist/comm.h"
#include "model/params.h"

enum { GRADIENT_BUCKET_BYTES = 8 << 20 };

typedef struct GradientBucket {
    float *x;
    size_t n;
    size_t last; // place, in the order of the backward, of its last parameter
} GradientBucket;

typedef struct GradientSync {
    Comm *comm; // borrowed; NULL: one process, and nothing below
    Params *params;
    size_t *place; // [params->count]: when the backward is through with this parameter
    GradientBucket *buckets;
    size_t n_buckets, started;
    float factor; // 1 / ranks
} GradientSync;

// Buckets of bucket_bytes or one parameter more. Fails when the ranks' weights differ.
bool gradient_sync_open(GradientSync *s, Comm *comm, Params *params, size_t bucket_bytes, Error *err);
void gradient_sync_close(GradientSync *s);
// Around the backward of an update's last micro-batch. The end waits for all buckets; a group then counts as
// received when it did on any rank.
void gradient_sync_begin(GradientSync *s);
bool gradient_sync_end(GradientSync *s, bool received[GROUP_TRAINED], Error *err);
