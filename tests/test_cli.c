// LINK: config
// RUNS: vlm
// The program as a user meets it: commands, help, exit statuses and what `vlm config` prints. The binary is
// that of the same build folder, or $VLM_BINARY.
#include "support/golden.h"
#include "support/program.h"

#include "base/memory.h"
#include "config/config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

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
        program_expect(cases[i].line, cases[i].status, cases[i].out, cases[i].err);
}

// Every command of the list answers --help with its usage, and a flag that is none with status 2.
static void every_command_has_help(void **state) {
    (void)state;
    ProgramResult list = program_run("help");
    size_t count = 0;
    char *rest; // program_run() has a strtok of its own
    for (char *line = strtok_r(list.out, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        char name[32];
        if (strncmp(line, "  ", 2) || sscanf(line, " %31s", name) != 1) continue;
        char *help = mem_printf("%s --help", name), *bad = mem_printf("%s --no_such_flag", name);
        program_expect(help, 0, "usage: vlm ", "");
        ProgramResult r = program_run(bad);
        if (r.status != 2 || !*r.err) fail_msg("vlm %s: status %d", bad, r.status);
        program_result_free(&r);
        free(help);
        free(bad);
        count++;
    }
    assert_true(count >= 3);
    program_result_free(&list);
}

static void config_prints_the_bytes_of_config_json(void **state) {
    (void)state;
    ProgramResult r = program_run("config");
    char *path = golden_path("config/VLMConfig.json"), *expected = program_read_text(path);
    size_t size = strlen(expected);
    assert_int_equal(r.status, 0);
    assert_memory_equal(r.out, expected, size);
    assert_string_equal(r.out + size, "\n"); // json.dumps ends without one; a terminal wants it
    free(expected);
    free(path);
    program_result_free(&r);
}

static void config_reads_what_it_prints(void **state) {
    (void)state;
    char *path = program_temporary("json"),
         *again = mem_printf("config --all true --preset small --config %s", path);
    ProgramResult first = program_run(
        "config --all --preset tiny --seed 5 --lr_mp 1 --lm_re_base 500.5 --train_dataset_name a,b");
    assert_int_equal(first.status, 0);
    Error err;
    assert_true(file_write_text(path, first.out, strlen(first.out), &err));
    ProgramResult second = program_run(again);
    assert_string_equal(first.out, second.out);
    program_result_free(&first);
    program_result_free(&second);
    unlink(path);
    free(again);
    free(path);
}

static void docs_say_what_the_tables_say(void **state) {
    (void)state;
    ProgramResult r = program_run("config --markdown true");
    char *page = program_read_text("docs/config.md");
    assert_int_equal(r.status, 0);
    if (strcmp(r.out, page))
        fail_msg("docs/config.md is out of date: vlm config --markdown true > docs/config.md");
    free(page);
    program_result_free(&r);
}

static void a_full_disk_is_a_failure(void **state) {
    (void)state;
    if (access("/dev/full", W_OK)) skip();
    char *err = program_temporary("err");
    char *lines[][6] = {
        {"config"},
        {"version"},
        {"inspect", "tests/golden/model/tokenizer/tokenizer.json"},
        {"data", "--preset", "tiny", "--train_dataset_path", "tests/golden/data/parquet"},
        {"bench", "pack", "--lengths=tests/golden/packing/lengths_text300_1024.json", "--seconds=0"}};
    for (size_t i = 0; i < COUNT(lines); i++) {
        assert_int_equal(program_run_into(lines[i], "/dev/full", err), 1);
        char *text = program_read_text(err);
        if (!strstr(text, "the output cannot be written")) fail_msg("vlm %s says %s", lines[i][0], text);
        free(text);
    }
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
