#include "data/loader_stages.h"

#include "base/check.h"
#include "base/cores.h"

// ---- sizes ----

// Tiles of one sequence: each brings its image tokens and one that says where it lies; pictures are counted
// too.
static size_t sequence_tiles(const Config *c) {
    const VLMConfig *v = &c->vlm;
    size_t by_tokens = v->lm_max_length / (v->mp_image_token_length + 1),
           images = c->train.max_images_per_knapsack;
    // nanoVLM gives a sample with more pictures than a sequence may hold a sequence of its own.
    if (strcmp(c->options.packing, "nanovlm") == 0 && images < c->train.max_images_per_example)
        images = c->train.max_images_per_example;
    // Rounding can make the short side one tile longer than the long one; and there is the global tile.
    size_t across = v->max_img_size / v->vit_img_size, most = across * (across + 1) + 1;
    size_t tiles = images > by_tokens / most ? by_tokens : images * most;
    size_t wanted = c->options.max_tiles / c->train.batch_size;
    return c->options.max_tiles && wanted < tiles ? wanted : tiles;
}

size_t loader_max_tiles(const Config *config) {
    return config->train.batch_size * sequence_tiles(config);
}

static bool alloc_slot(BatchSlot *s, const Config *c, Error *err) {
    size_t B = c->train.batch_size, positions = B * c->vlm.lm_max_length, P = c->vlm.vit_img_size;
    size_t images = loader_max_tiles(c) * 3 * P * P * sizeof *s->batch.images;
    s->sequences = mem_zeroed(B, sizeof *s->sequences);
    s->batch.input_ids = mem_alloc(positions * sizeof *s->batch.input_ids);
    s->batch.attention_mask = mem_alloc(positions * sizeof *s->batch.attention_mask);
    s->batch.labels = mem_alloc(positions * sizeof *s->batch.labels);
    s->batch.starts = mem_alloc(positions * sizeof *s->batch.starts);
    void *pixels = NULL;
    if (posix_memalign(&pixels, 64, images ? images : 64) != 0)
        return error_set(
            err, "no memory for the %zu bytes of a batch's pictures; lower batch_size or max_tiles", images);
    s->batch.images = pixels;
    return true;
}

static void free_slot(BatchSlot *s, size_t batch_size) {
    for (size_t i = 0; s->sequences && i < batch_size; i++) sequence_free(&s->sequences[i]);
    free(s->sequences);
    free(s->batch.input_ids);
    free(s->batch.attention_mask);
    free(s->batch.labels);
    free(s->batch.starts);
    free(s->batch.images);
    free(s->features.keys);
    free(s->features.known);
    free(s->features.bytes);
    vec_free(&s->samples);
    vec_free(&s->first_tile);
    vec_free(&s->rows);
    vec_free(&s->state);
}

// ---- threads ----

static void *worker(void *state) {
    Loader *l = state;
    pthread_mutex_lock(&l->lock);
    while (!l->stop)
        if (l->paused || !loader_work(l)) pthread_cond_wait(&l->changed, &l->lock);
    pthread_mutex_unlock(&l->lock);
    return NULL;
}

static bool start_threads(Loader *l, Error *err) {
    size_t n = l->config->options.num_workers;
    l->threads = mem_zeroed(n + 1, sizeof *l->threads);
    for (; l->n_threads < n; l->n_threads++)
        if (cores_start_thread(&l->threads[l->n_threads], worker, l) != 0)
            return error_set(err, "cannot start loader thread %zu of %zu; lower --num_workers",
                             l->n_threads + 1, n);
    return true;
}

void loader_pause(Loader *l) {
    l->paused = true;
    while (l->working > 0) pthread_cond_wait(&l->changed, &l->lock);
}

void loader_resume(Loader *l) {
    l->paused = false;
    pthread_cond_broadcast(&l->changed);
}

// ---- opening and closing ----

static bool check_config(const Config *c, Error *err) {
    if (c->options.max_tiles && c->options.max_tiles < c->train.batch_size)
        return error_set(
            err, "max_tiles is %zu, less than one tile for each of the %zu sequences of a batch; raise it",
            c->options.max_tiles, c->train.batch_size);
    return true;
}

static bool open_dataset(Loader *l, bool own_validation, Error *err) {
    const Config *c = l->config;
    if (!own_validation || l->split == LOADER_TRAIN)
        return dataset_open(&l->data, c->train.train_dataset_path, &c->train.train_dataset_name, err);
    char *name = "default";
    const StringList names = {1, &name};
    return dataset_open(&l->data, c->options.val_dataset_path, &names, err) ||
           error_prefix(err, "val_dataset_path");
}

static bool open_data(Loader *l, Error *err) {
    const Config *c = l->config;
    const bool own_validation = c->options.val_dataset_path != NULL;
    RowStreamSettings settings = {.split = l->split == LOADER_TRAIN ? ROWS_TRAINING
                                           : own_validation         ? ROWS_OWN
                                                                    : ROWS_HELD_OUT,
                                  .shuffle = !c->train.stream_dataset,
                                  .window_bytes = c->options.shuffle_window << 20,
                                  .shuffle_buffer = c->train.stream_dataset ? c->options.shuffle_buffer : 0,
                                  .seed = c->options.seed,
                                  .val_size = c->train.val_size,
                                  .rank = l->ranks.rank,
                                  .world_size = l->ranks.world_size};
    if (own_validation && l->split == LOADER_TRAIN) settings.val_size = 0;
    return open_dataset(l, own_validation, err) && row_stream_open(&l->rows, l->data, settings, err);
}

static bool alloc_buffers(Loader *l, Error *err) {
    const Config *c = l->config;
    PackLimits limits = {c->vlm.lm_max_length, c->train.max_images_per_knapsack, sequence_tiles(c)};
    l->packer = packer_new(c->options.packing, limits, c->train.batch_size, 0);
    l->ring_size = loader_ring_size(c);
    l->ring = mem_zeroed(l->ring_size, sizeof *l->ring);
    // Between validations its batches would only take memory: one ahead is enough.
    l->n_slots =
        1 + (l->split == LOADER_TRAIN && c->options.prefetch_factor > 0 ? c->options.prefetch_factor : 1);
    l->slots = mem_zeroed(l->n_slots, sizeof *l->slots);
    for (size_t i = 0; i < l->n_slots; i++)
        if (!alloc_slot(&l->slots[i], c, err)) return false;
    loader_clear(l);
    return true;
}

bool loader_open_rank(Loader **out, const Config *config, const Tokenizer *tokenizer, LoaderSplit split,
                      LoaderRanks ranks, Error *err) {
    Loader *l = mem_zeroed(1, sizeof *l);
    l->config = config;
    l->split = split;
    l->ranks = ranks;
    l->pad_id = tokenizer_eos_id(tokenizer); // nanoVLM: pad = eos
    l->max_tiles = loader_max_tiles(config);
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->changed, NULL);
    if (!check_config(config, err) || !sample_rules_init(&l->rules, config, tokenizer, err) ||
        !open_data(l, err) || !alloc_buffers(l, err) || !start_threads(l, err)) {
        loader_close(l);
        return false;
    }
    *out = l;
    return true;
}

static bool alloc_features(BatchSlot *s, size_t max_tiles, size_t tile_bytes, Error *err) {
    void *bytes = NULL;
    if (posix_memalign(&bytes, 64, max_tiles * tile_bytes) != 0)
        return error_set(
            err,
            "no memory for the %zu bytes that cache_vision keeps of a batch; lower batch_size or max_tiles",
            max_tiles * tile_bytes);
    s->features = (TileFeatures){.tile_bytes = tile_bytes,
                                 .keys = mem_zeroed(max_tiles, sizeof *s->features.keys),
                                 .known = mem_zeroed(max_tiles, sizeof *s->features.known),
                                 .bytes = bytes};
    s->batch.features = &s->features;
    return true;
}

bool loader_use_cache(Loader *l, TileCache *cache, Error *err) {
    bool ok = true;
    pthread_mutex_lock(&l->lock);
    CHECK(l->given == 0 && !l->lent && !l->cache, "%llu batches are given out", (unsigned long long)l->given);
    loader_pause(l);
    loader_clear(l); // what is prepared knows of no cache
    l->cache = cache;
    for (size_t i = 0; ok && i < l->n_slots; i++)
        ok = alloc_features(&l->slots[i], l->max_tiles, tile_cache_tile_bytes(cache), err);
    loader_resume(l);
    pthread_mutex_unlock(&l->lock);
    return ok;
}

void loader_close(Loader *l) {
    if (!l) return;
    pthread_mutex_lock(&l->lock);
    l->stop = true;
    pthread_cond_broadcast(&l->changed);
    pthread_mutex_unlock(&l->lock);
    for (size_t i = 0; i < l->n_threads; i++) pthread_join(l->threads[i], NULL);
    if (l->packer) loader_clear(l);
    packer_free(l->packer);
    for (size_t i = 0; i < l->n_slots; i++) free_slot(&l->slots[i], l->config->train.batch_size);
    row_stream_close(l->rows);
    dataset_close(l->data);
    pthread_cond_destroy(&l->changed);
    pthread_mutex_destroy(&l->lock);
    vec_free(&l->given_state);
    vec_free(&l->sizes);
    free(l->threads);
    free(l->slots);
    free(l->ring);
    free(l);
}

// ---- batches ----

// A training epoch must give at least one batch, for the trainer would turn for ever.
static bool no_batch(const Loader *l, bool had_one, Error *err) {
    const LoaderCounts c = l->given_counts;
    if (had_one)
        return error_set(
            err,
            "rank %zu of %zu has batches to train on, but another one has none in this epoch; use "
            "more data or a smaller batch_size",
            l->ranks.rank, l->ranks.world_size);
    return error_set(
        err,
        "%s gives no batch of %zu sequences with a picture: of %llu rows so far %llu are samples, %llu "
        "unreadable, %llu filtered by ratings, %llu too long, %llu with too many pictures; %llu batches have "
        "no picture; use more data, a smaller batch_size or other limits",
        l->config->train.train_dataset_path, l->config->train.batch_size, (unsigned long long)c.rows,
        (unsigned long long)c.samples, (unsigned long long)c.skipped_unreadable,
        (unsigned long long)c.skipped_ratings, (unsigned long long)c.skipped_too_long,
        (unsigned long long)c.skipped_images, (unsigned long long)c.skipped_no_image);
}

// No further batch in this epoch. had_one: this rank has a batch, but another one has none; then how far the
// rows behind it got is chance, and so are the counts.
static void end_epoch(Loader *l, BatchSlot *slot, bool had_one) {
    l->ended = true;
    if (!had_one) l->given_counts = l->counts;
    if (slot && slot->failed)
        l->broken = !error_set(&l->end_err, "preparing a batch: %s", slot->err.text);
    else if (!had_one && l->failed)
        l->broken = !error_set(&l->end_err, "%s", l->err.text);
    else if (l->given == 0 && l->split == LOADER_TRAIN)
        l->broken = !no_batch(l, had_one, &l->end_err);
}

// The next batch once it is ready; NULL when there is none.
static BatchSlot *wait_for_batch(Loader *l) {
    BatchSlot *slot = &l->slots[l->released % l->n_slots];
    for (;;) {
        if (l->released < l->formed && slot->left == 0) return slot;
        if (l->released == l->formed && l->over) return NULL;
        if (l->n_threads > 0)
            pthread_cond_wait(&l->changed, &l->lock);
        else if (!loader_work(l))
            CHECK(false, "the loader stands still after %llu rows", (unsigned long long)l->claimed);
    }
}

static void take_back(Loader *l) {
    BatchSlot *old = &l->slots[l->released++ % l->n_slots];
    l->lent = false;
    for (size_t i = 0; i < l->config->train.batch_size; i++) sequence_clear(&old->sequences[i]);
    vec_clear(&old->samples);
    vec_clear(&old->first_tile);
    vec_clear(&old->rows);
    old->n_sequences = old->next = 0;
    pthread_cond_broadcast(&l->changed);
}

static const Batch *give(Loader *l, BatchSlot *slot) {
    l->lent = true;
    l->given++;
    l->given_counts = slot->counts;
    vec_clear(&l->given_state);
    vec_extend(&l->given_state, slot->state.items, slot->state.count);
    return &slot->batch;
}

// Whether all ranks have a batch, if this one has. Without the lock: the threads need not wait for the
// others.
static bool agreed(Loader *l, bool mine) {
    if (!l->ranks.agree) return mine;
    pthread_mutex_unlock(&l->lock);
    bool all = l->ranks.agree(l->ranks.state, mine);
    pthread_mutex_lock(&l->lock);
    return all && mine;
}

bool loader_next(Loader *l, const Batch **batch, Error *err) {
    *batch = NULL;
    pthread_mutex_lock(&l->lock);
    if (l->lent) take_back(l);
    if (!l->ended) {
        BatchSlot *slot = wait_for_batch(l);
        const bool has_one = slot && !slot->failed;
        if (agreed(l, has_one))
            *batch = give(l, slot);
        else
            end_epoch(l, slot, has_one);
    }
    const bool ok = *batch || !l->broken || error_set(err, "%s", l->end_err.text);
    pthread_mutex_unlock(&l->lock);
    return ok;
}

bool loader_restart(Loader *l, uint64_t epoch, Error *err) {
    (void)err; // the data set is open; what goes wrong with it shows in loader_next
    pthread_mutex_lock(&l->lock);
    loader_pause(l);
    l->epoch = epoch;
    loader_clear(l);
    loader_resume(l);
    pthread_mutex_unlock(&l->lock);
    return true;
}

LoaderCounts loader_counts(const Loader *l) {
    Loader *open = (Loader *)l; // the lock is no part of its value
    pthread_mutex_lock(&open->lock);
    LoaderCounts counts = l->given_counts;
    pthread_mutex_unlock(&open->lock);
    return counts;
}

uint64_t loader_rows(const Loader *l) {
    return row_stream_rows(l->rows);
}

const SampleRules *loader_rules(const Loader *l) {
    return &l->rules;
}
