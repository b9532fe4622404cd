#include "synth/kinds.h"
#include "base/check.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const SynthKind synth_kinds[] = {
    {"colour", KINDS_SHAPES, 1, arrange_colour, ask_colour, ask_colour},
    {"shape", KINDS_SHAPES, 1, arrange_shape, ask_shape, ask_shape},
    {"count", KINDS_SHAPES, 2, arrange_count, ask_count, ask_count_all},
    {"position", KINDS_SHAPES, 1, arrange_position, ask_position, ask_position},
    {"size", KINDS_SHAPES, 2, arrange_size, ask_size, ask_size},
    {"relation", KINDS_SHAPES, 2, arrange_relation, ask_relation, ask_relation},
    {"exists", KINDS_SHAPES, 1, arrange_exists, ask_exists, NULL}, // another question may already have told
    {"chart", KINDS_CHART, 1, arrange_chart, ask_chart, ask_chart},
    {"word", KINDS_TEXT, 1, arrange_word, ask_word, ask_word_more},
    {"digits", KINDS_TEXT, 1, arrange_digits, ask_digits, ask_digits_more},
    {"pair", KINDS_PAIR, 2, arrange_pair, ask_pair, ask_pair_more},
    {0},
};

const SynthKind *synth_kind_find(const char *name) {
    for (const SynthKind *kind = synth_kinds; kind->name; kind++)
        if (!strcmp(kind->name, name)) return kind;
    return NULL;
}

bool turn_set(SynthTurn *turn, Random *random, const char *answer, const char *const *wordings, ...) {
    size_t count = 0;
    while (wordings[count]) count++;
    const char *chosen = wordings[random_below(random, count)];
    va_list args;
    va_start(args, wordings);
    int length = vsnprintf(turn->subject, sizeof turn->subject, wordings[0], args);
    va_end(args);
    CHECK(length > 0 && (size_t)length < sizeof turn->subject, "question of %d bytes", length);
    va_start(args, wordings);
    length = vsnprintf(turn->user, sizeof turn->user, chosen, args);
    va_end(args);
    CHECK(length > 0 && (size_t)length < sizeof turn->user, "question of %d bytes", length);
    length = snprintf(turn->assistant, sizeof turn->assistant, "%s", answer);
    CHECK(length > 0 && (size_t)length < sizeof turn->assistant, "answer of %d bytes", length);
    return true;
}

bool turn_about(SynthTurn *turn, const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(turn->subject, sizeof turn->subject, format, args);
    va_end(args);
    return true;
}

const char *article_of(const char *word) {
    return strchr("aeiou", word[0]) ? "an" : "a";
}

const char *count_word(size_t n) {
    static const char *const words[] = {"0", "1", "2", "3", "4", "5", "6", "7", "8", "9"};
    CHECK(n < sizeof words / sizeof *words, "%zu things", n);
    return words[n];
}
