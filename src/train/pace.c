#include "train/pace.h"

#include <stdio.h>

static const double keep = 0.9; // of the sums, from one update to the next

void pace_micro_batch(Pace *p, double tokens, double waited, double worked) {
    p->pending_tokens += tokens;
    p->pending_waited += waited;
    p->pending_seconds += waited + worked;
}

void pace_update(Pace *p) {
    p->updates = keep * p->updates + 1;
    p->tokens = keep * p->tokens + p->pending_tokens;
    p->seconds = keep * p->seconds + p->pending_seconds;
    p->waited = keep * p->waited + p->pending_waited;
    p->pending_tokens = p->pending_seconds = p->pending_waited = 0;
}

double pace_tokens_per_second(const Pace *p) {
    return p->seconds > 0 ? p->tokens / p->seconds : 0;
}

double pace_waiting_share(const Pace *p) {
    return p->seconds > 0 ? p->waited / p->seconds : 0;
}

double pace_seconds_left(const Pace *p, uint64_t updates) {
    return p->updates > 0 ? (double)updates * p->seconds / p->updates : 0;
}

void pace_format_duration(char text[32], double seconds) {
    const unsigned long long s = seconds > 0 ? (unsigned long long)(seconds + 0.5) : 0;
    if (s < 60)
        snprintf(text, 32, "%llu s", s);
    else if (s < 3600)
        snprintf(text, 32, "%llu min %llu s", s / 60, s % 60);
    else if (s < 86400)
        snprintf(text, 32, "%llu h %llu min", s / 3600, s / 60 % 60);
    else
        snprintf(text, 32, "%llu d %llu h", s / 86400, s / 3600 % 24);
}
