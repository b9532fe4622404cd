// The clocks that measurements go by.
#pragma once

// Processor time of the whole process and wall time, in seconds; durations are differences of two of them.
typedef struct BenchTime {
    double cpu, wall;
} BenchTime;
BenchTime bench_now(void);
BenchTime bench_since(BenchTime begin);
void bench_add(BenchTime *sum, BenchTime begin); // *sum += now - begin

double bench_rate(double count, double seconds); // count / seconds; 0 when no time was measured
