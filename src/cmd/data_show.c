#include "cmd/data_show.h"
#include "base/file.h"
#include "cmd/data_survey.h"
#include "data/html.h"
#include "data/show.h"

#include <ctype.h>
#include <stdio.h>

enum { MAX_SHOWN = 500 }; // rows of a page; browsers have their limits too

typedef struct Shower {
    DataSetup *setup;
    TrainConfig any_length; // so that the tokens of a row that is too long are shown as well
    SampleRules rules;
    size_t group; // the one in memory, when batch is not NULL
    RecordBatch *batch;
    RowColumns columns;
} Shower;

// ---- which rows ----

static bool read_number(size_t *n, const char **at) {
    if (!isdigit((unsigned char)**at)) return false;
    for (*n = 0; isdigit((unsigned char)**at); ++*at)
        if (*n < (size_t)1e15) *n = *n * 10 + (size_t)(**at - '0');
    return true;
}

static bool add_range(SizeVec *rows, size_t first, size_t last, size_t n_rows, Error *err) {
    if (first > last) return error_set(err, "--show: %zu-%zu: the first row is behind the last", first, last);
    if (last >= n_rows)
        return error_set(err, "--show: there is no row %zu; the data set has %zu rows, 0 to %zu", last,
                         n_rows, n_rows - 1);
    if (last - first >= MAX_SHOWN - rows->count)
        return error_set(err, "--show: more than %d rows for one page; name fewer", MAX_SHOWN);
    for (size_t i = first; i <= last; i++) vec_push(rows, i);
    return true;
}

static bool parse_rows(SizeVec *rows, const char *text, size_t n_rows, Error *err) {
    for (const char *at = text;; at++) {
        size_t first, last;
        bool ok = read_number(&first, &at);
        last = first;
        if (ok && *at == '-') {
            at++;
            ok = read_number(&last, &at);
        }
        if (!ok || (*at && *at != ','))
            return error_set(err, "--show: found \"%.100s\", expected rows such as 7 or 0-9,40", text);
        if (!add_range(rows, first, last, n_rows, err)) return false;
        if (!*at) return true;
    }
}

static size_t group_of_row(const Dataset *d, size_t row) {
    size_t low = 0, high = dataset_group_count(d);
    while (high - low > 1) {
        const size_t middle = low + (high - low) / 2;
        if (dataset_group(d, middle)->first <= row)
            low = middle;
        else
            high = middle;
    }
    return low;
}

// ---- what a row holds ----

static bool select_group(Shower *s, size_t group, Error *err) {
    if (s->batch && s->group == group) return true;
    record_batch_free(s->batch);
    s->batch = NULL;
    s->group = group;
    if (!dataset_select(s->setup->data, group, err) || !dataset_read(&s->batch, s->setup->data, group, err)) {
        s->batch = NULL;
        return false;
    }
    if (row_columns_bind(&s->columns, s->batch, err)) return true;
    record_batch_free(s->batch);
    s->batch = NULL;
    return false;
}

static void read_text(const char **text, size_t *size, const RowColumns *c, Column column, size_t turn) {
    const uint8_t *bytes = NULL;
    if (!column_is_null(c->turn, turn) && !column_is_null(column, turn))
        column_bytes(&bytes, size, column, turn);
    *text = (const char *)bytes;
}

static void read_ratings(ShowTurn *t, const RowColumns *c, size_t row, size_t index) {
    for (size_t i = 0; i < N_RATINGS; i++) {
        size_t first, count;
        if (!c->has_ratings[i] || column_is_null(c->ratings[i], row)) continue;
        column_list_range(&first, &count, c->ratings[i], row);
        const Column ratings = column_items(c->ratings[i]);
        if (index >= count || column_is_null(ratings, first + index)) continue;
        t->is_rated[i] = true;
        t->ratings[i] = column_int(ratings, first + index);
    }
}

static ShowTurn *read_turns(size_t *count, const Shower *s, size_t row) {
    const RowColumns *c = &s->columns;
    size_t first;
    *count = 0;
    if (!row_turns(&first, count, c, row, NULL)) return NULL;
    ShowTurn *turns = mem_zeroed(*count + 1, sizeof *turns);
    for (size_t i = 0; i < *count; i++) {
        read_text(&turns[i].user, &turns[i].user_size, c, c->user, first + i);
        read_text(&turns[i].assistant, &turns[i].assistant_size, c, c->assistant, first + i);
        read_ratings(&turns[i], c, row, i);
        turns[i].kept = row_turn_passes(c, row, i, s->rules.minima);
    }
    return turns;
}

// ---- pictures ----

// The pictures of a row by themselves, because those of one that is no sample are to be seen as well.
typedef struct RowPictures {
    size_t count;
    Picture *pictures;
    Error *problems;
    ShowPicture *shown;
} RowPictures;

static bool read_picture(Picture *p, ShowPicture *shown, const Shower *s, size_t image, Error *err) {
    RowImage encoded;
    bool ok = row_image_open(&encoded, &s->columns, image, err) &&
              picture_decode(p, encoded.bytes, encoded.size, &s->setup->config.vlm, false, err);
    row_image_close(&encoded);
    shown->width = p->full.width;
    shown->height = p->full.height;
    return ok;
}

static RowPictures read_pictures(const Shower *s, size_t row) {
    RowPictures r = {0};
    size_t first;
    row_images(&first, &r.count, &s->columns, row);
    r.pictures = mem_zeroed(r.count + 1, sizeof *r.pictures);
    r.problems = mem_zeroed(r.count + 1, sizeof *r.problems);
    r.shown = mem_zeroed(r.count + 1, sizeof *r.shown);
    for (size_t i = 0; i < r.count; i++) {
        if (read_picture(&r.pictures[i], &r.shown[i], s, first + i, &r.problems[i]))
            r.shown[i].picture = &r.pictures[i];
        else
            r.shown[i].problem = r.problems[i].text;
    }
    return r;
}

static void free_pictures(RowPictures *r) {
    for (size_t i = 0; i < r->count; i++)
        if (r->shown[i].picture) picture_free(&r->pictures[i]);
    free(r->pictures);
    free(r->problems);
    free(r->shown);
}

// ---- rows ----

// Why a sample is left out by a limit; false when it is not.
static bool exceeds_limits(const Sample *sample, const Config *c, Error *err) {
    if (sample->ids.count >= c->train.max_sample_length)
        return !error_set(err, "%zu tokens, max_sample_length is %zu", sample->ids.count,
                          c->train.max_sample_length);
    if (sample->ids.count + 1 > c->vlm.lm_max_length)
        return !error_set(err, "%zu tokens, a sequence holds %zu (lm_max_length)", sample->ids.count + 1,
                          c->vlm.lm_max_length);
    return false;
}

static bool show_row_of_group(CharVec *html, Shower *s, ShowSample *shown, size_t row, Error *err) {
    Sample sample;
    Error reason, problem;
    const int fate = (int)sample_build(&sample, &s->rules, &s->columns, row, &reason);
    if (fate != SAMPLE_KEPT) {
        error_set(&problem, "%s: %s", drop_names[fate], reason.text);
        shown->problem = problem.text;
    } else {
        shown->sample = &sample;
        if (exceeds_limits(&sample, &s->setup->config, &problem)) {
            error_prefix(&problem, "%s", drop_names[SAMPLE_TOO_LONG]);
            shown->problem = problem.text;
        }
    }
    RowPictures pictures = read_pictures(s, row);
    ShowTurn *turns = read_turns(&shown->n_turns, s, row);
    shown->turns = turns;
    shown->pictures = pictures.shown;
    shown->n_pictures = pictures.count;
    bool ok = show_sample(html, &s->rules, shown, err);
    free_pictures(&pictures);
    free(turns);
    if (fate == SAMPLE_KEPT) sample_free(&sample);
    return ok;
}

static bool show_row(CharVec *html, Shower *s, size_t row, Error *err) {
    const Dataset *d = s->setup->data;
    const size_t group = group_of_row(d, row);
    const DatasetGroup *g = dataset_group(d, group);
    Error problem;
    char *title = mem_printf("row %zu", row),
         *origin =
             mem_printf("%s, row %zu of the file", dataset_path(d, group), g->first_in_file + row - g->first);
    ShowSample shown = {.title = title, .origin = origin};
    bool ok;
    if (select_group(s, group, &problem)) {
        ok = show_row_of_group(html, s, &shown, row - g->first, err);
    } else {
        error_prefix(&problem, "%s", drop_names[DROP_GROUP]);
        shown.problem = problem.text;
        ok = show_sample(html, &s->rules, &shown, err);
    }
    free(title);
    free(origin);
    return ok;
}

bool data_show(DataSetup *setup, const char *rows, const char *path, Error *err) {
    Shower s = {.setup = setup};
    SizeVec numbers = {0};
    CharVec html = {0};
    s.rules = data_setup_any_length(&s.any_length, setup);
    bool ok = parse_rows(&numbers, rows, dataset_rows(setup->data), err);
    if (ok) {
        show_begin(&html, setup->config.train.train_dataset_path);
        for (size_t i = 0; ok && i < numbers.count; i++) ok = show_row(&html, &s, numbers.items[i], err);
        show_end(&html);
    }
    ok = ok && file_write_text(path, html.items, html.count, err);
    if (ok) printf("%zu rows, %.1f MB: %s\n", numbers.count, (double)html.count / 1e6, path);
    record_batch_free(s.batch);
    vec_free(&numbers);
    vec_free(&html);
    return ok;
}
