// Errors caused from outside (files, rows, flags, network): a function that can meet one returns false and
// fills an Error whose text names the file, the field, what was found, what was expected and the remedy, in
// one line. What only a bug of ours can cause goes through CHECK (base/check.h) and aborts.
#pragma once
#include <stdbool.h>

typedef struct Error {
    char text[1024]; // one line, no trailing newline; empty when nothing went wrong
} Error;

// Writes the message (printf format) into err, replacing what stood there. Always returns false, so that a
// caller writes `return error_set(err, ...)`. err may be NULL: the message is then dropped.
bool error_set(Error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

// Puts "<context>: " before the message that err already holds. Always returns false.
bool error_prefix(Error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));
