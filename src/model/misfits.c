#include "model/misfits.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void misfit(Misfits *m, const char *format, ...) {
    char one[400];
    va_list args;
    va_start(args, format);
    vsnprintf(one, sizeof one, format, args);
    va_end(args);
    const size_t used = strlen(m->text);
    m->count++;
    if (m->shown + 1 < m->count || used + strlen(one) + 3 > sizeof m->text)
        return; // shown are the first ones
    snprintf(m->text + used, sizeof m->text - used, "%s%s", used ? "; " : "", one);
    m->shown++;
}

bool misfits_none(const Misfits *m, const char *path, Error *err) {
    if (m->count == 0) return true;
    if (m->shown == m->count) return error_set(err, "%.240s: %s", path, m->text);
    return error_set(err, "%.240s: %s; and %zu more", path, m->text, m->count - m->shown);
}
