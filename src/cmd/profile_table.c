#include "cmd/profile_table.h"
#include "cmd/bench_time.h"

#include <stdio.h>

// A row as it is printed.
typedef struct Line {
    double wall, cpu, share; // seconds a step, and of the whole time
    double rate, bound;      // GFLOP/s or GB/s
    const char *unit;
} Line;

static double counted(const ProfileRow *row, ProfileScale s) {
    return s.by_wall ? row->wall : row->cpu;
}

static Line line_of(const ProfileRow *row, ProfileScale s) {
    const bool memory = row->kind == WORK_MEMORY;
    return (Line){
        .wall = row->wall / (double)s.steps,
        .cpu = row->cpu / (double)s.steps,
        .share = bench_rate(counted(row, s), s.seconds),
        .rate = bench_rate((memory ? row->bytes : row->flops) * 1e-9, counted(row, s)),
        .bound = memory ? s.gbs : s.gflops,
        .unit = memory ? "GB/s" : "GFLOP/s",
    };
}

void profile_print(Profile *p, ProfileScale s) {
    profile_sort(p);
    printf("%-24s %6s %10s %10s %6s %16s %8s\n", "operator", "calls", "wall ms", "cpu ms", "share", "rate",
           "of bound");
    for (size_t i = 0; i < p->count; i++) {
        const ProfileRow *row = &p->rows[i];
        const Line l = line_of(row, s);
        printf("%-24s %6zu %10.3f %10.3f %5.1f%% %8.1f %-7s %7.0f%%\n", row->name, row->calls / s.steps,
               1e3 * l.wall, 1e3 * l.cpu, 100 * l.share, l.rate, l.unit, 100 * bench_rate(l.rate, l.bound));
    }
    const ProfileRow all = profile_total(p);
    const double rest = s.seconds - counted(&all, s);
    printf("%-24s %6s %10.3f %10s %5.1f%%\n", "outside of operators", "", 1e3 * rest / (double)s.steps, "",
           100 * bench_rate(rest, s.seconds));
}

json_t *profile_json(Profile *p, ProfileScale s) {
    json_t *list = json_array();
    profile_sort(p);
    for (size_t i = 0; i < p->count; i++) {
        const ProfileRow *row = &p->rows[i];
        const Line l = line_of(row, s);
        const double n = (double)s.steps;
        json_array_append_new(list, json_pack("{s:s, s:I, s:f, s:f, s:f, s:f, s:f, s:f, s:s, s:f, s:f}",
                                              "name", row->name, "calls", (json_int_t)(row->calls / s.steps),
                                              "wall", l.wall, "cpu", l.cpu, "share", l.share, "gflop",
                                              row->flops * 1e-9 / n, "gbyte", row->bytes * 1e-9 / n, "rate",
                                              l.rate, "unit", l.unit, "bound", l.bound, "bound_share",
                                              bench_rate(l.rate, l.bound)));
    }
    return list;
}
