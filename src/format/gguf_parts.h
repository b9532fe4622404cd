// What the files gguf*.c share: the parsing of values (gguf_parse.c).
#pragma once
#include "format/gguf.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "GGUF files are read and written as they stand");

#define GGUF_MAGIC             "GGUF"
#define GGUF_VERSION           3
#define GGUF_ALIGNMENT_KEY     "general.alignment"
#define GGUF_DEFAULT_ALIGNMENT 32

// A place in a file that is being parsed.
typedef struct GgufCursor {
    const char *path;
    const unsigned char *bytes;
    size_t size, at;
} GgufCursor;

// The next values in the file; an error that names them by `what` when it ends before.
bool gguf_take_u32(GgufCursor *c, uint32_t *value, const char *what, Error *err);
bool gguf_take_u64(GgufCursor *c, uint64_t *value, const char *what, Error *err);
// The number of something that takes at least least bytes each: more than fit into the file are refused.
bool gguf_take_count(GgufCursor *c, size_t *count, size_t least, const char *what, Error *err);
// A length and that many bytes, copied and terminated; one that holds a '\0' is refused. Caller frees.
bool gguf_take_name(GgufCursor *c, char **name, size_t longest, const char *what, Error *err);
size_t gguf_value_size(GgufValueType type); // bytes; 0 for strings and arrays, which vary
// Type and number of an array's items, and the items.
bool gguf_take_array(GgufCursor *c, GgufValue *array, const char *key, Error *err);
// A value type and the value.
bool gguf_take_value(GgufCursor *c, GgufValue *value, const char *key, Error *err);
