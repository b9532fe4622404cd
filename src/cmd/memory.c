// `vlm memory`: the peak of resident memory that training with a configuration takes, worked out from the
// plans without getting any of it.
#include "base/log.h"
#include "cmd/bench.h"
#include "cmd/cmd.h"
#include "data/loader.h"
#include "ops/cpu/cpu.h"
#include "train/memory_plan.h"
#include "train/trainer.h"

#include <stdio.h>

typedef struct Flags {
    size_t tiles, ranks;
    Number targets;
    bool json;
} Flags;

#define FLAG(name, type, ...)                                                                                \
    { #name, type, offsetof(Flags, name), __VA_ARGS__ }
static const Field fields[] = {
    FLAG(tiles, FIELD_SIZE, "0", 0, 1e6, NULL,
         "tiles of a sequence; 0: as many as a batch may hold, of which few ever do"),
    FLAG(targets, FIELD_NUMBER, "1", 0, 1, NULL, "share of the positions that is trained on"),
    FLAG(ranks, FIELD_SIZE, "1", 1, 65536, NULL, "ranks of the run, which --zero 1 shares the moments among"),
    FLAG(json, FIELD_BOOL, "false", 0, 0, NULL, "print one JSON object, in MiB"),
};
static const FieldTable table = {"Batches", fields, sizeof fields / sizeof *fields};

static double mib(size_t bytes) {
    return (double)bytes / 1048576.0;
}

static VlmPlan plan_of(const Config *c, const Flags *f, const Backend *be) {
    VlmPlan plan = {.max_batch = c->train.batch_size,
                    .max_positions = c->vlm.lm_max_length,
                    .max_tiles = f->tiles ? c->train.batch_size * f->tiles : loader_max_tiles(c),
                    .training = true,
                    .documents = train_options_documents(&c->options),
                    .dtype = vlm_dtype(c->options.dtype, be),
                    .recompute = recompute_from(c->options.recompute),
                    .tile_features = c->options.cache_vision != NULL};
    trainer_plan(&plan, c);
    plan.max_targets = plan.max_batch * (size_t)((double)plan.max_positions * f->targets.value);
    if (plan.max_targets == 0) plan.max_targets = 1;
    return plan;
}

static const struct {
    const char *key, *what;
    size_t offset;
} rows[] = {
    {"program", "program", offsetof(MemoryPlan, program)},
    {"parameters", "parameters", offsetof(MemoryPlan, parameters)},
    {"copies", "weights in BF16", offsetof(MemoryPlan, copies)},
    {"gradients", "gradients", offsetof(MemoryPlan, gradients)},
    {"moments", "optimizer moments", offsetof(MemoryPlan, moments)},
    {"activations", "activations", offsetof(MemoryPlan, activations)},
    {"batches", "batches in preparation", offsetof(MemoryPlan, batches)},
    {"checkpoint", "copy for checkpoints", offsetof(MemoryPlan, checkpoint)},
    {"library", "oneDNN's own, about", offsetof(MemoryPlan, library)},
};
enum { N_ROWS = sizeof rows / sizeof *rows };

static size_t row_bytes(const MemoryPlan *m, size_t i) {
    return *(const size_t *)((const char *)m + rows[i].offset);
}

// Batches on the host at a time: the training loader's, and the validation's, which holds two.
static HostMemory host_memory(const Config *c, const Flags *f, Dtype dtype) {
    const bool validates = c->train.val_size > 0 || c->options.val_dataset_path;
    const size_t tile_bytes = c->options.cache_vision ? modality_projector_tile_bytes(&c->vlm, dtype) : 0;
    return (HostMemory){.tile_bytes = tile_bytes,
                        .n_batches = loader_batches(c) + (validates ? 2 : 0),
                        .optimizer = optimizer_form(&c->options, 0, f->ranks),
                        .checkpoint_copy = c->options.save_in_background};
}

// What each tile of a batch adds, from the plan with one tile less.
static bool tile_bytes(size_t *bytes, const MemoryPlan *m, Backend *be, const Config *c, const Flags *f,
                       VlmPlan plan, Error *err) {
    MemoryPlan less;
    *bytes = 0;
    if (plan.max_tiles == 0) return true;
    plan.max_tiles--;
    if (!memory_plan(&less, be, &c->vlm, &plan, host_memory(c, f, plan.dtype), err)) return false;
    *bytes = m->activations + m->batches - less.activations - less.batches;
    return true;
}

static void print_json(const MemoryPlan *m, const VlmPlan *plan, size_t tile) {
    json_t *o = json_pack("{s:I, s:I, s:I}", "batch_size", (json_int_t)plan->max_batch, "positions",
                          (json_int_t)plan->max_positions, "tiles", (json_int_t)plan->max_tiles);
    for (size_t i = 0; i < N_ROWS; i++) json_object_set_new(o, rows[i].key, json_real(mib(row_bytes(m, i))));
    json_object_set_new(o, "total", json_real(mib(memory_plan_total(m))));
    json_object_set_new(o, "tile", json_real(mib(tile)));
    bench_print_json(o);
}

static void print_table(const MemoryPlan *m, const VlmPlan *plan, const Flags *f, size_t tile) {
    printf("batches of %zu x %zu tokens and %zu tiles%s\n", plan->max_batch, plan->max_positions,
           plan->max_tiles, f->tiles ? "" : ", as many as their tokens and limits allow");
    for (size_t i = 0; i < N_ROWS; i++) printf("%-24s %12.1f MiB\n", rows[i].what, mib(row_bytes(m, i)));
    printf("%-24s %12.1f MiB\n", "total", mib(memory_plan_total(m)));
    printf("The tokenizer and the rows of the data that are open come on top.\n");
    if (f->tiles) return;
    printf(
        "A run reserves addresses for all %zu tiles, but only what a batch fills becomes memory: each tile "
        "less is %.1f MiB less. --tiles N says what N tiles a sequence take, --max_tiles of a run limits "
        "them.\n",
        plan->max_tiles, mib(tile));
}

static bool print_memory(Backend *be, const Config *c, const Flags *f, Error *err) {
    const VlmPlan plan = plan_of(c, f, be);
    MemoryPlan m;
    size_t tile;
    if (!memory_plan(&m, be, &c->vlm, &plan, host_memory(c, f, plan.dtype), err) ||
        !tile_bytes(&tile, &m, be, c, f, plan, err))
        return false;
    if (f->json)
        print_json(&m, &plan, tile);
    else
        print_table(&m, &plan, f, tile);
    return true;
}

int cmd_memory(int argc, char **argv) {
    Error err;
    Config c;
    Flags f;
    const FieldSet set = {&table, &f};
    Backend *be = NULL;
    config_init(&c);
    fields_set_defaults(set);
    int status = EXIT_USAGE;
    if (config_parse(&c, set, argc, argv, &err)) {
        bool ok = backend_cpu_create(&be, c.options.threads, &err) && print_memory(be, &c, &f, &err);
        status = ok ? EXIT_DONE : EXIT_FAILED;
        backend_destroy(be);
    }
    if (status != EXIT_DONE) log_error("%s", err.text);
    fields_free(set);
    config_free(&c);
    return status;
}
