// Best-fit decreasing over a bounded buffer, with carry-over: of the packs that the waiting items make, only
// those that are full enough leave; the items of the others wait for better company. An item that has waited
// MAX_ROUNDS rounds leaves with its pack whatever its fill, so none starves.
#include "base/check.h"
#include "base/random.h"
#include "data/packer_strategy.h"

#define FULL_ENOUGH 0.99
#define MAX_ROUNDS  8
#define NONE        SIZE_MAX
// How many bins too full of pictures are looked at for one item, before it gets a bin of its own. Without
// such a bound, many small items with many pictures would make the search quadratic.
#define MOST_MISSES 64

typedef struct Bin {
    PackLimits room;
    size_t next;  // bin with as much room
    size_t count; // items
    bool overdue; // holds an item that has waited long enough
} Bin;

typedef VEC(Bin) Bins;

// Bins by their room in tokens: a list for each number, and a bit for each list that is not empty, so that
// the tightest bin is found without a search through all bins. Bins with and without room for pictures lie in
// an index each.
enum { OPEN, CLOSED };
typedef struct BinIndex {
    Bins *bins;     // borrowed
    size_t *first;  // [length + 1]
    uint64_t *used; // bit set
    size_t words;
} BinIndex;

static BinIndex index_new(Bins *bins, size_t length) {
    BinIndex x = {.bins = bins, .words = length / 64 + 1};
    x.first = mem_alloc((length + 1) * sizeof *x.first);
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
    size_t room = x->bins->items[bin].room.length;
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
    for (size_t room = index_next_room(x, item->length); room != NONE; room = index_next_room(x, room + 1)) {
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

// Text fits everywhere: the tighter of the two kinds of bins. Pictures don't look at bins that take none.
static size_t take_tightest(BinIndex indices[2], const PackItem *item) {
    BinIndex *open = &indices[OPEN], *closed = &indices[CLOSED];
    if (has_pictures(item)) return index_take_tightest(open, item);
    return index_next_room(closed, item->length) <= index_next_room(open, item->length)
               ? index_take_tightest(closed, item)
               : index_take_tightest(open, item);
}

static void fill_bins(Bins *bins, size_t *bin_of, const Packer *p, const size_t *sorted) {
    BinIndex indices[2] = {index_new(bins, p->limits.length), index_new(bins, p->limits.length)};
    for (size_t i = 0; i < p->waiting.count; i++) {
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
}

// Which bins leave, in a random order; returns their number. Always at least one: the fullest.
static size_t choose_leaving(size_t *leaving, const Bins *all, const Packer *p, bool last) {
    size_t n = 0, fullest = 0, most_room = (size_t)((1 - FULL_ENOUGH) * (double)p->limits.length);
    const Bin *bins = all->items;
    for (size_t i = 0; i < all->count; i++) {
        if (last || bins[i].overdue || bins[i].room.length <= most_room) leaving[n++] = i;
        if (bins[i].room.length < bins[fullest].room.length) fullest = i;
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
    fill_bins(&bins, bin_of, p, sorted);
    size_t *leaving = mem_alloc(bins.count * sizeof *leaving);
    size_t n = choose_leaving(leaving, &bins, p, last);
    emit(p, &bins, bin_of, sorted, leaving, n);
    remove_gone(p);
    p->rounds++;
    free(leaving);
    vec_free(&bins);
    free(bin_of);
    free(sorted);
}
