#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

bool error_set(Error *err, const char *format, ...) {
    if (!err) return false;
    char text[sizeof err->text]; // apart from err->text, because the arguments may point into it
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    memcpy(err->text, text, sizeof text);
    return false;
}

bool error_prefix(Error *err, const char *format, ...) {
    if (!err) return false;
    char context[sizeof err->text];
    va_list args;
    va_start(args, format);
    vsnprintf(context, sizeof context, format, args);
    va_end(args);
    Error inner = *err;
    return error_set(err, "%s: %s", context, inner.text);
}
