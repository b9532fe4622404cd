#include "train/memory_plan.h"
#include "base/memory.h"
#include "dist/comm.h"
#include "model/rehearse.h"
#include "train/trainer.h"

// Measured in runs of tiny on synth and photos: what a loader's thread touches of its stack.
enum { LOADER_STACK = 256 << 10 };

// What batches bring of their tiles with cache_vision.
static size_t feature_bytes(const VLMConfig *c, Dtype dtype, const HostMemory *host) {
    const LoaderMemory *t = &host->training, *v = &host->validation;
    return (t->slots * t->mean_tiles + v->slots * v->mean_tiles) * modality_projector_tile_bytes(c, dtype);
}

// Of the batch at work, beyond the largest that the slots are counted with.
static size_t beyond_largest(const VLMConfig *c, const VlmPlan *plan, const HostMemory *host) {
    const size_t most = host->training.slots > 0 ? host->training.most_tiles : plan->max_tiles;
    return most < plan->max_tiles ? (plan->max_tiles - most) * loader_tile_bytes(c) : 0;
}

static size_t rest_of_page(size_t bytes, size_t page) {
    return page > 0 && bytes % page > 0 ? page - bytes % page : 0;
}

static size_t larger(size_t a, size_t b) {
    return a > b ? a : b;
}

// Loaders read, and build samples, at different times: while one validates the batches of the other are
// ready.
static size_t open_files(const LoaderMemory *t, const LoaderMemory *v) {
    return t->keeps_open ? t->file + v->file : larger(t->file, v->file);
}

// Beyond rows and samples: what is kept of a group that is read is among the rows already, and the samples of
// its rows are not there yet. While nothing more can be read, samples are built.
static size_t work_of(const LoaderMemory *l) {
    const size_t there = l->kept + l->to_come;
    return larger(l->building, l->reading > there ? l->reading - there : 0);
}

typedef struct Moment {
    LoaderHeld training, validation;
    size_t work;
} Moment;

static size_t moment_bytes(const Moment *m) {
    return m->training.samples + m->training.tiles + m->validation.samples + m->validation.tiles + m->work;
}

// Training is at work on rows while validation's first batches are ready, or goes on while validation begins
// anew or is under way.
static void count_loaders(MemoryPlan *m, const LoaderMemory *t, const LoaderMemory *v) {
    const Moment moments[] = {
        {t->busy, v->ready, work_of(t)}, {t->given, v->busy, work_of(v)}, {t->given, v->given, 0}};
    const Moment *most = moments;
    for (size_t i = 1; i < sizeof moments / sizeof *moments; i++)
        if (moment_bytes(&moments[i]) > moment_bytes(most)) most = &moments[i];
    m->work = most->work;
    m->samples = most->training.samples + most->validation.samples;
    m->batches = t->batches + most->training.tiles + v->batches + most->validation.tiles;
}

bool memory_plan(MemoryPlan *m, Backend *be, const VLMConfig *config, const VlmPlan *plan,
                 const HostMemory *host, Error *err) {
    VlmMemory model;
    size_t all_moments; // which a checkpoint holds, though this rank may not
    *m = (MemoryPlan){.program = host->program.program};
    if (!vlm_rehearse(&m->scratch, be, config, plan, err) || !vlm_measure(&model, be, config, plan, err) ||
        !optimizer_measure(&m->moments, be, config, plan, host->optimizer, err) ||
        !optimizer_measure(&all_moments, be, config, plan, (OptimizerForm){host->optimizer.moments, 0, 1},
                           err))
        return false;
    m->parameters = model.parameters;
    m->copies = plan->recompute == RECOMPUTE_NONE ? model.copies : 0; // else they are scratch
    m->gradients = model.gradients;
    m->activations = model.activations + model.forgotten;
    m->pages =
        rest_of_page(model.activations, host->huge_page) + rest_of_page(model.forgotten, host->huge_page);
    m->rows = host->training.rows + host->validation.rows;
    m->files = open_files(&host->training, &host->validation);
    count_loaders(m, &host->training, &host->validation);
    m->batches += beyond_largest(config, plan, host);
    if (plan->tile_features) m->batches += feature_bytes(config, plan->dtype, host);
    m->checkpoint = host->checkpoint_copy ? m->parameters + all_moments : 0;
    if (host->writes_checkpoints) m->checkpoint += model.largest;
    m->exchange = host->exchange;
    m->library = host->program.step;
    if (host->n_loaders > 0)
        m->library += host->program.run + host->data_code + host->n_loaders * host->n_threads * LOADER_STACK;
    return true;
}

size_t memory_plan_total(const MemoryPlan *m) {
    return m->program + m->parameters + m->copies + m->gradients + m->moments + m->activations + m->pages +
           m->scratch + m->rows + m->files + m->samples + m->work + m->batches + m->checkpoint + m->exchange +
           m->library;
}

VlmPlan memory_model_plan(const Config *c, const Backend *be) {
    VlmPlan plan = {
        .max_batch = c->train.batch_size,
        .max_positions = c->vlm.lm_max_length,
        .max_tiles = loader_max_tiles(c),
        .training = true,
        .documents = train_options_documents(&c->options),
        .dtype = vlm_dtype(c->options.dtype, be),
        .recompute = recompute_from(c->options.recompute),
        .tile_features = c->options.cache_vision != NULL,
    };
    trainer_plan(&plan, c);
    return plan;
}

// Code that lies in files may be taken away meanwhile.
static size_t more(size_t now, size_t before) {
    return now > before ? now - before : 0;
}

bool memory_of_step(ProgramMemory *p, Backend *be, const VLMConfig *config, const VlmPlan *plan, Error *err) {
    size_t scratch;
    const size_t before = mem_resident_anonymous(), code = mem_resident_code();
    *p = (ProgramMemory){.program = mem_resident()};
    if (!vlm_rehearse(&scratch, be, config, plan, err)) return false;
    p->code = mem_resident_code();
    p->step = more(mem_resident_anonymous(), before) + more(p->code, code);
    return true;
}

// A second batch, with one tile and one target less, says what a batch adds that has shapes of its own, and a
// run collects as many of them as are kept.
bool memory_of_program(ProgramMemory *p, Backend *be, const Config *c, Error *err) {
    VlmPlan plan = memory_model_plan(c, be);
    size_t scratch, most;
    if (plan.max_tiles > 1) plan.max_tiles = plan.max_tiles / 2 + 1; // few tiles need less code
    plan.max_targets = plan.max_batch * plan.max_positions / 4 + 2;
    if (!memory_of_step(p, be, &c->vlm, &plan, err)) return false;
    const size_t before = mem_resident_anonymous(), made = backend_pieces(be, &most);
    if (plan.max_tiles > 1) plan.max_tiles--;
    plan.max_targets--;
    if (!vlm_rehearse(&scratch, be, &c->vlm, &plan, err)) return false;
    const size_t added = backend_pieces(be, &most) - made;
    if (added > 0 && most > made) p->run = more(mem_resident_anonymous(), before) * (most - made) / added;
    p->code = mem_resident_code();
    return true;
}

HostMemory memory_of_host(const Config *c, ProgramMemory program, size_t rank, size_t ranks, Loader *training,
                          Loader *validation) {
    HostMemory h = {.program = program,
                    .optimizer = optimizer_form(&c->options, rank, ranks),
                    .checkpoint_copy = rank == 0 && c->options.save_in_background,
                    .writes_checkpoints = rank == 0,
                    .exchange = ranks > 1 ? COMM_SCRATCH_BYTES : 0};
    h.n_loaders = (training != NULL) + (validation != NULL);
    h.n_threads = c->options.num_workers;
    if (training) h.training = loader_memory(training);
    if (validation) h.validation = loader_memory(validation);
    // What it opened while training's threads were at work has their memory in it; but it opened the same.
    if (validation && !c->options.val_dataset_path)
        h.validation.file = h.training.file, h.validation.reading = h.training.reading;
    h.data_code = more(mem_resident_code(), program.code);
    return h;
}

bool memory_plan_run(MemoryPlan *m, Backend *be, const Config *c, const HostMemory *host, size_t tiles,
                     size_t targets, Error *err) {
    VlmPlan plan = memory_model_plan(c, be);
    HostMemory h = *host;
    if (tiles < plan.max_tiles || targets > 0) h.huge_page = mem_huge_page();
    plan.max_tiles = tiles;
    plan.max_targets = targets;
    return memory_plan(m, be, &c->vlm, &plan, &h, err);
}
