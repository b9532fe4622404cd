// `vlm bench data`: how fast rows become batches. First each stage by itself on this one thread, then all of
// it through the loader with its threads.
#include "base/log.h"
#include "base/pyjson.h"
#include "cmd/bench.h"
#include "cmd/data_stages.h"
#include "data/loader.h"

#include <stdio.h>

typedef struct Flags {
    size_t max_rows;
    Number seconds;
    bool stages, json;
} Flags;

#define FLAG(name, type, ...)                                                                                \
    { #name, type, offsetof(Flags, name), __VA_ARGS__ }
static const Field fields[] = {
    FLAG(max_rows, FIELD_SIZE, "0", 0, 1e15, NULL, "stop after so many rows; 0: one epoch"),
    FLAG(seconds, FIELD_NUMBER, "0", 0, 86400, NULL,
         "stop each of the two measurements after so long; 0: no limit"),
    FLAG(stages, FIELD_BOOL, "true", 0, 0, NULL, "measure the stages one by one too"),
    FLAG(json, FIELD_BOOL, "false", 0, 0, NULL, "print one JSON object"),
};
static const FieldTable table = {"Measuring", fields, sizeof fields / sizeof *fields};

// ---- the loader ----

typedef struct LoaderRun {
    BenchTime time;
    LoaderCounts counts;
    uint64_t tokens, trained, images, tiles; // tokens: those that are no padding
    double fill;                             // tokens / positions
} LoaderRun;

static void count_batch(LoaderRun *r, const Batch *batch) {
    for (size_t i = 0; i < batch->B * batch->T; i++) {
        r->tokens += batch->attention_mask[i] != 0;
        r->trained += batch->labels[i] != IGNORE_INDEX;
    }
    r->images += batch->n_images;
    r->tiles += batch->n_tiles;
}

static bool run_loader(LoaderRun *r, const DataSetup *s, BenchLimit limit, Error *err) {
    Loader *loader;
    const Batch *batch;
    const BenchTime begin = bench_now();
    *r = (LoaderRun){0};
    if (!loader_open(&loader, &s->config, s->tokenizer, LOADER_TRAIN, err)) return false;
    bool ok = true;
    while (ok && !bench_enough(limit, r->counts.rows, begin)) {
        ok = loader_next(loader, &batch, err);
        if (!ok || !batch) break;
        count_batch(r, batch);
        r->counts = loader_counts(loader);
        progress_update(10, "loader: batch %llu", (unsigned long long)r->counts.batches);
    }
    progress_end();
    r->counts = loader_counts(loader);
    loader_close(loader);
    r->time = bench_since(begin);
    const uint64_t positions = r->counts.batches * s->config.train.batch_size * s->config.vlm.lm_max_length;
    r->fill = positions ? (double)r->tokens / (double)positions : 0;
    return ok;
}

// ---- results ----

static json_t *rates_json(const Amounts *a, double seconds) {
    return json_pack("{s:f, s:f, s:f, s:f}", "rows", bench_rate((double)a->rows, seconds), "images",
                     bench_rate((double)a->images, seconds), "tokens", bench_rate((double)a->tokens, seconds),
                     "mb", bench_rate((double)a->bytes / 1e6, seconds));
}

static json_t *measured_json(const char *name, const Amounts *a, BenchTime t) {
    return json_pack("{s:s, s:f, s:f, s:o, s:o}", "name", name, "cpu_seconds", t.cpu, "wall_seconds", t.wall,
                     "per_cpu_second", rates_json(a, t.cpu), "per_second", rates_json(a, t.wall));
}

static json_t *amounts_json(const Amounts *a) {
    return json_pack("{s:I, s:I, s:I, s:I}", "rows", (json_int_t)a->rows, "images", (json_int_t)a->images,
                     "tokens", (json_int_t)a->tokens, "bytes", (json_int_t)a->bytes);
}

static json_t *stages_json(const Stages *s) {
    json_t *object = amounts_json(&s->amounts), *list = json_array();
    for (size_t i = 0; i < N_STAGES; i++)
        json_array_append_new(list, measured_json(stage_names[i], &s->amounts, s->times[i]));
    json_array_append_new(list, measured_json("all", &s->amounts, stages_total(s)));
    json_object_set_new(object, "unusable_rows", json_integer((json_int_t)s->unusable));
    json_object_set_new(object, "stages", list);
    return object;
}

// Bytes are not counted by the loader: its share of the stages' bytes is that of its rows.
static Amounts loader_amounts(const LoaderRun *r, const Stages *s) {
    Amounts a = {r->counts.rows, r->images, r->tokens, 0};
    if (s->amounts.rows) a.bytes = s->amounts.bytes * r->counts.rows / s->amounts.rows;
    return a;
}

static json_t *loader_json(const LoaderRun *r, const Stages *s, size_t workers) {
    const Amounts amounts = loader_amounts(r, s);
    json_t *object = amounts_json(&amounts), *measured = measured_json("loader", &amounts, r->time);
    json_object_update(object, measured);
    json_decref(measured);
    json_t *counts = json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:f}", "num_workers", (json_int_t)workers,
                               "batches", (json_int_t)r->counts.batches, "packs", (json_int_t)r->counts.packs,
                               "samples", (json_int_t)r->counts.samples, "tiles", (json_int_t)r->tiles,
                               "trained_tokens", (json_int_t)r->trained, "fill", r->fill);
    json_object_update(object, counts);
    json_decref(counts);
    return object;
}

static void print_line(const char *name, const Amounts *a, BenchTime t, double seconds) {
    printf("  %-14s %9.3f %9.3f %10.1f %10.1f %12.0f %9.2f\n", name, t.cpu, t.wall,
           bench_rate((double)a->rows, seconds), bench_rate((double)a->images, seconds),
           bench_rate((double)a->tokens, seconds), bench_rate((double)a->bytes / 1e6, seconds));
}

static void print_head(const char *what, const char *rates) {
    printf("%s\n  %-14s %9s %9s %10s %10s %12s %9s   (%s)\n", what, "", "cpu s", "wall s", "rows/s",
           "images/s", "tokens/s", "MB/s", rates);
}

static void print_stages(const Stages *s) {
    const Amounts *a = &s->amounts;
    printf("%llu rows, %llu pictures, %llu tokens, %.2f MB encoded; %llu rows gave no sample\n\n",
           (unsigned long long)a->rows, (unsigned long long)a->images, (unsigned long long)a->tokens,
           (double)a->bytes / 1e6, (unsigned long long)s->unusable);
    print_head("stages on one thread", "rates by processor time");
    for (size_t i = 0; i < N_STAGES; i++) print_line(stage_names[i], a, s->times[i], s->times[i].cpu);
    print_line("all", a, stages_total(s), stages_total(s).cpu);
    printf("\n");
}

static void print_loader(const LoaderRun *r, const Stages *s, size_t workers) {
    const Amounts a = loader_amounts(r, s);
    print_head("the loader", "rates by wall time");
    print_line("end to end", &a, r->time, r->time.wall);
    printf("  %zu threads; %llu batches, %llu sequences, %.2f%% full, %.1f%% of the tokens are trained on\n",
           workers, (unsigned long long)r->counts.batches, (unsigned long long)r->counts.packs, 100 * r->fill,
           100 * bench_rate((double)r->trained, (double)r->tokens));
}

static bool measure(DataSetup *setup, const void *flags, Error *err) {
    const Flags *f = flags;
    Stages s;
    LoaderRun run = {0};
    const size_t workers = setup->config.options.num_workers;
    const BenchLimit limit = {f->max_rows, f->seconds.value};
    stages_init(&s, setup);
    bool ok = (!f->stages || stages_run(&s, limit, err)) && run_loader(&run, setup, limit, err);
    if (ok && f->json) {
        json_t *object = json_object();
        if (f->stages) json_object_set_new(object, "one_thread", stages_json(&s));
        json_object_set_new(object, "loader", loader_json(&run, &s, workers));
        pyjson_print(stdout, object, -1);
    } else if (ok) {
        if (f->stages) print_stages(&s);
        print_loader(&run, &s, workers);
    }
    stages_free(&s);
    return ok;
}

int bench_data(int argc, char **argv) {
    Flags f;
    return data_command_run((FieldSet){&table, &f}, argc, argv, measure);
}
