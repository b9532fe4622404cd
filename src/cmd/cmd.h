// The commands of `vlm`: one file each, one line each in cmd/commands.c.
#pragma once
#include "config/fields.h"

// Exit statuses: 0 done, 1 the work failed (files, data, memory), 2 the command line was wrong.
enum { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

typedef struct Command {
    const char *name;
    int (*run)(int argc, char **argv); // argv[0] is the command's name; returns an exit status
    const char *summary;               // one line for `vlm help`
} Command;

extern const Command commands[];               // ends with name NULL
const Command *command_find(const char *name); // NULL after an error message that names the nearest
void command_print_list(void);                 // what `vlm help` prints

bool output_flush(Error *err); // false when standard output cannot be written

typedef bool (*FlagsFunction)(const void *flags, Error *err);
// A whole command whose flags are one table: sets them from defaults and argv, lets check (NULL: all is fine)
// refuse them, runs, says what went wrong, frees them. Both functions get flags.base. Standard output that
// cannot be written is a failure. Returns an exit status.
int command_run(FieldSet flags, int argc, char **argv, FlagsFunction check, FlagsFunction run);

int cmd_train(int argc, char **argv);
int cmd_generate(int argc, char **argv);
int cmd_eval(int argc, char **argv);
int cmd_synth(int argc, char **argv);
int cmd_export(int argc, char **argv);
int cmd_import(int argc, char **argv);
int cmd_data(int argc, char **argv);
int cmd_memory(int argc, char **argv);
int cmd_bench(int argc, char **argv);
int cmd_forward(int argc, char **argv);
int cmd_inspect(int argc, char **argv);
int cmd_config(int argc, char **argv);
int cmd_version(int argc, char **argv);
int cmd_help(int argc, char **argv);
