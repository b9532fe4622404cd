// Kinds of files a data set can consist of. A new kind, for instance one that reads ranges of a file on a
// server, is one line in the table: rows are asked for group by group, and by column.
#pragma once
#include "format/arrow.h"

// Rows come in groups that are read one at a time. A source serves one thread at a time.
typedef struct SourceKind {
    const char *name;
    bool (*matches)(const char *path);                         // by its name
    bool (*open)(void **source, const char *path, Error *err); // reads no rows
    void (*close)(void *source);
    size_t (*groups)(const void *source);
    size_t (*rows)(const void *source, size_t group);
    size_t (*bytes)(const void *source, size_t group); // about as many as the group takes in memory
    // The columns without a row, for their types; reads no rows.
    bool (*schema)(RecordBatch **batch, void *source, const char *const *columns, size_t n_columns,
                   Error *err);
    // Groups may be asked for in any order.
    bool (*read)(RecordBatch **batch, void *source, size_t group, const char *const *columns,
                 size_t n_columns, Error *err);
} SourceKind;

const SourceKind *source_kind(const char *path); // NULL when no kind matches
