// vlm COMMAND [flags]: finds the command in cmd/commands.c and runs it.
#include "base/memory.h"
#include "cmd/cmd.h"

#include <string.h>

int main(int argc, char **argv) {
    mem_settle();
    if (argc < 2) {
        command_print_list();
        return EXIT_USAGE;
    }
    const char *name = argv[1];
    if (!strcmp(name, "--help") || !strcmp(name, "-h")) name = "help";
    if (!strcmp(name, "--version")) name = "version";
    const Command *command = command_find(name);
    return command ? command->run(argc - 1, argv + 1) : EXIT_USAGE;
}
