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

// Called with the lock held. The samples are those that the first batch waits for anyway.
static BuiltSamples look(Loader *l) {
    enum { ENOUGH = 64 };
    while (l->built.n < ENOUGH && l->formed == l->released && !l->rows_over && !l->over) {
        if (l->n_threads > 0)
            pthread_cond_wait(&l->changed, &l->lock);
        else if (!loader_work(l))
            break;
    }
    return l->built;
}

// Of a batch whose sequences are full, of tokens or of pictures.
static size_t mean_tiles(const Config *c, const BuiltSamples *b) {
    const size_t sequences = c->train.batch_size;
    const size_t by_tokens = sequences * c->vlm.lm_max_length * b->packed.tiles / b->packed.tokens;
    if (b->packed.pictures == 0) return by_tokens;
    const size_t by_pictures =
        sequences * c->train.max_images_per_knapsack * b->packed.tiles / b->packed.pictures;
    return by_pictures < by_tokens ? by_pictures : by_tokens;
}

// Samples of an epoch's rows that sequences can hold.
static size_t epoch_samples(const Loader *l, const BuiltSamples *b) {
    return row_stream_rows(l->rows) * b->packed.n / b->rows;
}

// Of the samples in the ring and in the packer, which no more wait in than an epoch gives. The ring only
// fills while the packer takes none, and never if it can take all.
static size_t waiting_bytes(const Loader *l, const BuiltSamples *b) {
    const size_t rows = row_stream_rows(l->rows), threads = l->config->options.num_workers,
                 most_in_ring = loader_ring_size(l->config) + threads, bytes = b->bytes / b->n;
    if (b->packed.n == 0) return threads * bytes;
    const size_t packed_bytes = b->packed.bytes / b->packed.n, all = epoch_samples(l, b),
                 most = packer_most_waiting(l->packer, b->packed.tokens / b->packed.n, packed_bytes);
    if (all <= most) return threads * bytes + all * packed_bytes;
    const size_t in_ring = rows < most_in_ring ? rows : most_in_ring;
    return in_ring * bytes + most * packed_bytes;
}

// How many of the slots for batches come to be filled: of a short epoch, validation's, no more than it gives.
static size_t filled_slots(const Loader *l, const BuiltSamples *b) {
    const size_t tokens = epoch_samples(l, b) * (b->packed.tokens / b->packed.n),
                 T = l->config->vlm.lm_max_length,
                 batches = (tokens + T - 1) / T / l->config->train.batch_size;
    return batches < l->n_slots ? batches : l->n_slots;
}

LoaderMemory loader_memory(Loader *l) {
    const Config *c = l->config;
    pthread_mutex_lock(&l->lock);
    const BuiltSamples built = look(l);
    size_t pages, taken;
    row_stream_held(&pages, &taken, l->rows);
    pthread_mutex_unlock(&l->lock);
    const double expansion = pages > 0 ? (double)taken / (double)pages : 1;
    LoaderMemory m = {.rows = (size_t)(expansion * (double)row_stream_bytes(l->rows)),
                      .tiles = l->max_tiles,
                      .slots = l->n_slots,
                      .reading = row_stream_reading_bytes(l->rows, expansion),
                      .reads_ahead = row_stream_reads_ahead(l->rows),
                      .file = row_stream_file_bytes(l->rows),
                      .keeps_open = c->train.stream_dataset};
    if (built.n > 0) {
        const size_t threads = c->options.num_workers > 0 ? c->options.num_workers : 1;
        m.samples = waiting_bytes(l, &built);
        m.building = threads * (built.building / built.n);
    }
    if (built.packed.n > 0) {
        const size_t tiles = mean_tiles(c, &built);
        if (tiles < m.tiles) m.tiles = tiles;
        m.slots = filled_slots(l, &built);
    }
    m.batches = l->n_slots * (loader_batch_bytes(c, 0) + sequences_bytes(c)) +
                m.slots * m.tiles * loader_tile_bytes(&c->vlm);
    return m;
}
