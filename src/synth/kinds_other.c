// Questions about bar charts, printed words and numbers, and pairs of pictures.
#include "synth/kinds.h"
#include "base/check.h"

#include <stdio.h>
#include <string.h>

#define WORDINGS(...) ((const char *const[]){__VA_ARGS__, NULL})

static bool coin(Draft *d) {
    return random_below(&d->random, 2);
}

// ---- bar chart ----
void arrange_chart(Draft *d) {
    Scene *p = &d->row->pictures[0];
    size_t colours[SCENE_COLOURS], available = d->options->colours;
    size_t most = available < CHART_MAX_BARS ? available : CHART_MAX_BARS;
    random_permutation(colours, available, &d->random);
    scene_background(p, NULL, d->options->ground, &d->random);
    p->genre = GENRE_CHART;
    p->n_objects = draft_between(d, 2, most);
    for (size_t i = 0; i < p->n_objects; i++)
        p->objects[i] = (Object){.colour = (unsigned)colours[i],
                                 .cell = (unsigned)i,
                                 .value = (unsigned)draft_between(d, 1, CHART_MAX_VALUE)};
}

// The bar of the extreme value; NULL when two share it.
static const Object *extreme_bar(const Scene *p, bool highest) {
    const Object *best = &p->objects[0];
    size_t ties = 0;
    for (size_t i = 1; i < p->n_objects; i++) {
        const Object *bar = &p->objects[i];
        if (bar->value == best->value)
            ties++;
        else if ((bar->value > best->value) == highest)
            best = bar, ties = 0;
    }
    return ties ? NULL : best;
}

static bool ask_extreme_bar(Draft *d, SynthTurn *turn) {
    bool highest = coin(d);
    const Object *bar = extreme_bar(&d->row->pictures[0], highest);
    if (!bar) return false;
    return turn_set(turn, &d->random, scene_colours[bar->colour].name,
                    highest ? WORDINGS("what colour is the highest bar?", "which bar is highest?")
                            : WORDINGS("what colour is the lowest bar?", "which bar is lowest?"));
}

bool ask_chart(Draft *d, SynthTurn *turn) {
    const Scene *p = &d->row->pictures[0];
    const Object *a = &p->objects[random_below(&d->random, p->n_objects)];
    const Object *b = &p->objects[random_below(&d->random, p->n_objects)];
    const char *a_name = scene_colours[a->colour].name, *b_name = scene_colours[b->colour].name;
    switch (random_below(&d->random, 4)) {
    case 0:
        return turn_set(turn, &d->random, count_word(p->n_objects),
                        WORDINGS("how many bars are there?", "how many bars?", "count the bars."));
    case 1:
        return turn_set(turn, &d->random, count_word(a->value),
                        WORDINGS("how high is the %s bar?", "what is the value of the %s bar?"), a_name);
    case 2:
        return ask_extreme_bar(d, turn);
    default:
        if (a->value == b->value) return false;
        return turn_set(turn, &d->random, a->value > b->value ? "yes" : "no",
                        WORDINGS("is the %s bar higher than the %s bar?"), a_name, b_name);
    }
}

// ---- printed words and numbers ----
// Short common words, as many of three, four and five letters, first letters spread over the alphabet.
static const char *const words[] = {
    "ant",   "bag",   "cat",   "dog",   "egg",   "fox",   "gas",   "hat",   "ice",   "jar",   "key",
    "leg",   "map",   "net",   "oak",   "pen",   "rug",   "sun",   "tea",   "van",   "web",   "zoo",
    "arm",   "bus",   "cup",   "day",   "fig",   "gum",   "ink",   "lid",   "mud",   "owl",   "pig",
    "sky",   "toy",   "yak",   "area",  "bird",  "cake",  "desk",  "echo",  "fish",  "gold",  "hand",
    "iron",  "joke",  "king",  "lamp",  "moon",  "nest",  "oven",  "park",  "quiz",  "rain",  "snow",
    "tree",  "unit",  "vase",  "wolf",  "yard",  "zero",  "book",  "coin",  "duck",  "frog",  "hill",
    "leaf",  "milk",  "nose",  "road",  "ship",  "time",  "apple", "bread", "chair", "dance", "earth",
    "field", "grape", "horse", "image", "juice", "knife", "lemon", "mouse", "night", "ocean", "paper",
    "queen", "river", "stone", "train", "uncle", "voice", "water", "youth", "zebra", "beach", "cloud",
    "dream", "flute", "grass", "house", "light", "music", "plant", "robot", "table",
};

static Scene *arrange_text(Draft *d) {
    Scene *p = &d->row->pictures[0];
    p->genre = GENRE_TEXT;
    p->n_objects = 1;
    p->objects[0].colour = (unsigned)random_below(&d->random, d->options->colours);
    scene_background(p, &scene_colours[p->objects[0].colour], d->options->ground, &d->random);
    return p;
}

void arrange_word(Draft *d) {
    Scene *p = arrange_text(d);
    snprintf(p->text, sizeof p->text, "%s", words[random_below(&d->random, sizeof words / sizeof *words)]);
}

void arrange_digits(Draft *d) {
    static const size_t first[] = {0, 10, 100, 1000}; // numbers of n digits: [first[n-1], first[n])
    Scene *p = arrange_text(d);
    size_t digits = draft_between(d, 1, 3);
    snprintf(p->text, sizeof p->text, "%zu", draft_between(d, first[digits - 1], first[digits] - 1));
}

// What can be asked of a word's letters as of a number's digits.
static bool ask_characters(Draft *d, SynthTurn *turn, const char *part) {
    const char *text = d->row->pictures[0].text;
    size_t length = strlen(text);
    switch (random_below(&d->random, 3)) {
    case 0:
        return turn_set(turn, &d->random, count_word(length),
                        WORDINGS("how many %ss are there?", "how many %ss?", "count the %ss."), part);
    case 1:
        return turn_set(turn, &d->random, (char[]){text[0], '\0'}, WORDINGS("what is the first %s?"), part);
    default:
        return turn_set(turn, &d->random, (char[]){text[length - 1], '\0'}, WORDINGS("what is the last %s?"),
                        part);
    }
}

// Once the text is read its characters need no picture any more, so a row asks for one or the other, and the
// colour.
static bool ask_text_colour(Draft *d, SynthTurn *turn, const char *what) {
    return turn_set(turn, &d->random, scene_colours[d->row->pictures[0].objects[0].colour].name,
                    WORDINGS("what colour is the %s?", "which colour is the %s?"), what);
}

bool ask_word(Draft *d, SynthTurn *turn) {
    if (coin(d)) return ask_characters(d, turn, "letter");
    return turn_set(turn, &d->random, d->row->pictures[0].text,
                    WORDINGS("what is the word?", "what does it say?", "read the word."));
}

bool ask_digits(Draft *d, SynthTurn *turn) {
    if (coin(d)) return ask_characters(d, turn, "digit");
    return turn_set(turn, &d->random, d->row->pictures[0].text,
                    WORDINGS("what is the number?", "which number is it?", "read the number."));
}

static bool is_number(const Draft *d) {
    return d->row->pictures[0].text[0] <= '9';
}

bool ask_word_more(Draft *d, SynthTurn *turn) {
    return !is_number(d) && ask_text_colour(d, turn, "word");
}
bool ask_digits_more(Draft *d, SynthTurn *turn) {
    return is_number(d) && ask_text_colour(d, turn, "number");
}

// ---- two pictures ----
typedef enum PairForm {
    PAIR_MORE_SHAPES,
    PAIR_HAS_SHAPE,
    PAIR_HAS_COLOUR,
    PAIR_MORE_OF_SHAPE,
    PAIR_FORMS
} PairForm;

static void pair_focus(Draft *d) {
    d->form = (unsigned)random_below(&d->random, PAIR_FORMS);
    d->focus = (unsigned)random_below(&d->random,
                                      d->form == PAIR_HAS_COLOUR ? d->options->colours : d->options->shapes);
}

void arrange_pair(Draft *d) {
    size_t most = d->options->max_shapes, winner = random_below(&d->random, 2);
    pair_focus(d);
    size_t counts[2], sizes[2]; // of what is asked for, of all shapes; the winner's first
    counts[0] = d->form == PAIR_MORE_OF_SHAPE ? draft_between(d, 1, most) : 1;
    counts[1] = d->form == PAIR_MORE_OF_SHAPE ? draft_between(d, 0, counts[0] - 1) : 0;
    for (size_t i = 0; i < 2; i++) sizes[i] = draft_between(d, counts[i] ? counts[i] : 1, most);
    if (d->form == PAIR_MORE_SHAPES) {
        sizes[0] = draft_between(d, 2, most);
        sizes[1] = draft_between(d, 1, sizes[0] - 1);
    }
    d->row->n_pictures = 2;
    for (size_t i = 0; i < 2; i++) {
        Scene *p = &d->row->pictures[i == 0 ? winner : !winner];
        draft_scatter(d, p, sizes[i], layout_for(sizes[i], &d->random), SIZES_ALIKE);
        if (d->form != PAIR_MORE_SHAPES) draft_plant(d, p, counts[i], d->form == PAIR_HAS_COLOUR, d->focus);
    }
}

static bool pair_turn(Draft *d, SynthTurn *turn, const char *answer) {
    const char *colour = scene_colours[d->form == PAIR_HAS_COLOUR ? d->focus : 0].name;
    switch ((PairForm)d->form) {
    case PAIR_MORE_SHAPES:
        return turn_set(turn, &d->random, answer,
                        WORDINGS("which picture has more shapes?", "where are more shapes?"));
    case PAIR_HAS_SHAPE:
        return turn_set(turn, &d->random, answer,
                        WORDINGS("which picture has a %s?", "which picture shows a %s?"),
                        scene_shapes[d->focus].name);
    case PAIR_HAS_COLOUR:
        return turn_set(turn, &d->random, answer,
                        WORDINGS("which picture has %s %s shape?", "which picture shows %s %s shape?"),
                        article_of(colour), colour);
    default:
        return turn_set(turn, &d->random, answer,
                        WORDINGS("which picture has more %s?", "where are more %s?"),
                        scene_shapes[d->focus].plural);
    }
}

bool ask_pair(Draft *d, SynthTurn *turn) {
    size_t counts[2];
    bool of_shape = d->form == PAIR_HAS_SHAPE || d->form == PAIR_MORE_OF_SHAPE;
    bool has = d->form == PAIR_HAS_SHAPE || d->form == PAIR_HAS_COLOUR;
    for (size_t i = 0; i < 2; i++)
        counts[i] = scene_count(&d->row->pictures[i], of_shape ? d->focus : SCENE_SHAPES,
                                d->form == PAIR_HAS_COLOUR ? d->focus : SCENE_COLOURS);
    if (has ? !counts[0] == !counts[1] : counts[0] == counts[1]) return false;
    pair_turn(d, turn, counts[0] > counts[1] ? "first" : "second");
    // Which one has a circle tells which one has more.
    return !of_shape || turn_about(turn, "%s of the two", scene_shapes[d->focus].plural);
}

bool ask_pair_more(Draft *d, SynthTurn *turn) {
    pair_focus(d);
    return ask_pair(d, turn);
}
