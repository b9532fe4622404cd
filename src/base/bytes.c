#include "base/bytes.h"

void bytes_put_varint(CharVec *out, uint64_t value) {
    for (; value >= 128; value >>= 7) vec_push(out, (char)(value | 128));
    vec_push(out, (char)value);
}

void bytes_put_u64(CharVec *out, uint64_t value) {
    for (int i = 0; i < 8; i++) vec_push(out, (char)(value >> 8 * i));
}

ByteReader byte_reader(const void *bytes, size_t size) {
    const uint8_t *at = bytes;
    return (ByteReader){at, size ? at + size : at, false};
}

size_t byte_reader_left(const ByteReader *r) {
    return (size_t)(r->end - r->at);
}

const uint8_t *byte_reader_take(ByteReader *r, size_t n) {
    if (r->failed || n > byte_reader_left(r)) {
        r->failed = true;
        return NULL;
    }
    const uint8_t *taken = r->at;
    r->at += n;
    return taken;
}

uint64_t byte_reader_varint(ByteReader *r) {
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        const uint8_t *byte = byte_reader_take(r, 1);
        if (!byte) return 0;
        if (shift == 63 && *byte > 1) break;
        value |= (uint64_t)(*byte & 127) << shift;
        if (*byte < 128) return value;
    }
    r->failed = true;
    return 0;
}

uint64_t byte_reader_u64(ByteReader *r) {
    const uint8_t *bytes = byte_reader_take(r, 8);
    uint64_t value = 0;
    for (int i = 0; bytes && i < 8; i++) value |= (uint64_t)bytes[i] << 8 * i;
    return value;
}

uint64_t bytes_hash(uint64_t h, const void *bytes, size_t n) {
    for (size_t i = 0; i < n; i++) h = (h ^ ((const uint8_t *)bytes)[i]) * 0x100000001b3u;
    return h;
}

uint64_t bytes_hash_u64(uint64_t h, uint64_t value) {
    for (int i = 0; i < 8; i++) h = (h ^ (value >> 8 * i & 255)) * 0x100000001b3u;
    return h;
}
