// The commands of `vlm`: one file each, one line each in cmd/commands.c.
#pragma once

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
