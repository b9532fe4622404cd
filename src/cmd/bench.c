// `vlm bench PART`: measures one part of the program by itself.
#include "cmd/bench.h"
#include "base/log.h"
#include "cmd/cmd.h"
#include "config/fields.h"

#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    int (*run)(int argc, char **argv); // argv[0] is "bench NAME"
    const char *summary;
} benches[] = {
    {"data", bench_data, "from files to batches, stage by stage and through the loader"},
    {"decode", bench_decode, "how fast tokens come, beside how fast the machine reads memory"},
    {"ops", bench_ops, "operators one by one: GFLOP/s of attention, GB/s of what moves memory"},
    {"pack", bench_pack, "how full sequences get for given lengths of samples, and how fast"},
    {"step", bench_step, "whole training steps on random data, beside what the machine gives at best"},
    {"text", bench_text, "how fast a tokenizer encodes and decodes the texts of a file"},
};
enum { N_BENCHES = sizeof benches / sizeof *benches };

static void print_list(void) {
    printf("usage: vlm bench PART [--flag VALUE ...]\n\n");
    for (size_t i = 0; i < N_BENCHES; i++) printf("  %-10s %s\n", benches[i].name, benches[i].summary);
    printf("\n`vlm bench PART --help` lists its flags.\n");
}

static int unknown_part(const char *name) {
    const char *names[N_BENCHES];
    for (size_t i = 0; i < N_BENCHES; i++) names[i] = benches[i].name;
    const char *near = nearest_name(name, names, N_BENCHES);
    if (near)
        log_error("vlm bench has no part \"%.100s\"; did you mean %s?", name, near);
    else
        log_error("vlm bench has no part \"%.100s\"; `vlm bench` lists all", name);
    return EXIT_USAGE;
}

int cmd_bench(int argc, char **argv) {
    if (argc < 2 || !strcmp(argv[1], "--help") || !strcmp(argv[1], "-h")) {
        print_list();
        return argc < 2 ? EXIT_USAGE : EXIT_DONE;
    }
    for (size_t i = 0; i < N_BENCHES; i++) {
        if (strcmp(benches[i].name, argv[1])) continue;
        char title[32];
        snprintf(title, sizeof title, "bench %s", argv[1]);
        argv[1] = title; // what help and messages call the command
        return benches[i].run(argc - 1, argv + 1);
    }
    return unknown_part(argv[1]);
}
