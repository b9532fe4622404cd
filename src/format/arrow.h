// Parquet and Arrow IPC files through Apache Arrow C++ (format/arrow.cc, the project's one C++ file), seen
// from C through Arrow's C data interface (https://arrow.apache.org/docs/format/CDataInterface.html), plus
// typed access to nested columns.
#pragma once
#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ArrowSchema;
struct ArrowArray;

// ---- reading ----
// A reader serves one thread at a time. A RecordBatch may be read by many, and outlives its reader.

// One decoded row group (or any record batch). Owns its memory; RecordBatch columns are borrowed from it.
typedef struct RecordBatch RecordBatch;
void record_batch_free(RecordBatch *batch);
size_t record_batch_rows(const RecordBatch *batch);
const char *record_batch_path(const RecordBatch *batch); // the file it was read from; borrowed
// Keeps these rows (ascending), numbered anew from 0, and frees the others. False, and all rows stay, when
// they lie in a mapped file. Columns that were got before are void.
bool record_batch_select(RecordBatch *batch, const size_t *rows, size_t n);
size_t record_batch_bytes(const RecordBatch *batch); // that its columns take, in memory or of a mapped file

// A file that is read by ranges of bytes, for instance from a server: the readers opened on one ask for the
// footer or the heads of messages at first, and then for what belongs to a group and its columns.
typedef struct ByteRanges {
    void *state;
    size_t size; // of the whole
    // Fills out with the n bytes from offset on (they lie within size), or fails. One call at a time.
    bool (*read)(void *state, void *out, size_t offset, size_t n, Error *err);
    void (*close)(void *state); // called once, when the last reader or batch lets go
} ByteRanges;

// A row group whose pages hold more than 1 GiB counts as several, for a column of 32-bit offsets ends at
// 2 GiB.
typedef struct ParquetReader ParquetReader;
bool parquet_open(ParquetReader **r, const char *path, Error *err); // reads the footer only
// The same with another limit than 1 GiB.
bool parquet_open_in_parts(ParquetReader **r, const char *path, size_t part_bytes, Error *err);
// Bytes from elsewhere; name stands in messages. Takes the ranges over, in any case.
bool parquet_open_ranges(ParquetReader **r, const char *name, ByteRanges ranges, Error *err);
void parquet_close(ParquetReader *r);
size_t parquet_row_groups(const ParquetReader *r);
size_t parquet_rows(const ParquetReader *r, size_t row_group);
size_t parquet_bytes(const ParquetReader *r, size_t row_group); // of its pages, not compressed
// Reads row group i with the named columns only (those that exist; NULL: all).
bool parquet_read(RecordBatch **batch, ParquetReader *r, size_t row_group, const char *const *columns,
                  size_t n_columns, Error *err);
// The same columns without a row, for their types. Reads no data.
bool parquet_schema(RecordBatch **batch, ParquetReader *r, const char *const *columns, size_t n_columns,
                    Error *err);

// Arrow IPC, a stream or a file, plain or compressed. Files are mapped, so that opening looks at the heads of
// messages only, any record batch is found at once, and what is not compressed is not copied. Record batches
// without rows are left out.
typedef struct ArrowReader ArrowReader;
bool arrow_open(ArrowReader **r, const char *path, Error *err);
// The rows of several files in the order that the one column of the indices files gives: row indices[i] of
// all files behind one another. path names the whole in messages. Batches are 100 gathered rows.
bool arrow_open_indexed(ArrowReader **r, const char *path, const char *const *files, size_t n_files,
                        const char *const *indices, size_t n_indices, Error *err);
// As parquet_open_ranges.
bool arrow_open_ranges(ArrowReader **r, const char *name, ByteRanges ranges, Error *err);
void arrow_close(ArrowReader *r);
size_t arrow_batches(const ArrowReader *r);
size_t arrow_rows(const ArrowReader *r, size_t batch);
// Bytes that readers of all files have from Arrow now, and had at most: columns on their way, and the large
// ones that are kept. Nothing of mapped files.
size_t arrow_memory(size_t *most);
size_t arrow_bytes(const ArrowReader *r, size_t batch); // as they lie in the file
bool arrow_read(RecordBatch **batch, ArrowReader *r, size_t i, const char *const *columns, size_t n_columns,
                Error *err);
bool arrow_schema(RecordBatch **batch, ArrowReader *r, const char *const *columns, size_t n_columns,
                  Error *err);

// A view on a column or nested child; cheap to copy, borrowed from its RecordBatch. Offsets and validity are
// handled.
typedef struct Column {
    const struct ArrowSchema *schema;
    const struct ArrowArray *array;
    size_t first; // where entry 0 lies in the buffers: offsets of the array and of the structs above it
} Column;

typedef enum ColumnType {
    COLUMN_OTHER,
    COLUMN_LIST,
    COLUMN_STRUCT,
    COLUMN_BINARY,
    COLUMN_STRING,
    COLUMN_INT,
    COLUMN_FLOAT,
    COLUMN_NULL
} ColumnType;

bool record_batch_column(Column *column, const RecordBatch *batch, const char *name); // false when absent
ColumnType column_type(Column c);
const char *column_format(Column c);                          // Arrow's format string, for messages
bool column_field(Column *child, Column c, const char *name); // of a struct (false when absent)
Column column_items(Column list);                             // the child of a list
bool column_is_null(Column c, size_t i);
// Entry i covers items [first, first + count); a null covers none.
void column_list_range(size_t *first, size_t *count, Column c, size_t i);
// Binary or string, small or large offsets; NULL and 0 for a null.
void column_bytes(const uint8_t **bytes, size_t *size, Column c, size_t i);
// Any integer width; 0 for a null.
int64_t column_int(Column c, size_t i);
// An integer or float of any width, rounded to double; 0 for a null.
double column_number(Column c, size_t i);

// ---- writing ----
// FineVision's schema: images list<struct<bytes: binary, path: string>>, texts list<struct<user: string,
// assistant: string>>, source string, and the four ratings as list<int64>. zstd unless said otherwise.
typedef struct FineVisionImage {
    const void *bytes;
    size_t size;
    const char *path; // may be NULL
} FineVisionImage;
typedef struct FineVisionTurn {
    const char *user, *assistant;
    int64_t relevance, image_correspondence, visual_dependency, formatting;
} FineVisionTurn;
typedef struct FineVisionRow {
    const FineVisionImage *images;
    size_t n_images;
    const FineVisionTurn *turns;
    size_t n_turns;
    const char *source;
} FineVisionRow;
typedef struct ParquetWriter ParquetWriter;
// Writes "<path>.tmp" until parquet_finish.
bool parquet_create(ParquetWriter **w, const char *path, size_t rows_per_group, Error *err);
// Copies the row. After a failure only parquet_abandon is left.
bool parquet_write_row(ParquetWriter *w, const FineVisionRow *row, Error *err);
bool parquet_finish(ParquetWriter *w, Error *err); // flushes, renames, frees w in any case
void parquet_abandon(ParquetWriter *w);            // removes what was written, frees w

const char *arrow_version(void); // "26.0.1"
