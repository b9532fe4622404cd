// What a loader holds at most, from its settings, the footers of its files and the samples that it has built.
#include "data/loader_stages.h"
#include "format/arrow.h"

size_t loader_tile_bytes(const VLMConfig *c) {
    return 3 * c->vit_img_size * c->vit_img_size * sizeof(float);
}

size_t loader_batch_bytes(const Config *c, size_t tiles) {
    return 4 * c->train.batch_size * c->vlm.lm_max_length * sizeof(int32_t) +
           tiles * loader_tile_bytes(&c->vlm);
}

// Its sequences while packs come in: four vectors, which grow by doubling.
static size_t sequences_bytes(const Config *c) {
    size_t room = 16;
    while (room < c->vlm.lm_max_length) room *= 2;
    return c->train.batch_size * 4 * room * sizeof(int32_t);
}

static bool is_full(const Loader *l) {
    return l->formed - l->released == l->n_slots && l->claimed - l->packed == l->ring_size;
}

// Called with the lock held. The samples are those that the first batches wait for anyway.
static BuiltSamples look(SampleSizes *sizes, Loader *l) {
    while (l->built.packed.n < ENOUGH_SAMPLES && !is_full(l) && !l->rows_over && !l->over) {
        if (l->n_threads > 0)
            pthread_cond_wait(&l->changed, &l->lock);
        else if (!loader_work(l))
            break;
    }
    vec_extend(sizes, l->sizes.items, l->sizes.count);
    return l->built;
}

// What `rows` rows bring of all samples that were built, or of some of them.
static size_t bytes_of_rows(size_t rows, size_t bytes_built, const BuiltSamples *b) {
    return rows * bytes_built / b->rows;
}

// ---- packing ahead ----

// The loader at work on samples like those seen.
typedef struct Ahead {
    size_t tile_bytes, n_slots, batch_size;
    size_t in_hand, in_ring; // bytes of rows on their way: while the packer takes them, while it gives packs
    bool is_whole_epoch;     // which waits in the packer before its first batch
    // what came of it so far
    size_t batches, tiles, most_tiles;
    LoaderHeld ready, held; // with the first batches; the most of both together
    // now
    size_t waiting;                               // bytes in the packer
    size_t sequences, in_batch, in_slots, *slots; // of the batch that is made; tiles of the last ones
} Ahead;

static LoaderHeld hold(Ahead *a, size_t on_their_way) {
    const LoaderHeld now = {a->waiting + on_their_way, a->in_slots * a->tile_bytes};
    if (now.samples + now.tiles > a->held.samples + a->held.tiles) a->held = now;
    return now;
}

static void finish_batch(Ahead *a) {
    size_t *slot = &a->slots[a->batches++ % a->n_slots];
    a->in_slots += a->in_batch - *slot;
    *slot = a->in_batch;
    a->tiles += a->in_batch;
    if (a->in_batch > a->most_tiles) a->most_tiles = a->in_batch;
    a->sequences = a->in_batch = 0;
    if (a->batches == a->n_slots)
        a->ready = hold(a, a->in_ring);
    else if (a->batches > a->n_slots)
        hold(a, a->in_ring);
}

static void take_packs(Ahead *a, Packer *packer) {
    Pack pack;
    while (packer_take(packer, &pack)) {
        for (size_t i = 0; i < pack.count; i++) {
            a->in_batch += pack.items[i].tiles;
            a->waiting -= pack.items[i].bytes;
        }
        if (++a->sequences == a->batch_size) finish_batch(a);
    }
}

// n samples go through a packer like the loader's, those seen over and over. At an epoch's end no row is on
// its way, and it may have fewer batches than there are slots.
static void pack_ahead(Ahead *a, const Loader *l, const SampleSizes *sizes, size_t n, bool is_end) {
    Packer *packer = packer_like(l->packer);
    a->slots = mem_zeroed(a->n_slots, sizeof *a->slots);
    for (size_t i = 0; i < n; i++) {
        const PackItem item = sizes->items[i % sizes->count];
        packer_add(packer, item);
        a->waiting += item.bytes;
        if (!a->is_whole_epoch) hold(a, a->in_hand);
        take_packs(a, packer);
    }
    if (is_end) {
        a->in_ring = 0;
        packer_finish(packer);
        take_packs(a, packer);
    }
    if (a->batches < a->n_slots) a->ready = hold(a, 0);
    packer_free(packer);
    free(a->slots);
}

// ---- the loader ----

// Samples of an epoch's rows that sequences can hold.
static size_t epoch_samples(const Loader *l, const BuiltSamples *b) {
    return row_stream_rows(l->rows) * b->packed.n / b->rows;
}

// An epoch whose samples the packer can all take waits there as a whole before its first batch, while the
// slots hold the last batches of the one before; but the window that is being read is not among them yet.
// Beside them threads have in hand what the packer does not take.
static void count_whole_epoch(LoaderMemory *m, const Loader *l, const BuiltSamples *b, const Ahead *a,
                              size_t threads) {
    const size_t all = epoch_samples(l, b) * (b->packed.bytes / b->packed.n);
    m->busy = (LoaderHeld){all + bytes_of_rows(threads, b->bytes - b->packed.bytes, b),
                           m->slots * m->mean_tiles * a->tile_bytes};
    m->to_come = m->busy.samples / row_stream_windows(l->rows);
}

// Samples and batches as those seen give them. In a long epoch the ring fills up only while the packer gives
// packs; while it takes samples, the threads alone have some.
static void count_packed(LoaderMemory *m, const Loader *l, const BuiltSamples *b, const SampleSizes *sizes,
                         size_t threads) {
    enum { FILLINGS = 4 };
    const size_t epoch = epoch_samples(l, b), rows = row_stream_rows(l->rows),
                 ring = loader_ring_size(l->config),
                 most = packer_most_waiting(l->packer, b->packed.tokens / b->packed.n,
                                            b->packed.bytes / b->packed.n);
    const bool is_whole = epoch <= most, is_end = epoch <= FILLINGS * most;
    Ahead a = {.tile_bytes = loader_tile_bytes(&l->config->vlm),
               .n_slots = l->n_slots,
               .batch_size = l->config->train.batch_size,
               .in_hand = bytes_of_rows(threads, b->bytes, b),
               .in_ring = bytes_of_rows(rows < ring ? rows : ring, b->bytes, b),
               .is_whole_epoch = is_whole};
    pack_ahead(&a, l, sizes, is_end ? epoch : FILLINGS * most, is_end);
    if (is_end && a.batches < m->slots) m->slots = a.batches;
    if (a.batches > 0) {
        m->mean_tiles = (a.tiles + a.batches / 2) / a.batches;
        m->most_tiles = a.most_tiles;
    }
    m->ready = a.ready;
    m->busy = m->given = a.held;
    if (is_whole)
        count_whole_epoch(m, l, b, &a, threads);
    else if (row_stream_windows(l->rows) == 1)
        m->to_come = m->busy.samples;
}

static void count_samples(LoaderMemory *m, const Loader *l, const BuiltSamples *b, const SampleSizes *sizes) {
    const size_t threads = l->config->options.num_workers > 0 ? l->config->options.num_workers : 1;
    m->building = threads * (b->building / b->n);
    if (b->packed.n > 0)
        count_packed(m, l, b, sizes, threads);
    else
        m->busy.samples = bytes_of_rows(threads, b->bytes, b);
}

LoaderMemory loader_memory(Loader *l) {
    const Config *c = l->config;
    SampleSizes sizes = {0};
    pthread_mutex_lock(&l->lock);
    const BuiltSamples built = look(&sizes, l);
    size_t pages, taken;
    row_stream_held(&pages, &taken, l->rows);
    pthread_mutex_unlock(&l->lock);
    const double expansion = pages > 0 ? (double)taken / (double)pages : 1;
    LoaderMemory m = {.rows = (size_t)(expansion * (double)row_stream_bytes(l->rows)),
                      .file = row_stream_file_bytes(l->rows),
                      .batches = l->n_slots * (loader_batch_bytes(c, 0) + sequences_bytes(c)),
                      .reading = row_stream_reading_bytes(l->rows),
                      .kept = (size_t)(expansion * (double)row_stream_group_bytes(l->rows)),
                      .mean_tiles = l->max_tiles,
                      .most_tiles = l->max_tiles,
                      .slots = l->n_slots,
                      .keeps_open = c->train.stream_dataset};
    if (built.n > 0) count_samples(&m, l, &built, &sizes);
    vec_free(&sizes);
    return m;
}
