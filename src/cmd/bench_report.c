#include "cmd/bench_report.h"
#include "cmd/bench_ceiling.h"
#include "ops/cpu/cpu.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// ---- operators ----

// A row as it is printed.
typedef struct Line {
    double wall, cpu, share; // seconds a step, and of the whole time
    double rate, bound;      // GFLOP/s or GB/s
    const char *unit;
} Line;

static Line line_of(const ProfileRow *row, size_t steps, double seconds, double gflops, double gbs,
                    const Backend *be) {
    const double counted = bench_seconds((BenchTime){row->cpu, row->wall}, be), n = (double)steps;
    const bool memory = row->kind == WORK_MEMORY;
    return (Line){
        .wall = row->wall / n,
        .cpu = row->cpu / n,
        .share = bench_rate(counted, seconds),
        .rate = bench_rate((memory ? row->bytes : row->flops) * 1e-9, counted),
        .bound = memory ? gbs : gflops,
        .unit = memory ? "GB/s" : "GFLOP/s",
    };
}

void profile_print(Profile *p, size_t steps, double seconds, double gflops, double gbs, const Backend *be) {
    profile_sort(p);
    printf("%-24s %6s %10s %10s %6s %16s %8s\n", "operator", "calls", "wall ms", "cpu ms", "share", "rate",
           "of bound");
    for (size_t i = 0; i < p->count; i++) {
        const ProfileRow *row = &p->rows[i];
        const Line l = line_of(row, steps, seconds, gflops, gbs, be);
        printf("%-24s %6zu %10.3f %10.3f %5.1f%% %8.1f %-7s %7.0f%%\n", row->name, row->calls / steps,
               1e3 * l.wall, 1e3 * l.cpu, 100 * l.share, l.rate, l.unit, 100 * bench_rate(l.rate, l.bound));
    }
    const ProfileRow all = profile_total(p);
    const double rest = seconds - bench_seconds((BenchTime){all.cpu, all.wall}, be);
    printf("%-24s %6s %10.3f %10s %5.1f%%\n", "outside of operators", "", 1e3 * rest / (double)steps, "",
           100 * bench_rate(rest, seconds));
}

static json_t *operators_json(StepReport *r) {
    json_t *list = json_array();
    profile_sort(&r->profile);
    for (size_t i = 0; i < r->profile.count; i++) {
        const ProfileRow *row = &r->profile.rows[i];
        const Line l = line_of(row, r->n_profiled, bench_seconds(r->profiled, r->be), r->ceiling_gflops,
                               r->ceiling_gbs, r->be);
        const double n = (double)r->n_profiled;
        json_array_append_new(list, json_pack("{s:s, s:I, s:f, s:f, s:f, s:f, s:f, s:f, s:s, s:f, s:f}",
                                              "name", row->name, "calls",
                                              (json_int_t)(row->calls / r->n_profiled), "wall", l.wall, "cpu",
                                              l.cpu, "share", l.share, "gflop", row->flops * 1e-9 / n,
                                              "gbyte", row->bytes * 1e-9 / n, "rate", l.rate, "unit", l.unit,
                                              "bound", l.bound, "bound_share", bench_rate(l.rate, l.bound)));
    }
    return list;
}

// ---- the step ----

typedef struct Summary {
    double least, median, first, least_cpu, update, counted;
} Summary;

static int ascending(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static Summary summarise(const StepReport *r) {
    const size_t n = r->n_times - 1;
    double *walls = malloc(n * sizeof *walls);
    Summary s = {
        .first = r->times[0].step.wall, .least_cpu = INFINITY, .update = INFINITY, .counted = INFINITY};
    for (size_t i = 0; i < n; i++) {
        const StepTime *t = &r->times[i + 1];
        walls[i] = t->step.wall;
        s.least_cpu = fmin(s.least_cpu, t->step.cpu);
        s.update = fmin(s.update, t->update.wall);
        s.counted = fmin(s.counted, bench_seconds(t->step, r->be));
    }
    qsort(walls, n, sizeof *walls, ascending);
    s.least = walls[0];
    s.median = (walls[(n - 1) / 2] + walls[n / 2]) / 2;
    free(walls);
    return s;
}

static void print_json(StepReport *r, const Summary *s) {
    const double rate = bench_rate(r->flops * 1e-9, s->counted);
    json_t *o =
        json_pack("{s:s, s:s, s:s, s:i, s:I, s:I, s:I, s:I, s:I, s:I}", "preset", r->preset, "dtype",
                  r->dtype == DTYPE_BF16 ? "bf16" : "f32", "backend", r->be->detail, "threads",
                  cpu_threads(r->be), "params", (json_int_t)r->params, "trained", (json_int_t)r->trained,
                  "batch", (json_int_t)r->batch->B, "seq", (json_int_t)r->batch->T, "tiles",
                  (json_int_t)r->batch->n_tiles, "targets", (json_int_t)r->n_targets);
    json_t *more = json_pack(
        "{s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:I, s:I, s:o}", "first", s->first,
        "step_min", s->least, "step_median", s->median, "step_cpu_min", s->least_cpu, "optimizer", s->update,
        "start_up", r->start_up, "loss", (double)r->times[r->n_times - 1].loss, "tokens_per_s",
        bench_rate((double)r->tokens, s->least), "gflop", r->flops * 1e-9, "gflops", rate, "ceiling_gflops",
        r->ceiling_gflops, "ceiling_share", bench_rate(rate, r->ceiling_gflops), "memory_gbs", r->ceiling_gbs,
        "peak_rss_mb", (json_int_t)r->peak_rss_mb, "planned_rss_mb", (json_int_t)r->planned_rss_mb,
        "operators", operators_json(r));
    json_object_update(o, more);
    json_decref(more);
    bench_print_json(o);
}

void step_report_print(StepReport *r, bool json) {
    const Summary s = summarise(r);
    if (json) {
        print_json(r, &s);
        return;
    }
    const double rate = bench_rate(r->flops * 1e-9, s.counted);
    printf("%s, %s: %.1f million parameters, %.1f of them trained, %zu x %zu tokens, %zu tiles, %zu targets; "
           "%s\n",
           r->preset, r->dtype == DTYPE_BF16 ? "bf16" : "f32", 1e-6 * (double)r->params,
           1e-6 * (double)r->trained, r->batch->B, r->batch->T, r->batch->n_tiles, r->n_targets,
           r->be->detail);
    printf("step       %.4f s at least, %.4f s in the median, %.1f tokens/s; processor time %.4f s\n",
           s.least, s.median, bench_rate((double)r->tokens, s.least), s.least_cpu);
    printf("first step %.4f s, after %.2f s of starting up; of each step %.4f s for the update\n", s.first,
           r->start_up, s.update);
    printf("work       %.2f GFLOP, %.1f GFLOP/s, %.1f%% of the %.1f that products reach here\n",
           r->flops * 1e-9, rate, 100 * bench_rate(rate, r->ceiling_gflops), r->ceiling_gflops);
    printf("memory     %zu MiB at most, %zu as planned; %.1f GB/s by a triad\n", r->peak_rss_mb,
           r->planned_rss_mb, r->ceiling_gbs);
    if (r->n_profiled == 0) return;
    printf("\n");
    profile_print(&r->profile, r->n_profiled, bench_seconds(r->profiled, r->be), r->ceiling_gflops,
                  r->ceiling_gbs, r->be);
}
