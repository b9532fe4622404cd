// LINK: train
// RUNS: vlm
// COST: 32
// The promise of an exact resume: `vlm train` on a small synthetic data set, killed with SIGKILL at random
// moments and started again with --resume auto until it is through, has logged every step's loss once, with
// the bits of a run that was never stopped, and ends with the same files of weights. VLM_KILLS sets how many
// kills there are at least (5 when it is not set). Then what may change on the way, and what is kept.
#include "base/file.h"
#include "base/memory.h"
#include "cmd/cmd.h"
#include "support/reference.h"
#include "support/small_run.h"
#include "train/resume.h"

#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *in_run(const char *run, const char *file) {
    char name[160];
    snprintf(name, sizeof name, "checkpoints/%s/%s", run, file);
    return in_test_folder(name);
}

// ---- commands in child processes ----

static pid_t start(const char *line) {
    return program_start(line, in_test_folder("stdout.txt"), in_test_folder("stderr.txt"));
}

// A tiny model; four checkpoints an epoch and several epochs, each with an accumulation left over at its end.
static char *train_line(const char *run, const char *more) {
    char *tokenizer = golden_path("model/tokenizer");
    char *line = mem_printf(
        "train --preset tiny --vit_n_blocks 1 --lm_n_blocks 1 --lm_max_length 128 --max_sample_length 128 "
        "--val_size 20 --batch_size 2 --gradient_accumulation_steps 2 --eval_interval 3 --stats_log_interval "
        "4 --threads 1 --max_training_steps 24 --num_workers 1 --train_dataset_path %s/data/train "
        "--vlm_checkpoint_path %s/checkpoints --lm_tokenizer %s --run_name %s %s",
        test_folder, test_folder, tokenizer, run, more);
    free(tokenizer);
    return line;
}

static void expect_status(pid_t child, int expected) {
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    if (WIFEXITED(status) && WEXITSTATUS(status) == expected) return;
    fail_msg("status %x instead of %d: %s", (unsigned)status, expected,
             program_read_text(in_test_folder("stderr.txt")));
}

static void train(const char *run, const char *more, int expected) {
    char *line = train_line(run, more);
    expect_status(start(line), expected);
    free(line);
}

static void expect_said(const char *words) {
    char *text = program_read_text(in_test_folder("stderr.txt"));
    if (!strstr(text, words)) fail_msg("\"%s\" is not in: %s", words, text);
    free(text);
}

// ---- comparing runs ----

// All lines of log.jsonl without what clocks say.
static json_t *logged(const char *run) {
    char *text = program_read_text(in_run(run, "log.jsonl")), *rest = text;
    json_t *lines = json_array();
    for (char *line = strtok_r(rest, "\n", &rest); line; line = strtok_r(rest, "\n", &rest)) {
        json_t *object = json_loads(line, 0, NULL), *value;
        void *next;
        const char *key;
        assert_non_null(object);
        json_object_foreach_safe(object, next, key, value) {
            const bool images = strstr(key, "images_per_sample") != NULL;
            if (!images && (strstr(key, "second") || strstr(key, "time") || strstr(key, "duration")))
                json_object_del(object, key);
        }
        json_array_append_new(lines, object);
    }
    free(text);
    return lines;
}

static void expect_same_log(const char *run, const char *reference) {
    json_t *a = logged(run), *b = logged(reference);
    for (size_t i = 0; i < json_array_size(b); i++)
        if (!json_equal(json_array_get(a, i), json_array_get(b, i)))
            fail_msg("line %zu of %s differs: %s instead of %s", i + 1, run,
                     json_dumps(json_array_get(a, i), JSON_ENCODE_ANY),
                     json_dumps(json_array_get(b, i), JSON_ENCODE_ANY));
    assert_int_equal(json_array_size(a), json_array_size(b));
    json_decref(a);
    json_decref(b);
}

static bool same_file(const char *run, const char *reference, const char *file) {
    char *x, *y;
    size_t n, m;
    Error err;
    if (!file_read(&x, &n, in_run(run, file), &err) || !file_read(&y, &m, in_run(reference, file), &err))
        fail_msg("%s", err.text);
    const bool same = n == m && memcmp(x, y, n) == 0;
    free(x);
    free(y);
    return same;
}

// But for config.json, which names the folder.
static void expect_same_bits(const char *run, const char *reference) {
    expect_same_log(run, reference);
    assert_true(same_file(run, reference, "step_23/model.safetensors"));
    assert_true(same_file(run, reference, "step_23/" RESUME_STATE_FILE));
}

static void expect_same_run(const char *run, const char *reference) {
    expect_same_bits(run, reference);
    assert_true(same_file(run, reference, "step_23/config.json"));
}

// ---- killed again and again ----

// One process of the run, killed after a while unless it is through before: true when it was.
static bool is_through(const char *line, useconds_t after) {
    const pid_t child = start(line);
    int status;
    usleep(after);
    kill(child, SIGKILL);
    assert_int_equal(waitpid(child, &status, 0), child);
    if (WIFSIGNALED(status)) return false;
    if (WEXITSTATUS(status) != EXIT_DONE) fail_msg("%s", program_read_text(in_test_folder("stderr.txt")));
    return true;
}

static void test_killed_at_random(void **state) {
    (void)state;
    train("whole", "", EXIT_DONE);
    unsigned seed = 1;
    size_t kills = 0, runs = 0;
    for (; kills < program_kills(5); runs++) {
        char name[32];
        snprintf(name, sizeof name, "killed_%zu", runs);
        char *line =
            train_line(name, runs % 2 ? "--resume auto --save_in_background false" : "--resume auto");
        for (useconds_t longest = 250000; !is_through(line, (useconds_t)rand_r(&seed) % longest); kills++)
            longest += longest / 4; // so that slow machines come to an end too
        expect_same_run(name, "whole");
        free(line);
    }
    print_message("%zu kills in %zu runs\n", kills, runs);
}

// ---- signals ----

static void wait_for_lines(const char *run, size_t wanted) {
    for (int i = 0; i < 3000; i++) {
        Error err;
        char *text = NULL;
        size_t size, lines = 0;
        if (file_exists(in_run(run, "log.jsonl")) && file_read(&text, &size, in_run(run, "log.jsonl"), &err))
            for (size_t k = 0; k < size; k++) lines += text[k] == '\n';
        free(text);
        if (lines >= wanted) return;
        usleep(5000);
    }
    fail_msg("the run logs nothing: %s", program_read_text(in_test_folder("stderr.txt")));
}

// A signal between two steps costs nothing: the next process goes on to the same bits.
static void test_stopped_by_signals(void **state) {
    (void)state;
    static const int signals[] = {SIGTERM, SIGUSR1};
    for (size_t i = 0; i < 2; i++) {
        char name[32];
        snprintf(name, sizeof name, "stopped_%d", signals[i]);
        char *line = train_line(name, "--resume auto");
        const pid_t child = start(line);
        wait_for_lines(name, 2);
        kill(child, signals[i]);
        expect_status(child, 128 + signals[i]);
        expect_said("saved ");
        expect_status(start(line), EXIT_DONE);
        expect_same_run(name, "whole");
        free(line);
    }
}

static void write_program(const char *name, const char *text) {
    Error err;
    char *script = mem_printf("#!/bin/sh\n%s\n", text);
    if (!file_write_text(in_test_folder(name), script, strlen(script), &err)) fail_msg("%s", err.text);
    chmod(in_test_folder(name), 0755);
    free(script);
}

// The example for Slurm, with this build's vlm and a scontrol that only takes notes.
static pid_t start_job(void) {
    char *words = train_line("job", ""),
         *line = mem_printf("exec bash scripts/train.sbatch %s", strchr(words, ' ') + 1);
    free(words);
    fflush(NULL);
    const pid_t child = fork();
    if (child == 0) {
        char *path = mem_printf("%s:%s", test_folder, getenv("PATH"));
        setenv("PATH", path, 1);
        setenv("SLURM_JOB_ID", "42", 1);
        const int file = open(in_test_folder("stderr.txt"), O_WRONLY | O_CREAT | O_TRUNC, 0666);
        if (file < 0 || dup2(file, STDERR_FILENO) < 0 || dup2(file, STDOUT_FILENO) < 0) _exit(99);
        execl("/bin/sh", "sh", "-c", line, (char *)NULL);
        _exit(98);
    }
    assert_true(child > 0);
    free(line);
    return child;
}

static void test_job_queues_itself_again(void **state) {
    (void)state;
    char *path = program_path(), *program = mem_printf("exec '%s' \"$@\"", path);
    free(path);
    write_program("vlm", program);
    free(program);
    program = mem_printf("echo \"$@\" >> %s/requeued", test_folder);
    write_program("scontrol", program);
    free(program);
    const pid_t job = start_job();
    wait_for_lines("job", 3);
    kill(job, SIGUSR1);
    expect_status(job, 0);
    char *text = program_read_text(in_test_folder("requeued"));
    assert_string_equal(text, "requeue 42\n");
    free(text);
    expect_status(start_job(), EXIT_DONE);
    text = program_read_text(in_test_folder("requeued"));
    assert_string_equal(text, "requeue 42\n"); // not again
    free(text);
    expect_same_run("job", "whole");
}

// A half-made folder, and one whose files are not all there, are passed over.
static void test_finds_the_newest_complete_one(void **state) {
    (void)state;
    char *run = mem_printf("%s/checkpoints/whole", test_folder), *found = resume_find(run);
    assert_string_equal(strrchr(found, '/'), "/step_23");
    free(found);
    assert_int_equal(rename(in_run("whole", "step_21"), in_run("whole", "step_21.tmp")), 0);
    assert_int_equal(rename(in_run("whole", "step_23/" RESUME_TRAINER_FILE), in_run("whole", "step_23/away")),
                     0);
    found = resume_find(run);
    assert_string_equal(strrchr(found, '/'), "/step_18");
    free(found);
    assert_int_equal(rename(in_run("whole", "step_23/away"), in_run("whole", "step_23/" RESUME_TRAINER_FILE)),
                     0);
    assert_int_equal(rename(in_run("whole", "step_21.tmp"), in_run("whole", "step_21")), 0);
    assert_null(resume_find("/nowhere"));
    free(run);
}

// From the middle into a run beside it, with everything that may differ freely differing.
static void test_what_may_change_freely(void **state) {
    (void)state;
    char *more =
        mem_printf("--resume_from_vlm_checkpoint true --vlm_checkpoint_path %s/checkpoints/whole/step_9 "
                   "--num_workers 3 --log_interval 1 --keep_checkpoints 2 --max_minutes 100",
                   test_folder);
    train("beside", more, EXIT_DONE);
    expect_said("bit for bit");
    assert_true(same_file("beside", "whole", "step_23/model.safetensors"));
    assert_true(same_file("beside", "whole", "step_23/" RESUME_STATE_FILE));
    assert_true(file_exists(in_run("beside", "step_21")));
    assert_false(file_exists(in_run("beside", "step_12"))); // it was not the best
    free(more);
}

static void test_what_changes_the_bits(void **state) {
    (void)state;
    static const char *const changes[][2] = {
        {"--lr_mp 0.002", " and is 0.002: the run goes on, but no longer bit for bit"},
        {"--seed 5", "epoch 1 begins anew"},
    };
    for (size_t i = 0; i < 2; i++) {
        char name[32], *more = mem_printf("--resume_from_vlm_checkpoint true --vlm_checkpoint_path "
                                          "%s/checkpoints/whole/step_3 %s --max_training_steps 6",
                                          test_folder, changes[i][0]);
        snprintf(name, sizeof name, "changed_%zu", i);
        train(name, more, EXIT_DONE);
        expect_said(changes[i][1]);
        assert_true(file_exists(in_run(name, "step_5/model.safetensors")));
        free(more);
    }
}

// Their rounding is drawn from the number of the update, so it is the same too.
static void check_short_moments(const char *moments) {
    char *first = mem_printf("--moments %s --max_training_steps 6", moments),
         *again = mem_printf("--resume_from_vlm_checkpoint true --vlm_checkpoint_path "
                             "%s/checkpoints/%s/step_3 --max_training_steps 6",
                             test_folder, moments),
         *same = mem_printf("%s --moments %s", again, moments),
         *other = mem_printf("%s --moments f32", again), *name = mem_printf("%s_again", moments),
         *refused = mem_printf("%s_other", moments);
    train(moments, first, EXIT_DONE);
    train(name, same, EXIT_DONE);
    assert_true(same_file(name, moments, "step_5/model.safetensors"));
    assert_true(same_file(name, moments, "step_5/" RESUME_STATE_FILE));
    train(refused, other, EXIT_FAILED);
    expect_said("give the --moments it was saved with");
    char *all[] = {first, again, same, other, name, refused};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
}
static void test_short_moments(void **state) {
    (void)state;
    check_short_moments("bf16");
    check_short_moments("int8");
}

static void test_what_is_refused(void **state) {
    (void)state;
    char *more = mem_printf("--resume_from_vlm_checkpoint true --vlm_checkpoint_path %s/checkpoints/whole "
                            "--lm_n_blocks 2",
                            test_folder);
    train("other_model", more, EXIT_USAGE);
    expect_said("lm_n_blocks was 1 and is 2: this is another model");
    assert_false(file_exists(in_run("other_model", "log.jsonl")));
    free(more);
}

static void test_weights_only(void **state) {
    (void)state;
    char *more =
        mem_printf("--resume_from_vlm_checkpoint true --vlm_checkpoint_path %s/checkpoints/whole/step_3 "
                   "--resume_weights_only --max_training_steps 1 --val_size 0",
                   test_folder);
    train("weights", more, EXIT_DONE);
    assert_true(file_exists(in_test_folder("checkpoints/whole/step_3/weights/step_0/model.safetensors")));
    free(more);
}

// ---- disks of their own ----

// Runs a shell script where `mount` is free to use; false: this user may not, and the test is skipped.
static bool run_with_mounts(const char *script, int expected) {
    char *command = mem_printf("exec unshare -m sh -c '%s' 2>%s/stderr.txt", script, test_folder);
    const int allowed = system("unshare -m sh -c 'mount -t tmpfs none /mnt' 2>/dev/null");
    const int status = allowed == 0 ? system(command) : 0;
    free(command);
    if (allowed != 0) {
        print_message("SKIPPED: no tmpfs can be mounted here (it takes root and unshare)\n");
        return false;
    }
    if (!WIFEXITED(status) || WEXITSTATUS(status) != expected)
        fail_msg("status %x instead of %d: %s", (unsigned)status, expected,
                 program_read_text(in_test_folder("stderr.txt")));
    return true;
}

// `vlm train` with checkpoints under disk/, as words of a script; caller frees.
static char *train_on_disk(const char *run, const char *more) {
    char *flags = mem_printf("%s --vlm_checkpoint_path %s/disk", more, test_folder),
         *line = train_line(run, flags), *program = program_path(),
         *words = mem_printf("%s %s", program, line);
    free(program);
    free(line);
    free(flags);
    return words;
}

// Two checkpoints fit, the others do not: the run goes to its end, says so by its status, and goes on from
// the last one that fitted once there is room.
static void test_full_disk(void **state) {
    (void)state;
    for (int background = 0; background < 2; background++) {
        char name[32],
            *flags = mem_printf("--resume auto --save_in_background %s", background ? "true" : "false");
        snprintf(name, sizeof name, "full_%d", background);
        char *line = train_on_disk(name, flags),
             *script = mem_printf(
                 "mkdir -p %s/disk && mount -t tmpfs -o size=25m none %s/disk && { %s; test $? = 1; } "
                 "&& ls %s/disk/%s >&2 && mount -o remount,size=300m %s/disk && %s && "
                 "cp -r %s/disk/%s %s/checkpoints",
                 test_folder, test_folder, line, test_folder, name, test_folder, line, test_folder, name,
                 test_folder);
        if (run_with_mounts(script, 0)) {
            expect_said("No space left on device");
            expect_said("the last checkpoint could not be saved");
            expect_said("\nstep_0\nstep_3\n"); // nothing half made behind them
            expect_said("step_3: update 4 of epoch 1, bit for bit");
            expect_same_bits(name, "whole");
        }
        free(script);
        free(line);
        free(flags);
    }
}

static void test_read_only_disk(void **state) {
    (void)state;
    static const char *const flags[] = {"", "--dry_run"};
    for (size_t i = 0; i < 2; i++) {
        char *line = train_on_disk("read_only", flags[i]),
             *script = mem_printf("mkdir -p %s/disk && mount -t tmpfs -o ro none %s/disk && %s", test_folder,
                                  test_folder, line);
        if (run_with_mounts(script, 1)) {
            expect_said("/disk");
            expect_said("Read-only file system");
        }
        free(script);
        free(line);
    }
}

// ---- without a name ----

// `--resume auto` without --run_name goes on with the run that was saved last, in its folder; where there is
// none a run begins.
static void test_auto_without_a_name(void **state) {
    (void)state;
    char *copy = mem_printf(
        "mkdir -p %s/auto/old %s/auto/young && cp -r %s/checkpoints/whole/step_3 %s/auto/old && "
        "cp -r %s/checkpoints/whole/step_9 %s/auto/young && touch %s/auto/young/step_9/" RESUME_TRAINER_FILE,
        test_folder, test_folder, test_folder, test_folder, test_folder, test_folder, test_folder);
    assert_int_equal(system(copy), 0);
    free(copy);
    for (int empty = 0; empty < 2; empty++) {
        char *more = mem_printf("--resume auto --vlm_checkpoint_path %s/%s --max_training_steps %d",
                                test_folder, empty ? "nothing" : "auto", empty ? 1 : 24),
             *line = train_line("", more), *name = strstr(line, "--run_name "),
             *rest = name + strlen("--run_name ");
        memmove(name, rest, strlen(rest) + 1);
        expect_status(start(line), EXIT_DONE);
        empty ? expect_said("run nanoVLM_") : expect_said("/auto/young/step_9: update 10 of epoch ");
        free(line);
        free(more);
    }
    char *compare = mem_printf("cmp %s/auto/young/step_23/model.safetensors %s/checkpoints/whole/step_23/"
                               "model.safetensors && ! test -e %s/auto/old/step_23",
                               test_folder, test_folder, test_folder);
    assert_int_equal(system(compare), 0);
    free(compare);
}

// ---- the files ----

static void test_damaged_state(void **state) {
    (void)state;
    char *text = program_read_text(in_run("whole", "step_3/" RESUME_TRAINER_FILE));
    const size_t n = strlen(text);
    const char *path = in_test_folder("trainer.json");
    RunState s;
    Error err;
    for (size_t cut = 0; cut < n; cut += 1 + cut % 7) {
        assert_true(file_write_text(path, text, cut, &err));
        if (cut + 2 < n) assert_false(run_state_read(&s, path, &err));
    }
    unsigned seed = 3;
    for (int i = 0; i < 300; i++) {
        const size_t at = (size_t)rand_r(&seed) % n;
        const char old = text[at];
        text[at] = (char)rand_r(&seed);
        assert_true(file_write_text(path, text, n, &err));
        run_state_read(&s, path, &err); // an error or a number, nothing worse
        text[at] = old;
    }
    free(text);
}

// ---- program ----

static int make_data(void **state) {
    (void)state;
    return make_small_run_data(120);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_killed_at_random),
        cmocka_unit_test(test_stopped_by_signals),
        cmocka_unit_test(test_job_queues_itself_again),
        cmocka_unit_test(test_finds_the_newest_complete_one),
        cmocka_unit_test(test_what_may_change_freely),
        cmocka_unit_test(test_what_changes_the_bits),
        cmocka_unit_test(test_short_moments),
        cmocka_unit_test(test_what_is_refused),
        cmocka_unit_test(test_weights_only),
        cmocka_unit_test(test_full_disk),
        cmocka_unit_test(test_read_only_disk),
        cmocka_unit_test(test_auto_without_a_name),
        cmocka_unit_test(test_damaged_state),
    };
    return cmocka_run_group_tests(tests, make_data, remove_test_folder);
}
