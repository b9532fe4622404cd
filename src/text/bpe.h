// Byte pair encoding of one piece of text (Sennrich et al. 2016, "Neural machine translation of rare words
// with subword units"), on bytes.
#pragma once
#include "text/piece_table.h"
#include "text/vocab.h"

// A merge: the pair of ids it joins, and what becomes of it.
typedef struct BpeMerge {
    uint64_t pair; // left id << 32 | right id; BPE_NO_PAIR where the slot is empty
    uint32_t rank; // lower ranks are merged first
    int32_t id;
} BpeMerge;
#define BPE_NO_PAIR UINT64_MAX

// What a byte is before merging: one token, or with byte_fallback two ("<0xC4>"), or none.
typedef struct BpeByte {
    uint8_t count;
    int32_t ids[2];
} BpeByte;

typedef struct Bpe {
    const Vocab *vocab; // borrowed
    BpeMerge *slots;    // hash table, n_slots a power of two
    size_t n_slots;
    BpeByte bytes[256];
    int32_t unknown_id; // of bytes without a token; -1: they vanish
    bool fuse_unknown;  // neighbouring unknown bytes give one token
    bool ignore_merges; // a piece that is a token is taken whole
    PieceTable whole;   // pieces that become one token
} Bpe;

void bpe_init(Bpe *b, const Vocab *vocab, size_t n_merges); // room for n_merges; bytes by the byte alphabet
void bpe_use_byte_fallback(Bpe *b);                         // bytes without a token become tokens like <0xC4>
void bpe_add_merge(Bpe *b, int32_t left, int32_t right, uint32_t rank,
                   int32_t id); // the last of equal pairs counts
// Finds out, once all else is set, which tokens' own bytes become that token: encoding then need not merge
// them again each time.
void bpe_find_whole(Bpe *b);
void bpe_free(Bpe *b);

// Working memory of a caller, to be zeroed at first and freed at last.
typedef struct BpeScratch {
    Int32Vec symbols;
    VEC(int32_t) previous, next; // neighbours in the list of symbols that are left
    VEC(uint64_t) heap;          // rank << 32 | position
} BpeScratch;
void bpe_scratch_free(BpeScratch *s);
// Appends the ids of the piece.
void bpe_encode(const Bpe *b, const char *piece, size_t size, BpeScratch *s, Int32Vec *ids);
