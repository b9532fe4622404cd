// The learning rate over a run (nanoVLM, train.py: get_lr): linear warm-up over the first 3% of the steps,
// then a cosine down to a tenth.
#pragma once
#include <stdint.h>

// Learning rate of update `step` (from 0) in float64. The warm-up's length 0.03·max_steps is not rounded, so
// the last step of the warm-up can lie above max_lr, as in nanoVLM. Beyond max_steps it stays at a tenth.
double schedule_learning_rate(uint64_t step, double max_lr, uint64_t max_steps);
