// Kinds of files a data set can consist of. A new kind (Arrow streams, remote files) is one line in the
// table.
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
    bool (*read)(RecordBatch **batch, void *source, size_t group, const char *const *columns,
                 size_t n_columns, Error *err);
} SourceKind;

const SourceKind *source_kind(const char *path); // NULL when no kind matches
