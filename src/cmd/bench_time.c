#include "cmd/bench_time.h"

#include <time.h>

static double seconds_of(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

BenchTime bench_now(void) {
    return (BenchTime){seconds_of(CLOCK_PROCESS_CPUTIME_ID), seconds_of(CLOCK_MONOTONIC)};
}

BenchTime bench_since(BenchTime begin) {
    BenchTime now = bench_now();
    return (BenchTime){now.cpu - begin.cpu, now.wall - begin.wall};
}

void bench_add(BenchTime *sum, BenchTime begin) {
    BenchTime t = bench_since(begin);
    sum->cpu += t.cpu;
    sum->wall += t.wall;
}

double bench_rate(double count, double seconds) {
    return seconds > 0 ? count / seconds : 0;
}
