#include "support/program.h"
#include "support/golden.h"

#include "base/memory.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAX_WORDS 64

char *program_path(void) {
    const char *given = getenv("VLM_BINARY");
    if (given) return mem_strdup(given);
    char self[4096]; // BUILD/tests/test_X; the program is BUILD/vlm
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    assert_true(n > 0);
    self[n] = '\0';
    for (int i = 0; i < 2; i++) *strrchr(self, '/') = '\0';
    return path_join(self, "vlm");
}

char *program_temporary(const char *name) {
    return mem_printf("/tmp/test_vlm.%d.%s", (int)getpid(), name);
}

char *program_read_text(const char *path) {
    char *text;
    size_t size;
    Error err;
    if (!file_read(&text, &size, path, &err)) fail_msg("%s", err.text);
    return text;
}

static void redirect(int to, const char *path) {
    int file = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (file < 0 || dup2(file, to) < 0) _exit(126);
}

void program_exec(char *const words[]) {
    char *binary = program_path(), *argv[MAX_WORDS + 2] = {binary};
    for (int i = 0; words[i]; i++) argv[i + 1] = words[i];
    execv(binary, argv);
    _exit(127);
}

static pid_t start(char *const words[], const char *out, const char *err) {
    fflush(NULL);
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child > 0) return child;
    redirect(STDOUT_FILENO, out);
    redirect(STDERR_FILENO, err);
    program_exec(words);
}

int program_run_into(char *const words[], const char *out, const char *err) {
    int status;
    const pid_t child = start(words, out, err);
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

pid_t program_start(const char *line, const char *out, const char *err) {
    char *copy = mem_strdup(line), *words[MAX_WORDS + 1] = {0};
    size_t n = 0;
    for (char *word = strtok(copy, " "); word; word = strtok(NULL, " ")) {
        assert_true(n < MAX_WORDS);
        words[n++] = word;
    }
    const pid_t child = start(words, out, err);
    free(copy);
    return child;
}

ProgramResult program_run(const char *line) {
    int status;
    char *out = program_temporary("out"), *err = program_temporary("err");
    const pid_t child = program_start(line, out, err);
    assert_int_equal(waitpid(child, &status, 0), child);
    ProgramResult r = {.status = WIFEXITED(status) ? WEXITSTATUS(status) : -1};
    r.out = program_read_text(out);
    r.err = program_read_text(err);
    unlink(out);
    unlink(err);
    free(out);
    free(err);
    return r;
}

void program_result_free(ProgramResult *r) {
    free(r->out);
    free(r->err);
}

void program_expect(const char *line, int status, const char *out, const char *err) {
    ProgramResult r = program_run(line);
    if (r.status != status || !strstr(r.out, out) || !strstr(r.err, err))
        fail_msg("vlm %s: status %d, expected %d with \"%s\" and \"%s\"\nstdout: %s\nstderr: %s", line,
                 r.status, status, out, err, r.out, r.err);
    program_result_free(&r);
}

size_t program_kills(size_t usual) {
    const char *text = getenv("VLM_KILLS");
    return text ? (size_t)strtoul(text, NULL, 10) : usual;
}
