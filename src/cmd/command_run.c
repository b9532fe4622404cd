#include "base/log.h"
#include "cmd/cmd.h"

#include <stdio.h>

bool output_flush(Error *err) {
    return (!fflush(stdout) && !ferror(stdout)) || error_set(err, "the output cannot be written");
}

int command_run(FieldSet flags, int argc, char **argv, FlagsFunction check, FlagsFunction run) {
    Error err;
    int status = EXIT_USAGE;
    fields_set_defaults(flags);
    if (flags_parse(&flags, 1, argc, argv, NULL, &err) && (!check || check(flags.base, &err)))
        status = run(flags.base, &err) && output_flush(&err) ? EXIT_DONE : EXIT_FAILED;
    if (status != EXIT_DONE) log_error("%s", err.text);
    fields_free(flags);
    return status;
}
