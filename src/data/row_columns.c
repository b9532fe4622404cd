#include "data/row_columns.h"

#include "base/file.h"
#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

#define RATING_NAMES                                                                                         \
    "relevance_ratings", "image_correspondence_ratings", "visual_dependency_ratings", "formatting_ratings"

const char *const row_column_names[] = {"images", "image", "texts", RATING_NAMES};
const size_t n_row_columns = sizeof row_column_names / sizeof *row_column_names;

static bool wrong_type(Column c, const char *name, const char *expected, Error *err) {
    return error_set(err, "column %s has the Arrow type %s, expected %s", name, column_format(c), expected);
}

// A field of a struct of bytes or text; a field of nulls only is accepted.
static bool bind_field(Column *field, Column parent, const char *column, const char *name, Error *err) {
    if (!column_field(field, parent, name)) return error_set(err, "column %s has no field %s", column, name);
    ColumnType type = column_type(*field);
    if (type == COLUMN_BINARY || type == COLUMN_STRING || type == COLUMN_NULL) return true;
    return wrong_type(*field, column, "bytes or text in its fields", err);
}

static bool bind_image(RowColumns *c, Error *err) {
    ColumnType type = column_type(c->image);
    if (type == COLUMN_NULL) return true;
    if (type == COLUMN_BINARY) c->bytes = c->image;
    if (type == COLUMN_STRING) c->path = c->image;
    c->has_bytes = type == COLUMN_BINARY, c->has_path = type == COLUMN_STRING;
    if (type == COLUMN_BINARY || type == COLUMN_STRING) return true;
    if (type != COLUMN_STRUCT)
        return wrong_type(c->images, "images", "pictures as struct<bytes, path>, binary or paths", err);
    c->has_bytes = column_field(&c->bytes, c->image, "bytes");
    c->has_path = column_field(&c->path, c->image, "path");
    if (!c->has_bytes && !c->has_path)
        return error_set(err, "column images has neither a field bytes nor a field path");
    return (!c->has_bytes || bind_field(&c->bytes, c->image, "images", "bytes", err)) &&
           (!c->has_path || bind_field(&c->path, c->image, "images", "path", err));
}

static bool bind_images(RowColumns *c, const RecordBatch *batch, Error *err) {
    if (!record_batch_column(&c->images, batch, "images") && !record_batch_column(&c->images, batch, "image"))
        return error_set(err, "there is no column images");
    ColumnType type = column_type(c->images);
    c->has_images = type != COLUMN_NULL;
    c->file = record_batch_path(batch);
    if (!c->has_images) return true;
    c->image = type == COLUMN_LIST ? column_items(c->images) : c->images;
    return bind_image(c, err);
}

static bool bind_texts(RowColumns *c, const RecordBatch *batch, Error *err) {
    if (!record_batch_column(&c->texts, batch, "texts")) return error_set(err, "there is no column texts");
    c->has_texts = column_type(c->texts) != COLUMN_NULL;
    if (!c->has_texts) return true;
    if (column_type(c->texts) == COLUMN_LIST) c->turn = column_items(c->texts);
    if (column_type(c->texts) != COLUMN_LIST || column_type(c->turn) != COLUMN_STRUCT)
        return wrong_type(c->texts, "texts", "list<struct<user, assistant>>", err);
    return bind_field(&c->user, c->turn, "texts", "user", err) &&
           bind_field(&c->assistant, c->turn, "texts", "assistant", err);
}

static bool bind_ratings(RowColumns *c, const RecordBatch *batch, Error *err) {
    static const char *const names[N_RATINGS] = {RATING_NAMES};
    for (size_t i = 0; i < N_RATINGS; i++) {
        Column *list = &c->ratings[i];
        if (!record_batch_column(list, batch, names[i]) || column_type(*list) == COLUMN_NULL) continue;
        bool is_list = column_type(*list) == COLUMN_LIST;
        ColumnType type = is_list ? column_type(column_items(*list)) : COLUMN_OTHER;
        if (type != COLUMN_INT && type != COLUMN_FLOAT && type != COLUMN_NULL)
            return wrong_type(is_list ? column_items(*list) : *list, names[i], "a list of numbers", err);
        c->has_ratings[i] = true;
    }
    return true;
}

bool row_columns_bind(RowColumns *c, const RecordBatch *batch, Error *err) {
    *c = (RowColumns){0};
    return bind_images(c, batch, err) && bind_texts(c, batch, err) && bind_ratings(c, batch, err);
}

void row_images(size_t *first, size_t *count, const RowColumns *c, size_t row) {
    *first = row, *count = 0;
    if (!c->has_images || column_is_null(c->images, row)) return;
    if (column_type(c->images) == COLUMN_LIST)
        column_list_range(first, count, c->images, row);
    else
        *count = 1;
}

// What column entry i holds and is not null, as far as there is the column at all.
static bool holds(bool has, Column c, size_t i) {
    return has && column_type(c) != COLUMN_NULL && !column_is_null(c, i);
}

static bool read_image_file(RowImage *r, const RowColumns *c, size_t image, Error *err) {
    const uint8_t *bytes;
    size_t size;
    column_bytes(&bytes, &size, c->path, image);
    const char *slash = strrchr(c->file, '/');
    int folder = size > 0 && bytes[0] != '/' && slash ? (int)(slash + 1 - c->file) : 0;
    char *name = mem_strndup((const char *)bytes, size);
    char *path = mem_printf("%.*s%s", folder, c->file, name);
    bool ok = strlen(name) == size || error_set(err, "the path of the picture has a zero byte");
    ok = ok && file_read(&r->owned, &r->size, path, err);
    r->bytes = (const uint8_t *)r->owned;
    free(name);
    free(path);
    return ok;
}

bool row_image_open(RowImage *r, const RowColumns *c, size_t image, Error *err) {
    *r = (RowImage){0};
    if (column_is_null(c->image, image)) return error_set(err, "the picture is null");
    if (holds(c->has_bytes, c->bytes, image)) {
        column_bytes(&r->bytes, &r->size, c->bytes, image);
        return true;
    }
    if (holds(c->has_path, c->path, image)) return read_image_file(r, c, image, err);
    return error_set(err, "the picture has neither bytes nor a path");
}

void row_image_close(RowImage *r) {
    free(r->owned);
    *r = (RowImage){0};
}

bool row_turns(size_t *first, size_t *count, const RowColumns *c, size_t row, Error *err) {
    if (!c->has_texts || column_is_null(c->texts, row)) return error_set(err, "texts is null");
    column_list_range(first, count, c->texts, row);
    return true;
}

bool row_turn_passes(const RowColumns *c, size_t row, size_t index, const int minima[N_RATINGS]) {
    for (size_t i = 0; i < N_RATINGS; i++) {
        size_t first, count;
        if (!c->has_ratings[i] || column_is_null(c->ratings[i], row)) continue;
        column_list_range(&first, &count, c->ratings[i], row);
        if (index >= count) return true;
        Column ratings = column_items(c->ratings[i]);
        if (!column_is_null(ratings, first + index) && column_number(ratings, first + index) < minima[i])
            return false;
    }
    return true;
}
