#!/usr/bin/env python3
"""Writes src/text/char_ranges.c:

    make_char_ranges.py tests/golden/text/charclass.json tests/golden/tokenizer_variants/word.json > FILE

charclass.json holds, for the classes letter, number, space and digit, the ranges [first, last] of code points that the
tokenizers library puts into them; word.json the ranges of what its added tokens of "single_word" count as part of a word.
Here they become one sorted table of ranges with a bit mask of classes each.
"""
import json
import sys

BITS = {"space": "S", "letter": "L", "number": "N", "digit": "D", "word": "W"}


def masks(classes):
    """(first code point, classes from there on) wherever the set of classes changes."""
    changes = {}
    for name, ranges in classes.items():
        for first, last in ranges:
            changes.setdefault(first, []).append((name, True))
            changes.setdefault(last + 1, []).append((name, False))
    now = set()
    for point in sorted(changes):
        for name, begins in changes[point]:
            if not begins:
                now.discard(name)
        for name, begins in changes[point]:
            if begins:
                now.add(name)
        yield point, sorted(now)


def main():
    steps = list(masks({**json.load(open(sys.argv[1])), "word": json.load(open(sys.argv[2]))}))
    cells = []
    for (first, names), (after, _) in zip(steps, steps[1:]):
        if names:
            cells.append("{0x%X, 0x%X, %s}" % (first, after - 1, " | ".join(BITS[n] for n in names)))
    lines, line = [], "   "
    for cell in cells:
        if len(line) + len(cell) + 2 > 108:
            lines.append(line)
            line = "   "
        line += " " + cell + ","
    lines.append(line)
    print("""// Classes of characters as the tokenizers library 0.22 sees them: space, letter (L) and number (N) are Oniguruma's
// (Unicode 16), digit is Rust's char::is_numeric (Unicode 17), word its regex crate's \\w. They differ a little from PCRE2's:
// U+180E is no space, U+0085 is one. Written by scripts/make_char_ranges.py; do not edit.
#include "text/unicode.h"

// clang-format off
#define S CHAR_SPACE
#define L CHAR_LETTER
#define N CHAR_NUMBER
#define D CHAR_DIGIT
#define W CHAR_WORD

const CharRange char_ranges[] = {""")
    print("\n".join(lines))
    print("};\nconst size_t n_char_ranges = sizeof char_ranges / sizeof *char_ranges;")


main()
