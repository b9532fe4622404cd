// `vlm memory`: the peak of resident memory that training with a configuration takes, worked out from the
// plans without getting any of it. Only tokenizer and data are opened, for what they take.
#include "base/log.h"
#include "base/memory.h"
#include "base/mib.h"
#include "base/pyjson.h"
#include "cmd/cmd.h"
#include "data/loader.h"
#include "cmd/backbones.h"
#include "ops/cpu/cpu.h"
#include "train/memory_plan.h"
#include "train/trainer.h"

#include <stdio.h>

typedef struct Flags {
    size_t ranks;
    Number tiles, targets;
    bool json;
} Flags;

#define FLAG(name, type, ...)                                                                                \
    { #name, type, offsetof(Flags, name), __VA_ARGS__ }
static const Field fields[] = {
    FLAG(
        tiles, FIELD_NUMBER, "0", 0, 1e6, NULL,
        "tiles of a sequence, as a mean over the largest batch; 0: as many as a batch may hold, of which few "
        "ever do"),
    FLAG(targets, FIELD_NUMBER, "1", 0, 1, NULL, "share of the positions that is trained on"),
    FLAG(ranks, FIELD_SIZE, "1", 1, 65536, NULL, "ranks of the run, which --zero 1 shares the moments among"),
    FLAG(json, FIELD_BOOL, "false", 0, 0, NULL, "print one JSON object, in MiB"),
};
static const FieldTable table = {"Batches", fields, sizeof fields / sizeof *fields};

// What the run would have open.
typedef struct Opened {
    Tokenizer *tokenizer;
    Loader *training, *validation;
    HostMemory host;
    bool is_known; // the data, and what it takes
} Opened;

static const struct {
    const char *key, *what;
    size_t offset;
} rows[] = {
    {"program", "program", offsetof(MemoryPlan, program)},
    {"parameters", "parameters", offsetof(MemoryPlan, parameters)},
    {"copies", "copies in BF16", offsetof(MemoryPlan, copies)},
    {"gradients", "gradients", offsetof(MemoryPlan, gradients)},
    {"moments", "optimizer moments", offsetof(MemoryPlan, moments)},
    {"activations", "activations", offsetof(MemoryPlan, activations)},
    {"pages", "rest of large pages", offsetof(MemoryPlan, pages)},
    {"scratch", "operators' scratch", offsetof(MemoryPlan, scratch)},
    {"rows", "open rows of the data", offsetof(MemoryPlan, rows)},
    {"files", "open files' footers", offsetof(MemoryPlan, files)},
    {"samples", "samples that wait", offsetof(MemoryPlan, samples)},
    {"work", "reading and decoding", offsetof(MemoryPlan, work)},
    {"batches", "batches in preparation", offsetof(MemoryPlan, batches)},
    {"checkpoint", "to write checkpoints", offsetof(MemoryPlan, checkpoint)},
    {"exchange", "what ranks send through", offsetof(MemoryPlan, exchange)},
    {"library", "libraries' code", offsetof(MemoryPlan, library)},
};
enum { N_ROWS = sizeof rows / sizeof *rows };

static size_t row_bytes(const MemoryPlan *m, size_t i) {
    return *(const size_t *)((const char *)m + rows[i].offset);
}

// Opens tokenizer and data as a run does, but builds only the first samples, and none ahead. A run that is
// planned for another machine may have neither.
static void open_data(Opened *o, Backend *be, Config *c, const Flags *f) {
    Error err = {""};
    const LoaderRanks ranks = {.world_size = f->ranks};
    const bool validates = c->train.val_size > 0 || c->options.val_dataset_path;
    const size_t workers = c->options.num_workers;
    *o = (Opened){0};
    bool ok = tokenizer_open(&o->tokenizer, c->vlm.lm_tokenizer, &c->vlm.vlm_extra_tokens, &err);
    ProgramMemory program;
    ok = memory_of_program(&program, be, c, &err) && ok;
    c->options.num_workers = 0;
    ok = ok && loader_open_rank(&o->training, c, o->tokenizer, LOADER_TRAIN, ranks, &err) &&
         (!validates || loader_open_rank(&o->validation, c, o->tokenizer, LOADER_VALIDATION, ranks, &err));
    c->options.num_workers = workers;
    o->is_known = ok;
    o->host = memory_of_host(c, program, 0, f->ranks, ok ? o->training : NULL, ok ? o->validation : NULL);
    if (!ok) log_warning("what the data takes is not counted: %s", err.text);
}

static void close_data(Opened *o) {
    loader_close(o->validation);
    loader_close(o->training);
    tokenizer_free(o->tokenizer);
}

typedef struct Question {
    const Config *config;
    const HostMemory *host;
    size_t tiles, targets; // of a batch
} Question;

static Question question_of(const Config *c, const Flags *f, const HostMemory *host) {
    const size_t positions = c->train.batch_size * c->vlm.lm_max_length, most = loader_max_tiles(c),
                 tiles = (size_t)((double)c->train.batch_size * f->tiles.value + 0.5);
    Question q = {c, host, tiles, (size_t)((double)positions * f->targets.value)};
    if (f->tiles.value == 0 || tiles > most) q.tiles = most;
    if (q.targets == 0) q.targets = 1;
    return q;
}

static bool answer(MemoryPlan *m, Backend *be, const Question *q, Error *err) {
    return memory_plan_run(m, be, q->config, q->host, q->tiles, q->targets, err);
}

// What each tile of a batch adds, from the plan with one tile less.
static bool tile_bytes(size_t *bytes, const MemoryPlan *m, Backend *be, Question q, Error *err) {
    MemoryPlan less;
    *bytes = 0;
    if (q.tiles == 0) return true;
    q.tiles--;
    if (!answer(&less, be, &q, err)) return false;
    *bytes = m->activations - less.activations;
    return true;
}

static void print_json(const MemoryPlan *m, const Question *q, size_t tile, bool is_known) {
    json_t *o = json_pack("{s:I, s:I, s:I, s:I, s:b}", "batch_size", (json_int_t)q->config->train.batch_size,
                          "positions", (json_int_t)q->config->vlm.lm_max_length, "tiles",
                          (json_int_t)q->tiles, "targets", (json_int_t)q->targets, "data", is_known);
    for (size_t i = 0; i < N_ROWS; i++)
        json_object_set_new(o, rows[i].key, json_real(in_mib(row_bytes(m, i))));
    json_object_set_new(o, "total", json_real(in_mib(memory_plan_total(m))));
    json_object_set_new(o, "tile", json_real(in_mib(tile)));
    json_object_set_new(o, "mean_tiles", json_integer((json_int_t)q->host->training.mean_tiles));
    pyjson_print(stdout, o, -1);
}

static void print_table(const MemoryPlan *m, const Question *q, size_t tile, bool is_known) {
    const size_t most = loader_max_tiles(q->config), mean = q->host->training.mean_tiles;
    printf("batches of %zu x %zu tokens, %zu tiles and %zu targets at most\n", q->config->train.batch_size,
           q->config->vlm.lm_max_length, q->tiles, q->targets);
    for (size_t i = 0; i < N_ROWS; i++) printf("%-24s %12.1f MiB\n", rows[i].what, in_mib(row_bytes(m, i)));
    printf("%-24s %12.1f MiB\n", "total", in_mib(memory_plan_total(m)));
    if (!is_known) printf("Rows of the data and samples that wait come on top.\n");
    if (is_known) printf("The data begins with %zu tiles a batch on average.\n", mean);
    if (q->tiles < most) return;
    printf(
        "A run reserves addresses for all %zu tiles, but only what a batch fills becomes memory: each tile "
        "less is %.1f MiB less. --tiles N says what N tiles a sequence take, --max_tiles of a run limits "
        "them.\n",
        most, in_mib(tile));
}

static bool print_memory(Backend *be, Config *c, const Flags *f, Error *err) {
    Opened data;
    MemoryPlan m;
    size_t tile;
    open_data(&data, be, c, f);
    const Question q = question_of(c, f, &data.host);
    const bool ok = answer(&m, be, &q, err) && tile_bytes(&tile, &m, be, q, err);
    if (ok && f->json)
        print_json(&m, &q, tile, data.is_known);
    else if (ok)
        print_table(&m, &q, tile, data.is_known);
    close_data(&data);
    return ok;
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
