#include "data/dataset.h"

#include "base/check.h"
#include "base/log.h"
#include "base/vec.h"
#include "data/dataset_find.h"
#include "data/dataset_source.h"
#include "data/row_columns.h"

struct Dataset {
    StringList files;
    VEC(DatasetGroup) groups;
    size_t rows, file_bytes;
    double reading; // for a byte of a group's pages
    size_t opened;  // file that `source` reads; files.count when none
    const SourceKind *kind;
    void *source;
};

void dataset_unselect(Dataset *d) {
    if (d->source) d->kind->close(d->source);
    d->source = NULL;
}

// The columns must be there and of a type we know: better seen now than row by row.
static bool check_columns(Dataset *d, const char *path, Error *err) {
    RecordBatch *batch;
    RowColumns columns;
    if (!d->kind->schema(&batch, d->source, row_column_names, n_row_columns, err)) return false;
    bool ok = row_columns_bind(&columns, batch, err) || error_prefix(err, "%s", path);
    record_batch_free(batch);
    return ok;
}

// Whether the first rows can be read, as nanoVLM tries once in each configuration.
static bool check_rows(Dataset *d, Error *err) {
    for (size_t g = 0; g < d->kind->groups(d->source); g++) {
        if (d->kind->rows(d->source, g) == 0) continue;
        RecordBatch *batch;
        size_t most;
        const size_t before = arrow_memory(&most), bytes = d->kind->bytes(d->source, g);
        bool ok = d->kind->read(&batch, d->source, g, row_column_names, n_row_columns, err);
        if (ok) record_batch_free(batch);
        arrow_memory(&most);
        if (most > before && bytes > 0) d->reading = (double)(most - before) / (double)bytes;
        return ok;
    }
    return true;
}

// Appends the groups of the opened file.
static void add_groups(Dataset *d, char *owned_path) {
    size_t in_file = 0, file = d->files.count;
    for (size_t g = 0; g < d->kind->groups(d->source); g++) {
        size_t rows = d->kind->rows(d->source, g);
        if (rows == 0) continue;
        size_t bytes = d->kind->bytes(d->source, g);
        vec_push(&d->groups, (DatasetGroup){file, g, rows, d->rows, in_file, bytes});
        in_file += rows;
        d->rows += rows;
    }
    string_list_add(&d->files, owned_path);
}

static bool open_source(Dataset *d, const char *path, Error *err) {
    const size_t before = mem_heap();
    if (!d->kind->open(&d->source, path, err)) return false;
    const size_t now = mem_heap(), bytes = now > before ? now - before : 0;
    if (bytes > d->file_bytes) d->file_bytes = bytes;
    return true;
}

// False when the file was skipped.
static bool add_file(Dataset *d, const char *path, bool is_first, Error *err) {
    d->kind = source_kind(path);
    bool ok = d->kind || error_set(err, "%s: neither a .parquet nor an .arrow file", path);
    ok = ok && open_source(d, path, err) && check_columns(d, path, err) && (!is_first || check_rows(d, err));
    if (ok)
        add_groups(d, mem_strdup(path));
    else
        log_warning("skipped a file of the data set: %s", err->text);
    dataset_unselect(d);
    return ok;
}

static void add_configuration(Dataset *d, const char *path, const char *name, Error *err) {
    StringList files = {0};
    bool any = false;
    if (dataset_find(&files, path, name, err)) {
        for (size_t i = 0; i < files.count; i++) any |= add_file(d, files.items[i], !any, err);
        if (!any) error_prefix(err, "none of %zu files can be read, e.g.", files.count);
    }
    if (!any) log_warning("skipped configuration %s of the data set: %s", name, err->text);
    string_list_free(&files);
}

bool dataset_open(Dataset **out, const char *path, const StringList *names, Error *err) {
    Dataset *d = mem_zeroed(1, sizeof *d);
    Error reason = {"train_dataset_name is empty"};
    StringList all = {0};
    if (!dataset_configurations(&all, path, names, &reason)) log_warning("%s", reason.text);
    for (size_t i = 0; i < all.count; i++) add_configuration(d, path, all.items[i], &reason);
    string_list_free(&all);
    d->opened = d->files.count;
    if (d->rows > 0) {
        *out = d;
        return true;
    }
    if (d->files.count > 0) error_set(&reason, "%s holds no row", path);
    dataset_close(d);
    return error_set(
        err, "No valid datasets were loaded. Please check train_dataset_path and train_dataset_name: %s",
        reason.text);
}

void dataset_close(Dataset *d) {
    if (!d) return;
    dataset_unselect(d);
    string_list_free(&d->files);
    vec_free(&d->groups);
    free(d);
}

size_t dataset_rows(const Dataset *d) {
    return d->rows;
}

size_t dataset_group_count(const Dataset *d) {
    return d->groups.count;
}

const DatasetGroup *dataset_group(const Dataset *d, size_t i) {
    return &d->groups.items[i];
}

const char *dataset_path(const Dataset *d, size_t i) {
    return d->files.items[d->groups.items[i].file];
}

size_t dataset_group_bytes(const Dataset *d) {
    size_t largest = 0;
    for (size_t i = 0; i < d->groups.count; i++)
        if (d->groups.items[i].bytes > largest) largest = d->groups.items[i].bytes;
    return largest;
}

size_t dataset_reading_bytes(const Dataset *d) {
    return (size_t)(d->reading * (double)dataset_group_bytes(d));
}

size_t dataset_file_bytes(const Dataset *d) {
    return d->file_bytes;
}

bool dataset_select(Dataset *d, size_t i, Error *err) {
    const DatasetGroup *g = &d->groups.items[i];
    if (d->source && d->opened == g->file) return true;
    dataset_unselect(d);
    d->kind = source_kind(d->files.items[g->file]);
    d->opened = g->file;
    if (d->kind->open(&d->source, d->files.items[g->file], err) && g->group < d->kind->groups(d->source) &&
        d->kind->rows(d->source, g->group) == g->rows)
        return true;
    if (d->source) error_set(err, "%s changed while it was being read", d->files.items[g->file]);
    dataset_unselect(d);
    return false;
}

bool dataset_read(RecordBatch **batch, Dataset *d, size_t i, Error *err) {
    const DatasetGroup *g = &d->groups.items[i];
    CHECK(d->source && d->opened == g->file, "group %zu is not selected", i);
    return d->kind->read(batch, d->source, g->group, row_column_names, n_row_columns, err);
}
