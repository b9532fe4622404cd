#include "train/schedule.h"

#include <math.h>

double schedule_learning_rate(uint64_t step, double max_lr, uint64_t max_steps) {
    const double min_lr = max_lr * 0.1, it = (double)step, steps = (double)max_steps;
    const double warm_up = steps * 0.03;
    if (it < warm_up) return max_lr * (it + 1) / warm_up;
    if (it > steps) return min_lr;
    const double progress = (it - warm_up) / (steps - warm_up);
    return min_lr + 0.5 * (1.0 + cos(M_PI * progress)) * (max_lr - min_lr);
}
