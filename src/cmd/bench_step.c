// `vlm bench step`: whole training steps on random data (forward, backward, clipping, AdamW), beside what the
// machine gives in the same run. bench/compare.py runs it beside nanoVLM.
#include "base/log.h"
#include "base/memory.h"
#include "base/mib.h"
#include "base/random.h"
#include "cmd/bench.h"
#include "cmd/bench_time.h"
#include "cmd/bench_ceiling.h"
#include "cmd/bench_report.h"
#include "cmd/cmd.h"
#include "model/flops.h"
#include "ops/cpu/cpu.h"
#include "train/memory_plan.h"
#include "train/trainer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

typedef struct Flags {
    char *preset, *dtype, *recompute, *moments, *lora_targets, *freeze, *train_only;
    size_t lora_rank, batch, seq, tiles, steps, threads, profile;
    Number targets, ceiling;
    bool json;
} Flags;

#define FLAG(name, type, ...)                                                                                \
    { #name, type, offsetof(Flags, name), __VA_ARGS__ }
static const Field fields[] = {
    FLAG(preset, FIELD_STRING, "small", 0, 0, "full|small|tiny",
         "the model: full is the preset nanovlm-460m; tiny has a vocabulary of 386"),
    FLAG(batch, FIELD_SIZE, "1", 1, 4096, NULL, "sequences of a step"),
    FLAG(seq, FIELD_SIZE, "1024", 1, 1048576, NULL, "tokens of a sequence"),
    FLAG(tiles, FIELD_SIZE, "4", 0, 4096, NULL, "tiles of a sequence"),
    FLAG(targets, FIELD_NUMBER, "0.3", 0, 1, NULL, "share of a sequence, at its end, that is trained on"),
    FLAG(dtype, FIELD_STRING, "auto", 0, 0, "auto|bf16|f32", "of products and activations"),
    FLAG(recompute, FIELD_STRING, "norms", 0, 0, "none|norms|attention|block",
         "what backward makes again instead of keeping it; not counted as work"),
    FLAG(moments, FIELD_STRING, "f32", 0, 0, "f32|bf16|int8", "how AdamW keeps its moments"),
    FLAG(lora_rank, FIELD_SIZE, "0", 0, 4096, NULL, "adapters that are trained on a frozen base; 0: none"),
    FLAG(lora_targets, FIELD_STRING, "all-linear", 0, 0, NULL, "their layers, as of `vlm train`"),
    FLAG(freeze, FIELD_STRING, NULL, 0, 0, NULL, "parameters that are not trained, as of `vlm train`"),
    FLAG(train_only, FIELD_STRING, NULL, 0, 0, NULL, "the only ones that are"),
    FLAG(steps, FIELD_SIZE, "3", 1, 1000000, NULL, "steps that are timed, after a first one"),
    FLAG(threads, FIELD_SIZE, "0", 0, 1024, NULL, "threads; 0: one per physical core"),
    FLAG(profile, FIELD_SIZE, "1", 0, 1000, NULL, "further steps whose operators are timed one by one"),
    FLAG(ceiling, FIELD_NUMBER, "0.3", 0, 60, NULL,
         "seconds for each product that the machine's best is looked for with"),
    FLAG(json, FIELD_BOOL, "false", 0, 0, NULL, "print one JSON object"),
};
static const FieldTable table = {"Training steps", fields, sizeof fields / sizeof *fields};

enum { IMAGE_TOKEN = 5, FIRST_PLAIN_TOKEN = 10, FIRST_IMAGE_POSITION = 3 };

typedef struct Bench {
    const Flags *flags;
    Config config;
    Backend *be;
    Vlm model;
    Trainer trainer;
    Batch batch;
    size_t n_targets; // of a sequence
    MemoryPlan memory;
} Bench;

// ---- the work ----

static void set_text(char **field, const char *text) {
    free(*field);
    *field = text ? mem_strdup(text) : NULL;
}

static void set_trained(TrainOptions *o, const Flags *f) {
    o->lora_rank = f->lora_rank;
    set_text(&o->lora_targets, f->lora_targets);
    set_text(&o->freeze, f->freeze);
    set_text(&o->train_only, f->train_only);
}

static bool set_config(Bench *b, Error *err) {
    const Flags *f = b->flags;
    Config *c = &b->config;
    const bool tiny = !strcmp(f->preset, "tiny");
    if (!config_apply_preset(c, strcmp(f->preset, "full") ? f->preset : "nanovlm-460m", err)) return false;
    if (tiny) c->vlm.lm_base_vocab_size = 320, c->vlm.lm_vocab_size = 386;
    c->vlm.lm_max_length = f->seq;
    c->train.gradient_accumulation_steps = 1;
    set_trained(&c->options, f);
    c->train.lr_mp = (Number){5e-3, false};
    c->train.lr_vision_backbone = c->train.lr_language_backbone = (Number){5e-5, false};
    const size_t image_tokens = f->tiles * c->vlm.mp_image_token_length;
    b->n_targets = (size_t)((double)f->seq * f->targets.value);
    if (b->n_targets == 0)
        return error_set(err, "--targets %g of %zu tokens is no target at all; give more", f->targets.value,
                         f->seq);
    if (image_tokens > 0 && image_tokens + FIRST_IMAGE_POSITION > f->seq)
        return error_set(err, "--tiles: %zu tiles of %zu tokens and %d before them do not fit into --seq %zu",
                         f->tiles, c->vlm.mp_image_token_length, FIRST_IMAGE_POSITION, f->seq);
    return true;
}

// Random tokens with the tiles' tokens from the fourth on, and the last n_targets tokens as targets.
static void make_batch(Bench *b) {
    const Flags *f = b->flags;
    const VLMConfig *c = &b->config.vlm;
    const size_t n = f->batch * f->seq, values = 3 * c->vit_img_size * c->vit_img_size,
                 image_tokens = f->tiles * c->mp_image_token_length;
    Batch *x = &b->batch;
    *x = (Batch){.B = f->batch, .T = f->seq, .n_tiles = f->batch * f->tiles};
    x->n_images = x->n_tiles, x->n_samples = f->batch;
    x->input_ids = mem_zeroed(n, sizeof *x->input_ids);
    x->labels = mem_zeroed(n, sizeof *x->labels);
    x->attention_mask = mem_zeroed(n, sizeof *x->attention_mask);
    x->images = mem_zeroed(x->n_tiles * values, sizeof *x->images);
    Random random = random_stream(0, RANDOM_TEST, 0);
    for (size_t i = 0; i < n; i++) {
        const size_t at = i % f->seq;
        const bool image = at >= FIRST_IMAGE_POSITION && at - FIRST_IMAGE_POSITION < image_tokens;
        const uint64_t plain = random_below(&random, c->lm_vocab_size - FIRST_PLAIN_TOKEN);
        x->input_ids[i] = image ? IMAGE_TOKEN : (int32_t)(FIRST_PLAIN_TOKEN + plain);
        x->labels[i] = at + b->n_targets >= f->seq ? x->input_ids[i] : IGNORE_INDEX;
        x->attention_mask[i] = 1;
    }
    for (size_t i = 0; i < x->n_tiles * values; i++)
        x->images[i] = (float)(random_u32(&random) >> 8) / 16777216.0f;
}

static bool open_model(Bench *b, Error *err) {
    const Flags *f = b->flags;
    VlmPlan plan = {.max_batch = f->batch,
                    .max_positions = f->seq,
                    .max_tiles = f->batch * f->tiles,
                    .training = true,
                    .max_targets = f->batch * b->n_targets,
                    .image_token_id = IMAGE_TOKEN,
                    .recompute = recompute_from(f->recompute)};
    trainer_plan(&plan, &b->config);
    if (!backend_cpu_create(&b->be, f->threads, err)) return false;
    plan.dtype = vlm_dtype(f->dtype, b->be);
    vlm_explain_dtype(f->dtype, b->be);
    b->config.train.batch_size = f->batch;
    ProgramMemory program;
    if (!memory_of_step(&program, b->be, &b->config.vlm, &plan, err)) return false;
    const HostMemory host = {
        .program = program,
        .optimizer = {.moments = optimizer_moments(&(TrainOptions){.moments = f->moments})},
        .training = {.batches = loader_batch_bytes(&b->config, plan.max_tiles)},
    };
    if (!memory_plan(&b->memory, b->be, &b->config.vlm, &plan, &host, err) ||
        !vlm_create(&b->model, b->be, &b->config.vlm, &plan, err) ||
        !trainer_create(&b->trainer, &b->model, &b->config.train, host.optimizer, err))
        return false;
    params_initialise(&b->model.params, b->be, &b->config.vlm, "nanovlm", 0);
    return true;
}

static void close_all(Bench *b) {
    trainer_free(&b->trainer);
    vlm_free(&b->model);
    backend_destroy(b->be);
    free(b->batch.input_ids);
    free(b->batch.labels);
    free(b->batch.attention_mask);
    free(b->batch.images);
    config_free(&b->config);
}

// ---- measuring ----

// Seconds since this process was started, to a hundredth.
static double process_age(void) {
    unsigned long long ticks = 0;
    FILE *f = fopen("/proc/self/stat", "r");
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    if (f) { // the 22nd field; the second is a name in parentheses, here "vlm"
        if (fscanf(f,
                   "%*d %*s %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu",
                   &ticks) != 1)
            ticks = 0;
        fclose(f);
    }
    if (!ticks) return 0;
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec - (double)ticks / (double)sysconf(_SC_CLK_TCK);
}

static bool run_step(Bench *b, StepTime *time, Error *err) {
    const BenchTime begin = bench_now();
    if (!trainer_micro_step(&b->trainer, &b->batch, &time->loss, err)) return false;
    const BenchTime update = bench_now();
    trainer_update(&b->trainer);
    time->update = bench_since(update);
    time->step = bench_since(begin);
    return true;
}

static bool run_steps(Bench *b, StepReport *r, Error *err) {
    const Flags *f = b->flags;
    r->start_up = process_age();
    r->times = mem_zeroed(f->steps + 1, sizeof *r->times);
    for (r->n_times = 0; r->n_times <= f->steps; r->n_times++)
        if (!run_step(b, &r->times[r->n_times], err)) return false;
    r->peak_rss_mb = in_mib((double)mem_resident_peak());
    if (f->profile == 0) return true;
    const BenchTime begin = bench_now();
    profile_begin(&r->profile, b->be);
    StepTime unused;
    bool ok = true;
    for (size_t i = 0; ok && i < f->profile; i++) ok = run_step(b, &unused, err);
    profile_end(&r->profile);
    r->profiled = bench_since(begin);
    r->n_profiled = f->profile;
    return ok;
}

static void measure_ceilings(const Bench *b, StepReport *r) {
    const double seconds = b->flags->ceiling.value;
    const ModelRows rows = {b->batch.B * b->batch.T, b->batch.n_tiles * vlm_config_patches(&b->config.vlm)};
    r->ceiling_gflops = ceiling_of_model(b->be, b->model.plan.dtype, &b->config.vlm, rows, seconds);
    r->ceiling_gbs = ceiling_memory(b->be, seconds);
}

static bool measure(Bench *b, Error *err) {
    const Flags *f = b->flags;
    StepReport r = {.preset = f->preset, .tokens = f->batch * f->seq};
    bool ok = open_model(b, err);
    if (ok) make_batch(b);
    ok = ok && run_steps(b, &r, err);
    if (ok) {
        const Params *p = &b->model.params;
        for (int g = 0; g < GROUP_TRAINED; g++) {
            r.params += params_total(p, (ParamGroup)g);
            r.trained += params_trained(p, (ParamGroup)g);
        }
        r.be = b->be, r.dtype = b->model.plan.dtype, r.batch = &b->batch;
        r.n_targets = b->n_targets * f->batch;
        r.planned_rss_mb = in_mib((double)memory_plan_total(&b->memory));
        r.flops =
            vlm_step_flops(p, &b->config.vlm, (StepShape){f->batch, f->seq, b->batch.n_tiles, r.n_targets});
        measure_ceilings(b, &r);
        step_report_print(&r, f->json);
    }
    free(r.times);
    return ok;
}

int bench_step(int argc, char **argv) {
    Flags f;
    FieldSet set = {&table, &f};
    Bench b = {.flags = &f};
    Error err;
    int status = EXIT_USAGE;
    fields_set_defaults(set);
    config_init(&b.config);
    if (flags_parse(&set, 1, argc, argv, NULL, &err) && set_config(&b, &err))
        status = measure(&b, &err) ? EXIT_DONE : EXIT_FAILED;
    if (status != EXIT_DONE) log_error("%s", err.text);
    close_all(&b);
    fields_free(set);
    return status;
}
