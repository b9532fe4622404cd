#include "text/piece_table.h"

#include "base/check.h"

#include <stdbool.h>

void piece_table_init(PieceTable *t, size_t most) {
    *t = (PieceTable){.n_slots = 64};
    while (t->n_slots < 2 * most) t->n_slots *= 2;
    t->slots = mem_zeroed(t->n_slots, sizeof *t->slots);
}

void piece_table_free(PieceTable *t) {
    vec_free(&t->bytes);
    free(t->slots);
    *t = (PieceTable){0};
}

// Eight bytes at a time, each mixed in by a multiplication whose high half is folded back.
static uint32_t hash_piece(const char *piece, size_t size) {
    const uint64_t factor = 0x9E3779B97F4A7C15u; // 2⁶⁴ / golden ratio
    uint64_t hash = size, word;
    for (; size >= 8; piece += 8, size -= 8) {
        memcpy(&word, piece, 8);
        hash = (hash ^ word) * factor;
        hash ^= hash >> 32;
    }
    word = 0;
    for (size_t i = 0; i < size; i++) word = word << 8 | (uint8_t)piece[i];
    hash = (hash ^ word) * factor;
    return (uint32_t)(hash >> 32);
}

static PieceSlot *find_slot(const PieceTable *t, const char *piece, size_t size, uint32_t hash) {
    size_t at = hash & (t->n_slots - 1);
    for (;; at = (at + 1) & (t->n_slots - 1)) {
        PieceSlot *slot = &t->slots[at];
        const bool same = slot->hash == hash && slot->size == size;
        if (slot->size == 0 || (same && memcmp(t->bytes.items + slot->offset, piece, size) == 0)) return slot;
    }
}

void piece_table_add(PieceTable *t, const char *piece, size_t size, int32_t id) {
    CHECK(size > 0 && size < UINT32_MAX && 2 * t->count < t->n_slots, "piece of %zu bytes, %zu pieces", size,
          t->count);
    const uint32_t hash = hash_piece(piece, size);
    *find_slot(t, piece, size, hash) = (PieceSlot){hash, (uint32_t)size, t->bytes.count, id};
    vec_extend(&t->bytes, piece, size);
    t->count++;
}

int32_t piece_table_find(const PieceTable *t, const char *piece, size_t size) {
    if (size == 0 || t->n_slots == 0) return -1;
    const PieceSlot *slot = find_slot(t, piece, size, hash_piece(piece, size));
    return slot->size ? slot->id : -1;
}
