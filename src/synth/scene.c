#include "synth/scene.h"
#include "base/check.h"

#include <string.h>

const ColourName scene_colours[SCENE_COLOURS] = {
    {"red", {0.87, 0.12, 0.14}},    {"blue", {0.13, 0.28, 0.88}},   {"green", {0.12, 0.60, 0.20}},
    {"yellow", {0.97, 0.85, 0.12}}, {"purple", {0.52, 0.15, 0.70}}, {"orange", {0.98, 0.52, 0.06}},
    {"cyan", {0.12, 0.80, 0.86}},   {"pink", {0.98, 0.55, 0.76}},   {"brown", {0.47, 0.28, 0.12}},
    {"gray", {0.53, 0.53, 0.53}},
};

const ShapeName scene_shapes[SCENE_SHAPES] = {
    {"circle", "circles"},     {"square", "squares"}, {"triangle", "triangles"}, {"cross", "crosses"},
    {"star", "stars"},         {"ring", "rings"},     {"diamond", "diamonds"},   {"heart", "hearts"},
    {"pentagon", "pentagons"}, {"moon", "moons"},
};

typedef struct LayoutCells {
    size_t n;
    unsigned cells[SCENE_MAX_OBJECTS]; // of the 3 x 3 cells, for names and signatures
    double half;                       // half the side of a cell as drawn
    double least, most;                // of that, a shape's radius when sizes are alike
} LayoutCells;

static const LayoutCells layouts[] = {
    [LAYOUT_ONE] = {1, {4}, 0.5, 0.45, 0.85},
    [LAYOUT_QUARTERS] = {4, {0, 2, 6, 8}, 0.25, 0.72, 0.88},
    [LAYOUT_SIDES] = {5, {1, 3, 4, 5, 7}, 1.0 / 6, 0.76, 0.90},
    [LAYOUT_GRID] = {9, {0, 1, 2, 3, 4, 5, 6, 7, 8}, 1.0 / 6, 0.76, 0.90},
};

static double uniform_between(Random *random, double low, double high) {
    return low + (high - low) * random_uniform(random);
}

Layout layout_for(size_t n, Random *random) {
    CHECK(n >= 1 && n <= SCENE_MAX_OBJECTS, "%zu shapes", n);
    bool coin = random_below(random, 2);
    if (n == 1 && coin) return LAYOUT_ONE;
    coin = random_below(random, 2);
    if (n <= layouts[LAYOUT_QUARTERS].n) return coin ? LAYOUT_QUARTERS : LAYOUT_SIDES;
    return n <= layouts[LAYOUT_SIDES].n && coin ? LAYOUT_SIDES : LAYOUT_GRID;
}

// Every shape stays within 94% of its cell, so that no two touch.
static void place(Object *object, const LayoutCells *layout, unsigned cell, double size, Random *random) {
    double slack = layout->half * (0.94 - size);
    double row = cell / 3, col = cell % 3; // 0, 1, 2
    object->cell = cell;
    object->radius = layout->half * size;
    // The outer cells touch the border, the middle one is in the middle, whatever the cells' size.
    object->x = 0.5 + (col - 1) * (0.5 - layout->half) + uniform_between(random, -slack, slack);
    object->y = 0.5 + (row - 1) * (0.5 - layout->half) + uniform_between(random, -slack, slack);
}

void scene_scatter(Scene *p, size_t n, Layout layout_name, Sizes sizes, size_t colours, size_t shapes,
                   Random *random) {
    const LayoutCells *layout = &layouts[layout_name];
    CHECK(n <= layout->n, "%zu shapes in a layout of %zu cells", n, layout->n);
    size_t order[SCENE_MAX_OBJECTS];
    random_permutation(order, layout->n, random);
    p->genre = GENRE_SHAPES;
    p->layout = layout_name;
    p->n_objects = n;
    for (size_t i = 0; i < n; i++) {
        Object *object = &p->objects[i];
        double size = uniform_between(random, layout->least, layout->most);
        if (sizes != SIZES_ALIKE) {
            bool large = (i == 0) == (sizes == SIZES_ONE_LARGE);
            size = large ? uniform_between(random, 0.86, 0.92) : uniform_between(random, 0.44, 0.49);
        }
        object->colour = (unsigned)random_below(random, colours);
        object->shape = (unsigned)random_below(random, shapes);
        place(object, layout, layout->cells[order[i]], size, random);
    }
}

void scene_background(Scene *p, const ColourName *against, const char *ground, Random *random) {
    bool dark = random_below(random, 2);
    if (strcmp(ground, "any")) dark = !strcmp(ground, "dark");
    if (against) dark = 0.3 * against->rgb[0] + 0.6 * against->rgb[1] + 0.1 * against->rgb[2] > 0.45;
    double shade = dark ? uniform_between(random, 0.05, 0.17) : uniform_between(random, 0.88, 0.98);
    for (size_t c = 0; c < 3; c++) {
        p->background[c] = shade + uniform_between(random, -0.02, 0.02);
        p->tint[c] = uniform_between(random, -0.03, 0.03);
    }
}

static bool matches(const Object *object, unsigned shape, unsigned colour) {
    return (shape == SCENE_SHAPES || object->shape == shape) &&
           (colour == SCENE_COLOURS || object->colour == colour);
}

size_t scene_count(const Scene *p, unsigned shape, unsigned colour) {
    size_t count = 0;
    for (size_t i = 0; i < p->n_objects; i++) count += matches(&p->objects[i], shape, colour);
    return count;
}

bool object_much_larger(const Object *a, const Object *b) {
    return a->radius > 1.7 * b->radius;
}

// FNV-1a, 64 bits (http://www.isthe.com/chongo/tech/comp/fnv/).
static uint64_t hash_byte(uint64_t hash, unsigned byte) {
    return (hash ^ byte) * 0x100000001B3u;
}

// Where a shape is drawn, to a twentieth of the picture. Without it whole combinations of shape, colour and
// cell would be held out; a model then learns from the training pictures which combinations do not occur, and
// is wrong about exactly the test pictures.
static uint64_t hash_place(uint64_t hash, const Object *object) {
    const double lengths[] = {object->x, object->y, object->radius};
    for (int i = 0; i < 3; i++) hash = hash_byte(hash, (unsigned)(20 * lengths[i]));
    return hash;
}

uint64_t scene_signature(const Scene *p) {
    uint64_t hash = hash_byte(0xCBF29CE484222325u, p->genre);
    hash = hash_byte(hash, p->background[0] > 0.5);
    for (const char *c = p->text; *c; c++) hash = hash_byte(hash, (unsigned char)*c);
    for (unsigned cell = 0; cell < SCENE_MAX_OBJECTS; cell++)
        for (size_t i = 0; i < p->n_objects; i++) {
            const Object *object = &p->objects[i];
            if (object->cell != cell) continue;
            hash = hash_byte(hash, cell);
            hash = hash_byte(hash, object->shape);
            hash = hash_byte(hash, object->colour);
            hash = hash_byte(hash, object->value);
            if (p->genre == GENRE_SHAPES) hash = hash_place(hash, object);
        }
    // The low bits of FNV mix badly, and they decide the split.
    hash ^= hash >> 32;
    hash *= 0x9E3779B97F4A7C15u;
    return hash ^ hash >> 29;
}
