#include "data/loader_stages.h"

#include "base/check.h"
#include "base/log.h"

#include <sys/mman.h>
#include <unistd.h>

static BatchSlot *slot_of(Loader *l, uint64_t batch) {
    return &l->slots[batch % l->n_slots];
}

static void drop_sample(void *sample) {
    sample_free(sample);
    free(sample);
}

// ---- read ----

static RowNeed read_need(const Loader *l) {
    return l->reading || l->read_failed || l->rows_over ? ROWS_NEED_NOTHING : row_stream_need(l->rows);
}

static void work_on_read(Loader *l) {
    Error err;
    l->reading = true;
    pthread_mutex_unlock(&l->lock);
    RowWindow *w = row_stream_read(l->rows, &err);
    pthread_mutex_lock(&l->lock);
    l->reading = false;
    if (w)
        row_stream_put(l->rows, w);
    else
        l->read_failed = true, l->read_err = err;
}

// ---- rows ----

// A failure to read comes in its place: behind the rows that are at hand.
static bool can_claim(const Loader *l) {
    return !l->rows_over && l->claimed - l->packed < l->ring_size &&
           (row_stream_ready(l->rows) || l->read_failed);
}

static void build_row(Loader *l, RingSlot *slot, RowRef ref) {
    slot->path = ref.group->path;
    slot->place = ref.place;
    slot->row_in_file = ref.group->first_in_file + ref.number - ref.group->first;
    slot->row = ref.group->batch ? ROW_SAMPLE : ROW_UNREADABLE;
    if (slot->row == ROW_UNREADABLE) {
        slot->err = ref.group->err;
    } else {
        Sample sample;
        slot->fate = sample_build(&sample, &l->rules, &ref.group->columns, ref.row, &slot->err);
        if (slot->fate == SAMPLE_KEPT) {
            slot->sample = mem_alloc(sizeof sample);
            *slot->sample = sample;
            slot->sample->row = ref.number;
        }
    }
    row_release(&ref);
}

static PackItem item_of(const RingSlot *slot) {
    Sample *s = slot->sample;
    return (PackItem){s, s->ids.count + 1, s->n_pictures, s->n_tiles, sample_bytes(s), slot->place};
}

static void count_built(Loader *l, const RingSlot *slot) {
    BuiltSamples *b = &l->built;
    b->rows += slot->row != ROW_END;
    if (slot->row != ROW_SAMPLE || slot->fate != SAMPLE_KEPT) return;
    const PackItem item = item_of(slot);
    b->n++;
    b->bytes += item.bytes;
    b->building += sample_building_bytes(slot->sample);
    if (!packer_accepts(l->packer, &item)) return;
    b->packed.n++;
    b->packed.bytes += item.bytes;
    b->packed.tokens += item.length;
    if (l->sizes.count == ENOUGH_SAMPLES) return;
    vec_push(&l->sizes, item);
    l->sizes.items[l->sizes.count - 1].sample = NULL;
}

static void work_on_row(Loader *l) {
    RingSlot *slot = &l->ring[l->claimed++ % l->ring_size];
    RowRef ref = {0};
    *slot = (RingSlot){.row = ROW_END};
    if (row_stream_ready(l->rows))
        row_stream_next(l->rows, &ref, NULL); // nothing is read, so nothing can fail
    else
        slot->row = ROW_FAILURE, slot->err = l->read_err;
    if (ref.group) {
        pthread_cond_broadcast(&l->changed);
        pthread_mutex_unlock(&l->lock);
        build_row(l, slot, ref);
        pthread_mutex_lock(&l->lock);
    } else {
        l->rows_over = true;
    }
    count_built(l, slot);
    slot->done = true;
}

// ---- pack ----

static const struct {
    size_t count; // offset in LoaderCounts
    const char *what;
} skips[SKIP_KINDS] = {
    [SAMPLE_BAD_TEXT] = {offsetof(LoaderCounts, skipped_unreadable), "text cannot be used"},
    [SAMPLE_BAD_IMAGE] = {offsetof(LoaderCounts, skipped_unreadable), "picture cannot be used"},
    [SAMPLE_NO_TURN] = {offsetof(LoaderCounts, skipped_ratings), "filtered by its ratings"},
    [SAMPLE_TOO_MANY_IMAGES] = {offsetof(LoaderCounts, skipped_images), "too many pictures"},
    [SAMPLE_TOO_LONG] = {offsetof(LoaderCounts, skipped_too_long), "too long"},
};
enum { REPORT_GROUP = SAMPLE_TOO_LONG + 1, REPORT_TOKEN };

// Only the first of each kind is worth a line; the counts tell how many there were.
static void report(Loader *l, int kind, const RingSlot *slot, const char *what) {
    if (l->reported[kind]) return;
    l->reported[kind] = true;
    log_warning("%s: row %zu: %s%s%s (further ones are counted, not reported)", slot->path, slot->row_in_file,
                what, *slot->err.text ? ": " : "", slot->err.text);
}

static void skip(Loader *l, SampleFate fate, const RingSlot *slot) {
    ++*(uint64_t *)((char *)&l->counts + skips[fate].count);
    report(l, (int)fate, slot, skips[fate].what);
}

// Whether the packer takes it; if not, says why in the slot.
static SampleFate check_item(const Loader *l, RingSlot *slot, const PackItem *item) {
    const size_t length = l->config->vlm.lm_max_length;
    if (packer_accepts(l->packer, item)) return SAMPLE_KEPT;
    if (item->length > length) {
        error_set(&slot->err, "%zu tokens, a sequence holds %zu (lm_max_length)", item->length, length);
        return SAMPLE_TOO_LONG;
    }
    error_set(
        &slot->err,
        "%zu pictures of %zu tiles are more than a sequence may hold (max_images_per_knapsack, max_tiles)",
        item->images, item->tiles);
    return SAMPLE_TOO_MANY_IMAGES;
}

static void accept_sample(Loader *l, RingSlot *slot) {
    PackItem item = item_of(slot);
    if (slot->sample->had_image_token) report(l, REPORT_TOKEN, slot, "image token removed from the text");
    SampleFate fate = check_item(l, slot, &item);
    if (fate == SAMPLE_KEPT) {
        l->counts.samples++;
        l->counts.truncated += slot->sample->truncated;
        packer_add(l->packer, item);
    } else {
        skip(l, fate, slot);
        drop_sample(slot->sample);
    }
}

static void accept_row(Loader *l, RingSlot *slot) {
    l->next_place = slot->place + 1;
    l->counts.rows++;
    if (slot->row == ROW_UNREADABLE) {
        l->counts.skipped_unreadable++;
        report(l, REPORT_GROUP, slot, "its row group cannot be read");
    } else if (slot->fate == SAMPLE_KEPT) {
        accept_sample(l, slot);
    } else {
        skip(l, slot->fate, slot);
    }
}

// A row that waited in the packer when the state was saved: it was counted then, and must be what it was.
static void accept_again(Loader *l, RingSlot *slot) {
    Error err;
    if (slot->row == ROW_SAMPLE && slot->fate == SAMPLE_KEPT) {
        if (packer_supply(l->packer, item_of(slot), &err)) return;
    } else {
        err = slot->err;
        error_prefix(&err, "%s: row %zu, which waits in the saved state, cannot be used any more", slot->path,
                     slot->row_in_file);
    }
    slot->row = ROW_FAILURE;
    slot->err = err;
}

// The next row in order goes to the packer. What this changes belongs to the pack stage alone, so no lock is
// held.
static void pack_row(Loader *l, RingSlot *slot) {
    const bool is_row = slot->row == ROW_SAMPLE || slot->row == ROW_UNREADABLE;
    if (is_row && packer_missing(l->packer) > 0)
        accept_again(l, slot);
    else if (is_row)
        accept_row(l, slot);
    if (slot->row != ROW_END && slot->row != ROW_FAILURE) return;
    l->pack_ended = true;
    if (packer_missing(l->packer) == 0) packer_finish(l->packer);
}

static void clear_slot(BatchSlot *s, size_t batch_size) {
    for (size_t i = 0; i < s->samples.count; i++)
        if (s->samples.items[i]) drop_sample(s->samples.items[i]);
    for (size_t i = 0; s->sequences && i < batch_size; i++) sequence_clear(&s->sequences[i]);
    vec_clear(&s->samples);
    vec_clear(&s->first_tile);
    vec_clear(&s->rows);
    s->n_sequences = s->next = s->left = 0;
    s->failed = false;
}

static void add_pack(Loader *l, BatchSlot *slot, const Pack *pack) {
    Sequence *sequence = &slot->sequences[slot->n_sequences++];
    for (size_t i = 0; i < pack->count; i++) {
        Sample *s = pack->items[i].sample;
        size_t n = slot->samples.count;
        size_t first = n ? slot->first_tile.items[n - 1] + slot->samples.items[n - 1]->n_tiles : 0;
        vec_push(&slot->samples, s);
        vec_push(&slot->first_tile, first);
        vec_push(&slot->rows, s->row);
        sequence_append(sequence, &s->ids, &s->labels, s->n_pictures, s->n_tiles, l->pad_id);
    }
    l->counts.packs++;
}

// Gives the room behind the batch's tiles back that a larger batch filled before: what batches prepared ahead
// take then goes by their mean, not by the largest of the run.
static void shrink_to_tiles(BatchSlot *s, const VLMConfig *c) {
    const size_t tile = loader_tile_bytes(c), page = (size_t)sysconf(_SC_PAGESIZE), n = s->batch.n_tiles;
    const uintptr_t from = ((uintptr_t)s->batch.images + n * tile + page - 1) & ~(page - 1),
                    to = ((uintptr_t)s->batch.images + s->filled_tiles * tile) & ~(page - 1);
    if (from < to) madvise((void *)from, to - from, MADV_DONTNEED); // a wish: without it, more is taken
    s->filled_tiles = n;
}

// Whether a complete batch is one to train on. nanoVLM leaves out batches without pictures.
static bool finish_batch(Loader *l, BatchSlot *slot) {
    const size_t B = l->config->train.batch_size;
    const Sequence **sequences = mem_alloc(B * sizeof *sequences);
    for (size_t i = 0; i < B; i++) sequences[i] = &slot->sequences[i];
    collate(&slot->batch, sequences, B, l->config->vlm.lm_max_length, l->pad_id);
    free(sequences);
    slot->batch.rows = slot->rows.items;
    CHECK(slot->batch.B == B && slot->batch.n_tiles <= l->max_tiles, "%zu of %zu sequences, %zu of %zu tiles",
          slot->batch.B, B, slot->batch.n_tiles, l->max_tiles);
    shrink_to_tiles(slot, &l->config->vlm);
    if (slot->batch.n_images > 0) return true;
    if (l->counts.skipped_no_image++ == 0)
        log_warning("skipped a batch without any picture (further ones are counted)");
    clear_slot(slot, B);
    return false;
}

static bool can_pack(const Loader *l) {
    const RingSlot *head = &l->ring[l->packed % l->ring_size];
    return !l->packing && !l->over && l->formed - l->released < l->n_slots &&
           (packer_ready(l->packer) || (l->packed < l->claimed && head->done));
}

static void submit(Loader *l, BatchSlot *slot) {
    l->counts.batches++;
    slot->counts = l->counts;
    slot->left = slot->samples.count;
    l->formed++;
}

// One pack or one row.
static void work_on_pack(Loader *l) {
    BatchSlot *slot = slot_of(l, l->formed);
    RingSlot *head = &l->ring[l->packed % l->ring_size];
    bool complete = false, from_packer = packer_ready(l->packer);
    l->packing = true;
    pthread_mutex_unlock(&l->lock);
    if (from_packer) {
        Pack pack;
        packer_take(l->packer, &pack);
        add_pack(l, slot, &pack);
        complete = slot->n_sequences == l->config->train.batch_size && finish_batch(l, slot);
        if (complete) {
            vec_clear(&slot->state);
            loader_put_stages(l, &slot->state);
        }
    } else {
        pack_row(l, head);
    }
    pthread_mutex_lock(&l->lock);
    l->packing = false;
    if (complete) submit(l, slot);
    if (!from_packer) {
        head->done = false;
        l->packed++;
        if (head->row == ROW_FAILURE) l->failed = l->rows_over = true, l->err = head->err;
    }
    l->over = l->pack_ended && !packer_ready(l->packer);
}

// ---- fill ----

// The first batch with a sample that nobody has begun; l->formed when there is none.
static uint64_t fillable(Loader *l) {
    for (uint64_t i = l->released; i < l->formed; i++)
        if (slot_of(l, i)->next < slot_of(l, i)->samples.count) return i;
    return l->formed;
}

// Asks the cache for n tiles of the batch, from number `first` on.
static void look_up(TileCache *cache, BatchSlot *slot, size_t first, size_t n, size_t values) {
    TileFeatures *f = &slot->features;
    for (size_t i = first; cache && i < first + n; i++) {
        const float *tile = slot->batch.images + i * values;
        f->keys[i] = digest_of((Digest){{0}}, tile, values * sizeof *tile);
        f->known[i] = tile_cache_read(cache, f->keys[i], f->bytes + i * f->tile_bytes);
    }
}

static void work_on_fill(Loader *l, uint64_t batch) {
    BatchSlot *slot = slot_of(l, batch);
    const size_t i = slot->next++, P = l->config->vlm.vit_img_size, values = 3 * P * P;
    Sample *s = slot->samples.items[i];
    const size_t first = slot->first_tile.items[i];
    Error err;
    pthread_mutex_unlock(&l->lock);
    bool ok = sample_tiles(slot->batch.images + first * values, s, &l->rules, &err);
    if (ok) look_up(l->cache, slot, first, s->n_tiles, values);
    drop_sample(s);
    pthread_mutex_lock(&l->lock);
    slot->samples.items[i] = NULL;
    slot->left--;
    if (!ok && !slot->failed) slot->failed = true, slot->err = err;
}

// What is nearest to the caller comes first; a window is read ahead of that when the rows at hand run out,
// and else when nothing else is to be done.
bool loader_work(Loader *l) {
    const uint64_t batch = fillable(l);
    const RowNeed need = read_need(l);
    const bool fill = batch < l->formed, pack = can_pack(l), claim = can_claim(l);
    if (!fill && !pack && !claim && need == ROWS_NEED_NOTHING) return false;
    l->working++;
    if (fill)
        work_on_fill(l, batch);
    else if (pack)
        work_on_pack(l);
    else if (need == ROWS_NEED_NOW || !claim)
        work_on_read(l);
    else
        work_on_row(l);
    l->working--;
    pthread_cond_broadcast(&l->changed);
    return true;
}

void loader_clear(Loader *l) {
    CHECK(l->working == 0, "%zu threads are at work", l->working);
    for (size_t i = 0; i < l->ring_size; i++) {
        if (l->ring[i].done && l->ring[i].row == ROW_SAMPLE && l->ring[i].fate == SAMPLE_KEPT)
            drop_sample(l->ring[i].sample);
        l->ring[i] = (RingSlot){0};
    }
    for (size_t i = 0; i < l->n_slots; i++) clear_slot(&l->slots[i], l->config->train.batch_size);
    uint64_t seed = l->config->options.seed;
    if (strcmp(l->config->options.packing, "nanovlm") == 0)
        seed += 42; // nanoVLM seeds Python's generator with 42
    packer_reset(l->packer, seed, l->split == LOADER_TRAIN ? l->epoch : 0, drop_sample);
    row_stream_restart(l->rows, l->epoch);
    l->counts = l->given_counts; // rows read ahead are forgotten
    l->claimed = l->packed = l->formed = l->released = l->next_place = l->given = 0;
    l->rows_over = l->read_failed = l->pack_ended = l->over = l->failed = l->lent = false;
    l->ended = l->broken = false;
    vec_clear(&l->given_state);
    loader_put_stages(l, &l->given_state);
}
