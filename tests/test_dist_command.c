// LINK: train
// RUNS: vlm
// COST: 80
// `vlm train` as several ranks: the same log from the same ranks, a signal to one stops all with the work
// saved, a resume goes on to the same bits, another number of ranks goes on too, and a rank that dies or
// cannot begin ends the others with its name.
#include "base/file.h"
#include "base/memory.h"
#include "dist/transport.h"
#include "support/folders.h"
#include "support/golden.h"
#include "support/program.h"
#include "support/ranks.h"
#include "support/sanitized.h"

#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static char *folder, *tokenizer;

// ---- ranks of vlm train ----

typedef struct Ranks {
    size_t n;
    pid_t children[4];
    int ends[4];
} Ranks;

static char *output_of(size_t rank) { // caller frees
    return mem_printf("%s/out%zu", folder, rank);
}

static void leave_it_to_the_program(int signal_number) {
    (void)signal_number;
}

// Narrower still under the sanitizers, where a step of the preset takes many times as long.
#define NARROW                                                                                               \
    "--vit_hidden_dim 64 --vit_inter_dim 128 --vit_n_heads 2 --lm_hidden_dim 96 --lm_inter_dim 192 "         \
    "--lm_n_heads 3 --lm_n_kv_heads 1 "

static char *line_of(const char *run, const char *flags, const char *rank_flags) { // caller frees
    return mem_printf(
        "train --preset tiny --vit_n_blocks 1 --lm_n_blocks 1 --lm_max_length 128 --max_sample_length 128 "
        "--val_size 40 --batch_size 2 --gradient_accumulation_steps 2 --eval_interval 4 --threads 1 "
        "--max_training_steps 16 --stats_log_interval 3 --comm_timeout 0.5 --train_dataset_path "
        "%s/data/train --vlm_checkpoint_path %s/runs --lm_tokenizer %s --run_name %s %s%s%s",
        folder, folder, tokenizer, run, SANITIZED ? NARROW : "", flags, rank_flags);
}

// rank_flags: more flags for the last rank alone.
static Ranks start(size_t n, const char *run, const char *flags, const char *rank_flags) {
    Ranks r = {.n = n};
    const int port = free_port();
    for (size_t i = 0; i < n; i++) {
        char *line = line_of(run, flags, i + 1 == n ? rank_flags : "");
        fflush(NULL);
        r.children[i] = fork();
        assert_true(r.children[i] >= 0);
        if (r.children[i] == 0) {
            char *words[80], *rest = line, *out = output_of(i), number[32];
            size_t count = 0;
            for (char *word = strtok_r(rest, " ", &rest); word; word = strtok_r(rest, " ", &rest))
                words[count++] = word;
            words[count] = NULL;
            snprintf(number, sizeof number, "%zu", i), setenv("RANK", number, 1);
            snprintf(number, sizeof number, "%zu", n), setenv("WORLD_SIZE", number, 1);
            snprintf(number, sizeof number, "%d", port), setenv("MASTER_PORT", number, 1);
            setenv("MASTER_ADDR", "127.0.0.1", 1);
            setpgid(0, 0);
            signal(SIGTERM, leave_it_to_the_program);
            _exit(program_run_into(words, "/dev/null", out));
        }
        setpgid(r.children[i], r.children[i]);
        free(line);
    }
    return r;
}

static void finish(Ranks *r) {
    for (size_t i = 0; i < r->n; i++) r->ends[i] = end_of(r->children[i]);
}

static void expect_ends(const Ranks *r, int status) {
    for (size_t i = 0; i < r->n; i++) {
        char *path = output_of(i), *text = program_read_text(path);
        if (r->ends[i] != status) fail_msg("rank %zu of %zu ended with %d: %s", i, r->n, r->ends[i], text);
        free(text);
        free(path);
    }
}

static void expect_said(size_t rank, const char *part) {
    char *path = output_of(rank), *text = program_read_text(path);
    EXPECT_IN(text, part);
    free(text);
    free(path);
}

static void run(size_t n, const char *name, const char *flags) {
    Ranks r = start(n, name, flags, "");
    finish(&r);
    expect_ends(&r, 0);
}

static size_t count_lines(const char *run_name) {
    char *path = mem_printf("%s/runs/%s/log.jsonl", folder, run_name);
    FILE *f = fopen(path, "r");
    size_t n = 0;
    for (int c; f && (c = getc(f)) != EOF;) n += c == '\n';
    if (f) fclose(f);
    free(path);
    return n;
}

// Waits until the run has logged so many lines.
static void wait_for_lines(const char *run_name, size_t n) {
    for (int i = 0; i < 6000 && count_lines(run_name) < n; i++) usleep(5000);
    assert_true(count_lines(run_name) >= n);
}

// ---- comparing ----

static bool is_time(const char *key) {
    return strstr(key, "time") || strstr(key, "second") || strstr(key, "duration");
}

static json_t *log_of(const char *run_name) {
    char *path = mem_printf("%s/runs/%s/log.jsonl", folder, run_name), *text = program_read_text(path),
         *rest = text;
    json_t *lines = json_array();
    for (char *l = strtok_r(rest, "\n", &rest); l; l = strtok_r(rest, "\n", &rest)) {
        json_t *line = json_loads(l, 0, NULL), *value;
        const char *key;
        void *next;
        assert_non_null(line);
        json_object_foreach_safe(line, next, key, value) if (is_time(key)) json_object_del(line, key);
        json_array_append_new(lines, line);
    }
    free(text);
    free(path);
    return lines;
}

static void expect_same_file(const char *a, const char *b, const char *name) {
    char *left = mem_printf("%s/runs/%s/step_15/%s", folder, a, name),
         *right = mem_printf("%s/runs/%s/step_15/%s", folder, b, name), *p, *q;
    size_t n, m;
    Error err;
    assert_true(file_read(&p, &n, left, &err) && file_read(&q, &m, right, &err));
    if (n != m || memcmp(p, q, n) != 0) fail_msg("%s and %s differ", left, right);
    free(p), free(q), free(left), free(right);
}

static void expect_same_run(const char *a, const char *b) {
    json_t *x = log_of(a), *y = log_of(b);
    for (size_t i = 0; i < json_array_size(x); i++) {
        const json_t *p = json_array_get(x, i), *q = json_array_get(y, i);
        if (!q || !json_equal(p, q))
            fail_msg("line %zu: %s and %s", i + 1, json_dumps(p, 0), q ? json_dumps(q, 0) : "none");
    }
    assert_int_equal(json_array_size(x), json_array_size(y));
    json_decref(x);
    json_decref(y);
    expect_same_file(a, b, "model.safetensors");
    expect_same_file(a, b, "state-rank0.safetensors");
}

// ---- tests ----

static void test_same_bits(void **state) {
    (void)state;
    run(2, "whole", "");
    run(2, "again", "--num_workers 2");
    expect_same_run("whole", "again");
}

// After test_same_bits. Shared moments: the same log, weights and saved moments, in the background or not,
// and after a resume of either kind from the other.
static void test_shared_moments(void **state) {
    (void)state;
    run(2, "shared", "--zero 1");
    expect_same_run("whole", "shared");
    for (int after = 0; after < 2; after++) {
        char *name = mem_printf("shared%d", after);
        Ranks r = start(2, name, after ? "--zero 0" : "--zero 1 --save_in_background false", "");
        wait_for_lines(name, 5);
        kill(-r.children[0], SIGTERM);
        finish(&r);
        expect_ends(&r, 128 + SIGTERM);
        run(2, name, after ? "--resume auto --zero 1" : "--resume auto --zero 0");
        expect_said(0, "bit for bit");
        expect_same_run("whole", name);
        free(name);
    }
}

// Moments as codes, which are saved in rows and not in the parameters' shapes.
static void test_shared_codes(void **state) {
    (void)state;
    run(2, "codes", "--moments int8");
    Ranks r = start(2, "shared_codes", "--moments int8 --zero 1", "");
    wait_for_lines("shared_codes", 5);
    kill(-r.children[0], SIGTERM);
    finish(&r);
    expect_ends(&r, 128 + SIGTERM);
    run(2, "shared_codes", "--moments int8 --zero 1 --resume auto");
    expect_said(0, "bit for bit");
    expect_same_run("codes", "shared_codes");
}

// After test_same_bits.
static void test_signal_and_resume(void **state) {
    (void)state;
    static const size_t lines[] = {2, 7};
    for (size_t i = 0; i < 2; i++) {
        char name[16];
        snprintf(name, sizeof name, "cut%zu", i);
        Ranks r = start(2, name, "", "");
        wait_for_lines(name, lines[i]);
        kill(-r.children[1], SIGTERM); // rank 1 alone
        finish(&r);
        expect_ends(&r, 128 + SIGTERM);
        run(2, name, "--resume auto");
        expect_said(0, "bit for bit");
        expect_same_run("whole", name);
    }
}

// One attempt, with moments shared or not, of which a rank is killed after a while: true when the run came
// through before. Whatever happens, both processes end, and one that was left alone fails.
static bool is_through(const char *name, size_t killed, useconds_t after, bool shared) {
    Ranks r =
        start(2, name,
              shared ? "--resume auto --comm_timeout 0.1 --zero 1" : "--resume auto --comm_timeout 0.1", "");
    usleep(after);
    kill(-r.children[killed], SIGKILL);
    finish(&r);
    const int other = r.ends[1 - killed];
    if (r.ends[killed] == 0 && other == 0) return true;
    if (other != 0 && other != 1) fail_msg("the rank left alone ended with %d", other);
    return false;
}

// After test_same_bits. VLM_KILLS: at least so many kills.
static void test_killed_ranks(void **state) {
    (void)state;
    unsigned seed = 2;
    size_t kills = 0, runs = 0;
    for (; kills < program_kills(3); runs++) {
        char name[32];
        snprintf(name, sizeof name, "killed%zu", runs);
        for (useconds_t longest = 600000;
             !is_through(name, (size_t)rand_r(&seed) % 2, (useconds_t)rand_r(&seed) % longest, kills % 2);
             kills++)
            longest += longest / 4;
        expect_same_run("whole", name);
    }
    print_message("%zu kills in %zu runs\n", kills, runs);
}

static void test_other_number_of_ranks(void **state) {
    (void)state;
    static const struct {
        const char *name;
        size_t before, after;
    } cases[] = {{"more", 2, 3}, {"fewer", 2, 1}, {"alone", 1, 2}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Ranks r = start(cases[i].before, cases[i].name, "", "");
        wait_for_lines(cases[i].name, 3);
        kill(-r.children[0], SIGTERM);
        finish(&r);
        expect_ends(&r, 128 + SIGTERM);
        run(cases[i].after, cases[i].name, "--resume auto");
        expect_said(0, "with another number of ranks");
        expect_said(0, "begins anew");
    }
}

// After test_same_bits. Through MPI the same bits as through sockets.
static void test_mpi(void **state) {
    (void)state;
    if (!transport_mpi_is_built_in() || system("command -v mpirun >/dev/null") != 0) {
        print_message("SKIPPED: training through MPI was NOT tested: no mpirun, or a build without MPI\n");
        skip();
    }
    char *line = line_of("mpi", "--zero 1", ""), *out = output_of(0), *vlm = program_path();
    char *command =
        mem_printf("ASAN_OPTIONS=${ASAN_OPTIONS:+$ASAN_OPTIONS:}detect_leaks=0 OMPI_ALLOW_RUN_AS_ROOT=1 "
                   "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 mpirun --oversubscribe --bind-to none -np 2 %s %s "
                   ">%s 2>&1",
                   vlm, line, out);
    if (system(command) != 0) fail_msg("%s: %s", command, program_read_text(out));
    expect_same_run("whole", "mpi");
    free(command);
    free(vlm);
    free(out);
    free(line);
}

// A rank dies: while training, while rank 0 saves and gathers moments, while validating.
static void test_death(void **state) {
    (void)state;
    static const char *const flags[] = {"",
                                        "--zero 1 --eval_interval 1 --val_size 0 --save_in_background false",
                                        "--eval_interval 1 --val_size 200"};
    for (size_t k = 0; k < sizeof flags / sizeof *flags; k++) {
        char *name = mem_printf("dead%zu", k), *all = mem_printf("--max_training_steps 100000 %s", flags[k]);
        Ranks r = start(3, name, all, "");
        wait_for_lines(name, 2);
        kill(-r.children[2], SIGKILL);
        finish(&r);
        for (size_t i = 0; i < 2; i++) {
            assert_int_equal(r.ends[i], 1);
            expect_said(i, "rank 2 is gone");
        }
        free(all);
        free(name);
    }
}

static char *rescued_in(const char *run_name) { // the folder; caller frees
    char *run_folder = mem_printf("%s/runs/%s", folder, run_name), *found = NULL;
    StringList list;
    Error err;
    assert_true(file_list(&list, run_folder, &err));
    for (size_t i = 0; i < list.count; i++)
        if (!strncmp(list.items[i], "rescued_", 8)) found = path_join(run_folder, list.items[i]);
    string_list_free(&list);
    free(run_folder);
    return found;
}

// What rank 0 saves when another one has died: no automatic resume takes it, but by its name it can be had.
static void test_rescue(void **state) {
    (void)state;
    Ranks r = start(2, "rescue", "--eval_interval 100000 --max_training_steps 100000", "");
    wait_for_lines("rescue", 4);
    kill(-r.children[1], SIGKILL);
    finish(&r);
    expect_said(0, "weights and moments of its last update are saved in");
    char *path = rescued_in("rescue");
    assert_non_null(path);
    run(2, "rescue", "--resume auto --max_training_steps 2");
    expect_said(0, "rescue/step_0");
    char *flags = mem_printf(
        "--resume_from_vlm_checkpoint true --vlm_checkpoint_path %s --max_training_steps 40", path);
    run(2, "onwards", flags);
    expect_said(0, "begins anew");
    expect_said(0, strrchr(path, '/') + 1);
    free(flags);
    free(path);
}

// When a rank hangs the others end when the time limit is over, and it learns that when it wakes up.
static void test_stopped_rank(void **state) {
    (void)state;
    Ranks r = start(3, "stopped", "--max_training_steps 100000 --comm_timeout 0.06", "");
    wait_for_lines("stopped", 2);
    kill(-r.children[1], SIGSTOP);
    r.ends[0] = end_of(r.children[0]);
    r.ends[2] = end_of(r.children[2]);
    kill(-r.children[1], SIGCONT);
    r.ends[1] = end_of(r.children[1]);
    expect_ends(&r, 1);
    expect_said(0, "no word from rank ");
    expect_said(0, "for 3.6 s (comm_timeout)");
}

static void test_rank_that_cannot_begin(void **state) {
    (void)state;
    Ranks r = start(2, "bad", "", " --lm_tokenizer /nowhere/at/all");
    finish(&r);
    expect_ends(&r, 1);
    expect_said(0, "given up, because rank 1: --lm_tokenizer: /nowhere/at/all");
}

static void test_other_settings(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {" --seed 5", "seed of rank 2 is 5, of rank 0 0"},
        {" --lm_rms_eps 0.25", "lm_rms_eps of rank 2 is 0.25, of rank 0 "},
        {" --lr_mp 0.5", "lr_mp of rank 2 is 0.5, of rank 0 "},
        {" --zero 1", "zero of rank 2 is 1, of rank 0 0"},
        {" --train_dataset_path DATA", "training data (rows, files) of rank 2 is [60, "},
        {" --val_dataset_path DATA", "validation data (rows, files) of rank 2 is [60, "},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *flags = mem_strdup(cases[i][0]), *data = strstr(flags, "DATA");
        if (data) *data = 0;
        char *all = data ? mem_printf("%s%s/other/train", flags, folder) : mem_strdup(flags);
        Ranks r = start(3, "other", "", all);
        finish(&r);
        expect_ends(&r, 1);
        for (size_t rank = 0; rank < 3; rank++) expect_said(rank, cases[i][1]);
        free(all);
        free(flags);
    }
}

static bool make_data(const char *name, int rows) {
    char *line = mem_printf("synth --out %s/%s --rows %d --test_rows 0 --seed 3", folder, name, rows);
    ProgramResult r = program_run(line);
    const int status = r.status;
    program_result_free(&r);
    free(line);
    return status == 0;
}

int main(void) {
    folder = program_temporary("ranks");
    tokenizer = golden_path("model/tokenizer");
    if (!make_data("data", 300) || !make_data("other", 60)) return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_bits),
        cmocka_unit_test(test_shared_moments),
        cmocka_unit_test(test_shared_codes),
        cmocka_unit_test(test_signal_and_resume),
        cmocka_unit_test(test_other_number_of_ranks),
        cmocka_unit_test(test_killed_ranks),
        cmocka_unit_test(test_mpi),
        cmocka_unit_test(test_death),
        cmocka_unit_test(test_rescue),
        cmocka_unit_test(test_stopped_rank),
        cmocka_unit_test(test_rank_that_cannot_begin),
        cmocka_unit_test(test_other_settings),
    };
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    remove_folder_tree(folder);
    free(folder);
    free(tokenizer);
    return failed;
}
