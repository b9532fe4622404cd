// Small binary records: numbers of variable length written behind one another, and read back from bytes that
// may hold anything.
#pragma once
#include "base/vec.h"

#include <stdbool.h>

// Seven bits a byte, lowest first, the top bit says that more follow.
void bytes_put_varint(CharVec *out, uint64_t value);
void bytes_put_u64(CharVec *out, uint64_t value); // eight bytes, lowest first

typedef struct ByteReader {
    const uint8_t *at, *end; // borrowed
    bool failed;             // something was asked for that is not there; everything read since then is 0
} ByteReader;

ByteReader byte_reader(const void *bytes, size_t size);
size_t byte_reader_left(const ByteReader *r);
uint64_t byte_reader_varint(ByteReader *r); // also fails on more than 64 bits
uint64_t byte_reader_u64(ByteReader *r);
const uint8_t *byte_reader_take(ByteReader *r, size_t n); // the next n bytes, borrowed; NULL when fewer

// FNV-1a, 64 bits: against accidents, not against people. Begin with BYTES_HASH; goes on from h.
#define BYTES_HASH 0xcbf29ce484222325u
uint64_t bytes_hash(uint64_t h, const void *bytes, size_t n);
uint64_t bytes_hash_u64(uint64_t h, uint64_t value);
