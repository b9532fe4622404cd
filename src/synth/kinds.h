// The kinds of questions, one table entry each (kinds.c). A kind arranges pictures in which its question has
// one clear answer, drawn first, and asks it; it may also ask about pictures that another kind of its group
// has arranged.
#pragma once
#include "synth/synth.h"

// The state of one row while it is made.
typedef struct Draft {
    const SynthOptions *options;
    SynthRow *row;
    Random random;
    unsigned form, focus; // set by arrange for its own ask: which question, about which colour or shape
} Draft;

typedef enum KindGroup { KINDS_SHAPES, KINDS_CHART, KINDS_TEXT, KINDS_PAIR } KindGroup;

typedef struct SynthKind {
    const char *name;
    KindGroup group;
    size_t least_shapes;           // --max_shapes must allow this many
    void (*arrange)(Draft *draft); // fills row->pictures
    // Both false when the pictures allow no such question.
    bool (*ask)(Draft *draft, SynthTurn *turn);      // about the pictures that arrange has just made
    bool (*ask_more)(Draft *draft, SynthTurn *turn); // a further one about pictures of its group; NULL: never
} SynthKind;

extern const SynthKind synth_kinds[];               // ends with name NULL
const SynthKind *synth_kind_find(const char *name); // NULL when unknown

// Writes the question in one of its wordings (formats of the same arguments, ending with NULL) and the
// answer. Always true, so that an ask function can return it.
bool turn_set(SynthTurn *turn, Random *random, const char *answer, const char *const *wordings, ...);
// Overrides what the turn is about, where turns with other words would say the same. Always true.
bool turn_about(SynthTurn *turn, const char *format, ...) __attribute__((format(printf, 2, 3)));
const char *article_of(const char *word); // "a" or "an"
const char *count_word(size_t n);         // "0" … "9"

// kinds_shapes.c, kinds_other.c
void arrange_colour(Draft *d), arrange_shape(Draft *d), arrange_count(Draft *d), arrange_position(Draft *d),
    arrange_size(Draft *d), arrange_relation(Draft *d), arrange_exists(Draft *d);
void arrange_chart(Draft *d), arrange_word(Draft *d), arrange_digits(Draft *d), arrange_pair(Draft *d);
bool ask_colour(Draft *d, SynthTurn *turn), ask_shape(Draft *d, SynthTurn *turn),
    ask_count(Draft *d, SynthTurn *turn), ask_count_all(Draft *d, SynthTurn *turn),
    ask_position(Draft *d, SynthTurn *turn), ask_size(Draft *d, SynthTurn *turn),
    ask_relation(Draft *d, SynthTurn *turn), ask_exists(Draft *d, SynthTurn *turn);
bool ask_chart(Draft *d, SynthTurn *turn), ask_word(Draft *d, SynthTurn *turn),
    ask_word_more(Draft *d, SynthTurn *turn), ask_digits(Draft *d, SynthTurn *turn),
    ask_digits_more(Draft *d, SynthTurn *turn), ask_pair(Draft *d, SynthTurn *turn),
    ask_pair_more(Draft *d, SynthTurn *turn);

// scene_background and scene_scatter with the options of the draft.
void draft_scatter(Draft *d, Scene *p, size_t n, Layout layout, Sizes sizes);
size_t draft_between(Draft *d, size_t least, size_t most); // evenly
// Makes `count` shapes of p have the shape (or, of_colour, the colour) `value`, and the others not.
void draft_plant(Draft *d, Scene *p, size_t count, bool of_colour, unsigned value);
