// The program as a user meets it, run by a test: the binary of the same build folder, or $VLM_BINARY. A test
// that uses it says "// RUNS: vlm".
#pragma once
#include <stddef.h>
#include <sys/types.h>

typedef struct ProgramResult {
    int status;      // exit status; -1 when killed
    char *out, *err; // owned
} ProgramResult;

// Runs `vlm` with the words of the line, which are separated by single spaces.
ProgramResult program_run(const char *line);
void program_result_free(ProgramResult *r);
// Runs it with these words (NULL-terminated); its two outputs go to files. Returns its status.
int program_run_into(char *const words[], const char *out, const char *err);
// Begins to run it with the words of the line, its two outputs to these files.
pid_t program_start(const char *line, const char *out, const char *err);
// In a child process: becomes the program with these words; does not return.
_Noreturn void program_exec(char *const words[]);
// Runs it and fails the test unless it ends with this status and its output holds these texts.
void program_expect(const char *line, int status, const char *out, const char *err);

// How often a test kills the program: at least $VLM_KILLS times, or `usual`.
size_t program_kills(size_t usual);

char *program_path(void);                  // of the binary; caller frees
char *program_temporary(const char *name); // a path of this process's own; caller frees
char *program_read_text(const char *path); // a whole file; caller frees
