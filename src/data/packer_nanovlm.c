#include "data/packer_nanovlm.h"
#include "data/packer_strategy.h"

#define EXTRA_KNAPSACKS 5 // nanoVLM's delta

typedef VEC(PackLimits) Rooms; // what is left of each knapsack

// The emptiest knapsack with room for the item; rooms->count when there is none.
static size_t emptiest_fitting(const Rooms *rooms, const PackItem *item) {
    size_t best = rooms->count;
    for (size_t i = 0; i < rooms->count; i++)
        if (pack_item_fits(item, &rooms->items[i]) &&
            (best == rooms->count || rooms->items[i].length > rooms->items[best].length))
            best = i;
    return best;
}

size_t nanovlm_knapsacks(size_t *bag_of, const PackItem *items, size_t n, const PackLimits *limits,
                         size_t delta) {
    size_t total = 0, count;
    for (size_t i = 0; i < n; i++) total += items[i].length;
    Rooms rooms = {0};
    for (size_t i = 0; i < (total + limits->length - 1) / limits->length + delta; i++)
        vec_push(&rooms, *limits);
    for (size_t i = 0; i < n; i++) {
        bag_of[i] = emptiest_fitting(&rooms, &items[i]);
        if (bag_of[i] == rooms.count) vec_push(&rooms, *limits);
        pack_item_place(&rooms.items[bag_of[i]], &items[i]);
    }
    count = rooms.count;
    vec_free(&rooms);
    return count;
}

// Everything that waits becomes packs at once; their order is Python's shuffle of all knapsacks, the empty
// ones too.
void pack_nanovlm(Packer *p, bool last) {
    (void)last;
    size_t n = p->waiting.count, *sorted = packer_sorted(p), *bag_of = mem_alloc(n * sizeof *bag_of);
    PackItem *items = mem_alloc(n * sizeof *items);
    for (size_t i = 0; i < n; i++) items[i] = p->waiting.items[sorted[i]].item;
    size_t bags = nanovlm_knapsacks(bag_of, items, n, &p->limits, EXTRA_KNAPSACKS);
    size_t *order = mem_alloc(bags * sizeof *order);
    for (size_t i = 0; i < bags; i++) order[i] = i;
    python_random_shuffle(&p->python, order, bags);
    for (size_t k = 0; k < bags; k++) {
        for (size_t i = 0; i < n; i++)
            if (bag_of[i] == order[k]) vec_push(&p->ready, items[i]);
        packer_close_pack(p);
    }
    vec_clear(&p->waiting);
    p->waiting_tokens = p->waiting_bytes = 0;
    p->rounds++;
    free(order);
    free(items);
    free(bag_of);
    free(sorted);
}
