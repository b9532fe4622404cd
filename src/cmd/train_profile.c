#include "cmd/train_profile.h"
#include "base/file.h"
#include "cmd/bench_ceiling.h"
#include "cmd/profile_table.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void print_part(const char *name, double seconds, double whole) {
    printf("%-32s %10.3f %5.1f%%\n", name, seconds, 100 * bench_rate(seconds, whole));
}

static double rest_of(const RunProfile *p) {
    double rest = p->whole;
    for (int i = 0; i < RUN_PARTS; i++) rest -= p->seconds[i];
    return rest;
}

static void print_parts(const RunProfile *p, double waited) {
    printf("%-32s %10s %6s\n", "part of the run", "seconds", "share");
    for (int i = 0; i < RUN_PARTS; i++) print_part(run_part_names[i], p->seconds[i], p->whole);
    print_part("the rest", rest_of(p), p->whole);
    print_part("all", p->whole, p->whole);
    if (waited > 0) print_part("of it waiting for other ranks", waited, p->whole);
}

static json_t *parts_json(const RunProfile *p, double waited) {
    json_t *parts = json_object();
    for (int i = 0; i < RUN_PARTS; i++)
        json_object_set_new(parts, run_part_names[i], json_real(p->seconds[i]));
    json_object_set_new(parts, "the rest", json_real(rest_of(p)));
    json_object_set_new(parts, "all", json_real(p->whole));
    json_object_set_new(parts, "waiting for other ranks", json_real(waited));
    return parts;
}

// Sizes of a step's own products; a batch is taken to have the tiles of the mean one.
static ProfileScale scale_of(const RunProfile *p, const Config *c, const Vlm *m) {
    const double seconds = 0.2;
    const ModelRows rows = {c->train.batch_size * c->vlm.lm_max_length,
                            p->tiles / p->batches * vlm_config_patches(&c->vlm)};
    return (ProfileScale){.steps = p->batches,
                          .seconds = p->seconds[PART_STEP] + p->seconds[PART_UPDATE],
                          .gflops = ceiling_of_model(m->be, m->plan.dtype, &c->vlm, rows, seconds),
                          .gbs = ceiling_memory(m->be, seconds),
                          .by_wall = true};
}

static bool write_json(const char *folder, json_t *object, Error *err) {
    char *path = path_join(folder, "profile.json"), *text = json_dumps(object, JSON_INDENT(2));
    const bool ok = file_write_text(path, text, strlen(text), err);
    free(text);
    free(path);
    json_decref(object);
    return ok;
}

bool train_profile_report(RunProfile *p, const Config *c, const Vlm *m, const Comm *comm, const char *folder,
                          Error *err) {
    const double waited = comm ? comm_costs((Comm *)comm).waited : 0;
    if (p->batches == 0) return true; // nothing was trained
    const ProfileScale scale = scale_of(p, c, m);
    print_parts(p, waited);
    printf("\nof a batch's forward and backward, and its share of the update; %zu batches, %.1f GFLOP/s and "
           "%.1f GB/s at best\n",
           p->batches, scale.gflops, scale.gbs);
    profile_print(&p->operators, scale);
    json_t *object =
        json_pack("{s:I, s:I, s:f, s:f, s:o, s:o}", "batches", (json_int_t)p->batches, "updates",
                  (json_int_t)p->updates, "ceiling_gflops", scale.gflops, "memory_gbs", scale.gbs, "seconds",
                  parts_json(p, waited), "operators", profile_json(&p->operators, scale));
    return write_json(folder, object, err);
}
