// The parts of `vlm bench`: one file each, one line each in the table of cmd/bench.c.
#pragma once

int bench_data(int argc, char **argv);
int bench_decode(int argc, char **argv);
int bench_ops(int argc, char **argv);
int bench_pack(int argc, char **argv);
int bench_step(int argc, char **argv);
int bench_text(int argc, char **argv);
