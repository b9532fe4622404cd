// What a synthetic picture shows, before it is drawn: few large shapes in cells, a bar chart, or printed
// characters. Coordinates are in units of the picture's side, x to the right, y downward.
#pragma once
#include "base/random.h"

#include <stdbool.h>

enum {
    SCENE_MAX_OBJECTS = 9,
    SCENE_MAX_PICTURES = 2,
    SCENE_COLOURS = 10,
    SCENE_SHAPES = 10,
    CHART_MAX_BARS = 5,
    CHART_MAX_VALUE = 5
};

typedef enum Genre { GENRE_SHAPES, GENRE_CHART, GENRE_TEXT } Genre;

// Where the shapes stand: alone and large, in the four quarters, at the sides and the middle, or in a 3 x 3
// grid.
typedef enum Layout { LAYOUT_ONE, LAYOUT_QUARTERS, LAYOUT_SIDES, LAYOUT_GRID } Layout;

typedef struct Object {
    unsigned shape, colour; // indices of the tables below
    unsigned cell;          // of the 3 x 3 cells, row-major; of a bar: its place from the left
    unsigned value;         // of a bar: 1 … CHART_MAX_VALUE
    double x, y, radius;    // of a shape
} Object;

typedef struct Scene {
    Genre genre;
    Layout layout;
    size_t n_objects; // shapes or bars; of printed text 1, which gives its colour
    Object objects[SCENE_MAX_OBJECTS];
    char text[16];
    double background[3]; // red, green, blue in [0, 1]
    double tint[3];       // added to the palette's colours: a slight variation from picture to picture
} Scene;

typedef struct ColourName {
    const char *name;
    double rgb[3];
} ColourName;
typedef struct ShapeName {
    const char *name, *plural;
} ShapeName;
extern const ColourName scene_colours[SCENE_COLOURS]; // the most distinct first
extern const ShapeName scene_shapes[SCENE_SHAPES];

// How shapes may differ in size: all nearly the same, one clearly the largest, or one clearly the smallest.
typedef enum Sizes { SIZES_ALIKE, SIZES_ONE_LARGE, SIZES_ONE_SMALL } Sizes;

// Fills an empty picture with n shapes of random colour (of the first `colours`) and kind (of the first
// `shapes`) in random cells of a layout that has room for them; objects[0] is the odd one in size.
void scene_scatter(Scene *p, size_t n, Layout layout, Sizes sizes, size_t colours, size_t shapes,
                   Random *random);
Layout layout_for(size_t n, Random *random); // a random one with room for n shapes
// Background and tint. ground: "light", "dark" or "any" of the two; `against` (opt) is a colour that must
// stand out strongly, as printed text must, and goes before it.
void scene_background(Scene *p, const ColourName *against, const char *ground, Random *random);

// Objects with this shape / colour / shape and colour. Pass the table's size for a property that does not
// matter.
size_t scene_count(const Scene *p, unsigned shape, unsigned colour);
bool object_much_larger(const Object *a, const Object *b); // a is larger than b at a glance

// A coarse hash of what is shown and where (shapes to a twentieth of the picture, on dark or light ground),
// without tints and shades: pictures that look nearly the same have the same one.
uint64_t scene_signature(const Scene *p);
