// `vlm config`: the configuration that presets, files and flags give, as JSON; or the reference of all
// fields.
#include "base/log.h"
#include "base/pyjson.h"
#include "cmd/cmd.h"
#include "config/config.h"

#include <stdio.h>

typedef struct Flags {
    bool all, markdown;
} Flags;

static const Field fields[] = {
    {"all", FIELD_BOOL, offsetof(Flags, all), "false", 0, 0, NULL,
     "print TrainConfig and TrainOptions too, for --config"},
    {"markdown", FIELD_BOOL, offsetof(Flags, markdown), "false", 0, 0, NULL,
     "print the text of docs/config.md"},
};
static const FieldTable table = {"What to print", fields, sizeof fields / sizeof fields[0]};

static void print_json(Config *c, bool all) {
    FieldSet sets[3];
    config_sets(c, sets);
    pyjson_print(stdout, all ? config_to_json(c) : fields_to_json(sets[0]), 4);
}

static void print_markdown(void) {
    printf("# Configuration\n"
           "\n"
           "Every field is a flag of `vlm train`, `vlm memory` and `vlm config`: `--name VALUE` or "
           "`--name=VALUE`, with dashes or\n"
           "underscores. A bool takes `true` or `false`; `--name` alone is true and `--no_name` false. A "
           "list is separated by commas.\n"
           "\n"
           "Values come from the defaults, then `--preset` (`tiny`, `small`, `nanovlm-222m`, `nanovlm-460m`; "
           "the last one is the\n"
           "defaults), then the file of `--config`, then the other flags, whatever their order on the "
           "command line. `vlm config`\n"
           "prints the result as nanoVLM's `config.json`; with `--all true` it prints all three tables, in "
           "the form that `--config`\n"
           "reads.\n"
           "\n"
           "This page is printed by `vlm config --markdown true`; long defaults are cut.\n");
    fields_print_markdown(&vlm_config_table);
    fields_print_markdown(&train_config_table);
    fields_print_markdown(&train_options_table);
}

int cmd_config(int argc, char **argv) {
    Config c;
    Flags flags;
    FieldSet own = {&table, &flags};
    Error err;
    config_init(&c);
    fields_set_defaults(own);
    bool ok = config_parse(&c, own, argc, argv, &err);
    if (!ok)
        log_error("%s", err.text);
    else if (flags.markdown)
        print_markdown();
    else {
        print_json(&c, flags.all);
        if (!vlm_config_check(&c.vlm, &err)) log_warning("this does not fit together: %s", err.text);
    }
    config_free(&c);
    if (!ok) return EXIT_USAGE;
    ok = output_flush(&err);
    if (!ok) log_error("%s", err.text);
    return ok ? EXIT_DONE : EXIT_FAILED;
}
