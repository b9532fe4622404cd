// The rows of one rank and one split of a data set, in the order of an epoch (data/row_order.h), read window
// by window.
//
// Ranks: all rows in the order that belongs to no epoch (number 0) are cut into world_size shares behind one
// another, so each rank reads its own files and groups but for those at a border. Of a share, the first
// val_size / world_size rows (of order 0, rows shuffled within windows unless streaming) are validation, the
// others training. Training rows get a new order each epoch; validation rows keep order 0.
#pragma once
#include "data/row_columns.h"
#include "data/row_order.h"

// A row group in memory, or of one that has many others the rows of the split alone; shared by the rows
// handed out and freed with the last of them.
typedef struct RowGroup {
    RecordBatch *batch; // NULL when it could not be read
    RowColumns columns;
    Error err; // why
    const char *path;
    size_t first, first_in_file; // number of its first row in the data set, and in the file
    size_t *kept, n_kept;        // its rows that are in memory, ascending; NULL: all
    size_t users;                // atomic
} RowGroup;

typedef struct RowRef {
    RowGroup *group; // given back with row_release
    size_t row;      // in the group's columns
    size_t number;   // in the data set
    uint64_t place;  // in the epoch
} RowRef;
void row_release(RowRef *ref); // any thread; leaves group NULL

typedef enum RowSplit {
    ROWS_TRAINING, // all but the first val_size
    ROWS_HELD_OUT, // these
    ROWS_OWN,      // of a data set that is nothing but validation: val_size of them, all when it is 0 or more
} RowSplit;

typedef struct RowStreamSettings {
    RowSplit split;
    bool shuffle;
    size_t window_bytes, shuffle_buffer; // data/row_order.h; validation rows are never permuted by a buffer
    uint64_t seed;
    size_t val_size;
    size_t rank, world_size; // world_size 0: alone
} RowStreamSettings;

typedef struct RowStream RowStream;
// d is borrowed. Fails when val_size leaves a rank nothing to train on.
bool row_stream_open(RowStream **s, Dataset *d, RowStreamSettings settings, Error *err);
void row_stream_close(RowStream *s);
uint64_t row_stream_rows(const RowStream *s);        // of an epoch
size_t row_stream_file_bytes(const RowStream *s);    // of a file that it has open; always, unless it shuffles
size_t row_stream_group_bytes(const RowStream *s);   // dataset_group_bytes
size_t row_stream_reading_bytes(const RowStream *s); // dataset_reading_bytes
size_t row_stream_windows(const RowStream *s);       // of an epoch
size_t row_stream_bytes(const RowStream *s); // of the two windows that are in memory, at most: of their pages
// The same of what is in memory now, and what it takes there: pictures lie in memory as in the file, but
// texts as often as they occur, with offsets, where the file has them once in a dictionary.
void row_stream_held(size_t *pages, size_t *taken, const RowStream *s);

// Begins an epoch: at its start, or with single places (ascending, each below from) and then from `from` on.
// Nobody may be in row_stream_read.
void row_stream_restart(RowStream *s, uint64_t epoch);
void row_stream_seek(RowStream *s, uint64_t epoch, const uint64_t *places, size_t n, uint64_t from);
// The next row; ref->group is NULL at the end. A group that cannot be read gives its rows all the same, so
// that they are counted; a file that can no longer be opened is an error. Reads a window when none is there.
bool row_stream_next(RowStream *s, RowRef *ref, Error *err);

// Reading ahead. At most two windows are in memory: the one whose rows are handed out and the one behind it.
typedef struct RowWindow RowWindow;
typedef enum RowNeed { ROWS_NEED_NOTHING, ROWS_NEED_SOON, ROWS_NEED_NOW } RowNeed;
bool row_stream_ready(const RowStream *s); // row_stream_next has a row, or the end, without reading
// Whether a window should be read: the rows at hand are at least half given out (now), or not yet (soon).
RowNeed row_stream_need(const RowStream *s);
// The window wanted; may run beside the other functions, but only once at a time. NULL: a file is out of
// reach.
RowWindow *row_stream_read(RowStream *s, Error *err);
void row_stream_put(RowStream *s, RowWindow *w); // hands it over; owned by s from now on
