#include "data/loader_stages.h"

#include "base/check.h"

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
    vec_free(&s->samples);
    vec_free(&s->first_tile);
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
        if (pthread_create(&l->threads[l->n_threads], NULL, worker, l) != 0)
            return error_set(err, "cannot start loader thread %zu of %zu; lower --num_workers",
                             l->n_threads + 1, n);
    return true;
}

// Waits until no thread works; none begins until resume.
static void pause_threads(Loader *l) {
    l->paused = true;
    while (l->working > 0) pthread_cond_wait(&l->changed, &l->lock);
}

static void resume_threads(Loader *l) {
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

static bool open_data(Loader *l, Error *err) {
    const TrainConfig *t = &l->config->train;
    RowStreamSettings settings = {.shuffle = !t->stream_dataset,
                                  .validation = l->split == LOADER_VALIDATION,
                                  .seed = l->config->options.seed,
                                  .val_size = t->val_size};
    return dataset_open(&l->data, t->train_dataset_path, &t->train_dataset_name, err) &&
           row_stream_open(&l->rows, l->data, settings, err);
}

static bool alloc_buffers(Loader *l, Error *err) {
    const Config *c = l->config;
    PackLimits limits = {c->vlm.lm_max_length, c->train.max_images_per_knapsack, sequence_tiles(c)};
    l->packer = packer_new(c->options.packing, limits, c->train.batch_size, 0);
    l->ring_size = 16 + 4 * c->options.num_workers;
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

bool loader_open(Loader **out, const Config *config, const Tokenizer *tokenizer, LoaderSplit split,
                 Error *err) {
    Loader *l = mem_zeroed(1, sizeof *l);
    l->config = config;
    l->split = split;
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
    free(l->threads);
    free(l->slots);
    free(l->ring);
    free(l);
}

// ---- batches ----

// The epoch is over: why, if that is a failure.
static bool end_of_epoch(Loader *l, Error *err) {
    const LoaderCounts c = l->given_counts = l->counts;
    if (l->failed) return error_set(err, "%s", l->err.text);
    if (l->epoch_batches > 0 || l->split == LOADER_VALIDATION) return true;
    return error_set(
        err,
        "%s gives no batch of %zu sequences with a picture: of %llu rows so far %llu are samples, %llu "
        "unreadable, %llu filtered by ratings, %llu too long, %llu with too many pictures; use more "
        "data, a smaller batch_size or other limits",
        l->config->train.train_dataset_path, l->config->train.batch_size, (unsigned long long)c.rows,
        (unsigned long long)c.samples, (unsigned long long)c.skipped_unreadable,
        (unsigned long long)c.skipped_ratings, (unsigned long long)c.skipped_too_long,
        (unsigned long long)c.skipped_images);
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

bool loader_next(Loader *l, const Batch **batch, Error *err) {
    bool ok = true;
    *batch = NULL;
    pthread_mutex_lock(&l->lock);
    if (l->lent) {
        BatchSlot *old = &l->slots[l->released++ % l->n_slots];
        l->lent = false;
        for (size_t i = 0; i < l->config->train.batch_size; i++) sequence_clear(&old->sequences[i]);
        vec_clear(&old->samples);
        vec_clear(&old->first_tile);
        old->n_sequences = old->next = 0;
        pthread_cond_broadcast(&l->changed);
    }
    BatchSlot *slot = wait_for_batch(l);
    if (!slot) {
        ok = end_of_epoch(l, err);
    } else if (slot->failed) {
        ok = error_set(err, "preparing a batch: %s", slot->err.text);
    } else {
        l->lent = true;
        l->given_counts = slot->counts;
        *batch = &slot->batch;
    }
    pthread_mutex_unlock(&l->lock);
    return ok;
}

bool loader_skip(Loader *l, uint64_t n, Error *err) {
    const Batch *batch;
    pthread_mutex_lock(&l->lock);
    l->fill_from = l->released + l->lent + n;
    pthread_mutex_unlock(&l->lock);
    for (uint64_t i = 0; i < n; i++) {
        if (!loader_next(l, &batch, err)) return false;
        if (!batch)
            return error_set(err, "the epoch has %llu batches fewer than it had: has the data set changed?",
                             (unsigned long long)(n - i));
    }
    return true;
}

bool loader_restart(Loader *l, uint64_t epoch, Error *err) {
    (void)err; // the data set is open; what goes wrong with it shows in loader_next
    pthread_mutex_lock(&l->lock);
    pause_threads(l);
    l->epoch = epoch;
    loader_clear(l);
    resume_threads(l);
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
