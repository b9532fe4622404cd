#include "support/oracle.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct Question {
    const SynthRow *row;
    const Scene *p;      // the first
    char subject[2][32]; // what stood at each *
} Question;

typedef bool Solver(char answer[16], const Question *q);

static bool say(char answer[16], const char *text) {
    return snprintf(answer, 16, "%s", text) > 0;
}
static bool say_number(char answer[16], size_t n) {
    return snprintf(answer, 16, "%zu", n) > 0;
}
static bool say_whether(char answer[16], bool yes) {
    return say(answer, yes ? "yes" : "no");
}

// ---- what a phrase speaks of: "circle", "red shape", "red circles", "largest shape", "word" ----
typedef struct Filter {
    int colour, shape; // -1: any
} Filter;

static bool is_word(const char *word, size_t size, const char *name) {
    return strlen(name) == size && !strncmp(word, name, size);
}

static bool read_word(Filter *f, const char *word, size_t size) {
    for (int i = 0; i < SCENE_COLOURS; i++)
        if (is_word(word, size, scene_colours[i].name)) return f->colour = i, true;
    for (int i = 0; i < SCENE_SHAPES; i++)
        if (is_word(word, size, scene_shapes[i].name) || is_word(word, size, scene_shapes[i].plural))
            return f->shape = i, true;
    return is_word(word, size, "shape") || is_word(word, size, "shapes");
}

static bool read_filter(Filter *f, const char *phrase) {
    *f = (Filter){-1, -1};
    while (*phrase) {
        size_t size = strcspn(phrase, " ");
        if (!read_word(f, phrase, size)) return false;
        phrase += size + (phrase[size] == ' ');
    }
    return true;
}

static size_t count_objects(const Scene *p, Filter f, const Object **last) {
    size_t count = 0;
    for (size_t i = 0; i < p->n_objects; i++)
        if ((f.colour < 0 || p->objects[i].colour == (unsigned)f.colour) &&
            (f.shape < 0 || p->objects[i].shape == (unsigned)f.shape)) {
            count++;
            if (last) *last = &p->objects[i];
        }
    return count;
}

// The one with the greatest (sign 1) or least (sign -1) size or height, if it stands out from the rest.
static const Object *extreme(const Scene *p, int sign) {
    for (size_t i = 0; i < p->n_objects; i++) {
        bool best = p->n_objects > 1;
        for (size_t j = 0; j < p->n_objects; j++) {
            const Object *a = &p->objects[i], *b = &p->objects[j];
            double ratio = p->genre == GENRE_CHART ? (double)a->value / b->value : a->radius / b->radius;
            double least = p->genre == GENRE_CHART ? 1.01 : 1.5;
            if (i != j && (sign > 0 ? ratio : 1 / ratio) < least) best = false;
        }
        if (best) return &p->objects[i];
    }
    return NULL;
}

static const Object *find_object(const Scene *p, const char *phrase) {
    static const struct {
        const char *phrase;
        int sign;
    } extremes[] = {{"largest shape", 1},
                    {"biggest shape", 1},
                    {"smallest shape", -1},
                    {"highest bar", 1},
                    {"lowest bar", -1}};
    for (size_t i = 0; i < sizeof extremes / sizeof *extremes; i++)
        if (!strcmp(phrase, extremes[i].phrase)) return extreme(p, extremes[i].sign);
    if (!strcmp(phrase, "word") || !strcmp(phrase, "number"))
        return p->genre == GENRE_TEXT ? &p->objects[0] : NULL;
    Filter f;
    const Object *object;
    return read_filter(&f, phrase) && count_objects(p, f, &object) == 1 ? object : NULL;
}

// ---- solvers ----
static bool solve_colour(char answer[16], const Question *q) {
    const Object *object = find_object(q->p, q->subject[0]);
    return object && say(answer, scene_colours[object->colour].name);
}

static bool solve_shape(char answer[16], const Question *q) {
    char phrase[48];
    snprintf(phrase, sizeof phrase, "%s%sshape", q->subject[0], q->subject[0][0] ? " " : "");
    const Object *object = find_object(q->p, phrase);
    return object && say(answer, scene_shapes[object->shape].name);
}

static bool solve_count(char answer[16], const Question *q) {
    Filter f;
    if (!strcmp(q->subject[0], "bars"))
        return q->p->genre == GENRE_CHART && say_number(answer, q->p->n_objects);
    if (!strcmp(q->subject[0], "letters") || !strcmp(q->subject[0], "digits"))
        return q->p->genre == GENRE_TEXT && say_number(answer, strlen(q->p->text));
    return q->p->genre == GENRE_SHAPES && read_filter(&f, q->subject[0]) &&
           say_number(answer, count_objects(q->p, f, NULL));
}

static bool solve_where(char answer[16], const Question *q) {
    const Object *o = find_object(q->p, q->subject[0]);
    if (!o) return false;
    double x = o->x - 0.5, y = o->y - 0.5, near = 0.13, far = 0.2;
    if (fabs(x) < near && fabs(y) < near) return say(answer, "middle");
    if (fabs(x) > far && fabs(y) < near) return say(answer, x < 0 ? "left" : "right");
    return fabs(x) < near && fabs(y) > far && say(answer, y < 0 ? "top" : "bottom");
}

static bool side(char answer[16], double offset, const char *before, const char *after) {
    return fabs(offset) > 0.1 && say(answer, offset < 0 ? before : after);
}

static bool third(char answer[16], double at, const char *first, const char *last) {
    return say(answer, at < 1.0 / 3 ? first : at < 2.0 / 3 ? "middle" : last);
}

static bool solve_left_right(char answer[16], const Question *q) {
    const Object *o = find_object(q->p, q->subject[0]);
    return o && side(answer, o->x - 0.5, "left", "right");
}

static bool solve_top_bottom(char answer[16], const Question *q) {
    const Object *o = find_object(q->p, q->subject[0]);
    return o && side(answer, o->y - 0.5, "top", "bottom");
}

static bool solve_column(char answer[16], const Question *q) {
    const Object *o = find_object(q->p, q->subject[0]);
    return o && third(answer, o->x, "left", "right");
}

static bool solve_row(char answer[16], const Question *q) {
    const Object *o = find_object(q->p, q->subject[0]);
    return o && third(answer, o->y, "top", "bottom");
}

// How far the first subject is to the left of, above, larger than or higher than the second; in units in
// which 0.2 is plain to see. False when one of them is not clear.
typedef enum Axis { AXIS_X, AXIS_Y, AXIS_SIZE } Axis;
static bool lead(double *by, const Question *q, Axis axis) {
    const Object *a = find_object(q->p, q->subject[0]), *b = find_object(q->p, q->subject[1]);
    if (!a || !b || a == b) return false;
    if (axis == AXIS_X) *by = b->x - a->x;
    if (axis == AXIS_Y) *by = b->y - a->y;
    if (axis == AXIS_SIZE)
        *by = q->p->genre == GENRE_CHART ? (double)a->value - b->value : log(a->radius / b->radius);
    return fabs(*by) > 0.2;
}

static bool solve_left_right_of(char answer[16], const Question *q) {
    double by;
    return lead(&by, q, AXIS_X) && say(answer, by > 0 ? "left" : "right");
}

static bool solve_above_below(char answer[16], const Question *q) {
    double by;
    return lead(&by, q, AXIS_Y) && say(answer, by > 0 ? "above" : "below");
}

static bool solve_left_of(char answer[16], const Question *q) {
    double by;
    return lead(&by, q, AXIS_X) && say_whether(answer, by > 0);
}

static bool solve_right_of(char answer[16], const Question *q) {
    double by;
    return lead(&by, q, AXIS_X) && say_whether(answer, by < 0);
}

static bool solve_above(char answer[16], const Question *q) {
    double by;
    return lead(&by, q, AXIS_Y) && say_whether(answer, by > 0);
}

static bool solve_below(char answer[16], const Question *q) {
    double by;
    return lead(&by, q, AXIS_Y) && say_whether(answer, by < 0);
}

static bool solve_larger(char answer[16], const Question *q) {
    double by;
    return lead(&by, q, AXIS_SIZE) && say_whether(answer, by > 0);
}

static bool solve_smaller(char answer[16], const Question *q) {
    double by;
    return lead(&by, q, AXIS_SIZE) && say_whether(answer, by < 0);
}

static bool solve_exists(char answer[16], const Question *q) {
    Filter f;
    return read_filter(&f, q->subject[0]) && say_whether(answer, count_objects(q->p, f, NULL) > 0);
}

static bool solve_height(char answer[16], const Question *q) {
    const Object *bar = q->p->genre == GENRE_CHART ? find_object(q->p, q->subject[0]) : NULL;
    return bar && say_number(answer, bar->value);
}

static bool solve_text(char answer[16], const Question *q) {
    return q->p->genre == GENRE_TEXT && say(answer, q->p->text);
}

static bool solve_first(char answer[16], const Question *q) {
    return q->p->genre == GENRE_TEXT && snprintf(answer, 16, "%c", q->p->text[0]) > 0;
}

static bool solve_last(char answer[16], const Question *q) {
    return q->p->genre == GENRE_TEXT && snprintf(answer, 16, "%c", q->p->text[strlen(q->p->text) - 1]) > 0;
}

static bool count_both(size_t counts[2], const Question *q) {
    Filter f;
    if (q->row->n_pictures != 2 || !read_filter(&f, q->subject[0])) return false;
    for (size_t i = 0; i < 2; i++) counts[i] = count_objects(&q->row->pictures[i], f, NULL);
    return true;
}

static bool solve_which_has(char answer[16], const Question *q) {
    size_t n[2];
    return count_both(n, q) && (n[0] == 0) != (n[1] == 0) && say(answer, n[0] ? "first" : "second");
}

static bool solve_which_more(char answer[16], const Question *q) {
    size_t n[2];
    return count_both(n, q) && n[0] != n[1] && say(answer, n[0] > n[1] ? "first" : "second");
}

// The first form that matches counts, so narrow ones go before wide ones.
static const struct {
    const char *form;
    Solver *solve;
} forms[] = {
    {"what colour is the *?", solve_colour},
    {"which colour is the *?", solve_colour},
    {"what is the colour of the *?", solve_colour},
    {"what shape is this?", solve_shape},
    {"which shape is it?", solve_shape},
    {"what is this?", solve_shape},
    {"what is the * shape?", solve_shape},
    {"what shape is *?", solve_shape},
    {"which shape is *?", solve_shape},
    {"how many * are there?", solve_count},
    {"how many *?", solve_count},
    {"count the *.", solve_count},
    {"where is the *?", solve_where},
    {"find the *.", solve_where},
    {"on which side is the *?", solve_where},
    {"is the * on the left or right?", solve_left_right},
    {"is the * left or right?", solve_left_right},
    {"is the * at the top or bottom?", solve_top_bottom},
    {"is the * top or bottom?", solve_top_bottom},
    {"which column is the * in?", solve_column},
    {"in which column is the *?", solve_column},
    {"which row is the * in?", solve_row},
    {"in which row is the *?", solve_row},
    {"is the * bar higher than the * bar?", solve_larger},
    {"is the * larger than the *?", solve_larger},
    {"is the * bigger than the *?", solve_larger},
    {"is the * smaller than the *?", solve_smaller},
    {"is the * left or right of the *?", solve_left_right_of},
    {"is the * above or below the *?", solve_above_below},
    {"is the * left of the *?", solve_left_of},
    {"is the * right of the *?", solve_right_of},
    {"is the * above the *?", solve_above},
    {"is the * below the *?", solve_below},
    {"is there a *?", solve_exists},
    {"is there an *?", solve_exists},
    {"do you see a *?", solve_exists},
    {"do you see an *?", solve_exists},
    {"how high is the * bar?", solve_height},
    {"what is the value of the * bar?", solve_height},
    {"which bar is *?", NULL},
    {"what is the word?", solve_text},
    {"what does it say?", solve_text},
    {"read the word.", solve_text},
    {"what is the number?", solve_text},
    {"which number is it?", solve_text},
    {"read the number.", solve_text},
    {"what is the first *?", solve_first},
    {"what is the last *?", solve_last},
    {"which picture has more *?", solve_which_more},
    {"where are more *?", solve_which_more},
    {"which picture has a *?", solve_which_has},
    {"which picture has an *?", solve_which_has},
    {"which picture shows a *?", solve_which_has},
    {"which picture shows an *?", solve_which_has},
};

// Each * takes as little as it can.
static bool match(Question *q, const char *form, const char *question) {
    for (size_t star = 0;; star++) {
        size_t literal = strcspn(form, "*");
        if (strncmp(form, question, literal)) return false;
        form += literal, question += literal;
        if (!*form) return !*question;
        size_t after = strcspn(++form, "*"), size = 0;
        while (question[size] && strncmp(question + size, form, after)) size++;
        if (star == 2 || !question[size] || size >= sizeof q->subject[0]) return false;
        memcpy(q->subject[star], question, size);
        question += size;
    }
}

static size_t find_form(Question *q, const char *question) {
    size_t i = 0;
    for (; i < sizeof forms / sizeof *forms; i++) {
        memset(q->subject, 0, sizeof q->subject);
        if (match(q, forms[i].form, question)) break;
    }
    return i;
}

bool oracle_answer(char answer[16], const SynthRow *row, const char *question) {
    Question q = {.row = row, .p = &row->pictures[0]};
    size_t i = find_form(&q, question);
    if (i == sizeof forms / sizeof *forms) return false;
    if (forms[i].solve) return forms[i].solve(answer, &q);
    strcat(q.subject[0], " bar"); // which bar is highest
    return solve_colour(answer, &q);
}

const char *oracle_form(const char *question) {
    Question q = {0};
    size_t i = find_form(&q, question);
    return i < sizeof forms / sizeof *forms ? forms[i].form : NULL;
}
