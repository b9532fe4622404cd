// The rows of one split of a data set in the order of an epoch.
//
// Streaming: the order of the files; the first val_size rows are validation. Otherwise the rows are shuffled:
// row groups in a random order, and rows at random within a window of as many groups as fit 256 MiB, so that
// each group is read once an epoch. Which rows are validation is decided by the first val_size rows of one
// such order, which belongs to no epoch; training rows get a new order each epoch, validation rows keep
// theirs.
#pragma once
#include "data/dataset.h"
#include "data/row_columns.h"

// A row group in memory, shared by the rows handed out and freed with the last of them.
typedef struct RowGroup {
    RecordBatch *batch; // NULL when it could not be read
    RowColumns columns;
    Error err; // why
    const char *path;
    size_t first_in_file; // number of its first row in the file
    size_t users;         // atomic
} RowGroup;

typedef struct RowRef {
    RowGroup *group; // given back with row_release
    size_t row;      // in the group
} RowRef;
void row_release(RowRef *ref); // any thread; leaves group NULL

typedef struct RowStreamSettings {
    bool shuffle, validation; // validation: the held-out rows instead of the others
    uint64_t seed;
    size_t val_size;
} RowStreamSettings;

typedef struct RowStream RowStream;
// d is borrowed. Fails when val_size leaves nothing to train on.
bool row_stream_open(RowStream **s, Dataset *d, RowStreamSettings settings, Error *err);
void row_stream_close(RowStream *s);
void row_stream_restart(RowStream *s, uint64_t epoch);
// The next row; ref->group is NULL at the end. A group that cannot be read gives its rows all the same, so
// that they are counted; a file that can no longer be opened is an error. One thread at a time.
bool row_stream_next(RowStream *s, RowRef *ref, Error *err);
