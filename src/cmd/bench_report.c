#include "cmd/bench_report.h"
#include "base/pyjson.h"
#include "cmd/bench_ceiling.h"
#include "ops/cpu/cpu.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

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

static ProfileScale scale_of(const StepReport *r) {
    return (ProfileScale){.steps = r->n_profiled,
                          .seconds = bench_seconds(r->profiled, r->be),
                          .gflops = r->ceiling_gflops,
                          .gbs = r->ceiling_gbs,
                          .by_wall = cpu_threads(r->be) > 1};
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
        "{s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:o}", "first", s->first,
        "step_min", s->least, "step_median", s->median, "step_cpu_min", s->least_cpu, "optimizer", s->update,
        "start_up", r->start_up, "loss", (double)r->times[r->n_times - 1].loss, "tokens_per_s",
        bench_rate((double)r->tokens, s->least), "gflop", r->flops * 1e-9, "gflops", rate, "ceiling_gflops",
        r->ceiling_gflops, "ceiling_share", bench_rate(rate, r->ceiling_gflops), "memory_gbs", r->ceiling_gbs,
        "peak_rss_mb", r->peak_rss_mb, "planned_rss_mb", r->planned_rss_mb, "operators",
        profile_json(&r->profile, scale_of(r)));
    json_object_update(o, more);
    json_decref(more);
    pyjson_print(stdout, o, -1);
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
    printf("memory     %.1f MiB at most, %.1f as planned; %.1f GB/s by a triad\n", r->peak_rss_mb,
           r->planned_rss_mb, r->ceiling_gbs);
    if (r->n_profiled == 0) return;
    printf("\n");
    profile_print(&r->profile, scale_of(r));
}
