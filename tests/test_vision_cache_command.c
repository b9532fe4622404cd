// LINK: train
// RUNS: vlm
// `vlm train --cache_vision`: the log of a run that keeps features, of one that reads them, and of one that
// goes on from a checkpoint, is that of a run without, to the bit; entries that are damaged or of other
// weights are not used.
#include "support/data_case.h"
#include "support/small_run.h"

#include <ftw.h>

static char *train_line(const char *run, const char *more) { // caller frees
    char *flags = mem_printf(
             "--val_size 10 --eval_interval 3 --max_training_steps 12 --lr_vision_backbone 0 %s", more),
         *line = small_run_line(run, flags);
    free(flags);
    return line;
}

static void train(const char *run, const char *more, const char *said) {
    char *line = train_line(run, more);
    program_expect(line, 0, "", said);
    free(line);
}

// The numbers of a log that do not tell time.
static json_t *logged(const char *run) {
    static const char *const keys[] = {"step", "batch_loss", "grad_norm", "val_loss", "epoch_loss"};
    char *path = small_run_file(run, "log.jsonl"), *text = program_read_text(path), *rest = text;
    json_t *values = json_array();
    for (char *line = strtok_r(rest, "\n", &rest); line; line = strtok_r(rest, "\n", &rest)) {
        json_t *object = json_loads(line, 0, NULL);
        assert_non_null(object);
        for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
            if (json_object_get(object, keys[i])) json_array_append(values, json_object_get(object, keys[i]));
        json_decref(object);
    }
    free(text);
    free(path);
    return values;
}

static void expect_same_log(const char *run) {
    json_t *expected = logged("plain"), *got = logged(run);
    assert_true(json_array_size(expected) > 12 * 3 + 4);
    if (!json_equal(expected, got)) fail_msg("the log of %s is another one", run);
    json_decref(expected);
    json_decref(got);
}

// How many tiles the run found, encoded, kept, and found damaged.
static void counts(unsigned long long n[4], const char *run, const char *more) {
    char *line = train_line(run, more), *flags = mem_printf("%s --cache_vision %s/tiles", line, test_folder);
    ProgramResult r = program_run(flags);
    const char *at = strstr(r.err, "tiles were there, ");
    while (at && at > r.err && at[-1] != '\n') at--;
    const int found =
        at ? sscanf(at, "%*[^:]: %llu tiles were there, %llu were not; %llu kept (%*f MiB), %llu", &n[0],
                    &n[1], &n[2], &n[3])
           : 0;
    if (r.status != 0 || found != 4) fail_msg("status %d: %s", r.status, r.err);
    program_result_free(&r);
    free(flags);
    free(line);
}

static void the_log_is_the_same(void **state) {
    (void)state;
    unsigned long long n[4];
    train("plain", "", "saved");
    counts(n, "first", "");
    expect_same_log("first");
    assert_true(n[0] > n[1] && n[1] > 20 && n[2] == n[1] && n[3] == 0); // most epochs are read
    const unsigned long long all = n[0] + n[1];
    counts(n, "second", "--num_workers 1");
    expect_same_log("second");
    assert_true(n[0] > all * 3 / 4 && n[3] == 0);
    counts(n, "without_threads", "--num_workers 0"); // nothing is prepared before the cache is open
    expect_same_log("without_threads");
    assert_true(n[0] > 0 && n[1] == 0 && n[2] == 0);
}

static void a_resumed_run_goes_on_with_it(void **state) {
    (void)state;
    unsigned long long n[4];
    counts(n, "stopped", "");
    remove_folder(small_run_file("stopped", "step_9"));
    remove_folder(small_run_file("stopped", "step_11"));
    train("stopped", "--resume auto --max_training_steps 12", "step_6: update 7 of epoch");
    expect_same_log("stopped");
    remove_folder(small_run_file("stopped", "step_9"));
    remove_folder(small_run_file("stopped", "step_11"));
    counts(n, "stopped", "--resume auto");
    expect_same_log("stopped");
    assert_true(n[0] > 0);
}

static int damage(const char *path, const struct stat *info, int type, struct FTW *where) {
    (void)where;
    if (type != FTW_F || strstr(path, ".json")) return 0;
    Error err;
    char *bytes;
    size_t size;
    expect(file_read(&bytes, &size, path, &err), &err);
    assert_int_equal(size, info->st_size);
    bytes[size / 2] ^= 1;
    expect(file_write_text(path, bytes, size, &err), &err);
    free(bytes);
    return 0;
}

static void damaged_entries_are_made_again(void **state) {
    (void)state;
    unsigned long long n[4];
    char *tiles = path_join(test_folder, "tiles");
    assert_int_equal(nftw(tiles, damage, 16, FTW_PHYS), 0);
    counts(n, "damaged", "--num_workers 0");
    expect_same_log("damaged");
    assert_true(n[3] > 20 && n[2] == n[3] && n[0] > n[1]);
    counts(n, "mended", "--num_workers 0");
    assert_true(n[3] == 0 && n[1] == 0);
    free(tiles);
}

static void other_weights_have_their_own(void **state) {
    (void)state;
    char *cache = mem_printf("--cache_vision %s/tiles", test_folder), *more;
    more = mem_printf("%s --seed 1 --max_training_steps 2", cache);
    train("seed_1", more, "1 other folder is there, of other weights or settings");
    free(more);
    more = mem_printf("%s --lr_vision_backbone 1e-3", cache);
    char *line = train_line("trained", more);
    program_expect(line, 1, "", "set lr_vision_backbone 0, or leave cache_vision out");
    free(line);
    free(more);
    free(cache);
}

static void a_dry_run_says_what_it_takes(void **state) {
    (void)state;
    char *more = mem_printf("--cache_vision %s/nothing --dtype f32 --dry_run", test_folder),
         *line = train_line("dry", more), *path = path_join(test_folder, "nothing");
    program_expect(line, 0, "0.031 MiB a tile; ", ""); // 64 x 128 values and a header
    assert_false(file_exists(path));
    free(path);
    free(line);
    free(more);
}

static int set_up(void **state) {
    (void)state;
    return make_small_run_data(100);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_log_is_the_same),
        cmocka_unit_test(a_resumed_run_goes_on_with_it),
        cmocka_unit_test(damaged_entries_are_made_again),
        cmocka_unit_test(other_weights_have_their_own),
        cmocka_unit_test(a_dry_run_says_what_it_takes),
    };
    return cmocka_run_group_tests(tests, set_up, remove_test_folder);
}
