// Questions about one picture of scattered shapes.
#include "synth/kinds.h"

#include <math.h>
#include <stdio.h>

#define WORDINGS(...) ((const char *const[]){__VA_ARGS__, NULL})

enum { ANY_SHAPE = SCENE_SHAPES, ANY_COLOUR = SCENE_COLOURS };

size_t draft_between(Draft *d, size_t least, size_t most) {
    return least + (size_t)random_below(&d->random, most - least + 1);
}

static bool coin(Draft *d) {
    return random_below(&d->random, 2);
}

static unsigned random_colour(Draft *d) {
    return (unsigned)random_below(&d->random, d->options->colours);
}
static unsigned random_shape(Draft *d) {
    return (unsigned)random_below(&d->random, d->options->shapes);
}

void draft_scatter(Draft *d, Scene *p, size_t n, Layout layout, Sizes sizes) {
    scene_background(p, NULL, d->options->ground, &d->random);
    scene_scatter(p, n, layout, sizes, d->options->colours, d->options->shapes, &d->random);
}

void draft_plant(Draft *d, Scene *p, size_t count, bool of_colour, unsigned value) {
    for (size_t i = 0; i < p->n_objects; i++) {
        unsigned *property = of_colour ? &p->objects[i].colour : &p->objects[i].shape;
        if (i < count)
            *property = value;
        else
            while (*property == value) *property = of_colour ? random_colour(d) : random_shape(d);
    }
}

static Scene *scatter_any(Draft *d, size_t least) {
    Scene *p = &d->row->pictures[0];
    size_t n = draft_between(d, least, d->options->max_shapes);
    Layout layout;
    do layout = layout_for(n, &d->random);
    while (layout == LAYOUT_ONE && least > 1);
    draft_scatter(d, p, n, layout, SIZES_ALIKE);
    return p;
}

// The shortest way, or one of them, to name object i without doubt: "circle", "red shape", "red circle".
static bool describe(Draft *d, char text[32], size_t i) {
    const Scene *p = &d->row->pictures[0];
    const Object *object = &p->objects[i];
    const char *colour = scene_colours[object->colour].name, *shape = scene_shapes[object->shape].name;
    bool by_shape = scene_count(p, object->shape, ANY_COLOUR) == 1;
    bool by_colour = scene_count(p, ANY_SHAPE, object->colour) == 1;
    if (by_shape && (!by_colour || coin(d)))
        snprintf(text, 32, "%s", shape);
    else if (by_colour)
        snprintf(text, 32, "%s shape", colour);
    else if (scene_count(p, object->shape, object->colour) == 1)
        snprintf(text, 32, "%s %s", colour, shape);
    else
        return false;
    return true;
}

static bool describe_any(Draft *d, char text[32], size_t *i) {
    *i = (size_t)random_below(&d->random, d->row->pictures[0].n_objects);
    return describe(d, text, *i);
}

// Two objects with their names; false when the ones drawn cannot be told apart.
typedef struct NamedPair {
    const Object *a, *b;
    char a_name[32], b_name[32];
    size_t first, second; // their numbers in order, the same for (a, b) and (b, a)
} NamedPair;

static bool describe_two(Draft *d, NamedPair *pair) {
    size_t i, j;
    if (!describe_any(d, pair->a_name, &i) || !describe_any(d, pair->b_name, &j) || i == j) return false;
    pair->a = &d->row->pictures[0].objects[i];
    pair->b = &d->row->pictures[0].objects[j];
    pair->first = i < j ? i : j;
    pair->second = i < j ? j : i;
    return true;
}

// ---- colour of a shape, shape of a colour ----
void arrange_colour(Draft *d) {
    Scene *p = scatter_any(d, 1);
    draft_plant(d, p, 1, false, p->objects[0].shape);
}

bool ask_colour(Draft *d, SynthTurn *turn) {
    const Scene *p = &d->row->pictures[0];
    const Object *object = &p->objects[random_below(&d->random, p->n_objects)];
    if (scene_count(p, object->shape, ANY_COLOUR) != 1) return false;
    const char *name = p->n_objects == 1 && coin(d) ? "shape" : scene_shapes[object->shape].name;
    return turn_set(
        turn, &d->random, scene_colours[object->colour].name,
        WORDINGS("what colour is the %s?", "which colour is the %s?", "what is the colour of the %s?"), name);
}

void arrange_shape(Draft *d) {
    Scene *p = scatter_any(d, 1);
    draft_plant(d, p, 1, true, p->objects[0].colour);
}

bool ask_shape(Draft *d, SynthTurn *turn) {
    const Scene *p = &d->row->pictures[0];
    const Object *object = &p->objects[random_below(&d->random, p->n_objects)];
    const char *answer = scene_shapes[object->shape].name;
    if (p->n_objects == 1 && coin(d))
        return turn_set(turn, &d->random, answer,
                        WORDINGS("what shape is this?", "which shape is it?", "what is this?"));
    if (scene_count(p, ANY_SHAPE, object->colour) != 1) return false;
    return turn_set(turn, &d->random, answer,
                    WORDINGS("what shape is %s?", "which shape is %s?", "what is the %s shape?"),
                    scene_colours[object->colour].name);
}

// ---- count: of all, of a colour, of a shape ----
void arrange_count(Draft *d) {
    Scene *p = &d->row->pictures[0];
    size_t most = d->options->max_shapes;
    d->form = (unsigned)random_below(&d->random, 3);
    size_t count = draft_between(d, 0, most);
    size_t n = draft_between(d, d->form == 0 || count == 0 ? 1 : count, most);
    draft_scatter(d, p, n, layout_for(n, &d->random), SIZES_ALIKE);
    d->focus = d->form == 1 ? random_colour(d) : random_shape(d);
    if (d->form != 0) draft_plant(d, p, count, d->form == 1, d->focus);
}

bool ask_count_all(Draft *d, SynthTurn *turn) {
    return turn_set(turn, &d->random, count_word(d->row->pictures[0].n_objects),
                    WORDINGS("how many shapes are there?", "how many shapes?", "count the shapes."));
}

bool ask_count(Draft *d, SynthTurn *turn) {
    const Scene *p = &d->row->pictures[0];
    if (d->form == 0) return ask_count_all(d, turn);
    if (d->form == 1)
        return turn_set(
            turn, &d->random, count_word(scene_count(p, ANY_SHAPE, d->focus)),
            WORDINGS("how many %s shapes are there?", "how many %s shapes?", "count the %s shapes."),
            scene_colours[d->focus].name);
    return turn_set(turn, &d->random, count_word(scene_count(p, d->focus, ANY_COLOUR)),
                    WORDINGS("how many %s are there?", "how many %s?", "count the %s."),
                    scene_shapes[d->focus].plural);
}

// ---- position ----
void arrange_position(Draft *d) {
    size_t n = draft_between(d, 1, d->options->max_shapes);
    Layout layout;
    do layout = layout_for(n, &d->random);
    while (layout == LAYOUT_ONE);
    draft_scatter(d, &d->row->pictures[0], n, layout, SIZES_ALIKE);
}

bool ask_position(Draft *d, SynthTurn *turn) {
    static const char *const names[2][3] = {{"top", "middle", "bottom"}, {"left", "middle", "right"}};
    const Scene *p = &d->row->pictures[0];
    char name[32];
    size_t i;
    if (p->layout == LAYOUT_ONE || !describe_any(d, name, &i)) return false;
    unsigned row = p->objects[i].cell / 3, column = p->objects[i].cell % 3;
    bool across = coin(d);
    const char *answer = names[across][across ? column : row];
    if (p->layout == LAYOUT_SIDES) {
        across = false; // one question for both axes
        turn_set(turn, &d->random, column == 1 ? names[0][row] : names[1][column],
                 WORDINGS("where is the %s?", "find the %s.", "on which side is the %s?"), name);
    } else if (p->layout == LAYOUT_QUARTERS)
        turn_set(turn, &d->random, answer,
                 across ? WORDINGS("is the %s left or right?", "is the %s on the left or right?")
                        : WORDINGS("is the %s top or bottom?", "is the %s at the top or bottom?"),
                 name);
    else
        turn_set(turn, &d->random, answer,
                 across ? WORDINGS("which column is the %s in?", "in which column is the %s?")
                        : WORDINGS("which row is the %s in?", "in which row is the %s?"),
                 name);
    return turn_about(turn, "place %d of %zu", across, i);
}

// ---- size ----
void arrange_size(Draft *d) {
    size_t n = draft_between(d, 2, d->options->max_shapes);
    draft_scatter(d, &d->row->pictures[0], n, layout_for(n, &d->random),
                  coin(d) ? SIZES_ONE_LARGE : SIZES_ONE_SMALL);
}

// The object that is much larger (or smaller) than all others; -1 when there is none.
static int find_extreme(const Scene *p, bool largest) {
    for (size_t i = 0; i < p->n_objects; i++) {
        size_t beaten = 0;
        for (size_t j = 0; j < p->n_objects; j++) {
            const Object *a = &p->objects[largest ? i : j], *b = &p->objects[largest ? j : i];
            beaten += object_much_larger(a, b);
        }
        if (beaten == p->n_objects - 1) return (int)i;
    }
    return -1;
}

static bool compare_sizes(Draft *d, SynthTurn *turn) {
    NamedPair pair;
    if (!describe_two(d, &pair)) return false;
    bool a_larger = object_much_larger(pair.a, pair.b), b_larger = object_much_larger(pair.b, pair.a);
    if (!a_larger && !b_larger) return false;
    bool larger = coin(d);
    turn_set(turn, &d->random, larger == a_larger ? "yes" : "no",
             larger ? WORDINGS("is the %s larger than the %s?", "is the %s bigger than the %s?")
                    : WORDINGS("is the %s smaller than the %s?"),
             pair.a_name, pair.b_name);
    return turn_about(turn, "sizes of %zu and %zu", pair.first, pair.second);
}

bool ask_size(Draft *d, SynthTurn *turn) {
    const Scene *p = &d->row->pictures[0];
    unsigned form = (unsigned)random_below(&d->random, 3);
    if (form == 0) return compare_sizes(d, turn);
    bool largest = coin(d);
    int i = p->n_objects < 2 ? -1 : find_extreme(p, largest);
    if (i < 0) return false;
    const Object *object = &p->objects[i];
    if (form == 1)
        return turn_set(turn, &d->random, scene_shapes[object->shape].name,
                        largest ? WORDINGS("what is the largest shape?", "what is the biggest shape?")
                                : WORDINGS("what is the smallest shape?"));
    return turn_set(turn, &d->random, scene_colours[object->colour].name,
                    largest
                        ? WORDINGS("what colour is the largest shape?", "what colour is the biggest shape?")
                        : WORDINGS("what colour is the smallest shape?"));
}

// ---- relation ----
void arrange_relation(Draft *d) {
    scatter_any(d, 2);
}

bool ask_relation(Draft *d, SynthTurn *turn) {
    static const char *const sides[2][2] = {{"above", "below"}, {"left", "right"}};
    static const char *const wordings[2][2] = {{"is the %s above the %s?", "is the %s below the %s?"},
                                               {"is the %s left of the %s?", "is the %s right of the %s?"}};
    NamedPair pair;
    if (!describe_two(d, &pair)) return false;
    bool across = coin(d);
    double distance = across ? pair.b->x - pair.a->x : pair.b->y - pair.a->y;
    if (fabs(distance) < 0.25) return false; // beside or above one another in name only
    size_t side = distance < 0, asked = (size_t)random_below(&d->random, 2);
    if (coin(d))
        turn_set(turn, &d->random, sides[across][side],
                 across ? WORDINGS("is the %s left or right of the %s?")
                        : WORDINGS("is the %s above or below the %s?"),
                 pair.a_name, pair.b_name);
    else
        turn_set(turn, &d->random, side == asked ? "yes" : "no", WORDINGS(wordings[across][asked]),
                 pair.a_name, pair.b_name);
    return turn_about(turn, "sides %d of %zu and %zu", across, pair.first, pair.second);
}

// ---- existence: the answer is drawn first, and a no stays close to what is there ----
void arrange_exists(Draft *d) {
    Scene *p = scatter_any(d, 1);
    bool yes = coin(d);
    unsigned shape = random_shape(d), colour = random_colour(d);
    d->form = (unsigned)random_below(&d->random, 3);
    d->focus = shape * SCENE_COLOURS + colour;
    if (d->form == 1) draft_plant(d, p, yes, false, shape);
    if (d->form == 2) draft_plant(d, p, yes, true, colour);
    if (d->form != 0) return;
    for (size_t i = 0; i < p->n_objects; i++) {
        Object *object = &p->objects[i];
        bool same_shape = coin(d);
        if (i == 0) object->shape = yes || same_shape ? shape : object->shape;
        if (i == 0) object->colour = yes || !same_shape ? colour : object->colour;
        if (i == 0 && yes) continue;
        while (object->shape == shape && object->colour == colour)
            if (same_shape)
                object->colour = random_colour(d);
            else
                object->shape = random_shape(d);
    }
}

bool ask_exists(Draft *d, SynthTurn *turn) {
    const char *shape = scene_shapes[d->focus / SCENE_COLOURS].name;
    const char *colour = scene_colours[d->focus % SCENE_COLOURS].name;
    const Scene *p = &d->row->pictures[0];
    size_t count = scene_count(p, d->form == 2 ? ANY_SHAPE : d->focus / SCENE_COLOURS,
                               d->form == 1 ? ANY_COLOUR : d->focus % SCENE_COLOURS);
    const char *answer = count ? "yes" : "no";
    if (d->form == 1)
        return turn_set(turn, &d->random, answer, WORDINGS("is there a %s?", "do you see a %s?"), shape);
    return turn_set(turn, &d->random, answer, WORDINGS("is there %s %s %s?", "do you see %s %s %s?"),
                    article_of(colour), colour, d->form == 2 ? "shape" : shape);
}
