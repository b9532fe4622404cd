// What `vlm bench step` says: the step's times, its share of what the machine gives, and the operators.
#pragma once
#include "base/batch.h"
#include "cmd/bench_time.h"
#include "cmd/profile_table.h"

typedef struct StepTime {
    BenchTime step, update; // update: clipping, AdamW and the gradients' zeroing
    float loss;
} StepTime;

typedef struct StepReport {
    const char *preset;
    const Backend *be;
    Dtype dtype;
    const Batch *batch;
    size_t params, trained, tokens, n_targets; // trained: of the parameters
    double flops;                              // of a step
    double start_up;                           // seconds from the process's start to the first step
    StepTime *times;                           // [n_times]; the first step stands apart
    size_t n_times;
    double peak_rss_mb, planned_rss_mb; // as measured, and as `vlm memory` works it out
    double ceiling_gflops, ceiling_gbs;
    Profile profile; // of n_profiled further steps
    size_t n_profiled;
    BenchTime profiled; // they took so long
} StepReport;

void step_report_print(StepReport *r, bool json);
