#include "data/dataset_source.h"

#include "data/dataset_saved.h"

#include <string.h>

static bool ends_with(const char *path, const char *suffix) {
    size_t n = strlen(path), m = strlen(suffix);
    return n > m && strcmp(path + n - m, suffix) == 0;
}

static bool is_parquet(const char *path) {
    return ends_with(path, ".parquet");
}
static bool is_arrow(const char *path) {
    return ends_with(path, ".arrow");
}
static bool is_indexed(const char *path) {
    return ends_with(path, "/" SAVED_STATE);
}

static bool open_parquet(void **source, const char *path, Error *err) {
    ParquetReader *reader;
    *source = NULL;
    if (!parquet_open(&reader, path, err)) return false;
    *source = reader;
    return true;
}

static bool open_arrow(void **source, const char *path, Error *err) {
    ArrowReader *reader;
    *source = NULL;
    if (!arrow_open(&reader, path, err)) return false;
    *source = reader;
    return true;
}

static bool open_indexed(void **source, const char *path, Error *err) {
    ArrowReader *reader = NULL;
    SavedFolder saved;
    *source = NULL;
    if (!saved_folder_read(&saved, path, err)) return false;
    arrow_open_indexed(&reader, path, (const char *const *)saved.files.items, saved.files.count,
                       (const char *const *)saved.indices.items, saved.indices.count, err);
    saved_folder_free(&saved);
    *source = reader;
    return reader != NULL;
}

// The functions of a reader of format/arrow.h as a source's.
#define SOURCE_OF(kind, Reader, n_groups, n_rows)                                                            \
    static void kind##_source_close(void *source) {                                                          \
        kind##_close((Reader *)source);                                                                      \
    }                                                                                                        \
    static size_t kind##_source_groups(const void *source) {                                                 \
        return n_groups((const Reader *)source);                                                             \
    }                                                                                                        \
    static size_t kind##_source_rows(const void *source, size_t group) {                                     \
        return n_rows((const Reader *)source, group);                                                        \
    }                                                                                                        \
    static size_t kind##_source_bytes(const void *source, size_t group) {                                    \
        return kind##_bytes((const Reader *)source, group);                                                  \
    }                                                                                                        \
    static bool kind##_source_schema(RecordBatch **batch, void *source, const char *const *columns,          \
                                     size_t n_columns, Error *err) {                                         \
        return kind##_schema(batch, (Reader *)source, columns, n_columns, err);                              \
    }                                                                                                        \
    static bool kind##_source_read(RecordBatch **batch, void *source, size_t group,                          \
                                   const char *const *columns, size_t n_columns, Error *err) {               \
        return kind##_read(batch, (Reader *)source, group, columns, n_columns, err);                         \
    }

SOURCE_OF(parquet, ParquetReader, parquet_row_groups, parquet_rows)
SOURCE_OF(arrow, ArrowReader, arrow_batches, arrow_rows)

#define FUNCTIONS(kind)                                                                                      \
    kind##_source_close, kind##_source_groups, kind##_source_rows, kind##_source_bytes,                      \
        kind##_source_schema, kind##_source_read

static const SourceKind kinds[] = {
    {"Parquet", is_parquet, open_parquet, FUNCTIONS(parquet)},
    {"Arrow", is_arrow, open_arrow, FUNCTIONS(arrow)},
    {"Arrow with indices", is_indexed, open_indexed, FUNCTIONS(arrow)},
};

const SourceKind *source_kind(const char *path) {
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (kinds[i].matches(path)) return &kinds[i];
    return NULL;
}
