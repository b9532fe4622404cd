#include "text/unicode.h"

uint8_t char_table[CHAR_TABLE_SIZE];

// Before main, so that no reader has to ask whether it is filled; takes some ten microseconds.
__attribute__((constructor)) static void fill_char_table(void) {
    for (size_t i = 0; i < n_char_ranges && char_ranges[i].first < CHAR_TABLE_SIZE; i++) {
        const uint32_t last = char_ranges[i].last;
        const size_t end = last < CHAR_TABLE_SIZE ? last + 1 : CHAR_TABLE_SIZE;
        memset(char_table + char_ranges[i].first, char_ranges[i].classes, end - char_ranges[i].first);
    }
}

unsigned char_classes_searched(uint32_t code_point) {
    size_t low = 0, high = n_char_ranges;
    while (low < high) {
        const size_t middle = (low + high) / 2;
        if (char_ranges[middle].last < code_point)
            low = middle + 1;
        else
            high = middle;
    }
    return low < n_char_ranges && char_ranges[low].first <= code_point ? char_ranges[low].classes : 0;
}

// The Unicode standard's table 3-7 (well-formed byte sequences): up to which first byte a row holds (the
// first one from 0xC2 on), how many bytes follow and what the second one may be; the others are 80…BF.
typedef struct Lead {
    uint8_t last, following, low, high;
} Lead;
static const Lead leads[] = {
    {0xDF, 1, 0x80, 0xBF}, {0xE0, 2, 0xA0, 0xBF}, {0xEC, 2, 0x80, 0xBF}, {0xED, 2, 0x80, 0x9F},
    {0xEF, 2, 0x80, 0xBF}, {0xF0, 3, 0x90, 0xBF}, {0xF3, 3, 0x80, 0xBF}, {0xF4, 3, 0x80, 0x8F},
};

Utf8Char utf8_decode(const char *text, size_t size) {
    const uint8_t *bytes = (const uint8_t *)text;
    if (bytes[0] < 0x80) return (Utf8Char){bytes[0], 1};
    if (bytes[0] < 0xC2 || bytes[0] > 0xF4) return (Utf8Char){UTF8_INVALID, 1};
    const Lead *lead = leads;
    while (bytes[0] > lead->last) lead++;
    uint32_t code_point = bytes[0] & (0x3F >> lead->following);
    for (size_t i = 1; i <= lead->following; i++) {
        const uint8_t low = i == 1 ? lead->low : 0x80, high = i == 1 ? lead->high : 0xBF;
        if (i >= size || bytes[i] < low || bytes[i] > high) return (Utf8Char){UTF8_INVALID, i};
        code_point = code_point << 6 | (bytes[i] & 0x3F);
    }
    return (Utf8Char){code_point, 1u + lead->following};
}

static bool is_white(uint32_t c) {
    return char_classes(c) & CHAR_SPACE || (c >= 0x1C && c <= 0x1F);
}

void utf8_trim(const char **text, size_t *size) {
    size_t begin = *size, end = 0;
    for (size_t at = 0, n; at < *size; at += n) {
        const Utf8Char c = utf8_decode(*text + at, *size - at);
        n = c.size;
        if (c.code_point != UTF8_INVALID && is_white(c.code_point)) continue;
        if (at < begin) begin = at;
        end = at + n;
    }
    *text += begin < end ? begin : 0;
    *size = begin < end ? end - begin : 0;
}

size_t utf8_valid_prefix(const char *text, size_t size) {
    size_t at = 0;
    while (at < size) {
        uint64_t word;
        while (size - at >= 8 && (memcpy(&word, text + at, 8), (word & 0x8080808080808080u) == 0)) at += 8;
        while (at < size && (uint8_t)text[at] < 0x80) at++;
        if (at == size) break;
        const Utf8Char c = utf8_decode(text + at, size - at);
        if (c.code_point == UTF8_INVALID) break;
        at += c.size;
    }
    return at;
}

void utf8_append(CharVec *out, uint32_t c) {
    const size_t following = c < 0x80 ? 0 : c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
    static const uint8_t marks[] = {0, 0xC0, 0xE0, 0xF0};
    vec_push(out, (char)(marks[following] | c >> (6 * following)));
    for (size_t i = following; i-- > 0;) vec_push(out, (char)(0x80 | (c >> (6 * i) & 0x3F)));
}

void utf8_append_lossy(CharVec *out, const char *text, size_t size) {
    while (size > 0) {
        const size_t valid = utf8_valid_prefix(text, size);
        vec_extend(out, text, valid);
        text += valid, size -= valid;
        if (size == 0) return;
        const Utf8Char invalid = utf8_decode(text, size);
        utf8_append(out, 0xFFFD);
        text += invalid.size, size -= invalid.size;
    }
}

uint32_t byte_to_alphabet(uint8_t byte) {
    if (byte <= 32) return 256u + byte;
    if (byte >= 127 && byte <= 160) return 256u + 33 + byte - 127;
    return byte == 173 ? 323 : byte;
}

int alphabet_to_byte(uint32_t c) {
    if (c >= 256 && c <= 288) return (int)c - 256;
    if (c >= 289 && c <= 322) return (int)c - 289 + 127;
    if (c == 323) return 173;
    return (c >= 33 && c <= 126) || (c >= 161 && c <= 255 && c != 173) ? (int)c : -1;
}
