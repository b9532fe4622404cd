// What arrow.cc and arrow_columns.c share: a record batch as Arrow's C data interface gives it.
#pragma once
#include <arrow/c/abi.h>

struct RecordBatch {
    struct ArrowSchema schema; // of a struct, one child a column
    struct ArrowArray array;
    char *path; // the file it was read from; may be NULL
};
