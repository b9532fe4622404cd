// 128 bits that stand for many bytes: against accidents, not against people. Fast: eight bytes at a time, in
// four lanes. The result depends on the machine's byte order.
#pragma once
#include <stddef.h>
#include <stdint.h>

typedef struct Digest {
    uint64_t words[2];
} Digest;

// Of n bytes; goes on from `seed`, {{0}} at the beginning.
Digest digest_of(Digest seed, const void *bytes, size_t n);
static inline int digest_equal(Digest a, Digest b) {
    return a.words[0] == b.words[0] && a.words[1] == b.words[1];
}

enum { DIGEST_TEXT = 33 }; // 32 hexadecimal digits and '\0'
void digest_text(char text[DIGEST_TEXT], Digest d);
