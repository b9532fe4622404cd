// What arrow.cc and arrow_*.c share: a record batch as Arrow's C data interface gives it.
#pragma once
#include <arrow/c/abi.h>

#include <stdbool.h>
#include <stddef.h>

struct RecordBatch {
    struct ArrowSchema schema; // of a struct, one child a column
    struct ArrowArray array;
    char *path;  // the file it was read from; may be NULL
    void *block; // NULL, or where record_batch_compact put schema and array but for what it left
};

// Moves rows that were decoded into one block of memory of their size, and gives back what Arrow took for
// them, but for columns with a buffer of 128 KiB or more, which has pages of its own: those stay where they
// lie. Columns and addresses that were got before are void.
void record_batch_compact(struct RecordBatch *batch);

// Gives its columns back, without itself.
void record_batch_release(struct RecordBatch *batch);

// Bytes of an entry of a column's second buffer, an offset where it has a third one; 0 where it has none.
// False when the format is not one that arrow_columns.c reads.
bool column_width(size_t *width, bool *has_offsets, const char *format);
