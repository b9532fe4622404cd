// A data set: the row groups of its files behind one another. Only footers, and the first group of each
// configuration, are read at first, and never more than one row group at a time after that.
#pragma once
#include "config/fields.h"
#include "format/arrow.h"

typedef struct Dataset Dataset;

typedef struct DatasetGroup {
    size_t file, group; // group number within the file
    size_t rows;
    size_t first;         // number of its first row in the data set
    size_t first_in_file; // and in its file
    size_t bytes;         // about as many as it takes in memory
} DatasetGroup;

// path and names as train_dataset_path and train_dataset_name (data/dataset_find.h; "all": every
// configuration; "shards": shard_0, shard_1, …). A file or configuration that cannot be used is skipped with
// a warning; none left is an error.
bool dataset_open(Dataset **d, const char *path, const StringList *names, Error *err);
void dataset_close(Dataset *d);
size_t dataset_rows(const Dataset *d);
size_t dataset_group_count(const Dataset *d);
const DatasetGroup *dataset_group(const Dataset *d, size_t i);
const char *dataset_path(const Dataset *d, size_t i); // the file of group i; valid as long as d
// What an open file takes beside its rows, the largest of them: Parquet's footer, the places of Arrow's
// messages. Seen by the heap when it was opened, so what other threads asked for meanwhile is in it.
size_t dataset_file_bytes(const Dataset *d);
size_t dataset_group_bytes(const Dataset *d); // of the largest group's pages
// What reading the largest group takes at most, with what is then kept of it: as the first one did, of which
// pages, read and decoded, and columns lay in memory together. Too much if others read at that time.
size_t dataset_reading_bytes(const Dataset *d);
// Opens the file of group i if it is not the one opened last. Fails when that is impossible although it was
// before.
bool dataset_select(Dataset *d, size_t i, Error *err);
void dataset_unselect(Dataset *d); // closes that file
// Reads group i (which must be selected) with the columns of data/row_columns.h. One thread at a time.
bool dataset_read(RecordBatch **batch, Dataset *d, size_t i, Error *err);
