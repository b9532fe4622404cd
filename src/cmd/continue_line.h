// The command line that goes on from a checkpoint: the one the run was started with, its flags on where to
// begin and what to be called replaced.
#pragma once
#include <stdbool.h>

// Whether a word of the command line is the flag --name (also with dashes, also --name=value).
bool flag_is(const char *word, const char *name);
bool has_flag(int argc, char **argv, const char *name); // whether any word after the first is
// "vlm train …", quoted for a shell; caller frees. argv[0] is the command's name.
char *continue_line(const char *checkpoint, int argc, char **argv);
