#include "data/dataset_source.h"

#include <string.h>

static bool is_parquet(const char *path) {
    size_t n = strlen(path);
    return n > 8 && strcmp(path + n - 8, ".parquet") == 0;
}

static bool open_parquet(void **source, const char *path, Error *err) {
    ParquetReader *reader;
    if (!parquet_open(&reader, path, err)) return false;
    *source = reader;
    return true;
}

static void close_parquet(void *source) {
    parquet_close(source);
}
static size_t parquet_groups_of(const void *source) {
    return parquet_row_groups(source);
}
static size_t parquet_rows_of(const void *source, size_t group) {
    return parquet_rows(source, group);
}

static bool read_parquet(RecordBatch **batch, void *source, size_t group, const char *const *columns,
                         size_t n_columns, Error *err) {
    return parquet_read(batch, source, group, columns, n_columns, err);
}

static const SourceKind kinds[] = {
    {"Parquet", is_parquet, open_parquet, close_parquet, parquet_groups_of, parquet_rows_of, read_parquet},
};

const SourceKind *source_kind(const char *path) {
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (kinds[i].matches(path)) return &kinds[i];
    return NULL;
}
