// How fast a run goes, for its progress line: averages that forget updates older than about ten.
#pragma once
#include <stddef.h>
#include <stdint.h>

typedef struct Pace {
    double updates, tokens, seconds, waited; // decayed sums; seconds include waited
    double pending_tokens, pending_seconds, pending_waited;
} Pace; // all zero: nothing yet

void pace_micro_batch(Pace *p, double tokens, double waited,
                      double worked); // seconds for data, seconds of work
void pace_update(Pace *p);            // closes an update step
double pace_tokens_per_second(const Pace *p);
double pace_waiting_share(const Pace *p);                  // of the time, 0 … 1
double pace_seconds_left(const Pace *p, uint64_t updates); // for that many more updates
void pace_format_duration(char text[32], double seconds);  // "42 s", "3 min 20 s", "5 h 7 min", "2 d 3 h"
