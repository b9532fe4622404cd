#include "base/digest.h"

#include <stdio.h>
#include <string.h>

enum { LANES = 4 };
static const uint64_t odd[LANES] = {0x9e3779b97f4a7c15u, 0xd1b54a32d192ed03u, 0x8cb92ba72f3d8dd7u,
                                    0x94d049bb133111ebu};

// One to one in h and in word, so that two inputs which differ in one word of a lane never meet.
static uint64_t mix(uint64_t h, uint64_t word, uint64_t factor) {
    h = (h ^ word) * factor;
    return h ^ h >> 29;
}

static void take_block(uint64_t lanes[LANES], const unsigned char *bytes) {
    uint64_t words[LANES];
    memcpy(words, bytes, sizeof words);
    for (int i = 0; i < LANES; i++) lanes[i] = mix(lanes[i], words[i], odd[i]);
}

Digest digest_of(Digest seed, const void *bytes, size_t n) {
    enum { BLOCK = LANES * sizeof(uint64_t) };
    const unsigned char *at = bytes;
    uint64_t lanes[LANES] = {seed.words[0] + odd[0], seed.words[1] + odd[1], seed.words[0] + odd[2],
                             seed.words[1] + odd[3]};
    size_t left = n;
    for (; left >= BLOCK; left -= BLOCK, at += BLOCK) take_block(lanes, at);
    unsigned char last[BLOCK] = {0};
    if (left) memcpy(last, at, left);
    take_block(lanes, last);
    Digest d = {{lanes[0], lanes[1] ^ n}};
    for (int round = 0; round < 2; round++)
        for (int i = 0; i < LANES; i++) {
            d.words[0] = mix(d.words[0], lanes[i] ^ d.words[1], odd[0]);
            d.words[1] = mix(d.words[1], lanes[i] ^ d.words[0], odd[1]);
        }
    return d;
}

void digest_text(char text[DIGEST_TEXT], Digest d) {
    snprintf(text, DIGEST_TEXT, "%016llx%016llx", (unsigned long long)d.words[0],
             (unsigned long long)d.words[1]);
}
