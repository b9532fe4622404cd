// LINK: hub
// Names of models in the Hub cache: where the cache lies, what is found in it, and what an error says.
#include "base/memory.h"
#include "hub/hub.h"
#include "support/folders.h"
#include "support/golden.h"

#include <stdlib.h>
#include <string.h>

static const char *const variables[] = {"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"};

static void clear_variables(void) {
    for (size_t i = 0; i < sizeof variables / sizeof *variables; i++) unsetenv(variables[i]);
    setenv("HOME", test_folder, 1);
}

static void expect_cache(const char *expected) { // under the folder of this test
    char *found = hub_cache_folder(), *path = path_join(test_folder, expected);
    assert_string_equal(found, path);
    free(found);
    free(path);
}

static void test_where_the_cache_lies(void **state) {
    (void)state;
    clear_variables();
    expect_cache(".cache/huggingface/hub");
    setenv("XDG_CACHE_HOME", "~/x", 1);
    expect_cache("x/huggingface/hub");
    setenv("HF_HOME", "", 1); // empty counts as none
    expect_cache("x/huggingface/hub");
    setenv("HF_HOME", "$HOME/home", 1);
    expect_cache("home/hub");
    setenv("HUGGINGFACE_HUB_CACHE", "${HOME}/legacy", 1);
    expect_cache("legacy");
    setenv("HF_HUB_CACHE", "~/cache", 1);
    expect_cache("cache");
    setenv("HF_HUB_CACHE", "$NOT_SET_ANYWHERE/a$/${b", 1);
    char *found = hub_cache_folder();
    assert_string_equal(found, "$NOT_SET_ANYWHERE/a$/${b");
    free(found);
    clear_variables();
}

static void make(const char *path, const char *text) { // text NULL: a folder
    Error err;
    char *full = path_join(test_folder, path);
    char *parent = mem_strndup(full, (size_t)(strrchr(full, '/') - full));
    if (!file_make_folders(text ? parent : full, &err)) fail_msg("%s", err.text);
    if (text && !file_write_text(full, text, strlen(text), &err)) fail_msg("%s", err.text);
    free(parent);
    free(full);
}

static void expect_path(const char *name, const char *expected) {
    Error err = {""};
    char *path, *full = path_join(test_folder, expected);
    if (!hub_resolve(&path, name, &err)) fail_msg("%s", err.text);
    assert_string_equal(path, full);
    free(path);
    free(full);
}

static void test_what_is_found(void **state) {
    (void)state;
    clear_variables();
    make(".cache/huggingface/hub/models--org--a/refs/main", "1234abcd");
    make(".cache/huggingface/hub/models--org--a/refs/pr/7", "77\n");
    make(".cache/huggingface/hub/models--org--a/snapshots/1234abcd/config.json", "{}");
    make(".cache/huggingface/hub/models--org--a/snapshots/77/config.json", "{}");
    make(".cache/huggingface/hub/models--gpt/refs/main", "9");
    make(".cache/huggingface/hub/models--gpt/snapshots/9", NULL);
    make("local/config.json", "{}");
    expect_path("org/a", ".cache/huggingface/hub/models--org--a/snapshots/1234abcd");
    expect_path("org/a@main", ".cache/huggingface/hub/models--org--a/snapshots/1234abcd");
    expect_path("org/a@pr/7", ".cache/huggingface/hub/models--org--a/snapshots/77");
    expect_path("org/a@77", ".cache/huggingface/hub/models--org--a/snapshots/77");
    expect_path("gpt", ".cache/huggingface/hub/models--gpt/snapshots/9");
    char *local = path_join(test_folder, "local");
    expect_path(local, "local");
    free(local);
}

static void expect_refused(const char *name, const char *message) {
    Error err = {""};
    char *path;
    if (hub_resolve(&path, name, &err)) fail_msg("%s was found at %s", name, path);
    assert_null(path);
    if (!strstr(err.text, message)) fail_msg("%s: message is: %s", name, err.text);
}

static void test_what_is_refused(void **state) {
    (void)state;
    clear_variables();
    make(".cache/huggingface/hub/models--org--b/snapshots/55/config.json", "{}");    // no refs/main
    make(".cache/huggingface/hub/models--org--c/refs/main", "../../models--org--b"); // leads out
    make(".cache/huggingface/hub/models--org--c/snapshots/1/config.json", "{}");
    make(".cache/huggingface/hub/models--org--d/refs/main", "gone"); // its snapshot is not there
    expect_refused("org/nothing", "hf download org/nothing");
    expect_refused("org/nothing", "models--org--nothing");
    expect_refused("org/b", "holds 55; give one of them as org/b@COMMIT");
    expect_refused("org/c", "revision main is not in");
    expect_refused("org/d", "not in the Hub cache");
    expect_refused("org/b@../55", "is not a revision");
    expect_refused("org/b@/", "is not a revision");
    expect_refused("org/b@", "is not a revision");
    expect_refused("../b", "not a Hub name");
    expect_refused("a/b/c", "not a Hub name");
    expect_refused("/nowhere/at/all", "no such file or folder");
    expect_refused("", "no such file or folder");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_where_the_cache_lies),
        cmocka_unit_test(test_what_is_found),
        cmocka_unit_test(test_what_is_refused),
    };
    return cmocka_run_group_tests(tests, make_test_folder, remove_test_folder);
}
