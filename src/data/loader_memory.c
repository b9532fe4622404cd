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

// Samples of a batch whose sequences are full, of tokens or of pictures.
static double batch_samples(const Config *c, const BuiltSamples *b) {
    const double n = (double)b->packed.n, sequences = (double)c->train.batch_size,
                 by_tokens = sequences * (double)c->vlm.lm_max_length * n / (double)b->packed.tokens;
    if (b->packed.pictures == 0) return by_tokens;
    const double by_pictures =
        sequences * (double)c->train.max_images_per_knapsack * n / (double)b->packed.pictures;
    return by_pictures < by_tokens ? by_pictures : by_tokens;
}

static size_t mean_tiles(const Config *c, const BuiltSamples *b) {
    return (size_t)(batch_samples(c, b) * (double)b->packed.tiles / (double)b->packed.n);
}

// Samples of an epoch's rows that sequences can hold.
static size_t epoch_samples(const Loader *l, const BuiltSamples *b) {
    return row_stream_rows(l->rows) * b->packed.n / b->rows;
}

// Of `rows` rows on their way to the packer, which holds so many samples.
static size_t on_their_way(size_t rows, size_t bytes_of_all, const BuiltSamples *b) {
    return rows * bytes_of_all / b->rows;
}

// An epoch whose samples the packer can all take waits there as a whole before its first batch, but for those
// of the window that is still being read. Beside them threads have in hand what the packer does not take.
static void count_whole_epoch(LoaderMemory *m, const Loader *l, const BuiltSamples *b, size_t threads) {
    const size_t all = epoch_samples(l, b) * b->packed.bytes / b->packed.n;
    m->samples = all + on_their_way(threads, b->bytes - b->packed.bytes, b);
    m->to_come = m->samples / row_stream_windows(l->rows);
}

// In a longer one the ring is full only while the packer gives its packs, of which one batch at least has
// left; and when the packer is full, threads have as many rows in hand as there are of them.
static void count_long_epoch(LoaderMemory *m, const Loader *l, const BuiltSamples *b, size_t threads,
                             size_t most) {
    const size_t rows = row_stream_rows(l->rows), ring = loader_ring_size(l->config),
                 packed = b->packed.bytes / b->packed.n,
                 batch = (size_t)(batch_samples(l->config, b) * (double)packed), all = most * packed,
                 left = all > batch ? all - batch : 0, full = all + on_their_way(threads, b->bytes, b),
                 given = left + on_their_way(rows < ring ? rows : ring, b->bytes, b);
    m->samples = full > given ? full : given;
    m->to_come = row_stream_windows(l->rows) > 1 ? 0 : m->samples;
}

// Of the samples in the ring and in the packer, which no more wait in than an epoch gives.
static void count_samples(LoaderMemory *m, const Loader *l, const BuiltSamples *b) {
    const size_t threads = l->config->options.num_workers > 0 ? l->config->options.num_workers : 1;
    m->building = threads * (b->building / b->n);
    if (b->packed.n == 0) {
        m->samples = on_their_way(threads, b->bytes, b);
        return;
    }
    const size_t most =
        packer_most_waiting(l->packer, b->packed.tokens / b->packed.n, b->packed.bytes / b->packed.n);
    if (epoch_samples(l, b) <= most)
        count_whole_epoch(m, l, b, threads);
    else
        count_long_epoch(m, l, b, threads, most);
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
                      .reading = row_stream_reading_bytes(l->rows),
                      .kept = (size_t)(expansion * (double)row_stream_group_bytes(l->rows)),
                      .reads_ahead = row_stream_windows(l->rows) > 1,
                      .file = row_stream_file_bytes(l->rows),
                      .keeps_open = c->train.stream_dataset};
    if (built.n > 0) count_samples(&m, l, &built);
    if (built.packed.n > 0) {
        const size_t tiles = mean_tiles(c, &built);
        if (tiles < m.tiles) m.tiles = tiles;
        m.slots = filled_slots(l, &built);
    }
    m.batches = l->n_slots * (loader_batch_bytes(c, 0) + sequences_bytes(c)) +
                m.slots * m.tiles * loader_tile_bytes(&c->vlm);
    return m;
}
