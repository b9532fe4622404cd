#include "model/vlm.h"
#include "base/check.h"
#include "base/log.h"

#include <math.h>
#include <string.h>

// The head's logits are never whole: a chunk of target positions at a time, of about so many bytes. The
// smaller the chunk, the more often the head's weight is read.
enum { LOGITS_CHUNK_BYTES = 1 << 25, LOGITS_CHUNK_MIN_ROWS = 16 };

static size_t chunk_rows(const VLMConfig *c, Dtype act, size_t n_targets) {
    size_t rows = LOGITS_CHUNK_BYTES / dtype_bytes(act, c->lm_vocab_size);
    if (rows < LOGITS_CHUNK_MIN_ROWS) rows = LOGITS_CHUNK_MIN_ROWS;
    return rows < n_targets ? rows : n_targets;
}

Dtype vlm_dtype(const char *choice, const Backend *be) {
    if (!strcmp(choice, "auto")) return be->bf16 ? DTYPE_BF16 : DTYPE_F32;
    return strcmp(choice, "f32") ? DTYPE_BF16 : DTYPE_F32;
}

void vlm_explain_dtype(const char *choice, const Backend *be) {
    if (be->bf16 || !strcmp(choice, "f32")) return;
    if (!strcmp(choice, "bf16"))
        log_info("dtype bf16: %s has no products of BF16, so they go by way of F32 and are slower than those",
                 be->detail);
    else
        log_info("dtype f32, because %s has no products of BF16", be->detail);
}

Recompute recompute_from(const char *choice) {
    static const char *const names[] = {"none", "norms", "attention", "block"};
    for (int i = 0; i < 4; i++)
        if (!strcmp(choice, names[i])) return (Recompute)i;
    CHECK(false, "recompute %s", choice);
    return RECOMPUTE_NONE;
}

static bool trains_vision(const VlmPlan *plan) {
    return plan->training && (plan->trained[GROUP_VISION] || plan->trained[GROUP_LORA_VISION]);
}

bool vlm_trains_vision(const Vlm *m) {
    return trains_vision(&m->plan);
}

// While the vision encoder is frozen, what it makes of a tile must not depend on the tiles beside it, or an
// epoch that reads features would not have the bits of one that makes them.
static size_t tiles_at_once(const Vlm *m, size_t n_encoded) {
    const bool frozen = m->plan.training && !trains_vision(&m->plan);
    return frozen && n_encoded > 1 && (m->plan.tile_features || !m->be->rows_alone) ? 1 : n_encoded;
}

// Of pictures, from the tiles to vectors among the embeddings.
static void plan_pictures(Vlm *m, size_t I, size_t n_encoded) {
    const VLMConfig *c = m->config;
    const bool to_vision = trains_vision(&m->plan);
    Arena *a = &m->activations, *scratch = &m->scratch;
    if (to_vision || (m->plan.training && m->plan.trained[GROUP_MP]))
        m->dvectors =
            arena_take(scratch, m->params.act, SHAPE(I * c->mp_image_token_length, c->lm_hidden_dim));
    vision_encoder_plan(&m->vision, a, scratch, tiles_at_once(m, n_encoded), to_vision);
    modality_projector_plan(&m->projector, a, scratch, I, to_vision);
}

static void plan_text(Vlm *m, size_t B, size_t T, size_t n_targets, bool documents) {
    const VLMConfig *c = m->config;
    const bool training = m->plan.training;
    const size_t chunk = chunk_rows(c, m->params.act, n_targets);
    m->hidden = arena_take(&m->scratch, m->params.act, SHAPE(chunk, c->lm_hidden_dim));
    m->logits = arena_take(&m->scratch, m->params.act, SHAPE(chunk, c->lm_vocab_size));
    language_model_plan(&m->decoder, &m->activations, &m->scratch, B, T, training, training, documents);
}

// Everything one batch of the given shape needs, in a fixed order. Pictures and text are at work by turns –
// forward pictures, text, backward text, pictures –, so their scratch is the same memory.
static void plan_activations(Vlm *m, size_t B, size_t T, size_t I, size_t n_encoded, size_t n_targets,
                             bool documents) {
    Arena *a = &m->activations, *scratch = &m->scratch;
    a->used = scratch->used = 0;
    m->B = B, m->T = T, m->I = I, m->n_encoded = n_encoded, m->n_targets = n_targets;
    m->input_ids = arena_take(a, DTYPE_I32, SHAPE(B * T));
    m->mask = arena_take(a, DTYPE_I32, SHAPE(B, T));
    m->image_rows = arena_take(a, DTYPE_I32, SHAPE(I * m->config->mp_image_token_length));
    m->target_rows = arena_take(a, DTYPE_I32, SHAPE(n_targets));
    m->targets = arena_take(a, DTYPE_I32, SHAPE(n_targets));
    m->losses = arena_take(a, DTYPE_F32, SHAPE(n_targets));
    m->loss = arena_take(a, DTYPE_F32, SHAPE(1));
    plan_pictures(m, I, n_encoded);
    const size_t pictures = scratch->used;
    scratch->used = 0;
    plan_text(m, B, T, n_targets, documents);
    if (scratch->used < pictures) scratch->used = pictures;
    // The vision encoder's backward begins when the decoder's blocks are needed no more: in their place.
    const size_t end = a->used;
    a->used = m->decoder.blocks_at;
    if (trains_vision(&m->plan)) vision_encoder_plan_gradients(&m->vision, a, I);
    if (a->used < end) a->used = end;
}

static size_t max_rows(const VlmPlan *plan) {
    return plan->max_batch * plan->max_positions;
}

static size_t max_targets(const VlmPlan *plan) {
    return plan->max_targets ? plan->max_targets : max_rows(plan);
}

// The first run of all plans, over arenas without memory.
static bool measure(Vlm *m, Backend *be, const VLMConfig *config, const VlmPlan *plan, const ParamsForm *form,
                    Error *err) {
    *m = (Vlm){.be = be, .config = config, .plan = *plan};
    if (!(form->decoder_alone ? decoder_config_check : vlm_config_check)(config, err)) return false;
    if (!plan->training) memset(m->plan.trained, 0, sizeof m->plan.trained);
    params_plan_form(&m->params, be, config, form, m->plan.trained);
    if (plan->training) {
        if (!params_adapt(&m->params, be, &plan->adaptation, err)) {
            params_free(&m->params);
            return false;
        }
        for (int g = 0; g < GROUP_TRAINED; g++)
            m->plan.trained[g] = params_trained(&m->params, (ParamGroup)g) > 0;
    }
    if (plan->dtype == DTYPE_BF16) params_plan_bf16(&m->params, plan->recompute == RECOMPUTE_NONE);
    m->activations = arena_measure(be, "activations");
    m->scratch = arena_measure(be, "activations that are soon forgotten");
    vision_encoder_init(&m->vision, be, config, &m->params);
    modality_projector_init(&m->projector, be, config, &m->params);
    language_model_init(&m->decoder, be, config, &m->params,
                        plan->documents ? max_rows(plan) : plan->max_positions);
    m->vision.recompute = m->decoder.recompute = plan->recompute;
    plan_activations(m, plan->max_batch, plan->max_positions, plan->max_tiles, plan->max_tiles,
                     max_targets(plan), plan->documents);
    return true;
}

static size_t staging_bytes(const Vlm *m) {
    return (2 * max_rows(&m->plan) + m->plan.max_tiles * m->config->mp_image_token_length) * sizeof(int32_t);
}

bool vlm_create(Vlm *m, Backend *be, const VLMConfig *config, const VlmPlan *plan, Error *err) {
    return vlm_create_form(m, be, config, plan, &(ParamsForm){0}, err);
}

bool vlm_create_form(Vlm *m, Backend *be, const VLMConfig *config, const VlmPlan *plan,
                     const ParamsForm *form, Error *err) {
    if (!measure(m, be, config, plan, form, err)) return false;
    m->staging = be->device->host_alloc(be, staging_bytes(m));
    if (params_allocate(&m->params, err) && arena_commit(&m->activations, err) &&
        arena_commit(&m->scratch, err))
        return true;
    vlm_free(m);
    return false;
}

void vlm_free(Vlm *m) {
    if (!m->be) return;
    if (m->staging) m->be->device->host_release(m->be, m->staging, staging_bytes(m));
    arena_release(&m->activations);
    arena_release(&m->scratch);
    vision_encoder_free(&m->vision);
    language_model_free(&m->decoder);
    params_free(&m->params);
    *m = (Vlm){0};
}

size_t vlm_activation_bytes(const Vlm *m) {
    return m->activations.size + m->scratch.size;
}

bool vlm_measure(VlmMemory *memory, Backend *be, const VLMConfig *config, const VlmPlan *plan, Error *err) {
    Vlm m;
    if (!measure(&m, be, config, plan, &(ParamsForm){0}, err)) return false;
    *memory = (VlmMemory){m.params.values.used,    params_bf16_bytes(&m.params),
                          m.params.gradients.used, m.activations.used,
                          m.scratch.used,          params_largest_bytes(&m.params)};
    vlm_free(&m);
    return true;
}

static bool check_ids(const Vlm *m, const Batch *b, Error *err) {
    for (size_t i = 0; i < b->B * b->T; i++)
        if (b->input_ids[i] < 0 || (size_t)b->input_ids[i] >= m->config->lm_vocab_size)
            return error_set(
                err,
                "token id %d at position %zu of sequence %zu lies outside lm_vocab_size %zu; the tokenizer "
                "and the model do not belong together",
                b->input_ids[i], i % b->T, i / b->T, m->config->lm_vocab_size);
    return true;
}

// Rows of the image tokens, in order. Without pictures image tokens keep their own embedding (spec 2).
static bool find_image_rows(int32_t *rows, const Vlm *m, const Batch *b, Error *err) {
    size_t n = 0, expected = b->n_tiles * m->config->mp_image_token_length;
    if (b->n_tiles == 0) return true;
    for (size_t i = 0; i < b->B * b->T; i++) {
        if (b->input_ids[i] != m->plan.image_token_id) continue;
        if (n < expected) rows[n] = (int32_t)i;
        n++;
    }
    if (n == expected) return true;
    return error_set(
        err, "the batch has %zu image tokens, but its %zu tiles of mp_image_token_length %zu need %zu", n,
        b->n_tiles, m->config->mp_image_token_length, expected);
}

static bool find_targets(int32_t *rows, int32_t *targets, size_t *n, const Vlm *m, const Batch *b,
                         Error *err) {
    *n = 0;
    for (size_t i = 0; b->labels && i < b->B * b->T; i++) {
        if (b->labels[i] == IGNORE_INDEX) continue;
        if (b->labels[i] < 0 || (size_t)b->labels[i] >= m->config->lm_vocab_size)
            return error_set(err, "label %d at position %zu of sequence %zu lies outside lm_vocab_size %zu",
                             b->labels[i], i % b->T, i / b->T, m->config->lm_vocab_size);
        rows[*n] = (int32_t)i;
        targets[(*n)++] = b->labels[i];
    }
    return true;
}

// ---- tiles whose features came with the batch ----

static size_t count_unknown(const TileFeatures *f, size_t n_tiles) {
    size_t n = 0;
    for (size_t i = 0; i < n_tiles; i++) n += !(f && f->known[i]);
    return n;
}

static void upload_features(Vlm *m) {
    const TileFeatures *f = m->features;
    for (size_t i = 0; f && i < m->I; i++)
        if (f->known[i])
            tensor_upload(m->be, STREAM_COMPUTE, tensor_slice(m->projector.shuffled, i, 1),
                          f->bytes + i * f->tile_bytes);
}

// Neighbouring tiles.
typedef struct TileRun {
    size_t first, n;
} TileRun;

// The first tiles behind `run` that are not known, at most `most` of them; there are as many somewhere.
static TileRun next_unknown(const TileFeatures *f, TileRun run, size_t most) {
    run = (TileRun){run.first + run.n, 1};
    while (f && f->known[run.first]) run.first++;
    while (run.n < most && !(f && f->known[run.first + run.n])) run.n++;
    return run;
}

static void encode_tiles(Vlm *m) {
    const size_t values = 3 * m->config->vit_img_size * m->config->vit_img_size, at_once = m->vision.I;
    TileRun in = {0}, out = {0};
    for (size_t done = 0; done < m->n_encoded; done += at_once) {
        for (size_t i = 0; i < at_once; i += in.n) {
            in = next_unknown(m->features, in, at_once - i);
            tensor_upload(m->be, STREAM_COMPUTE, tensor_slice(m->vision.images, i, in.n),
                          m->pixels + in.first * values);
        }
        vision_encoder_forward(&m->vision, m->vision.images);
        for (size_t i = 0; i < at_once; i += out.n) {
            out = next_unknown(m->features, out, at_once - i);
            modality_projector_shuffle(&m->projector, out.first, tensor_slice(m->vision.out, i, out.n));
        }
    }
}

static void check_features(const Vlm *m, const TileFeatures *f) {
    const size_t bytes = modality_projector_tile_bytes(m->config, m->params.act);
    CHECK(!f || (m->plan.tile_features && !vlm_trains_vision(m)), "features of tiles were not planned");
    CHECK(!f || f->tile_bytes == bytes, "features of %zu bytes a tile instead of %zu", f->tile_bytes, bytes);
}

void vlm_tile_features(const Vlm *m, size_t tile, void *bytes) {
    tensor_download(m->be, STREAM_COMPUTE, bytes, tensor_slice(m->projector.shuffled, tile, 1));
    backend_sync(m->be);
}

// ---- a batch ----

bool vlm_set_batch(Vlm *m, const Batch *b, Error *err) {
    const VlmPlan *plan = &m->plan;
    if (b->B * b->T > max_rows(plan) || b->T > plan->max_positions || b->n_tiles > plan->max_tiles)
        return error_set(err,
                         "a batch of %zu x %zu positions and %zu tiles exceeds the plan of %zu x %zu and %zu",
                         b->B, b->T, b->n_tiles, plan->max_batch, plan->max_positions, plan->max_tiles);
    int32_t *targets = m->staging, *target_rows = targets + max_rows(plan),
            *image_rows = target_rows + max_rows(plan);
    size_t n_targets;
    if (!check_ids(m, b, err) || !find_image_rows(image_rows, m, b, err) ||
        !find_targets(target_rows, targets, &n_targets, m, b, err))
        return false;
    if (n_targets > max_targets(plan))
        return error_set(err, "a batch with %zu targets exceeds the plan of %zu", n_targets,
                         max_targets(plan));
    check_features(m, b->features);
    m->features = b->features;
    m->pixels = b->images;
    const bool documents = plan->documents && b->starts;
    plan_activations(m, b->B, b->T, b->n_tiles, count_unknown(b->features, b->n_tiles), n_targets, documents);
    m->has_mask = b->attention_mask != NULL;
    tensor_upload(m->be, STREAM_COMPUTE, m->input_ids, b->input_ids);
    if (m->has_mask) tensor_upload(m->be, STREAM_COMPUTE, m->mask, b->attention_mask);
    if (documents) language_model_set_starts(&m->decoder, b->starts);
    upload_features(m);
    tensor_upload(m->be, STREAM_COMPUTE, m->image_rows, image_rows);
    tensor_upload(m->be, STREAM_COMPUTE, m->target_rows, target_rows);
    tensor_upload(m->be, STREAM_COMPUTE, m->targets, targets);
    return true;
}

void vlm_embed(Vlm *m) {
    Tensor x = language_model_input(&m->decoder);
    embedding_forward(m->be, x, m->params.decoder.embedding->w, m->input_ids);
    if (m->I == 0) return;
    encode_tiles(m);
    modality_projector_forward(&m->projector);
    Tensor vectors =
        tensor_reshape(m->projector.out, SHAPE(tensor_rows(m->projector.out), tensor_cols(m->projector.out)));
    scatter_rows(m->be, x, vectors, m->image_rows);
}

void vlm_head(Vlm *m, Tensor logits, Tensor hidden, Tensor rows) {
    gather_rows(m->be, hidden, m->decoder.out, rows);
    linear_forward(m->be, logits, hidden, m->params.decoder.head->product, TENSOR_NONE);
}

// One chunk of target positions: loss and, for training, the gradients of head and hidden states at once.
static void chunk_loss(Vlm *m, size_t first, size_t n, float dscale) {
    Backend *be = m->be;
    const Param *head = m->params.decoder.head;
    Tensor rows = tensor_slice(m->target_rows, first, n), hidden = tensor_head(m->hidden, n);
    Tensor logits = tensor_head(m->logits, n);
    vlm_head(m, logits, hidden, rows);
    cross_entropy(be, tensor_slice(m->losses, first, n), logits, tensor_slice(m->targets, first, n), dscale);
    if (dscale == 0) return;
    if (tensor_exists(head->d)) linear_backward_weight(be, head->d, TENSOR_NONE, logits, hidden);
    linear_backward_input(be, hidden, logits, head->product, false);
    scatter_rows(be, m->decoder.dnorm, hidden, rows);
}

bool vlm_forward(Vlm *m, const Batch *batch, float dscale, Error *err) {
    CHECK(dscale == 0 || m->plan.training, "gradients were not planned");
    if (!vlm_set_batch(m, batch, err)) return false;
    vlm_embed(m);
    language_model_forward(&m->decoder, m->has_mask ? m->mask : TENSOR_NONE, NULL);
    if (m->n_targets == 0) {
        fill(m->be, m->loss, NAN); // the mean of nothing, as PyTorch has it
        return true;
    }
    if (dscale != 0) fill(m->be, m->decoder.dnorm, 0.0f);
    size_t chunk = tensor_rows(m->logits);
    for (size_t first = 0; first < m->n_targets; first += chunk) {
        size_t left = m->n_targets - first;
        chunk_loss(m, first, left < chunk ? left : chunk, dscale / (float)m->n_targets);
    }
    sum(m->be, m->loss, m->losses, 1.0f / (float)m->n_targets);
    return true;
}

float vlm_loss(Vlm *m) {
    return tensor_read_f32(m->be, m->loss);
}

void vlm_backward(Vlm *m) {
    const bool to_vision = trains_vision(&m->plan);
    const Param *embedding = m->params.decoder.embedding;
    if (m->n_targets == 0) return; // no target, no gradient
    language_model_backward(&m->decoder, m->has_mask ? m->mask : TENSOR_NONE);
    if (m->I > 0 && (to_vision || m->plan.trained[GROUP_MP])) {
        gather_rows(m->be, m->dvectors, m->decoder.dx, m->image_rows);
        modality_projector_backward(&m->projector, m->dvectors, to_vision);
        params_gradients_final(&m->params, m->params.projector);
        if (to_vision) vision_encoder_backward(&m->vision, m->projector.dpatches);
    }
    if (!tensor_exists(embedding->d)) return;
    if (m->I > 0)
        zero_rows(m->be, m->decoder.dx, m->image_rows); // the pictures' vectors replaced these embeddings
    embedding_backward(m->be, embedding->d, m->decoder.dx, m->input_ids);
}
