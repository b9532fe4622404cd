#include "base/check.h"
#include "format/arrow.h"
#include "format/arrow_batch.h"

#include <stdlib.h>
#include <string.h>

// What arrow.cc gave us has passed Arrow's full validation, so that offsets lie inside their buffers; what is
// checked here is that our own code asks for entries that exist.

void record_batch_release(RecordBatch *batch) {
    if (batch->array.release) batch->array.release(&batch->array);
    if (batch->schema.release) batch->schema.release(&batch->schema);
    free(batch->block);
    batch->block = NULL;
}

void record_batch_free(RecordBatch *batch) {
    if (!batch) return;
    record_batch_release(batch);
    free(batch->path);
    free(batch);
}

const char *record_batch_path(const RecordBatch *batch) {
    return batch->path ? batch->path : "";
}

size_t record_batch_rows(const RecordBatch *batch) {
    return (size_t)batch->array.length;
}

// The child of a struct column or of a batch by name.
static bool child_by_name(Column *child, const struct ArrowSchema *schema, const struct ArrowArray *array,
                          size_t first, const char *name) {
    for (int64_t i = 0; i < schema->n_children; i++) {
        if (strcmp(schema->children[i]->name, name)) continue;
        *child =
            (Column){schema->children[i], array->children[i], first + (size_t)array->children[i]->offset};
        return true;
    }
    return false;
}

bool record_batch_column(Column *column, const RecordBatch *batch, const char *name) {
    return child_by_name(column, &batch->schema, &batch->array, (size_t)batch->array.offset, name);
}

static const struct {
    const char *format;
    ColumnType type;
    size_t width; // of an entry in the second buffer
} types[] = {
    {"+l", COLUMN_LIST, 4},  {"+L", COLUMN_LIST, 8},  {"+s", COLUMN_STRUCT, 0}, {"z", COLUMN_BINARY, 4},
    {"Z", COLUMN_BINARY, 8}, {"u", COLUMN_STRING, 4}, {"U", COLUMN_STRING, 8},  {"n", COLUMN_NULL, 0},
    {"c", COLUMN_INT, 1},    {"C", COLUMN_INT, 1},    {"s", COLUMN_INT, 2},     {"S", COLUMN_INT, 2},
    {"i", COLUMN_INT, 4},    {"I", COLUMN_INT, 4},    {"l", COLUMN_INT, 8},     {"L", COLUMN_INT, 8},
    {"f", COLUMN_FLOAT, 4},  {"g", COLUMN_FLOAT, 8},
};
enum { N_TYPES = sizeof types / sizeof *types };

static size_t find_type(const char *format) { // N_TYPES: another one
    size_t i = 0;
    while (i < N_TYPES && strcmp(format, types[i].format)) i++;
    return i;
}

ColumnType column_type(Column c) {
    const size_t i = find_type(c.schema->format);
    return i < N_TYPES ? types[i].type : COLUMN_OTHER;
}

bool column_width(size_t *width, bool *has_offsets, const char *format) {
    const size_t i = find_type(format);
    const ColumnType type = i < N_TYPES ? types[i].type : COLUMN_OTHER;
    *width = i < N_TYPES ? types[i].width : 0;
    *has_offsets = type == COLUMN_LIST || type == COLUMN_BINARY || type == COLUMN_STRING;
    return type != COLUMN_OTHER;
}

const char *column_format(Column c) {
    return c.schema->format;
}

bool column_field(Column *child, Column c, const char *name) {
    CHECK(column_type(c) == COLUMN_STRUCT, "format %s", column_format(c));
    return child_by_name(child, c.schema, c.array, c.first, name);
}

Column column_items(Column list) {
    CHECK(column_type(list) == COLUMN_LIST, "format %s", column_format(list));
    const struct ArrowArray *items = list.array->children[0];
    return (Column){list.schema->children[0], items, (size_t)items->offset};
}

// The place of entry i in the column's buffers.
static size_t place(Column c, size_t i) {
    size_t end = (size_t)c.array->offset + (size_t)c.array->length;
    CHECK(c.first <= end && i < end - c.first, "entry %zu of a column that ends at %zu", c.first + i, end);
    return c.first + i;
}

bool column_is_null(Column c, size_t i) {
    size_t at = place(c, i);
    if (column_type(c) == COLUMN_NULL) return true;
    const uint8_t *valid = c.array->n_buffers ? c.array->buffers[0] : NULL; // none: everything is valid
    return valid && !(valid[at / 8] >> at % 8 & 1);
}

// Entry `at` of offsets covers [*begin, *end) of what they point into; 64-bit offsets where the format is
// upper case.
static void offset_range(size_t *begin, size_t *end, Column c, size_t at, bool wide) {
    const int32_t *narrow = c.array->buffers[1];
    const int64_t *large = c.array->buffers[1];
    *begin = wide ? (size_t)large[at] : (size_t)narrow[at];
    *end = wide ? (size_t)large[at + 1] : (size_t)narrow[at + 1];
}

void column_list_range(size_t *first, size_t *count, Column c, size_t i) {
    CHECK(column_type(c) == COLUMN_LIST, "format %s", column_format(c));
    size_t at = place(c, i), end;
    *first = *count = 0;
    if (column_is_null(c, i)) return;
    offset_range(first, &end, c, at, column_format(c)[1] == 'L');
    *count = end - *first;
}

void column_bytes(const uint8_t **bytes, size_t *size, Column c, size_t i) {
    CHECK(column_type(c) == COLUMN_BINARY || column_type(c) == COLUMN_STRING, "format %s", column_format(c));
    size_t at = place(c, i), begin, end;
    *bytes = NULL, *size = 0;
    if (column_is_null(c, i)) return;
    char format = column_format(c)[0];
    offset_range(&begin, &end, c, at, format == 'Z' || format == 'U');
    const uint8_t *values = c.array->buffers[2];
    *size = end - begin;
    *bytes = *size ? values + begin : (const uint8_t *)"";
}

int64_t column_int(Column c, size_t i) {
    size_t at = place(c, i);
    const void *values = c.array->buffers[1];
    if (column_is_null(c, i)) return 0;
    switch (column_format(c)[0]) {
    case 'c':
        return ((const int8_t *)values)[at];
    case 'C':
        return ((const uint8_t *)values)[at];
    case 's':
        return ((const int16_t *)values)[at];
    case 'S':
        return ((const uint16_t *)values)[at];
    case 'i':
        return ((const int32_t *)values)[at];
    case 'I':
        return ((const uint32_t *)values)[at];
    case 'l':
        return ((const int64_t *)values)[at];
    default:
        CHECK(column_format(c)[0] == 'L', "format %s", column_format(c));
    }
    uint64_t wide = ((const uint64_t *)values)[at];
    return wide > INT64_MAX ? INT64_MAX : (int64_t)wide;
}

double column_number(Column c, size_t i) {
    if (column_type(c) == COLUMN_INT) return (double)column_int(c, i);
    CHECK(column_type(c) == COLUMN_FLOAT, "format %s", column_format(c));
    size_t at = place(c, i);
    if (column_is_null(c, i)) return 0;
    const void *values = c.array->buffers[1];
    return column_format(c)[0] == 'f' ? (double)((const float *)values)[at] : ((const double *)values)[at];
}
