#include "train/spikes.h"

#include <math.h>
#include <stdbool.h>
#include <stddef.h>

// In two passes, so that large values with little spread lose nothing.
static bool describe(const SpikeWindow *w, double *mean, double *deviation) {
    const size_t n = w->count < SPIKE_WINDOW ? (size_t)w->count : SPIKE_WINDOW;
    double sum = 0, squares = 0;
    if (n < SPIKE_WARM_UP) return false;
    for (size_t i = 0; i < n; i++) sum += w->values[i];
    *mean = sum / (double)n;
    for (size_t i = 0; i < n; i++) squares += (w->values[i] - *mean) * (w->values[i] - *mean);
    *deviation = sqrt(squares / (double)n);
    return *deviation > 0;
}

double spike_score(const SpikeWindow *w, double value) {
    double mean, deviation;
    return describe(w, &mean, &deviation) ? (value - mean) / deviation : 0;
}

double spike_limit(const SpikeWindow *w, double score) {
    double mean, deviation;
    return describe(w, &mean, &deviation) ? mean + score * deviation : INFINITY;
}

void spike_add(SpikeWindow *w, double value) {
    if (isfinite(value)) w->values[w->count++ % SPIKE_WINDOW] = value;
}
