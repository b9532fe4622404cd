#include "train/memory_plan.h"
#include "train/trainer.h"

// Measured as the difference between what runs took and all the rest, from 2 million parameters to 460: 5 to
// 8 MiB in BF16, whose primitives share one buffer, 7 to 17 in F32.
enum { LIBRARY_BF16 = 6 << 20, LIBRARY_F32 = 11 << 20 };
// A run's batches have shapes of their own: up to 128 primitives of about 50 KB (ops/cpu/once/gemm_bf16.c).
enum { PRIMITIVES_BF16 = 6 << 20 };
// Measured in runs, by leaving things out: the code of Arrow and of the picture formats once it is used, and
// what each thread that builds samples has on its stack and in the allocator.
enum { LIBRARY_DATA = 11 << 20, LOADER_THREAD = 600 << 10 };

// What batches bring of their tiles with cache_vision.
static size_t feature_bytes(const VLMConfig *c, Dtype dtype, const HostMemory *host) {
    const LoaderMemory *t = &host->training, *v = &host->validation;
    return (t->slots * t->tiles + v->slots * v->tiles) * modality_projector_tile_bytes(c, dtype);
}

bool memory_plan(MemoryPlan *m, Backend *be, const VLMConfig *config, const VlmPlan *plan,
                 const HostMemory *host, Error *err) {
    VlmMemory model;
    size_t all_moments; // which a checkpoint holds, though this rank may not
    *m = (MemoryPlan){.program = host->program};
    if (!vlm_measure(&model, be, config, plan, err) ||
        !optimizer_measure(&m->moments, be, config, plan, host->optimizer, err) ||
        !optimizer_measure(&all_moments, be, config, plan, (OptimizerForm){host->optimizer.moments, 0, 1},
                           err))
        return false;
    m->parameters = model.parameters;
    m->copies = model.copies;
    m->gradients = model.gradients;
    m->activations = model.activations;
    m->rows = host->training.rows + host->validation.rows;
    m->samples = host->training.samples + host->validation.samples;
    m->batches = host->training.batches + host->validation.batches;
    if (plan->tile_features) m->batches += feature_bytes(config, plan->dtype, host);
    m->checkpoint = host->checkpoint_copy ? m->parameters + all_moments : 0;
    m->library = plan->dtype == DTYPE_BF16 && be->bf16 ? LIBRARY_BF16 : LIBRARY_F32;
    if (host->n_loaders == 0) return true;
    m->library += LIBRARY_DATA + host->n_loaders * host->n_threads * LOADER_THREAD;
    if (plan->dtype == DTYPE_BF16 && be->bf16) m->library += PRIMITIVES_BF16;
    return true;
}

size_t memory_plan_total(const MemoryPlan *m) {
    return m->program + m->parameters + m->copies + m->gradients + m->moments + m->activations + m->rows +
           m->samples + m->batches + m->checkpoint + m->library;
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

HostMemory memory_of_host(const Config *c, size_t program, size_t rank, size_t ranks, Loader *training,
                          Loader *validation) {
    HostMemory h = {.program = program,
                    .optimizer = optimizer_form(&c->options, rank, ranks),
                    .checkpoint_copy = rank == 0 && c->options.save_in_background};
    h.n_loaders = (training != NULL) + (validation != NULL);
    h.n_threads = c->options.num_workers;
    if (training) h.training = loader_memory(training);
    if (validation) h.validation = loader_memory(validation);
    return h;
}

bool memory_plan_run(MemoryPlan *m, Backend *be, const Config *c, const HostMemory *host, size_t tiles,
                     size_t targets, Error *err) {
    VlmPlan plan = memory_model_plan(c, be);
    plan.max_tiles = tiles;
    plan.max_targets = targets;
    return memory_plan(m, be, &c->vlm, &plan, host, err);
}
