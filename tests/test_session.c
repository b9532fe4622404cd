// LINK: cmd
// Tokenizers that do not fit a model: each is one clear error before anything is computed.
#include "support/golden.h"
#include "base/file.h"
#include "cmd/cmd.h"
#include "cmd/session.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void expect_no_session(const char *tokenizer, const char *message) {
    Session s;
    Error err = {0};
    assert_false(session_open(&s, "tests/golden/model/a_base", tokenizer, &err));
    if (!strstr(err.text, message)) fail_msg("%s; expected %s", err.text, message);
}

static void session_refuses(void **state) {
    (void)state;
    expect_no_session("tests/golden/tokenizer/smollm2",
                      "the tokenizer has 49158 tokens, the model's lm_vocab_size is");
    expect_no_session("tests/golden/tokenizer/none", "tests/golden/tokenizer/none");
    expect_no_session("tests/golden/text/token_table.json", "field");
}

// Runs cmd_train with these flags behind the common ones; returns what it wrote to stderr, owned.
static char *train_message(int argc, char **argv, int status) {
    char path[] = "/tmp/test_session.XXXXXX", *text;
    size_t size;
    const int file = mkstemp(path), saved = dup(STDERR_FILENO);
    assert_true(file >= 0 && saved >= 0);
    dup2(file, STDERR_FILENO);
    const int got = cmd_train(argc, argv);
    fflush(stderr);
    dup2(saved, STDERR_FILENO);
    close(saved);
    close(file);
    Error err;
    if (!file_read(&text, &size, path, &err)) fail_msg("%s", err.text);
    unlink(path);
    if (got != status) fail_msg("status %d: %s", got, text);
    return text;
}

static void train_refuses(void **state) {
    (void)state;
    static const struct {
        char *flag, *value;
        const char *message;
    } cases[] = {
        {"--lm_tokenizer", "tests/golden/tokenizer/smollm2",
         "has 49218 tokens with vlm_extra_tokens, but lm_vocab_size is"},
        {"--lm_chat_template", "{{ messages }}",
         "lm_chat_template is \"{{ messages }}\", expected the ChatML template"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *argv[] = {"train",
                        "--preset",
                        "tiny",
                        "--vlm_load_backbone_weights",
                        "false",
                        "--train_dataset_path",
                        "tests/golden/data/parquet",
                        "--val_size",
                        "0",
                        "--vlm_checkpoint_path",
                        "/tmp/test_session.none",
                        "--lm_tokenizer",
                        "assets/tokenizer",
                        cases[i].flag,
                        cases[i].value,
                        NULL};
        const int argc = (int)(sizeof argv / sizeof *argv) - 1;
        char *text = train_message(argc, argv, EXIT_FAILED);
        if (!strstr(text, cases[i].message)) fail_msg("%s; expected %s", text, cases[i].message);
        free(text);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(session_refuses), cmocka_unit_test(train_refuses)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
