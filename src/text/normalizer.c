#include "text/normalizer.h"

#include "base/check.h"
#include "text/unicode.h"

#include <stdlib.h>
#include <utf8proc.h>

static bool load_one(Normalizer *n, const json_t *json, Error *err) {
    const char *type = json_string_value(json_object_get(json, "type"));
    if (!type) return error_set(err, "field type: expected a string");
    if (strcmp(type, "NFC") != 0)
        return error_set(err, "type \"%s\" is not supported, expected NFC or a Sequence of NFC", type);
    n->nfc = true;
    return true;
}

bool normalizer_load(Normalizer *n, const json_t *json, Error *err) {
    *n = (Normalizer){0};
    if (!json || json_is_null(json)) return true;
    const char *type = json_string_value(json_object_get(json, "type"));
    if (!type || strcmp(type, "Sequence") != 0)
        return load_one(n, json, err) || error_prefix(err, "field normalizer");
    const json_t *list = json_object_get(json, "normalizers");
    if (!json_is_array(list)) return error_set(err, "field normalizer.normalizers: expected an array");
    for (size_t i = 0; i < json_array_size(list); i++)
        if (!load_one(n, json_array_get(list, i), err))
            return error_prefix(err, "field normalizer.normalizers[%zu]", i);
    return true;
}

// The library's tables are those of Unicode 9: marks that came later stay where they are, and compose with
// nothing. These are the later ones of combining class ≠ 0 or that take part in a composition.
typedef struct Range {
    uint32_t first, last;
} Range;
static const Range unknown_marks[] = {
    {0x7FD, 0x7FD},     {0x897, 0x89F},     {0x8CA, 0x8D3},     {0x9FE, 0x9FE},     {0xC3C, 0xC3C},
    {0xD3B, 0xD3C},     {0xEBA, 0xEBA},     {0x1715, 0x1715},   {0x1ABF, 0x1ADD},   {0x1AE0, 0x1AEB},
    {0x1DF6, 0x1DFA},   {0xA82C, 0xA82C},   {0x105C0, 0x105FF}, {0x10D24, 0x10D27}, {0x10D69, 0x10D6D},
    {0x10EAB, 0x10EAC}, {0x10EFA, 0x10EFF}, {0x10F46, 0x10F50}, {0x10F82, 0x10F85}, {0x11070, 0x11070},
    {0x1133B, 0x1133B}, {0x11380, 0x113E2}, {0x1145E, 0x1145E}, {0x11839, 0x1183A}, {0x11930, 0x11943},
    {0x119E0, 0x119E0}, {0x11A34, 0x11A34}, {0x11A47, 0x11A47}, {0x11A99, 0x11A99}, {0x11D42, 0x11D45},
    {0x11D97, 0x11D97}, {0x11F41, 0x11F42}, {0x16100, 0x1612F}, {0x16D40, 0x16D6A}, {0x16FF0, 0x16FF1},
    {0x1E08F, 0x1E08F}, {0x1E130, 0x1E136}, {0x1E2AE, 0x1E2AE}, {0x1E2EC, 0x1E2EF}, {0x1E4EC, 0x1E4EF},
    {0x1E5EE, 0x1E5EF}, {0x1E6E3, 0x1E6F5},
};

static bool is_unknown(uint32_t c) {
    size_t low = 0, high = sizeof unknown_marks / sizeof *unknown_marks;
    while (low < high) {
        const size_t middle = (low + high) / 2;
        if (unknown_marks[middle].last < c)
            low = middle + 1;
        else
            high = middle;
    }
    return low < sizeof unknown_marks / sizeof *unknown_marks && unknown_marks[low].first <= c;
}

// Whether the character may move, compose with one before it, or decompose: a mark, a vowel or final of a
// Hangul syllable, or one with a canonical decomposition. All others are borders: nothing reaches over them.
static bool is_active(uint32_t c) {
    if (c < 0x300 || (c >= 0x3400 && c < 0xA000) || (c >= 0xAC00 && c < 0xD7A4)) return false;
    if (c >= 0x1160 && c < 0x1200) return true;
    const utf8proc_property_t *p = utf8proc_get_property((utf8proc_int32_t)c);
    const bool mark = p->category == UTF8PROC_CATEGORY_MN || p->category == UTF8PROC_CATEGORY_MC ||
                      p->category == UTF8PROC_CATEGORY_ME;
    const bool decomposes = p->decomp_seqindex != UINT16_MAX && p->decomp_type == 0;
    return (mark || decomposes) && !is_unknown(c);
}

typedef VEC(utf8proc_int32_t) CodePoints;

static void decompose(CodePoints *out, const char *text, size_t size) {
    for (size_t at = 0; at < size;) {
        const Utf8Char c = utf8_decode(text + at, size - at);
        vec_reserve(out, out->count + 16); // the longest decomposition of a character has 4
        int boundary = 0;
        const utf8proc_ssize_t n =
            utf8proc_decompose_char((utf8proc_int32_t)c.code_point, out->items + out->count, 16,
                                    UTF8PROC_DECOMPOSE | UTF8PROC_STABLE, &boundary);
        CHECK(n >= 0 && n <= 16, "utf8proc_decompose_char: %zd", n);
        out->count += (size_t)n;
        at += c.size;
    }
}

static int compare_keys(const void *a, const void *b) {
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static uint64_t combining_class(utf8proc_int32_t c) {
    return (uint64_t)utf8proc_get_property(c)->combining_class;
}

// Sorts each run of marks by combining class, equal ones in their order. (utf8proc does so in quadratic time,
// which a text of nothing but marks could be made for.)
static void order_marks(CodePoints *points) {
    VEC(uint64_t) keys = {0}; // class << 56 | place << 24 | character; places stay below 2³²
    for (size_t i = 0; i <= points->count; i++) {
        const uint64_t class = i < points->count ? combining_class(points->items[i]) : 0;
        if (class) {
            vec_push(&keys, class << 56 | (uint64_t)(uint32_t)i << 24 | (uint32_t)points->items[i]);
            continue;
        }
        if (keys.count > 1) qsort(keys.items, keys.count, sizeof *keys.items, compare_keys);
        for (size_t k = 0; k < keys.count; k++)
            points->items[i - keys.count + k] = (utf8proc_int32_t)(keys.items[k] & 0xFFFFFF);
        vec_clear(&keys);
    }
    vec_free(&keys);
}

static void normalise(CharVec *out, CodePoints *points, const char *text, size_t size) {
    vec_clear(points);
    decompose(points, text, size);
    order_marks(points);
    const utf8proc_ssize_t n = utf8proc_normalize_utf32(points->items, (utf8proc_ssize_t)points->count,
                                                        UTF8PROC_COMPOSE | UTF8PROC_STABLE);
    CHECK(n >= 0, "utf8proc_normalize_utf32: %zd", n);
    for (utf8proc_ssize_t i = 0; i < n; i++) utf8_append(out, (uint32_t)points->items[i]);
}

// The next run of active characters with the one before it, which they may compose with. False: none is left.
static bool next_run(const char *text, size_t size, size_t from, size_t *begin, size_t *end) {
    size_t before = from, at = from;
    bool found = false;
    while (at < size) {
        if ((uint8_t)text[at] < 0xCC) { // below U+0300
            if (found) break;
            before = at;
            at += (uint8_t)text[at] < 0x80 ? 1 : 2;
            continue;
        }
        const Utf8Char c = utf8_decode_valid(text + at);
        const bool active = is_active(c.code_point);
        if (found && !active) break;
        if (!found && active) *begin = before, found = true;
        if (!active) before = is_unknown(c.code_point) ? at + c.size : at;
        at += c.size;
    }
    *end = at;
    return found;
}

bool normalizer_run(const Normalizer *n, const char *text, size_t size, CharVec *out) {
    size_t begin, end, at = 0;
    if (!n->nfc || !next_run(text, size, 0, &begin, &end)) return false;
    CodePoints points = {0};
    do {
        vec_extend(out, text + at, begin - at);
        normalise(out, &points, text + begin, end - begin);
        at = end;
    } while (next_run(text, size, at, &begin, &end));
    vec_extend(out, text + at, size - at);
    vec_free(&points);
    return true;
}
