#include "data/row_columns.h"

#define RATING_NAMES                                                                                         \
    "relevance_ratings", "image_correspondence_ratings", "visual_dependency_ratings", "formatting_ratings"

const char *const row_column_names[] = {"images", "texts", RATING_NAMES};
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

// images: a list of pictures, or one picture a row.
static bool bind_images(RowColumns *c, const RecordBatch *batch, Error *err) {
    const char *expected = "list<struct<bytes, path>>";
    if (!record_batch_column(&c->images, batch, "images")) return error_set(err, "there is no column images");
    ColumnType type = column_type(c->images);
    c->has_images = type != COLUMN_NULL;
    if (!c->has_images) return true;
    c->image = type == COLUMN_LIST ? column_items(c->images) : c->images;
    if (column_type(c->image) == COLUMN_NULL) return true;
    if (column_type(c->image) != COLUMN_STRUCT) return wrong_type(c->images, "images", expected, err);
    return bind_field(&c->bytes, c->image, "images", "bytes", err);
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
        if (type != COLUMN_INT && type != COLUMN_NULL)
            return wrong_type(is_list ? column_items(*list) : *list, names[i], "a list of integers", err);
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

bool row_image_bytes(const uint8_t **bytes, size_t *size, const RowColumns *c, size_t image, Error *err) {
    if (column_is_null(c->image, image)) return error_set(err, "the picture is null");
    if (column_is_null(c->bytes, image))
        return error_set(err, "the picture has no bytes (a path alone is not followed)");
    column_bytes(bytes, size, c->bytes, image);
    return true;
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
        if (!column_is_null(ratings, first + index) && column_int(ratings, first + index) < minima[i])
            return false;
    }
    return true;
}
