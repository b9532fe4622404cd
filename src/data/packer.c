#include "data/packer_strategy.h"

#include "base/check.h"

// nanoVLM buffers batch_size * 4 sequences. `best` looks at more at once, because it is the choice among many
// items that fills sequences, and bounds the memory of the pictures that wait with them.
static const PackStrategy strategies[] = {
    {"best", 64, false, false, false, (size_t)1 << 30, pack_best},
    {"nanovlm", 4, true, true, true, SIZE_MAX, pack_nanovlm},
};

Packer *packer_new(const char *name, PackLimits limits, size_t batch_size, size_t buffer_tokens) {
    const PackStrategy *s = NULL;
    for (size_t i = 0; i < sizeof strategies / sizeof *strategies; i++)
        if (strcmp(strategies[i].name, name) == 0) s = &strategies[i];
    CHECK(s, "packing strategy %s", name);
    CHECK(limits.length > 0 && batch_size > 0, "length %zu, batch size %zu", limits.length, batch_size);
    Packer *p = mem_zeroed(1, sizeof *p);
    p->strategy = s;
    p->limits = limits;
    size_t automatic = s->buffer_sequences * limits.length * (s->per_batch ? batch_size : 1);
    p->buffer_tokens = buffer_tokens ? buffer_tokens : automatic;
    packer_reset(p, 0, 0, NULL);
    return p;
}

Packer *packer_like(const Packer *p) {
    Packer *like = mem_zeroed(1, sizeof *like);
    like->strategy = p->strategy;
    like->limits = p->limits;
    like->buffer_tokens = p->buffer_tokens;
    packer_reset(like, p->seed, p->epoch, NULL);
    return like;
}

void packer_free(Packer *p) {
    if (!p) return;
    vec_free(&p->waiting);
    vec_free(&p->ready);
    vec_free(&p->ends);
    vec_free(&p->missing_rows);
    vec_free(&p->missing);
    vec_free(&p->supplied);
    free(p);
}

size_t packer_pack_first(const Packer *p, size_t pack) {
    return pack ? p->ends.items[pack - 1] : 0;
}

void packer_reset(Packer *p, uint64_t seed, uint64_t epoch, void (*drop)(void *sample)) {
    if (drop) {
        for (size_t i = 0; i < p->waiting.count; i++) drop(p->waiting.items[i].item.sample);
        for (size_t i = packer_pack_first(p, p->taken); i < p->ready.count; i++)
            drop(p->ready.items[i].sample);
        for (size_t i = 0; i < p->supplied.count; i++) drop(p->supplied.items[i].sample);
    }
    vec_clear(&p->waiting);
    vec_clear(&p->ready);
    vec_clear(&p->ends);
    vec_clear(&p->missing_rows);
    vec_clear(&p->missing);
    vec_clear(&p->supplied);
    p->waiting_tokens = p->waiting_bytes = p->taken = 0;
    p->arrivals = p->rounds = 0;
    p->seed = seed;
    p->epoch = epoch;
    python_random_seed(&p->python, seed + epoch);
}

bool packer_accepts(const Packer *p, const PackItem *item) {
    PackLimits limits = p->limits;
    if (p->strategy->images_may_overflow) limits.images = PACK_NO_LIMIT;
    return pack_item_fits(item, &limits);
}

void packer_wait(Packer *p, PackItem item, uint64_t age) {
    vec_push(&p->waiting, (WaitingItem){item, p->arrivals++, p->rounds - age});
    p->waiting_tokens += item.length;
    p->waiting_bytes += item.bytes;
}

void packer_add(Packer *p, PackItem item) {
    CHECK(packer_missing(p) == 0, "%zu samples are missing", packer_missing(p));
    CHECK(packer_accepts(p, &item), "%zu tokens, %zu images, %zu tiles", item.length, item.images,
          item.tiles);
    packer_wait(p, item, 0);
    while (p->waiting_tokens >= p->buffer_tokens ||
           (p->waiting_bytes >= p->strategy->buffer_bytes && p->waiting.count > 0))
        p->strategy->arrange(p, false);
}

void packer_finish(Packer *p) {
    if (p->waiting.count) p->strategy->arrange(p, true);
}

size_t packer_most_waiting(const Packer *p, size_t tokens, size_t bytes) {
    const size_t by_tokens = p->buffer_tokens / tokens + 1,
                 by_bytes = bytes > 0 ? p->strategy->buffer_bytes / bytes + 1 : SIZE_MAX;
    return by_tokens < by_bytes ? by_tokens : by_bytes;
}

bool packer_ready(const Packer *p) {
    return packer_missing(p) == 0 && p->taken < p->ends.count;
}

bool packer_take(Packer *p, Pack *pack) {
    if (!packer_ready(p)) return false;
    size_t first = packer_pack_first(p, p->taken), end = p->ends.items[p->taken];
    *pack = (Pack){p->ready.items + first, end - first};
    if (++p->taken ==
        p->ends.count) { // all given out: the storage is used anew; the last pack stays readable
        p->taken = 0;
        vec_clear(&p->ready);
        vec_clear(&p->ends);
    }
    return true;
}

static int longer_first(const void *a, const void *b) {
    const WaitingItem *x = *(const WaitingItem *const *)a, *y = *(const WaitingItem *const *)b;
    if (x->item.length != y->item.length) return x->item.length > y->item.length ? -1 : 1;
    return x->arrival < y->arrival ? -1 : x->arrival > y->arrival;
}

size_t *packer_sorted(const Packer *p) {
    const WaitingItem **order = mem_alloc(p->waiting.count * sizeof *order + 1);
    for (size_t i = 0; i < p->waiting.count; i++) order[i] = &p->waiting.items[i];
    qsort(order, p->waiting.count, sizeof *order, longer_first);
    size_t *indices = mem_alloc(p->waiting.count * sizeof *indices + 1);
    for (size_t i = 0; i < p->waiting.count; i++) indices[i] = (size_t)(order[i] - p->waiting.items);
    free(order);
    return indices;
}

bool pack_item_fits(const PackItem *item, const PackLimits *room) {
    return item->length <= room->length && item->images <= room->images && item->tiles <= room->tiles;
}

static size_t minus(size_t room, size_t used) {
    return room == PACK_NO_LIMIT ? room : room - used;
}

void pack_item_place(PackLimits *room, const PackItem *item) {
    if (!pack_item_fits(item, room)) { // an oversized item in a pack of its own: nothing else will fit
        *room = (PackLimits){0};
        return;
    }
    room->length = minus(room->length, item->length);
    room->images = minus(room->images, item->images);
    room->tiles = minus(room->tiles, item->tiles);
}

void packer_close_pack(Packer *p) {
    size_t begun = p->ends.count ? p->ends.items[p->ends.count - 1] : 0;
    if (p->ready.count > begun) vec_push(&p->ends, p->ready.count);
}
