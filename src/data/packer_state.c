// Saving and restoring a packer. Items are named by their rows; what they are is looked up again when their
// samples come back, and a hash tells whether these are the ones that were saved. Order needs no place in the
// state: items wait in the order of their rows, and a pack has the longest first.
#include "base/check.h"
#include "data/packer_strategy.h"

// A tag is an even number for an item that waits (twice its age), an odd one in a pack.
typedef struct Entry {
    const PackItem *item;
    uint64_t tag;
} Entry;
typedef VEC(Entry) Entries;

static uint64_t hash_item(uint64_t h, const PackItem *item) {
    return bytes_hash_u64(bytes_hash_u64(bytes_hash_u64(h, item->length), item->images), item->tiles);
}

// ---- saving ----

static int lower_row_first(const void *a, const void *b) {
    const uint64_t x = ((const Entry *)a)->item->row, y = ((const Entry *)b)->item->row;
    return x < y ? -1 : x > y;
}

static void collect(const Packer *p, Entries *entries) {
    for (size_t i = 0; i < p->waiting.count; i++) {
        const WaitingItem *w = &p->waiting.items[i];
        vec_push(entries, (Entry){&w->item, 2 * (p->rounds - w->round)});
    }
    for (size_t k = p->taken; k < p->ends.count; k++)
        for (size_t i = packer_pack_first(p, k); i < p->ends.items[k]; i++)
            vec_push(entries, (Entry){&p->ready.items[i], 2 * (k - p->taken) + 1});
    if (entries->count) qsort(entries->items, entries->count, sizeof *entries->items, lower_row_first);
}

static void save_python(const PythonRandom *r, CharVec *out) {
    bytes_put_varint(out, r->used);
    vec_extend(out, (const char *)r->state, sizeof r->state);
}

void packer_save(const Packer *p, CharVec *out) {
    CHECK(packer_missing(p) == 0, "%zu samples are missing", packer_missing(p));
    Entries entries = {0};
    uint64_t hash = BYTES_HASH, before = 0;
    collect(p, &entries);
    bytes_put_varint(out, p->rounds);
    if (p->strategy->python) save_python(&p->python, out);
    bytes_put_varint(out, p->ends.count - p->taken);
    bytes_put_varint(out, entries.count);
    for (size_t i = 0; i < entries.count; i++) {
        const Entry *e = &entries.items[i];
        CHECK(i == 0 || e->item->row > before, "row %llu twice", (unsigned long long)before);
        bytes_put_varint(out, e->item->row - before);
        bytes_put_varint(out, e->tag);
        before = e->item->row;
        hash = hash_item(hash, e->item);
    }
    bytes_put_u64(out, hash);
    vec_free(&entries);
}

// ---- reading ----

// Everything a saved state holds, apart from the packer until all of it is known to be sound.
typedef struct Saved {
    uint64_t rounds, packs, hash;
    PythonRandom python;
    VEC(uint64_t) rows;
    VEC(SavedItem) items;
} Saved;

static void saved_free(Saved *s) {
    vec_free(&s->rows);
    vec_free(&s->items);
}

static bool read_python(PythonRandom *r, ByteReader *in) {
    const uint64_t used = byte_reader_varint(in);
    const uint8_t *words = byte_reader_take(in, sizeof r->state);
    if (!words || used > MT19937_WORDS) return false;
    memcpy(r->state, words, sizeof r->state);
    r->used = used;
    return true;
}

// One item, whose row must lie between the one before and `rows`. in_pack: items of each pack so far.
static bool read_item(Saved *s, ByteReader *in, uint64_t rows, size_t *in_pack) {
    const size_t n = s->rows.count;
    const uint64_t step = byte_reader_varint(in), tag = byte_reader_varint(in);
    const uint64_t before = n ? s->rows.items[n - 1] : 0;
    if (in->failed || before >= rows || step >= rows - before || (n > 0 && step == 0)) return false;
    const bool waits = tag % 2 == 0;
    if (waits ? tag / 2 > s->rounds : tag / 2 >= s->packs) return false;
    if (!waits) in_pack[tag / 2]++;
    vec_push(&s->rows, before + step);
    vec_push(&s->items, (SavedItem){waits ? NO_PACK : tag / 2, waits ? tag / 2 : 0});
    return true;
}

static bool read_items(Saved *s, ByteReader *in, uint64_t rows) {
    const uint64_t count = byte_reader_varint(in);
    if (in->failed || s->packs > count || count > byte_reader_left(in) / 2) return false;
    size_t *in_pack = mem_zeroed(s->packs + 1, sizeof *in_pack);
    bool ok = true;
    for (uint64_t i = 0; ok && i < count; i++) ok = read_item(s, in, rows, in_pack);
    for (uint64_t k = 0; ok && k < s->packs; k++) ok = in_pack[k] > 0;
    free(in_pack);
    return ok;
}

static bool read_saved(Saved *s, const Packer *p, ByteReader *in, uint64_t rows) {
    s->rounds = byte_reader_varint(in);
    if (p->strategy->python && !read_python(&s->python, in)) return false;
    s->packs = byte_reader_varint(in);
    if (!read_items(s, in, rows)) return false;
    s->hash = byte_reader_u64(in);
    return !in->failed;
}

// ---- restoring ----

static int longer_first(const void *a, const void *b) {
    const PackItem *x = a, *y = b;
    if (x->length != y->length) return x->length > y->length ? -1 : 1;
    return x->row < y->row ? -1 : x->row > y->row;
}

// The finished packs anew. Their items lie behind one another because places are counted out first.
static void rebuild_ready(Packer *p) {
    for (size_t i = 0; i < p->missing.count; i++)
        if (p->missing.items[i].pack != NO_PACK) p->ends.items[p->missing.items[i].pack]++;
    for (size_t k = 1; k < p->ends.count; k++) p->ends.items[k] += p->ends.items[k - 1];
    p->ready.count = p->ends.count ? p->ends.items[p->ends.count - 1] : 0;
    vec_reserve(&p->ready, p->ready.count);
    size_t *place = mem_alloc(p->ends.count * sizeof *place + 1);
    for (size_t k = 0; k < p->ends.count; k++) place[k] = packer_pack_first(p, k);
    for (size_t i = 0; i < p->missing.count; i++)
        if (p->missing.items[i].pack != NO_PACK)
            p->ready.items[place[p->missing.items[i].pack]++] = p->supplied.items[i];
    for (size_t k = 0; k < p->ends.count; k++)
        qsort(p->ready.items + packer_pack_first(p, k), p->ends.items[k] - packer_pack_first(p, k),
              sizeof *p->ready.items, longer_first);
    free(place);
}

// Whether every pack keeps the limits; an item that may overflow is alone.
static bool packs_fit(const Packer *p) {
    for (size_t k = 0; k < p->ends.count; k++) {
        const size_t first = packer_pack_first(p, k), end = p->ends.items[k];
        PackLimits room = p->limits;
        for (size_t i = first; i < end; i++) {
            const PackItem *item = &p->ready.items[i];
            if (end - first > 1 ? !pack_item_fits(item, &room) : !packer_accepts(p, item)) return false;
            pack_item_place(&room, item);
        }
    }
    return true;
}

// All have come: they go where they were.
static bool settle(Packer *p, Error *err) {
    uint64_t hash = BYTES_HASH;
    for (size_t i = 0; i < p->supplied.count; i++) hash = hash_item(hash, &p->supplied.items[i]);
    if (hash != p->supplied_hash) {
        vec_clear(&p->ends); // nothing to take
        return error_set(err,
                         "the samples that wait in the saved state are not those that its rows give now; has "
                         "the data set changed?");
    }
    rebuild_ready(p);
    for (size_t i = 0; i < p->missing.count; i++)
        if (p->missing.items[i].pack == NO_PACK)
            packer_wait(p, p->supplied.items[i], p->missing.items[i].age);
    vec_clear(&p->supplied);
    vec_clear(&p->missing);
    vec_clear(&p->missing_rows);
    if (packs_fit(p)) return true;
    vec_clear(&p->ends);
    return error_set(err, "a pack of the saved state is over the limits of a sequence");
}

bool packer_restore(Packer *p, ByteReader *in, uint64_t rows, void (*drop)(void *sample), Error *err) {
    Saved s = {0};
    if (!read_saved(&s, p, in, rows)) {
        saved_free(&s);
        return error_set(err, "the packer's part of the saved state is damaged");
    }
    packer_reset(p, p->seed, p->epoch, drop);
    p->rounds = s.rounds;
    if (p->strategy->python) p->python = s.python;
    vec_extend(&p->missing_rows, s.rows.items, s.rows.count);
    vec_extend(&p->missing, s.items.items, s.items.count);
    for (uint64_t k = 0; s.rows.count > 0 && k < s.packs; k++) vec_push(&p->ends, 0);
    p->supplied_hash = s.hash;
    saved_free(&s);
    return true;
}

size_t packer_missing(const Packer *p) {
    return p->missing.count - p->supplied.count;
}

const uint64_t *packer_missing_rows(const Packer *p) {
    return packer_missing(p) ? p->missing_rows.items + p->supplied.count : NULL;
}

bool packer_supply(Packer *p, PackItem item, Error *err) {
    CHECK(packer_missing(p) > 0 && item.row == *packer_missing_rows(p), "row %llu",
          (unsigned long long)item.row);
    vec_push(&p->supplied, item);
    return packer_missing(p) > 0 || settle(p, err);
}
