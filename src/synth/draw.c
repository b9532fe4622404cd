// Scenes drawn with cairo (https://www.cairographics.org), all shapes filled and large.
#include "synth/synth.h"
#include "base/check.h"

#include <cairo.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

// Each draws one path inside [-1, 1] x [-1, 1], y downward; the caller fills it.
static void circle_path(cairo_t *c) {
    cairo_arc(c, 0, 0, 0.96, 0, 2 * M_PI);
}

static void square_path(cairo_t *c) {
    cairo_rectangle(c, -0.86, -0.86, 1.72, 1.72);
}

static void polygon(cairo_t *c, const double (*points)[2], size_t n) {
    for (size_t i = 0; i < n; i++) cairo_line_to(c, points[i][0], points[i][1]);
    cairo_close_path(c);
}

static void triangle_path(cairo_t *c) {
    polygon(c, (const double[][2]){{0, -0.95}, {0.98, 0.82}, {-0.98, 0.82}}, 3);
}

static void diamond_path(cairo_t *c) {
    polygon(c, (const double[][2]){{0, -1}, {0.72, 0}, {0, 1}, {-0.72, 0}}, 4);
}

static void cross_path(cairo_t *c) {
    cairo_rectangle(c, -0.32, -0.95, 0.64, 1.9);
    cairo_rectangle(c, -0.95, -0.32, 1.9, 0.64);
}

static void ring_path(cairo_t *c) {
    circle_path(c);
    cairo_new_sub_path(c);
    cairo_arc_negative(c, 0, 0, 0.5, 2 * M_PI, 0);
}

// n corners on the unit circle, the first at the top; with inner > 0 a corner at that radius between any two.
static void regular_path(cairo_t *c, size_t n, double inner) {
    size_t steps = inner > 0 ? 2 * n : n;
    for (size_t i = 0; i < steps; i++) {
        double angle = 2 * M_PI * (double)i / (double)steps, radius = inner > 0 && i % 2 ? inner : 1;
        cairo_line_to(c, radius * sin(angle), -radius * cos(angle));
    }
    cairo_close_path(c);
}

static void star_path(cairo_t *c) {
    regular_path(c, 5, 0.45);
}
static void pentagon_path(cairo_t *c) {
    regular_path(c, 5, 0);
}

static void heart_path(cairo_t *c) {
    cairo_move_to(c, 0, 0.95);
    cairo_curve_to(c, -1.5, -0.05, -0.95, -1.3, 0, -0.5);
    cairo_curve_to(c, 0.95, -1.3, 1.5, -0.05, 0, 0.95);
    cairo_close_path(c);
}

// A disc less another one to its right: the outer arc, then back along the inner one.
static void moon_path(cairo_t *c) {
    double angle = 1.0, inner_x = 0.62, y = 0.96 * sin(angle), dx = 0.96 * cos(angle) - inner_x;
    cairo_arc(c, 0, 0, 0.96, angle, 2 * M_PI - angle);
    cairo_arc_negative(c, inner_x, 0, hypot(dx, y), atan2(-y, dx), atan2(y, dx) - 2 * M_PI);
    cairo_close_path(c);
}

static void (*const shape_paths[SCENE_SHAPES])(cairo_t *) = {
    circle_path, square_path,  triangle_path, cross_path,    star_path,
    ring_path,   diamond_path, heart_path,    pentagon_path, moon_path,
};

static void set_colour(cairo_t *c, const Scene *p, const Object *object) {
    const double *rgb = scene_colours[object->colour].rgb;
    cairo_set_source_rgb(c, rgb[0] + p->tint[0], rgb[1] + p->tint[1], rgb[2] + p->tint[2]);
}

static void draw_shapes(cairo_t *c, const Scene *p) {
    for (size_t i = 0; i < p->n_objects; i++) {
        const Object *object = &p->objects[i];
        cairo_save(c);
        cairo_translate(c, object->x, object->y);
        cairo_scale(c, object->radius, object->radius);
        set_colour(c, p, object);
        cairo_new_path(c);
        shape_paths[object->shape](c);
        cairo_fill(c);
        cairo_restore(c);
    }
}

// Bars are stacks of as many blocks as their value, so that it can be read without numbers.
static void draw_chart(cairo_t *c, const Scene *p) {
    const double bottom = 0.94, unit = 0.86 / CHART_MAX_VALUE, gap = 0.03;
    double column = 0.92 / CHART_MAX_BARS, left = 0.5 - column * (double)p->n_objects / 2;
    double line = p->background[0] > 0.5 ? 0.2 : 0.8;
    for (size_t i = 0; i < p->n_objects; i++) {
        set_colour(c, p, &p->objects[i]);
        for (size_t v = 0; v < p->objects[i].value; v++)
            cairo_rectangle(c, left + column * ((double)i + 0.12), bottom - unit * (double)(v + 1) + gap,
                            0.76 * column, unit - gap);
        cairo_fill(c);
    }
    cairo_set_source_rgb(c, line, line, line);
    cairo_rectangle(c, 0.03, bottom, 0.94, 0.03);
    cairo_fill(c);
}

// Outlines of cairo's built-in font, which needs no font file and looks the same everywhere. It is slow to
// lay out and no thread should meet another in it, so every character's outline is taken once.
enum { FONT_SIZE = 100, FONT_CHARACTERS = 128 };
static cairo_path_t
    *outlines[FONT_CHARACTERS]; // of the printable ones, origin at the left end of the base line
static double advances[FONT_CHARACTERS];
static pthread_once_t outlines_once = PTHREAD_ONCE_INIT;

static void take_outlines(void) {
    cairo_surface_t *surface = cairo_image_surface_create(CAIRO_FORMAT_A8, 1, 1);
    cairo_t *c = cairo_create(surface);
    cairo_select_font_face(c, "@cairo:Heavy", CAIRO_FONT_SLANT_NORMAL, CAIRO_FONT_WEIGHT_NORMAL);
    cairo_set_font_size(c, FONT_SIZE);
    for (int i = ' ' + 1; i < FONT_CHARACTERS - 1; i++) {
        const char text[] = {(char)i, '\0'};
        cairo_text_extents_t extents;
        cairo_text_extents(c, text, &extents);
        cairo_new_path(c);
        cairo_text_path(c, text);
        outlines[i] = cairo_copy_path(c);
        advances[i] = extents.x_advance;
    }
    CHECK(cairo_status(c) == CAIRO_STATUS_SUCCESS, "cairo's built-in font: %s",
          cairo_status_to_string(cairo_status(c)));
    cairo_destroy(c);
    cairo_surface_destroy(surface);
}

static void text_path(cairo_t *c, const char *text) {
    cairo_matrix_t place;
    cairo_get_matrix(c, &place);
    for (; *text; text++) {
        unsigned char character = (unsigned char)*text;
        CHECK(character < FONT_CHARACTERS && outlines[character], "no outline of character %d", character);
        cairo_append_path(c, outlines[character]);
        cairo_translate(c, advances[character], 0);
    }
    cairo_set_matrix(c, &place);
}

static void draw_text(cairo_t *c, const Scene *p) {
    const double width = 0.84, height = 0.56;
    double left, top, right, bottom;
    pthread_once(&outlines_once, take_outlines);
    cairo_save(c);
    cairo_identity_matrix(c);
    text_path(c, p->text);
    cairo_path_extents(c, &left, &top, &right, &bottom);
    cairo_restore(c);
    double scale = fmin(width / (right - left), height / (bottom - top));
    cairo_translate(c, 0.5, 0.5);
    cairo_scale(c, scale, scale);
    cairo_translate(c, -(left + right) / 2, -(top + bottom) / 2);
    set_colour(c, p, &p->objects[0]);
    cairo_new_path(c);
    text_path(c, p->text);
    cairo_fill(c);
}

static void draw(cairo_t *c, const Scene *p, size_t size) {
    static void (*const genres[])(cairo_t *, const Scene *) = {
        [GENRE_SHAPES] = draw_shapes, [GENRE_CHART] = draw_chart, [GENRE_TEXT] = draw_text};
    cairo_set_source_rgb(c, p->background[0], p->background[1], p->background[2]);
    cairo_paint(c);
    cairo_scale(c, (double)size, (double)size);
    genres[p->genre](c, p);
}

bool scene_draw(uint8_t **rgb, const Scene *p, size_t size, Error *err) {
    cairo_surface_t *surface = cairo_image_surface_create(CAIRO_FORMAT_RGB24, (int)size, (int)size);
    cairo_t *c = cairo_create(surface);
    draw(c, p, size);
    cairo_surface_flush(surface);
    cairo_status_t status = cairo_status(c);
    cairo_destroy(c);
    *rgb = status == CAIRO_STATUS_SUCCESS ? malloc(3 * size * size) : NULL;
    if (*rgb) {
        const unsigned char *pixels = cairo_image_surface_get_data(surface);
        size_t stride = (size_t)cairo_image_surface_get_stride(surface);
        for (size_t i = 0; i < size * size; i++) {
            uint32_t pixel; // 0x00RRGGBB
            memcpy(&pixel, pixels + i / size * stride + i % size * 4, 4);
            for (size_t k = 0; k < 3; k++) (*rgb)[3 * i + k] = (uint8_t)(pixel >> (16 - 8 * k));
        }
    }
    cairo_surface_destroy(surface);
    if (*rgb) return true;
    return error_set(err, "drawing a picture of %zu x %zu pixels: %s", size, size,
                     status ? cairo_status_to_string(status) : "out of memory");
}
