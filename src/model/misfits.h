// Everything about a file that does not fit, in one line: a person who has to change files or flags wants to
// see all of it at once.
#pragma once
#include "base/error.h"

#include <stddef.h>

typedef struct Misfits {
    size_t count, shown; // shown: those that found room in the text
    char text[720];      // separated by "; "
} Misfits;

// Adds one, formatted.
void misfit(Misfits *m, const char *format, ...) __attribute__((format(printf, 2, 3)));
// True when there are none; otherwise an error "<path>: <all of them>".
bool misfits_none(const Misfits *m, const char *path, Error *err);
