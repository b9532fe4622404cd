#include "eval/questions.h"
#include "base/file.h"
#include "base/log.h"
#include "data/dataset.h"
#include "data/row_columns.h"

#include <string.h>

typedef struct Building {
    VEC(QuestionRow) rows;
    VEC(Question) items;
    const VLMConfig *config;
    size_t max_questions, skipped;
} Building;

static void row_free(QuestionRow *r) {
    for (size_t i = 0; i < r->n_pictures; i++) picture_free(&r->pictures[i]);
    free(r->pictures);
    *r = (QuestionRow){0};
}

static bool read_pictures(QuestionRow *r, const RowColumns *c, size_t row, const VLMConfig *config,
                          Error *err) {
    size_t first, count;
    row_images(&first, &count, c, row);
    r->pictures = mem_zeroed(count + 1, sizeof *r->pictures);
    for (size_t i = 0; i < count; i++) {
        RowImage encoded;
        bool ok = row_image_open(&encoded, c, first + i, err) &&
                  picture_decode(&r->pictures[i], encoded.bytes, encoded.size, config, false, err);
        row_image_close(&encoded);
        if (!ok) return false;
        r->n_pictures++;
    }
    return true;
}

static char *column_text(Column c, size_t i) {
    const uint8_t *bytes;
    size_t size;
    column_bytes(&bytes, &size, c, i);
    return mem_strndup((const char *)bytes, size);
}

static bool read_row(Building *b, const RowColumns *c, size_t row, Error *err) {
    QuestionRow r = {0};
    size_t first, count;
    if (!row_turns(&first, &count, c, row, err) || !read_pictures(&r, c, row, b->config, err)) {
        row_free(&r);
        return false;
    }
    for (size_t i = first; i < first + count && b->items.count < b->max_questions; i++) {
        if (column_is_null(c->user, i) || column_is_null(c->assistant, i)) continue;
        vec_push(&b->items, (Question){column_text(c->user, i), column_text(c->assistant, i), b->rows.count});
    }
    vec_push(&b->rows, r);
    return true;
}

static bool read_group(Building *b, Dataset *d, size_t group, Error *err) {
    RecordBatch *batch;
    RowColumns columns;
    if (!dataset_select(d, group, err) || !dataset_read(&batch, d, group, err)) return false;
    bool ok = row_columns_bind(&columns, batch, err);
    if (!ok) error_prefix(err, "%s", dataset_path(d, group));
    for (size_t row = 0; ok && row < record_batch_rows(batch) && b->items.count < b->max_questions; row++) {
        Error why;
        if (!read_row(b, &columns, row, &why) && b->skipped++ == 0)
            log_warning("%s: row %zu: %s; skipped", dataset_path(d, group), row, why.text);
    }
    record_batch_free(batch);
    return ok;
}

static bool read_file(Building *b, const char *path, Error *err) {
    Dataset *d = NULL;
    StringList names = {0};
    string_list_add(&names, mem_strdup("default"));
    bool ok = dataset_open(&d, path, &names, err);
    string_list_free(&names);
    for (size_t g = 0; ok && g < dataset_group_count(d) && b->items.count < b->max_questions; g++)
        ok = read_group(b, d, g, err);
    dataset_close(d);
    return ok;
}

// All Parquet files of the folder, test files too (which a training set leaves out).
static bool read_folder(Building *b, const char *folder, Error *err) {
    StringList files;
    bool ok = file_list(&files, folder, err);
    for (size_t i = 0; ok && i < files.count; i++) {
        const char *dot = strrchr(files.items[i], '.');
        if (!dot || strcmp(dot, ".parquet")) continue;
        char *path = path_join(folder, files.items[i]);
        ok = read_file(b, path, err);
        free(path);
    }
    string_list_free(&files);
    return ok;
}

bool question_set_load(QuestionSet *q, const char *path, const VLMConfig *config, size_t max_questions,
                       Error *err) {
    Building b = {.config = config, .max_questions = max_questions};
    bool ok = file_is_folder(path) ? read_folder(&b, path, err) : read_file(&b, path, err);
    *q = (QuestionSet){b.rows.items, b.rows.count, b.items.items, b.items.count, b.skipped};
    if (ok && q->count == 0) ok = error_set(err, "%s: holds no question that can be read", path);
    if (!ok) question_set_free(q);
    return ok;
}

void question_set_free(QuestionSet *q) {
    for (size_t i = 0; i < q->n_rows; i++) row_free(&q->rows[i]);
    for (size_t i = 0; i < q->count; i++) {
        free(q->items[i].text);
        free(q->items[i].answer);
    }
    free(q->rows);
    free(q->items);
    *q = (QuestionSet){0};
}

size_t question_set_other_row(const QuestionSet *q, size_t row) {
    for (size_t step = 0; step < q->n_rows; step++) {
        size_t other = (row + q->n_rows / 2 + step) % q->n_rows;
        if (other != row && q->rows[other].n_pictures == q->rows[row].n_pictures) return other;
    }
    return row;
}
