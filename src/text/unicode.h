// UTF-8, classes of characters, and the byte alphabet of byte-level tokenizers.
#pragma once
#include "base/vec.h"

#include <stdbool.h>

// Bit masks; space, letter and number exclude one another, a digit is nearly always a number as well. word: a
// letter, mark, digit or connector (regular expressions' \w).
enum { CHAR_SPACE = 1, CHAR_LETTER = 2, CHAR_NUMBER = 4, CHAR_DIGIT = 8, CHAR_WORD = 16 };

typedef struct CharRange {
    uint32_t first, last;
    uint8_t classes;
} CharRange;
extern const CharRange char_ranges[]; // sorted, disjoint
extern const size_t n_char_ranges;
#define CHAR_TABLE_SIZE 0x10000
extern uint8_t char_table[CHAR_TABLE_SIZE];          // the same by code point, filled before main
unsigned char_classes_searched(uint32_t code_point); // by search, for any code point
// Classes of a character, 0 for one of none.
static inline unsigned char_classes(uint32_t code_point) {
    return code_point < CHAR_TABLE_SIZE ? char_table[code_point] : char_classes_searched(code_point);
}

// The character at text (size > 0): its code point and its length in bytes. Of invalid UTF-8 the code point
// is UTF8_INVALID and the length that of the maximal invalid part, 1…3 (Unicode, 3.9, "substitution of
// maximal subparts").
typedef struct Utf8Char {
    uint32_t code_point;
    size_t size;
} Utf8Char;
#define UTF8_INVALID UINT32_MAX
Utf8Char utf8_decode(const char *text, size_t size);
// The same for text that is known to be valid.
static inline Utf8Char utf8_decode_valid(const char *text) {
    const uint8_t *b = (const uint8_t *)text;
    if (b[0] < 0x80) return (Utf8Char){b[0], 1};
    if (b[0] < 0xE0) return (Utf8Char){(b[0] & 0x1Fu) << 6 | (b[1] & 0x3Fu), 2};
    const uint32_t two = (b[1] & 0x3Fu) << 6 | (b[2] & 0x3Fu);
    if (b[0] < 0xF0) return (Utf8Char){(b[0] & 0x0Fu) << 12 | two, 3};
    return (Utf8Char){(b[0] & 0x07u) << 18 | two << 6 | (b[3] & 0x3Fu), 4};
}
void utf8_trim(const char **text,
               size_t *size); // off go white space at its start and end (Python, str.strip)
size_t utf8_valid_prefix(const char *text, size_t size); // bytes before the first invalid part
void utf8_append(CharVec *out, uint32_t code_point);
// Appends text with U+FFFD in place of each maximal invalid part.
void utf8_append_lossy(CharVec *out, const char *text, size_t size);

// GPT-2's alphabet of 256 printable characters, one a byte: code points 33…126, 161…172, 174…255 stand
// for themselves, the other bytes are 256, 257, … in their order (openai/gpt-2, bytes_to_unicode).
uint32_t byte_to_alphabet(uint8_t byte);
int alphabet_to_byte(uint32_t code_point); // -1 for a character outside the alphabet
