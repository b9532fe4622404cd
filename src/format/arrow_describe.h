// The schema of a record batch in words, for people.
#pragma once
#include "format/arrow.h"

size_t record_batch_column_count(const RecordBatch *batch);
const char *record_batch_column_name(const RecordBatch *batch, size_t i); // borrowed from the batch
// The type of column i as Arrow prints it, e.g. "list<struct<bytes: binary, path: string>>"; caller frees.
char *record_batch_column_type(const RecordBatch *batch, size_t i);
