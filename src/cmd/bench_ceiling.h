// What this machine gives at best, measured beside what is judged by it: matrix products and memory.
#pragma once
#include "cmd/bench_time.h"
#include "config/config.h"
#include "tensor/backend.h"

// The seconds by which work is judged: processor time of one thread, which others' work does not lengthen;
// with several threads wall time, because processor time says nothing about how well they share.
double bench_seconds(BenchTime t, const Backend *be);

typedef struct ModelRows {
    size_t positions, patches; // rows that the decoder and the vision encoder multiply at once; 0: not
} ModelRows;
// The highest rate over products y = x wᵀ at the sizes of a model's feed-forward layers, forward, its largest
// products, and one square, in GFLOP/s, each repeated for `seconds`. dtype is that of the factors; BF16
// products are of F32 where the backend has no others.
double ceiling_of_model(const Backend *be, Dtype dtype, const VLMConfig *c, ModelRows rows, double seconds);
// a = b + 3 c over arrays that no cache holds (McCalpin's STREAM triad), in GB/s.
double ceiling_memory(const Backend *be, double seconds);
