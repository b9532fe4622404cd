#include "text/bpe.h"

#include "base/check.h"
#include "text/unicode.h"

#include <stdio.h>

#define SHORT_PIECE 32 // up to here, searching all pairs for each merge is faster than a heap
#define NO_RANK     UINT32_MAX

static size_t hash_pair(uint64_t pair, size_t n_slots) {
    pair *= 0x9E3779B97F4A7C15u; // 2⁶⁴ / golden ratio
    return (size_t)(pair >> 32) & (n_slots - 1);
}

static const BpeMerge *find_merge(const Bpe *b, int32_t left, int32_t right) {
    const uint64_t pair = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    size_t slot = hash_pair(pair, b->n_slots);
    while (b->slots[slot].pair != pair && b->slots[slot].pair != BPE_NO_PAIR)
        slot = (slot + 1) & (b->n_slots - 1);
    return &b->slots[slot]; // an empty slot has NO_RANK
}

void bpe_init(Bpe *b, const Vocab *vocab, size_t n_merges) {
    *b = (Bpe){.vocab = vocab, .n_slots = 64, .unknown_id = -1};
    while (b->n_slots < 2 * n_merges) b->n_slots *= 2;
    b->slots = mem_alloc(b->n_slots * sizeof *b->slots);
    for (size_t i = 0; i < b->n_slots; i++) b->slots[i] = (BpeMerge){BPE_NO_PAIR, NO_RANK, -1};
    CharVec text = {0};
    for (unsigned byte = 0; byte < 256; byte++) {
        vec_clear(&text);
        utf8_append(&text, byte_to_alphabet((uint8_t)byte));
        const int32_t id = vocab_find(vocab, text.items, text.count);
        if (id >= 0) b->bytes[byte] = (BpeByte){1, {id, -1}};
    }
    vec_free(&text);
}

// The library looks for the bytes of the alphabet's character, not for the byte it stands for.
void bpe_use_byte_fallback(Bpe *b) {
    CharVec text = {0};
    for (unsigned byte = 0; byte < 256; byte++) {
        BpeByte *symbols = &b->bytes[byte];
        if (symbols->count > 0) continue;
        vec_clear(&text);
        utf8_append(&text, byte_to_alphabet((uint8_t)byte));
        BpeByte found = {0};
        for (size_t i = 0; i < text.count; i++) {
            char name[16];
            const int size = snprintf(name, sizeof name, "<0x%02X>", (unsigned char)text.items[i]);
            const int32_t id = vocab_find(b->vocab, name, (size_t)size);
            if (id >= 0) found.ids[found.count++] = id;
        }
        if (found.count == text.count) *symbols = found;
    }
    vec_free(&text);
}

void bpe_add_merge(Bpe *b, int32_t left, int32_t right, uint32_t rank, int32_t id) {
    BpeMerge *slot = (BpeMerge *)find_merge(b, left, right);
    *slot = (BpeMerge){(uint64_t)(uint32_t)left << 32 | (uint32_t)right, rank, id};
}

void bpe_free(Bpe *b) {
    free(b->slots);
    piece_table_free(&b->whole);
    *b = (Bpe){0};
}

void bpe_scratch_free(BpeScratch *s) {
    vec_free(&s->symbols);
    vec_free(&s->previous);
    vec_free(&s->next);
    vec_free(&s->heap);
}

static void start_symbols(const Bpe *b, const char *piece, size_t size, BpeScratch *s) {
    vec_clear(&s->symbols);
    vec_reserve(&s->symbols, 2 * size);
    bool after_unknown = false;
    for (size_t i = 0; i < size; i++) {
        const BpeByte *symbols = &b->bytes[(uint8_t)piece[i]];
        for (size_t j = 0; j < symbols->count; j++) s->symbols.items[s->symbols.count++] = symbols->ids[j];
        const bool unknown = symbols->count == 0 && b->unknown_id >= 0;
        if (unknown && !(after_unknown && b->fuse_unknown)) vec_push(&s->symbols, b->unknown_id);
        after_unknown = unknown;
    }
}

// Merges the pair of lowest rank, leftmost first, until none is left; the ranks of all pairs stand in an
// array.
static size_t merge_short(const Bpe *b, int32_t *symbols, size_t n) {
    uint32_t ranks[SHORT_PIECE];
    for (size_t i = 0; i + 1 < n; i++) ranks[i] = find_merge(b, symbols[i], symbols[i + 1])->rank;
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++)
            if (ranks[i] < ranks[best]) best = i;
        if (ranks[best] == NO_RANK) break;
        symbols[best] = find_merge(b, symbols[best], symbols[best + 1])->id;
        n--;
        memmove(symbols + best + 1, symbols + best + 2, (n - best - 1) * sizeof *symbols);
        if (best + 1 < n) {
            memmove(ranks + best + 1, ranks + best + 2, (n - best - 2) * sizeof *ranks);
            ranks[best] = find_merge(b, symbols[best], symbols[best + 1])->rank;
        }
        if (best > 0) ranks[best - 1] = find_merge(b, symbols[best - 1], symbols[best])->rank;
    }
    return n;
}

static void heap_push(BpeScratch *s, uint64_t item) {
    vec_push(&s->heap, item);
    uint64_t *heap = s->heap.items;
    size_t at = s->heap.count - 1;
    for (; at > 0 && heap[(at - 1) / 2] > item; at = (at - 1) / 2) heap[at] = heap[(at - 1) / 2];
    heap[at] = item;
}

static uint64_t heap_pop(BpeScratch *s) {
    uint64_t *heap = s->heap.items;
    const uint64_t top = heap[0], item = heap[--s->heap.count];
    const size_t n = s->heap.count;
    size_t at = 0;
    for (size_t child = 1; child < n; child = 2 * at + 1) {
        if (child + 1 < n && heap[child + 1] < heap[child]) child++;
        if (heap[child] >= item) break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = item;
    return top;
}

static void queue_pair(const Bpe *b, BpeScratch *s, int32_t left) {
    const int32_t right = left < 0 ? -1 : s->next.items[left];
    if (right < 0) return;
    const uint32_t rank = find_merge(b, s->symbols.items[left], s->symbols.items[right])->rank;
    if (rank != NO_RANK) heap_push(s, (uint64_t)rank << 32 | (uint32_t)left);
}

// The same for long pieces, in O(n log n): pairs wait in a heap, symbols form a list. A pair that has changed
// since it was queued has another rank, and is passed over.
static size_t merge_long(const Bpe *b, BpeScratch *s) {
    const size_t n = s->symbols.count;
    CHECK(n < INT32_MAX, "a piece of %zu bytes", n);
    int32_t *symbols = s->symbols.items;
    vec_clear(&s->heap);
    vec_reserve(&s->previous, n);
    vec_reserve(&s->next, n);
    int32_t *previous = s->previous.items, *next = s->next.items;
    for (size_t i = 0; i < n; i++) {
        previous[i] = (int32_t)i - 1;
        next[i] = i + 1 < n ? (int32_t)i + 1 : -1;
    }
    for (size_t i = 0; i + 1 < n; i++) queue_pair(b, s, (int32_t)i);
    while (s->heap.count > 0) {
        const uint64_t item = heap_pop(s);
        const int32_t left = (int32_t)(uint32_t)item, right = next[left];
        if (symbols[left] < 0 || right < 0) continue;
        const BpeMerge *merge = find_merge(b, symbols[left], symbols[right]);
        if (merge->rank != item >> 32) continue;
        symbols[left] = merge->id;
        symbols[right] = -1;
        next[left] = next[right];
        if (next[left] >= 0) previous[next[left]] = left;
        queue_pair(b, s, left);
        queue_pair(b, s, previous[left]);
    }
    size_t left_over = 0;
    for (size_t i = 0; i < n; i++)
        if (symbols[i] >= 0) symbols[left_over++] = symbols[i];
    return left_over;
}

void bpe_encode(const Bpe *b, const char *piece, size_t size, BpeScratch *s, Int32Vec *ids) {
    if (size == 0) return;
    const int32_t whole = piece_table_find(&b->whole, piece, size);
    if (whole >= 0) {
        vec_push(ids, whole);
        return;
    }
    start_symbols(b, piece, size, s);
    const size_t n = s->symbols.count;
    vec_extend(ids, s->symbols.items,
               n <= SHORT_PIECE ? merge_short(b, s->symbols.items, n) : merge_long(b, s));
}

// The bytes that a token stands for. False when one of its characters stands for none.
static bool token_bytes(CharVec *out, const Vocab *v, const VocabToken *token) {
    const char *text = v->texts.items + token->offset;
    vec_clear(out);
    for (size_t at = 0; at < token->size;) {
        const Utf8Char c = utf8_decode(text + at, token->size - at);
        const int byte = alphabet_to_byte(c.code_point);
        if (byte < 0) return false;
        vec_push(out, (char)byte);
        at += c.size;
    }
    return true;
}

void bpe_find_whole(Bpe *b) {
    PieceTable whole;
    BpeScratch scratch = {0};
    CharVec bytes = {0};
    Int32Vec ids = {0};
    piece_table_init(&whole, b->vocab->n_used);
    for (size_t id = 0; id < b->vocab->tokens.count; id++) {
        const VocabToken *token = vocab_token(b->vocab, (int64_t)id);
        if (!token || !token_bytes(&bytes, b->vocab, token)) continue;
        vec_clear(&ids);
        if (!b->ignore_merges) bpe_encode(b, bytes.items, bytes.count, &scratch, &ids);
        if (b->ignore_merges || (ids.count == 1 && ids.items[0] == (int32_t)id))
            piece_table_add(&whole, bytes.items, bytes.count, (int32_t)id);
    }
    b->whole = whole;
    bpe_scratch_free(&scratch);
    vec_free(&bytes);
    vec_free(&ids);
}
