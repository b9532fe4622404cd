// `vlm synth`: the embedded data set, drawn rather than downloaded.
#include "synth/synth.h"
#include "cmd/cmd.h"

static bool check_flags(const void *flags, Error *err) {
    return synth_options_check(flags, err);
}

static bool draw(const void *flags, Error *err) {
    return synth_write(flags, err);
}

int cmd_synth(int argc, char **argv) {
    SynthOptions options;
    return command_run((FieldSet){&synth_table, &options}, argc, argv, check_flags, draw);
}
