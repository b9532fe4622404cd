#include "cmd/train_job.h"

#include "base/cpu_level.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/mib.h"
#include "cmd/train_threads.h"
#include "model/checkpoint.h"
#include "model/lora_file.h"
#include "ops/cpu/cpu.h"
#include "train/agreement.h"

#include <stdlib.h>

// ---- ranks ----

// Rank 0 speaks for all; the others only warn.
static bool open_ranks(TrainJob *j, Error *err) {
    if (!comm_open(&j->comm, 60 * j->config.options.comm_timeout.value, err)) return false;
    if (!comm_is_first(j->comm)) log_set_level(LOG_WARNING);
    if (j->comm) log_info("ranks: %s", comm_describe(j->comm));
    return true;
}

static json_t *identity_of(const Loader *l) {
    uint64_t rows = 0, files = 0;
    if (l) loader_identity(l, &rows, &files);
    return json_pack("[I, I]", (json_int_t)rows, (json_int_t)(files >> 1));
}

// Different settings, data or kinds of processor would let the ranks drift apart without a word.
static bool compare_settings(TrainJob *j, Error *err) {
    CpuLevel level;
    if (!cpu_level_choose(&level, err)) return false;
    json_t *facts = agreement_of_config(&j->config, VLM_VERSION ", " VLM_COMPILER);
    json_object_set_new(facts, "instructions of the processor", json_string(cpu_level_names[level]));
    const bool ok = agreement_check(j->comm, facts, err);
    json_decref(facts);
    return ok;
}

static bool compare_data(TrainJob *j, Error *err) {
    json_t *facts = json_object();
    json_object_set_new(facts, "training data (rows, files)", identity_of(j->training));
    json_object_set_new(facts, "validation data (rows, files)", identity_of(j->validation));
    const bool ok = agreement_check(j->comm, facts, err);
    json_decref(facts);
    return ok;
}

// ---- backend and data ----

// First of all, so that weights which do not fit are named before data is read.
static bool open_backend(TrainJob *j, Error *err) {
    const Config *c = &j->config;
    size_t threads;
    if (!train_threads(&threads, &c->options, j->comm, err) || !backend_cpu_create(&j->be, threads, err))
        return false;
    j->dtype = vlm_dtype(c->options.dtype, j->be);
    vlm_explain_dtype(c->options.dtype, j->be);
    return backbones_check(&j->backbones, j->be, c, err);
}

static bool open_tokenizer(TrainJob *j, Error *err) {
    const VLMConfig *c = &j->config.vlm;
    ChatTemplate chat;
    if (!tokenizer_open(&j->tokenizer, c->lm_tokenizer, &c->vlm_extra_tokens, err)) return false;
    const size_t tokens = tokenizer_vocab_size(j->tokenizer);
    if (tokens > c->lm_vocab_size)
        return error_set(err,
                         "%s has %zu tokens with vlm_extra_tokens, but lm_vocab_size is %zu; raise "
                         "lm_vocab_size (and lm_base_vocab_size) or give another --lm_tokenizer",
                         c->lm_tokenizer, tokens, c->lm_vocab_size);
    return chat_template_init(&chat, j->tokenizer, c->lm_chat_template, err);
}

// A failure stays one: the run's next call says what it was.
static bool all_have_batches(void *comm, bool has_batch) {
    return comm_all(comm, &has_batch, "agreement on the next batch", NULL) && has_batch;
}

static bool open_loaders(TrainJob *j, Error *err) {
    if (!memory_of_program(&j->host.program, j->be, &j->config, err)) return false;
    const LoaderRanks ranks = {comm_rank(j->comm), comm_world_size(j->comm),
                               j->comm ? all_have_batches : NULL, j->comm};
    if (!loader_open_rank(&j->training, &j->config, j->tokenizer, LOADER_TRAIN, ranks, err)) return false;
    if (j->config.train.val_size == 0 && !j->config.options.val_dataset_path) return true;
    return loader_open_rank(&j->validation, &j->config, j->tokenizer, LOADER_VALIDATION, ranks, err);
}

// Both loaders know what it knows; the run opens it once it has the weights.
static bool open_cache(TrainJob *j, Error *err) {
    const Config *c = &j->config;
    if (!c->options.cache_vision || c->options.dry_run) return true;
    const size_t bytes = modality_projector_tile_bytes(&c->vlm, j->dtype);
    return tile_cache_create(&j->cache, c->options.cache_vision, bytes, err) &&
           loader_use_cache(j->training, j->cache, err) &&
           (!j->validation || loader_use_cache(j->validation, j->cache, err));
}

// ---- model ----

// Kept features go with weights that stay as they are.
static bool check_cache(const TrainJob *j, Error *err) {
    if (!j->config.options.cache_vision || !vlm_trains_vision(&j->model)) return true;
    return error_set(err, "cache_vision keeps what a frozen vision encoder gives, but it is trained: set "
                          "lr_vision_backbone 0, or leave cache_vision out");
}

static bool first_weights(TrainJob *j, Error *err) {
    const Config *c = &j->config;
    const TrainOptions *o = &c->options;
    if (j->resume_from) return true; // the run brings them with its state
    if (c->train.resume_from_vlm_checkpoint)
        return checkpoint_load_changed(&j->model, j->start, o->interpolate_positions, o->seed, err);
    if (c->vlm.vlm_load_backbone_weights) {
        const bool ok = backbones_load(&j->backbones, &j->model, c, err);
        backbones_close(&j->backbones);
        return ok;
    }
    params_initialise(&j->model.params, j->be, &c->vlm, o->init, o->seed);
    return true;
}

// Beneath adapters are the weights a run begins with, so those come first.
static bool first_adapters(TrainJob *j, Error *err) {
    const TrainOptions *o = &j->config.options;
    if (j->resume_from) return true;
    params_initialise_adapters(&j->model.params, j->be, &j->config.vlm, o->seed);
    return !o->lora_adapter || lora_load(&j->model.params, j->be, o->lora_adapter, err);
}

// The same as `vlm memory` says, with the batches that the data gives on average.
static bool log_memory(TrainJob *j, Error *err) {
    MemoryPlan m, more;
    const size_t tiles = j->host.training.mean_tiles;
    if (!memory_plan_run(&m, j->be, &j->config, &j->host, tiles, 0, err) ||
        !memory_plan_run(&more, j->be, &j->config, &j->host, tiles + 1, 0, err))
        return false;
    const size_t data = m.rows + m.files + m.samples + m.work + m.batches, rest = m.program + m.library;
    log_info(
        "memory: %.1f MiB parameters, %.1f gradients, %.1f optimizer, %.1f activations, %.1f to write "
        "checkpoints, %.1f data, %.1f program; %.1f MiB in all with %zu tiles a batch, their mean, and %.1f "
        "for each tile more",
        in_mib(m.parameters + m.copies), in_mib(m.gradients), in_mib(m.moments), in_mib(m.activations),
        in_mib(m.checkpoint), in_mib(data), in_mib(rest), in_mib(memory_plan_total(&m)), tiles,
        in_mib(more.activations - m.activations));
    return true;
}

static bool open_model(TrainJob *j, Error *err) {
    const Config *c = &j->config;
    VlmPlan plan = memory_model_plan(c, j->be);
    plan.image_token_id = tokenizer_extra_id(j->tokenizer, "image_token");
    if (!vlm_create(&j->model, j->be, &c->vlm, &plan, err) ||
        !trainer_create(&j->trainer, &j->model, &c->train,
                        optimizer_form(&c->options, comm_rank(j->comm), comm_world_size(j->comm)), err))
        return false;
    if (!check_cache(j, err) || !first_weights(j, err) || !first_adapters(j, err) ||
        !trainer_join(&j->trainer, j->comm, GRADIENT_BUCKET_BYTES, err))
        return false;
    j->host = memory_of_host(c, j->host.program, comm_rank(j->comm), comm_world_size(j->comm), j->training,
                             j->validation);
    log_info("backend: %s, %s, dtype %s", j->be->name, j->be->detail, dtype_name(plan.dtype));
    params_print_summary(&j->model.params);
    return log_memory(j, err);
}

// ---- the whole ----

bool train_job_open(TrainJob *j, Error *err) {
    return open_ranks(j, err) && compare_settings(j, err) && open_backend(j, err) && open_tokenizer(j, err) &&
           open_loaders(j, err) && compare_data(j, err) && open_cache(j, err) && open_model(j, err);
}

void train_job_close(TrainJob *j) {
    trainer_free(&j->trainer);
    vlm_free(&j->model);
    backend_destroy(j->be);
    loader_close(j->validation);
    loader_close(j->training);
    tile_cache_free(j->cache);
    tokenizer_free(j->tokenizer);
    backbones_close(&j->backbones);
    free(j->resume_from);
    free(j->start);
    config_free(&j->config);
}
