// Values that stand out from those before them: how many standard deviations above the mean of a window.
#pragma once
#include <stdint.h>

enum { SPIKE_WINDOW = 128, SPIKE_WARM_UP = 32 };

typedef struct SpikeWindow {
    double values[SPIKE_WINDOW]; // the last ones, value number n at n % SPIKE_WINDOW
    uint64_t count;              // seen so far
} SpikeWindow;                   // all zero: empty

// Of a value that is not in the window yet; 0 while fewer than SPIKE_WARM_UP values are known or all are
// equal.
double spike_score(const SpikeWindow *w, double value);
double spike_limit(const SpikeWindow *w,
                   double score);             // the value with that score; INFINITY when there is none
void spike_add(SpikeWindow *w, double value); // one that is not finite is left out
