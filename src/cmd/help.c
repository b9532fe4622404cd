// `vlm help [COMMAND]`: the list of commands, or the flags of one.
#include "base/log.h"
#include "cmd/cmd.h"
#include "config/fields.h"

#include <stdio.h>
#include <string.h>

void command_print_list(void) {
    printf("vlm: trains and runs small vision-language models\n\nusage: vlm COMMAND [--flag VALUE ...]\n\n");
    for (const Command *c = commands; c->name; c++) printf("  %-10s %s\n", c->name, c->summary);
    printf("\n`vlm help COMMAND` lists a command's flags.\n");
}

const Command *command_find(const char *name) {
    const char *names[32];
    size_t n = 0;
    for (const Command *c = commands; c->name && n < 32; c++) {
        if (!strcmp(c->name, name)) return c;
        names[n++] = c->name;
    }
    const char *near = nearest_name(name, names, n);
    if (near)
        log_error("\"%.100s\" is no command; did you mean %s?", name, near);
    else
        log_error("\"%.100s\" is no command; `vlm help` lists all", name);
    return NULL;
}

int cmd_help(int argc, char **argv) {
    bool of_command = argc == 2 && argv[1][0] != '-';
    if (argc == 1 || (argc == 2 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h")))) {
        command_print_list();
        return EXIT_DONE;
    }
    if (!of_command) {
        log_error("vlm help takes the name of one command");
        return EXIT_USAGE;
    }
    const Command *command = command_find(argv[1]);
    if (!command) return EXIT_USAGE;
    if (command->run == cmd_help) return cmd_help(1, argv);
    char *help[] = {argv[1], "--help", NULL};
    return command->run(2, help);
}
