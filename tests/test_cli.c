// LINK: config
// RUNS: vlm
// The program as a user meets it: commands, help, exit statuses and what `vlm config` prints. The binary is
// that of the same build folder, or $VLM_BINARY.
#include "support/golden.h"

#include "base/memory.h"
#include "config/config.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define COUNT(array) (sizeof(array) / sizeof(array)[0])
#define MAX_WORDS    16

typedef struct Result {
    int status;      // exit status; -1 when killed
    char *out, *err; // owned
} Result;

static char *binary_path(void) {
    const char *given = getenv("VLM_BINARY");
    if (given) return mem_strdup(given);
    char self[4096]; // BUILD/tests/test_cli; the program is BUILD/vlm
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    assert_true(n > 0);
    self[n] = '\0';
    for (int i = 0; i < 2; i++) *strrchr(self, '/') = '\0';
    return path_join(self, "vlm");
}

static char *temporary_path(const char *name) {
    return mem_printf("/tmp/test_cli.%d.%s", (int)getpid(), name);
}

static char *read_text(const char *path) {
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

// Runs `vlm` with these words (NULL-terminated); its output goes to the file `out`.
static int run_into(char *const words[], const char *out, const char *err) {
    char *binary = binary_path(), *argv[MAX_WORDS + 2] = {binary};
    for (int i = 0; words[i]; i++) argv[i + 1] = words[i];
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        redirect(1, out);
        redirect(2, err);
        execv(binary, argv);
        _exit(127);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    free(binary);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static Result run(const char *line) {
    char *copy = mem_strdup(line), *words[MAX_WORDS + 1] = {0};
    int n = 0;
    for (char *word = strtok(copy, " "); word && n < MAX_WORDS; word = strtok(NULL, " ")) words[n++] = word;
    char *out = temporary_path("out"), *err = temporary_path("err");
    Result r = {.status = run_into(words, out, err)};
    r.out = read_text(out);
    r.err = read_text(err);
    unlink(out);
    unlink(err);
    free(out);
    free(err);
    free(copy);
    return r;
}

static void result_free(Result *r) {
    free(r->out);
    free(r->err);
}

static void expect_run(const char *line, int status, const char *out, const char *err) {
    Result r = run(line);
    if (r.status != status || !strstr(r.out, out) || !strstr(r.err, err))
        fail_msg("vlm %s: status %d, expected %d with \"%s\" and \"%s\"\nstdout: %s\nstderr: %s", line,
                 r.status, status, out, err, r.out, r.err);
    result_free(&r);
}

static void commands_are_found(void **state) {
    (void)state;
    static const struct {
        const char *line;
        int status;
        const char *out, *err;
    } cases[] = {
        {"", 2, "usage: vlm COMMAND", ""},
        {"help", 0, "  train ", ""},
        {"--help", 0, "  config ", ""},
        {"help help", 0, "usage: vlm COMMAND", ""},
        {"help --help", 0, "usage: vlm COMMAND", ""},
        {"help config", 0, "--lm_hidden_dim N", ""},
        {"config --help", 0, "usage: vlm config", ""},
        {"config --compile -h", 0, "[40000]", ""},
        {"help cnofig", 2, "", "did you mean config?"},
        {"help a b", 2, "", "one command"},
        {"trian", 2, "", "\"trian\" is no command; did you mean train?"},
        {"qqqqqqqq", 2, "", "`vlm help` lists all"},
        {"version", 0, "0.1.0", ""},
        {"--version", 0, "jansson", ""},
        {"version --all", 2, "", "--all: unknown flag"},
        {"version now", 2, "", "unexpected argument"},
        {"config --bach_size 3", 2, "", "did you mean --batch_size?"},
        {"config --compile 3", 2, "", "--compile: found \"3\", expected true or false"},
        {"config --preset small --no_log_wandb", 0, "\"lm_hidden_dim\": 384", ""},
        {"config --lm_n_kv_heads 4", 0, "\"lm_n_kv_heads\": 4",
         "lm_n_heads 15 is no multiple of lm_n_kv_heads 4"},
        {"config --config /nowhere.json", 2, "", "/nowhere.json"},
    };
    for (size_t i = 0; i < COUNT(cases); i++)
        expect_run(cases[i].line, cases[i].status, cases[i].out, cases[i].err);
}

// Every command of the list answers --help with its usage, and a flag that is none with status 2.
static void every_command_has_help(void **state) {
    (void)state;
    Result list = run("help");
    size_t count = 0;
    char *rest; // run() has a strtok of its own
    for (char *line = strtok_r(list.out, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        char name[32];
        if (strncmp(line, "  ", 2) || sscanf(line, " %31s", name) != 1) continue;
        char *help = mem_printf("%s --help", name), *bad = mem_printf("%s --no_such_flag", name);
        expect_run(help, 0, "usage: vlm ", "");
        Result r = run(bad);
        if (r.status != 2 || !*r.err) fail_msg("vlm %s: status %d", bad, r.status);
        result_free(&r);
        free(help);
        free(bad);
        count++;
    }
    assert_true(count >= 3);
    result_free(&list);
}

static void config_prints_the_bytes_of_config_json(void **state) {
    (void)state;
    Result r = run("config");
    char *path = golden_path("config/VLMConfig.json"), *expected = read_text(path);
    size_t size = strlen(expected);
    assert_int_equal(r.status, 0);
    assert_memory_equal(r.out, expected, size);
    assert_string_equal(r.out + size, "\n"); // json.dumps ends without one; a terminal wants it
    free(expected);
    free(path);
    result_free(&r);
}

static void config_reads_what_it_prints(void **state) {
    (void)state;
    char *path = temporary_path("json"),
         *again = mem_printf("config --all true --preset small --config %s", path);
    Result first =
        run("config --all --preset tiny --seed 5 --lr_mp 1 --lm_re_base 500.5 --train_dataset_name a,b");
    assert_int_equal(first.status, 0);
    Error err;
    assert_true(file_write_text(path, first.out, strlen(first.out), &err));
    Result second = run(again);
    assert_string_equal(first.out, second.out);
    result_free(&first);
    result_free(&second);
    unlink(path);
    free(again);
    free(path);
}

static void docs_say_what_the_tables_say(void **state) {
    (void)state;
    Result r = run("config --markdown true");
    char *page = read_text("docs/config.md");
    assert_int_equal(r.status, 0);
    if (strcmp(r.out, page))
        fail_msg("docs/config.md is out of date: vlm config --markdown true > docs/config.md");
    free(page);
    result_free(&r);
}

static void a_full_disk_is_a_failure(void **state) {
    (void)state;
    if (access("/dev/full", W_OK)) skip();
    char *err = temporary_path("err");
    char *const config[] = {"config", NULL}, *const version[] = {"version", NULL};
    assert_int_equal(run_into(config, "/dev/full", err), 1);
    assert_int_equal(run_into(version, "/dev/full", err), 1);
    unlink(err);
    free(err);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(commands_are_found),
        cmocka_unit_test(every_command_has_help),
        cmocka_unit_test(config_prints_the_bytes_of_config_json),
        cmocka_unit_test(config_reads_what_it_prints),
        cmocka_unit_test(docs_say_what_the_tables_say),
        cmocka_unit_test(a_full_disk_is_a_failure),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
