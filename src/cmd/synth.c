// `vlm synth`: the embedded data set, drawn rather than downloaded.
#include "synth/synth.h"
#include "base/log.h"
#include "cmd/cmd.h"

int cmd_synth(int argc, char **argv) {
    Error err;
    SynthOptions options;
    FieldSet set = {&synth_table, &options};
    fields_set_defaults(set);
    int status = EXIT_USAGE;
    if (flags_parse(&set, 1, argc, argv, NULL, &err) && synth_options_check(&options, &err))
        status = synth_write(&options, &err) ? EXIT_DONE : EXIT_FAILED;
    if (status != EXIT_DONE) log_error("%s", err.text);
    fields_free(set);
    return status;
}
