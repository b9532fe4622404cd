// Best-fit decreasing over a bounded buffer, with carry-over: of the packs that the waiting items make, only
// those that are full enough leave; the items of the others wait for better company. An item that has waited
// MAX_ROUNDS rounds leaves with its pack whatever its fill, so none starves.
//
// A sequence has three limits. Each round, items are sorted and bins sought by the one that is scarcest in
// the buffer, nearly always tokens; the other two are only kept.
#include "base/check.h"
#include "base/random.h"
#include "data/packer_strategy.h"

#define FULL_ENOUGH 0.99
#define MAX_ROUNDS  8
#define NONE        SIZE_MAX
// How many bins that are too full by another limit are looked at for one item, before it gets a bin of its
// own. Without such a bound, many small items with many pictures would make the search quadratic.
#define MOST_MISSES 64

typedef enum Resource { TOKENS, IMAGES, TILES, N_RESOURCES } Resource;

static size_t amount(const PackItem *item, Resource r) {
    return r == TOKENS ? item->length : r == IMAGES ? item->images : item->tiles;
}

static size_t room_for(const PackLimits *limits, Resource r) {
    return r == TOKENS ? limits->length : r == IMAGES ? limits->images : limits->tiles;
}

// Of which the waiting items need the most sequences.
static Resource scarcest(const Packer *p) {
    double most = 0, total[N_RESOURCES] = {0};
    Resource scarce = TOKENS;
    for (size_t i = 0; i < p->waiting.count; i++)
        for (Resource r = TOKENS; r < N_RESOURCES; r++)
            total[r] += (double)amount(&p->waiting.items[i].item, r);
    for (Resource r = TOKENS; r < N_RESOURCES; r++) {
        const double sequences = total[r] > 0 ? total[r] / (double)room_for(&p->limits, r) : 0;
        if (sequences > most) most = sequences, scarce = r;
    }
    return scarce;
}

// Places in `sorted` (longest first), those that need most of the resource first. Caller frees.
static size_t *order_by(const Packer *p, const size_t *sorted, Resource r) {
    const size_t n = p->waiting.count, most = room_for(&p->limits, r);
    size_t *order = mem_alloc(n * sizeof *order), *begin = mem_zeroed(most + 2, sizeof *begin);
    for (size_t i = 0; i < n; i++) begin[most - amount(&p->waiting.items[i].item, r) + 1]++;
    for (size_t k = 1; k < most + 2; k++) begin[k] += begin[k - 1];
    for (size_t i = 0; i < n; i++) order[begin[most - amount(&p->waiting.items[sorted[i]].item, r)]++] = i;
    free(begin);
    return order;
}

typedef struct Bin {
    PackLimits room;
    size_t next;  // bin with as much room
    size_t count; // items
    bool overdue; // holds an item that has waited long enough
} Bin;

typedef VEC(Bin) Bins;

// Bins by their room for the scarce resource: a list for each number, and a bit for each list that is not
// empty, so that the tightest bin is found without a search through all bins. Bins with and without room for
// pictures lie in an index each.
enum { OPEN, CLOSED };
typedef struct BinIndex {
    Bins *bins; // borrowed
    Resource by;
    size_t *first;  // [most room + 1]
    uint64_t *used; // bit set
    size_t words;
} BinIndex;

static BinIndex index_new(Bins *bins, Resource by, size_t most_room) {
    BinIndex x = {.bins = bins, .by = by, .words = most_room / 64 + 1};
    x.first = mem_alloc((most_room + 1) * sizeof *x.first);
    x.used = mem_zeroed(x.words, sizeof *x.used);
    return x;
}

static void index_free(BinIndex *x) {
    free(x->first);
    free(x->used);
}

// The smallest room ≥ wanted that any bin has, or NONE.
static size_t index_next_room(const BinIndex *x, size_t wanted) {
    size_t w = wanted / 64;
    if (w >= x->words) return NONE;
    uint64_t bits = x->used[w] & ~(uint64_t)0 << wanted % 64;
    while (!bits && ++w < x->words) bits = x->used[w];
    return bits ? w * 64 + (size_t)__builtin_ctzll(bits) : NONE;
}

static void index_insert(BinIndex *x, size_t bin) {
    size_t room = room_for(&x->bins->items[bin].room, x->by);
    uint64_t *word = &x->used[room / 64], bit = (uint64_t)1 << room % 64;
    x->bins->items[bin].next = *word & bit ? x->first[room] : NONE;
    x->first[room] = bin;
    *word |= bit;
}

// Takes the bin that *link leads to out of the list of its room.
static size_t index_take(BinIndex *x, size_t *link, size_t room) {
    size_t bin = *link;
    *link = x->bins->items[bin].next;
    if (x->first[room] == NONE) x->used[room / 64] &= ~((uint64_t)1 << room % 64);
    return bin;
}

// Takes out the tightest bin in which the item fits; NONE when there is none (or it is hard to find).
static size_t index_take_tightest(BinIndex *x, const PackItem *item) {
    size_t misses = 0;
    for (size_t room = index_next_room(x, amount(item, x->by)); room != NONE;
         room = index_next_room(x, room + 1)) {
        for (size_t *link = &x->first[room]; *link != NONE; link = &x->bins->items[*link].next) {
            if (pack_item_fits(item, &x->bins->items[*link].room)) return index_take(x, link, room);
            if (++misses == MOST_MISSES) return NONE;
        }
    }
    return NONE;
}

static bool has_pictures(const PackItem *item) {
    return item->images > 0 || item->tiles > 0;
}

// Text may go everywhere: the tighter of the two kinds of bins. Pictures don't look at bins that take none.
static size_t take_tightest(BinIndex indices[2], const PackItem *item) {
    BinIndex *open = &indices[OPEN], *closed = &indices[CLOSED];
    if (has_pictures(item)) return index_take_tightest(open, item);
    return index_next_room(closed, amount(item, closed->by)) <= index_next_room(open, amount(item, open->by))
               ? index_take_tightest(closed, item)
               : index_take_tightest(open, item);
}

static void fill_bins(Bins *bins, size_t *bin_of, const Packer *p, const size_t *sorted, Resource scarce) {
    const size_t most = room_for(&p->limits, scarce);
    BinIndex indices[2] = {index_new(bins, scarce, most), index_new(bins, scarce, most)};
    size_t *order = order_by(p, sorted, scarce);
    for (size_t k = 0; k < p->waiting.count; k++) {
        const size_t i = order[k];
        const WaitingItem *w = &p->waiting.items[sorted[i]];
        size_t bin = take_tightest(indices, &w->item);
        if (bin == NONE) {
            bin = bins->count;
            vec_push(bins, (Bin){.room = p->limits});
        }
        Bin *b = &bins->items[bin];
        pack_item_place(&b->room, &w->item);
        b->count++;
        b->overdue |= p->rounds - w->round >= MAX_ROUNDS;
        index_insert(&indices[b->room.images > 0 && b->room.tiles > 0 ? OPEN : CLOSED], bin);
        bin_of[i] = bin;
    }
    for (size_t k = 0; k < 2; k++) index_free(&indices[k]);
    free(order);
}

// Which bins leave, in a random order; returns their number. Always at least one: the fullest.
static size_t choose_leaving(size_t *leaving, const Bins *all, const Packer *p, Resource scarce, bool last) {
    size_t n = 0, fullest = 0, least = SIZE_MAX;
    const size_t most_room = (size_t)((1 - FULL_ENOUGH) * (double)room_for(&p->limits, scarce));
    const Bin *bins = all->items;
    for (size_t i = 0; i < all->count; i++) {
        const size_t room = room_for(&bins[i].room, scarce);
        if (last || bins[i].overdue || room <= most_room) leaving[n++] = i;
        if (room < least) least = room, fullest = i;
    }
    if (n == 0) leaving[n++] = fullest;
    Random r = random_stream(p->seed, RANDOM_PACK, p->epoch << 32 | p->rounds);
    for (size_t i = n; i > 1; i--) {
        size_t j = (size_t)random_below(&r, i), t = leaving[i - 1];
        leaving[i - 1] = leaving[j];
        leaving[j] = t;
    }
    return n;
}

// Appends the chosen bins as packs. Their items lie behind one another because places are counted out first.
static void emit(Packer *p, const Bins *bins, const size_t *bin_of, const size_t *sorted,
                 const size_t *leaving, size_t n) {
    size_t *place = mem_alloc(bins->count * sizeof *place), next = p->ready.count;
    for (size_t i = 0; i < bins->count; i++) place[i] = NONE;
    for (size_t k = 0; k < n; k++) {
        place[leaving[k]] = next;
        next += bins->items[leaving[k]].count;
        vec_push(&p->ends, next);
    }
    vec_reserve(&p->ready, next);
    p->ready.count = next;
    for (size_t i = 0; i < p->waiting.count; i++) {
        WaitingItem *w = &p->waiting.items[sorted[i]];
        if (place[bin_of[i]] == NONE) continue;
        p->ready.items[place[bin_of[i]]++] = w->item;
        p->waiting_tokens -= w->item.length;
        p->waiting_bytes -= w->item.bytes;
        w->arrival = UINT64_MAX; // gone
    }
    free(place);
}

static void remove_gone(Packer *p) {
    size_t kept = 0;
    for (size_t i = 0; i < p->waiting.count; i++)
        if (p->waiting.items[i].arrival != UINT64_MAX) p->waiting.items[kept++] = p->waiting.items[i];
    p->waiting.count = kept;
}

void pack_best(Packer *p, bool last) {
    size_t *sorted = packer_sorted(p), *bin_of = mem_alloc(p->waiting.count * sizeof *bin_of);
    Bins bins = {0};
    const Resource scarce = scarcest(p);
    fill_bins(&bins, bin_of, p, sorted, scarce);
    size_t *leaving = mem_alloc(bins.count * sizeof *leaving);
    size_t n = choose_leaving(leaving, &bins, p, scarce, last);
    emit(p, &bins, bin_of, sorted, leaving, n);
    remove_gone(p);
    p->rounds++;
    free(leaving);
    vec_free(&bins);
    free(bin_of);
    free(sorted);
}
