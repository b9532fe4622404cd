#include "dist/transport.h"

#include <stdarg.h>
#include <stdio.h>

bool transport_error(const Transport *t, const char *what, Error *err, const char *format, ...) {
    char text[TRANSPORT_TEXT];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    return error_set(err, "rank %zu of %zu, %s: %s", t->launch.rank, t->launch.world_size, what, text);
}

double transport_patience(const Transport *t, const Exchange *e) {
    return e->channel == CHANNEL_STAR && e->in_bytes && e->from == 0 ? 2 * t->timeout : t->timeout;
}

bool transport_timed_out(const Transport *t, const Exchange *e, bool in_missing, Error *err) {
    return transport_error(
        t, e->what, err,
        "no word from rank %zu for %g s (comm_timeout); it hangs, or has more to do than that",
        in_missing ? e->from : e->to, transport_patience(t, e));
}
