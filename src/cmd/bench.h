// The parts of `vlm bench`: one file each, one line each in the table of cmd/bench.c.
#pragma once
#include <jansson.h>
#include <stddef.h>

int bench_data(int argc, char **argv);
int bench_decode(int argc, char **argv);
int bench_ops(int argc, char **argv);
int bench_pack(int argc, char **argv);
int bench_step(int argc, char **argv);
int bench_text(int argc, char **argv);

// Processor time of the whole process and wall time, in seconds; durations are differences of two of them.
typedef struct BenchTime {
    double cpu, wall;
} BenchTime;
BenchTime bench_now(void);
BenchTime bench_since(BenchTime begin);
void bench_add(BenchTime *sum, BenchTime begin); // *sum += now - begin

double bench_rate(double count, double seconds); // count / seconds; 0 when no time was measured
