// Pieces of text whose encoding is one token, by their bytes: most words of a text, found without merging.
#pragma once
#include "base/vec.h"

typedef struct PieceSlot {
    uint32_t hash, size; // size 0: the slot is empty
    size_t offset;       // of its bytes
    int32_t id;
} PieceSlot;

typedef struct PieceTable {
    CharVec bytes;
    PieceSlot *slots;
    size_t n_slots, count; // n_slots is a power of two
} PieceTable;

void piece_table_init(PieceTable *t, size_t most); // room for so many pieces
void piece_table_free(PieceTable *t);
void piece_table_add(PieceTable *t, const char *piece, size_t size, int32_t id); // new, not empty
int32_t piece_table_find(const PieceTable *t, const char *piece, size_t size);   // -1 when it is not there
