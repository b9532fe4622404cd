// LINK: dist
// COST: 29
// Ranks as processes of their own, through sockets and, where mpirun is there, through MPI: sums to the bit
// in the ring's order, the small things, and every way in which a rank can leave the others waiting.
#include "base/memory.h"
#include "base/random.h"
#include "dist/comm.h"
#include "dist/launch.h"
#include "dist/neighbours.h"
#include "dist/transport.h"
#include "support/golden.h"
#include "support/ranks.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// ---- what a rank does; it ends with 0, or 1 with the error's text as its report ----

static char report[2048];

#define DEMAND(condition)                                                                                    \
    do {                                                                                                     \
        if (!(condition)) {                                                                                  \
            snprintf(report, sizeof report, "line %d: not %s", __LINE__, #condition);                        \
            return false;                                                                                    \
        }                                                                                                    \
    } while (0)

static float value_of(size_t rank, size_t i) {
    Random r = random_stream(rank + 1, RANDOM_TEST, i);
    return (float)random_u32(&r) / 4.3e9f - 0.5f;
}

// The sum of part p begins with rank p.
static float ring_sum(size_t world, size_t n, size_t i, float factor) {
    size_t part = 0;
    while (i >= n / world * (part + 1) + (part + 1 < n % world ? part + 1 : n % world)) part++;
    float sum = value_of(part, i);
    for (size_t k = 1; k < world; k++) sum = sum + value_of((part + k) % world, i);
    return sum * factor;
}

static bool check_sum(Comm *c, size_t n, Error *err) {
    const size_t world = comm_world_size(c);
    const float factor = 1.0f / (float)world;
    float *x = mem_alloc((n + 1) * sizeof *x);
    for (size_t i = 0; i < n; i++) x[i] = value_of(comm_rank(c), i);
    comm_sum_start(c, x, n, factor, "gradients");
    DEMAND(comm_wait(c, err));
    for (size_t i = 0; i < n; i++) DEMAND(x[i] == ring_sum(world, n, i, factor));
    free(x);
    return true;
}

static bool check_share(Comm *c, Error *err) { // parts of 0, 1, 2, … values
    const size_t world = comm_world_size(c), rank = comm_rank(c);
    size_t first[16] = {0};
    float x[64] = {0};
    for (size_t r = 0; r < world; r++) first[r + 1] = first[r] + r;
    for (size_t i = first[rank]; i < first[rank + 1]; i++) x[i] = (float)i + 1;
    comm_share_start(c, x, first, "weights");
    DEMAND(comm_wait(c, err));
    for (size_t i = 0; i < 64; i++) DEMAND(x[i] == (i < first[world] ? (float)i + 1 : 0));
    return true;
}

static bool check_small(Comm *c, Error *err) {
    const size_t world = comm_world_size(c), rank = comm_rank(c);
    const double last = (double)world - 1;
    double x[4][2];
    for (int k = 0; k < 4; k++) x[k][0] = (double)rank, x[k][1] = -(double)rank;
    for (int k = 0; k < 4; k++) DEMAND(comm_combine(c, x[k], 2, (CommCombine)k, "numbers", err));
    DEMAND(x[COMM_SUM][0] == last * (double)world / 2 && x[COMM_MEAN][0] == last / 2);
    DEMAND(x[COMM_MIN][0] == 0 && x[COMM_MIN][1] == -last && x[COMM_MAX][0] == last && x[COMM_MAX][1] == 0);
    bool any = rank + 1 == world, all = rank + 1 != world, none = false, every = true;
    DEMAND(comm_any(c, &any, "any", err) && comm_all(c, &all, "all", err));
    DEMAND(comm_any(c, &none, "any", err) && comm_all(c, &every, "all", err));
    DEMAND(any && !all && !none && every);
    char word[8] = "", words[8][8] = {""};
    if (rank == 0) strcpy(word, "hello");
    DEMAND(comm_broadcast(c, word, sizeof word, "a word", err) && !strcmp(word, "hello"));
    snprintf(word, sizeof word, "rank %zu", rank);
    DEMAND(comm_gather(c, word, sizeof word, words, "words", err));
    for (size_t r = 0; rank == 0 && r < world; r++) DEMAND(words[r][5] == (char)('0' + r));
    return comm_barrier(c, "the end", err);
}

// Two and two with the same processors: they share the threads, and none is without.
static bool check_neighbours(Comm *c, Error *err) {
    const size_t world = comm_world_size(c), rank = comm_rank(c);
    const bool alone = rank % 2 == 0 && rank + 1 == world;
    Neighbours n;
    DEMAND(neighbours_find(&n, c, (Cores){.set = rank / 2}, err));
    DEMAND(n.count == (alone ? 1 : 2) && n.before == rank % 2);
    DEMAND(neighbours_share(n, 5) == (alone ? 5 : rank % 2 ? 2 : 3));
    DEMAND(neighbours_share(n, 1) == 1);
    DEMAND(neighbours_find(&n, c, (Cores){.set = 7}, err) && n.count == world && n.before == rank);
    return true;
}

static bool works(Comm *c, Error *err) {
    static const size_t sizes[] = {0, 1, 3, 4, 1023, 4097, 70001};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if (!check_sum(c, sizes[i], err)) return false;
    float many[100]; // many at once
    for (int i = 0; i < 100; i++) many[i] = (float)i;
    for (int i = 0; i < 100; i += 10) comm_sum_start(c, many + i, 10, 1, "gradients");
    DEMAND(comm_wait(c, err));
    for (int i = 0; i < 100; i++) DEMAND(many[i] == (float)i * (float)comm_world_size(c));
    return check_share(c, err) && check_neighbours(c, err) && check_small(c, err);
}

// Larger than the scratch memory of a segment.
static bool sums_large(Comm *c, Error *err) {
    const size_t n = (size_t)5 << 20;
    float *x = mem_alloc(n * sizeof *x);
    for (size_t i = 0; i < n; i++) x[i] = (float)(comm_rank(c) + i % 1000);
    comm_sum_start(c, x, n, 1, "gradients");
    DEMAND(comm_wait(c, err));
    const size_t world = comm_world_size(c);
    for (size_t i = 0; i < n; i++) DEMAND(x[i] == (float)(world * (world - 1) / 2 + world * (i % 1000)));
    DEMAND(comm_costs(c).bytes == 2 * (world - 1) * n / world * 4);
    free(x);
    return true;
}

static bool sum_again(Comm *c, Error *err) {
    float x[1000] = {0};
    comm_sum_start(c, x, 1000, 1, "gradients");
    return comm_wait(c, err);
}

static bool is_last(Comm *c) {
    return comm_rank(c) + 1 == comm_world_size(c);
}

static bool one_dies(Comm *c, Error *err) {
    if (!sum_again(c, err)) return false;
    if (is_last(c)) kill(getpid(), SIGKILL);
    while (sum_again(c, err)) {
    }
    return false;
}

static bool one_gives_up(Comm *c, Error *err) {
    if (!sum_again(c, err)) return false;
    if (is_last(c)) return error_set(err, "row 7 is bad");
    while (sum_again(c, err)) {
    }
    return false;
}

static bool one_is_silent(Comm *c, Error *err) {
    bool all = true;
    if (!sum_again(c, err)) return false;
    if (is_last(c)) sleep(3);
    return comm_all(c, &all, "agreement on the next batch", err);
}

static bool one_is_elsewhere(Comm *c, Error *err) {
    double x = 1;
    return comm_combine(c, &x, 1, COMM_SUM, is_last(c) ? "validation loss" : "losses", err);
}

static const struct {
    const char *name;
    bool (*run)(Comm *c, Error *err);
    double timeout;
} scenes[] = {
    {"works", works, 60},
    {"sums_large", sums_large, 60},
    {"one_dies", one_dies, 60},
    {"one_gives_up", one_gives_up, 60},
    {"one_is_silent", one_is_silent, 1},
    {"one_is_elsewhere", one_is_elsewhere, 60},
    {"one_is_missing", works, 1},
};

static int be_a_rank(const char *scene, const char *folder) {
    Comm *c;
    Error err = {""};
    Launch launch = {0};
    size_t s = 0;
    while (strcmp(scenes[s].name, scene)) s++;
    bool ok = launch_read(&launch, &err) && comm_open(&c, scenes[s].timeout, &err), open = ok;
    ok = ok && scenes[s].run(c, &err);
    snprintf(report + strlen(report), sizeof report - strlen(report), "%s%s", ok ? "fine" : "", err.text);
    ranks_report(folder, launch.rank, report);
    if (open && !ok) comm_give_up(c, err.text);
    if (ok && !comm_close(c, &err)) snprintf(report, sizeof report, "%s", err.text), ok = false;
    if (open) ranks_report(folder, launch.rank, report);
    return ok ? 0 : 1;
}

// ---- tests ----

static void test_sockets(void **state) {
    (void)state;
    for (size_t size = 2; size <= 5; size++) {
        const World w = run_sockets("works", size);
        expect_fine(&w);
    }
    const World w = run_sockets("sums_large", 3);
    expect_fine(&w);
}

static void test_death(void **state) {
    (void)state;
    for (size_t size = 2; size <= 4; size += 2) {
        const World w = run_sockets("one_dies", size);
        assert_int_equal(w.ends[size - 1], -SIGKILL);
        expect_failed(&w, size == 2 ? "rank 1 is gone" : "rank 3 is gone", "gradients");
    }
}

static void test_giving_up(void **state) {
    (void)state;
    for (size_t size = 2; size <= 4; size += 2) {
        const World w = run_sockets("one_gives_up", size);
        expect_failed(&w, "given up, because", size == 2 ? "rank 1: row 7 is bad" : "rank 3: row 7 is bad");
        assert_int_equal(w.ends[size - 1], 1);
    }
}

static void test_silence(void **state) {
    (void)state;
    const World w = run_sockets("one_is_silent", 3);
    expect_failed(&w, "agreement on the next batch: no word from rank 2 for 1 s (comm_timeout)", "rank");
    assert_int_equal(w.ends[2], 1); // it learns it when it wakes up
    EXPECT_IN(w.reports[2], "no word from rank 2");
}

static void test_different_places(void **state) {
    (void)state;
    const World w = run_sockets("one_is_elsewhere", 3);
    expect_failed(&w, "rank 2 is at \"validation loss\"", "losses");
}

static void test_missing_rank(void **state) {
    (void)state;
    World w;
    open_world(&w, 3);
    const int port = free_port();
    for (size_t r = 0; r < 2; r++) w.children[r] = start_rank(&w, "one_is_missing", r, 3, port);
    for (size_t r = 0; r < 2; r++) w.ends[r] = end_of(w.children[r]);
    read_reports(&w);
    expect_failed(&w, "meeting the other ranks", "of 3");
}

static void test_other_world_size(void **state) {
    (void)state;
    World w;
    open_world(&w, 2);
    const int port = free_port();
    for (size_t r = 0; r < 2; r++) w.children[r] = start_rank(&w, "works", r, r == 0 ? 2 : 3, port);
    for (size_t r = 0; r < 2; r++) w.ends[r] = end_of(w.children[r]);
    read_reports(&w);
    expect_failed(&w, "rank 1 says the world has 3 ranks, expected 2", "meeting");
}

static void test_one_rank(void **state) {
    (void)state;
    Comm *c;
    Error err = {""};
    float x = 3, all[1];
    bool flag = true;
    assert_true(comm_open(&c, 1, &err));
    assert_null(c);
    assert_true(comm_rank(c) == 0 && comm_world_size(c) == 1 && comm_is_first(c));
    comm_sum_start(c, &x, 1, 1, "x");
    assert_true(comm_wait(c, &err) && x == 3);
    assert_true(comm_gather(c, &x, sizeof x, all, "x", &err) && all[0] == 3);
    assert_true(comm_any(c, &flag, "x", &err) && flag && comm_all(c, &flag, "x", &err) && flag);
    assert_true(comm_close(c, &err));
    comm_give_up(c, "nobody listens");
}

// ---- launchers' environments ----

static const char *const launcher_variables[] = {"RANK",
                                                 "WORLD_SIZE",
                                                 "LOCAL_RANK",
                                                 "MASTER_ADDR",
                                                 "MASTER_PORT",
                                                 "SLURM_PROCID",
                                                 "SLURM_STEP_NUM_TASKS",
                                                 "SLURM_LOCALID",
                                                 "SLURM_JOB_ID",
                                                 "SLURM_STEP_NODELIST",
                                                 "SLURM_JOB_NODELIST",
                                                 "SLURM_NTASKS",
                                                 "OMPI_COMM_WORLD_RANK",
                                                 "OMPI_COMM_WORLD_SIZE",
                                                 "LOCAL_WORLD_SIZE",
                                                 "PMIX_RANK",
                                                 "TORCHELASTIC_USE_AGENT_STORE"};

static void forget_launchers(void) {
    for (size_t i = 0; i < sizeof launcher_variables / sizeof *launcher_variables; i++)
        unsetenv(launcher_variables[i]);
}

// assignments: "A=1 B=2"
static bool launch_with(const char *assignments, Launch *l, Error *err) {
    forget_launchers();
    char *copy = mem_strdup(assignments), *rest = copy;
    for (char *word = strtok_r(rest, " ", &rest); word; word = strtok_r(rest, " ", &rest)) {
        char *equals = strchr(word, '=');
        *equals = 0;
        setenv(word, equals + 1, 1);
    }
    const bool ok = launch_read(l, err);
    free(copy);
    forget_launchers();
    return ok;
}

static void test_launchers(void **state) {
    (void)state;
    Launch l;
    Error err;
    assert_true(launch_with("", &l, &err) && l.world_size == 1 && l.rank == 0);
    assert_true(launch_with("RANK=0 WORLD_SIZE=1", &l, &err) && l.world_size == 1);
    assert_true(launch_with("RANK=5 WORLD_SIZE=8 LOCAL_RANK=1 MASTER_ADDR=a MASTER_PORT=29500", &l, &err));
    assert_true(l.rank == 5 && l.world_size == 8 && l.local_rank == 1 && !l.mpi);
    assert_string_equal(l.port, "29500");
    assert_true(launch_with("RANK=1 WORLD_SIZE=2 MASTER_ADDR=a MASTER_PORT=29500 "
                            "TORCHELASTIC_USE_AGENT_STORE=True",
                            &l, &err));
    assert_string_equal(l.port, "29501");
    assert_true(launch_with("SLURM_PROCID=3 SLURM_STEP_NUM_TASKS=4 SLURM_LOCALID=1 SLURM_JOB_ID=7 "
                            "SLURM_STEP_NODELIST=gpu[03-04,9],x",
                            &l, &err));
    assert_true(l.rank == 3 && l.world_size == 4 && l.local_rank == 1);
    assert_string_equal(l.address, "gpu03");
    assert_string_equal(l.port, "20007");
    assert_true(launch_with("SLURM_PROCID=0 SLURM_STEP_NUM_TASKS=2 SLURM_STEP_NODELIST=a,b", &l, &err));
    assert_string_equal(l.address, "a");
    static const char *const lists[][2] = {{"n1", "n1"},
                                           {"n[1-3]", "n1"},
                                           {"n[08,11-12]", "n08"},
                                           {"rack1-n[2,4],x", "rack1-n2"},
                                           {"x,y[1-2]", "x"}};
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        char set[160];
        snprintf(set, sizeof set,
                 "SLURM_PROCID=1 SLURM_STEP_NUM_TASKS=2 SLURM_LOCALID=0 SLURM_JOB_NODELIST=%s", lists[i][0]);
        assert_true(launch_with(set, &l, &err));
        assert_string_equal(l.address, lists[i][1]);
    }
    // in a batch script outside srun there is one process, whatever the job was given
    assert_true(launch_with("SLURM_PROCID=0 SLURM_NTASKS=4 SLURM_JOB_NODELIST=a", &l, &err));
    assert_int_equal(l.world_size, 1);
    if (transport_mpi_is_built_in())
        assert_true(launch_with("OMPI_COMM_WORLD_RANK=1 OMPI_COMM_WORLD_SIZE=2", &l, &err) && l.mpi);
}

static void test_launchers_gone_wrong(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {"RANK=1", "WORLD_SIZE is \"\""},
        {"WORLD_SIZE=2", "RANK is \"\""},
        {"RANK=2 WORLD_SIZE=2", "RANK is 2, expected less than WORLD_SIZE"},
        {"RANK=x WORLD_SIZE=2", "RANK is \"x\""},
        {"RANK=-1 WORLD_SIZE=2", "RANK is \"-1\""},
        {"RANK=0 WORLD_SIZE=99999999999999999999", "WORLD_SIZE is \"9999"},
        {"RANK=0 WORLD_SIZE=0", "expected less than WORLD_SIZE, which is 0"},
        {"RANK=0 WORLD_SIZE=2", "MASTER_ADDR is not set"},
        {"RANK=0 WORLD_SIZE=2 MASTER_ADDR=a", "MASTER_PORT is \"\""},
        {"RANK=0 WORLD_SIZE=2 MASTER_ADDR=a MASTER_PORT=65535", "MASTER_PORT is \"65535\""},
        {"RANK=0 WORLD_SIZE=2 LOCAL_RANK=q MASTER_ADDR=a MASTER_PORT=1", "LOCAL_RANK is \"q\""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Launch l;
        Error err;
        assert_false(launch_with(cases[i][0], &l, &err));
        EXPECT_IN(err.text, cases[i][1]);
    }
}

// ---- the same through MPI ----

static bool has_mpirun(void) {
    return transport_mpi_is_built_in() && system("command -v mpirun >/dev/null 2>&1") == 0;
}

static void test_mpi(void **state) {
    (void)state;
    if (!has_mpirun()) {
        printf("no MPI in this build or no mpirun here: not tested\n");
        skip();
    }
    for (size_t size = 2; size <= 4; size += 2) {
        const World w = run_mpi("works", size);
        expect_fine(&w);
    }
}

// A rank that gives up leaves the others a second to hear it, and then ends the job. Where the machine is so
// busy that they came to nothing in it, once more.
static void expect_heard(const char *scene, size_t size, const char *words) {
    enum { ATTEMPTS = 5 };
    for (int attempt = 1;; attempt++) {
        const World w = run_mpi(scene, size);
        bool heard = true;
        assert_true(w.ends[0] != 0);
        for (size_t r = 0; r + 1 < size; r++) heard &= strstr(w.reports[r], words) != NULL;
        if (heard) return;
        for (size_t r = 0; attempt == ATTEMPTS && r + 1 < size; r++) EXPECT_IN(w.reports[r], words);
    }
}

static void test_mpi_failures(void **state) {
    (void)state;
    if (!has_mpirun()) skip();
    expect_heard("one_gives_up", 3, "given up, because rank 2: row 7 is bad");
    expect_heard("one_is_silent", 2, "no word from rank 1 for 1 s (comm_timeout)");
    const World w = run_mpi("one_dies", 2); // mpirun itself ends the others
    assert_true(w.ends[0] != 0);
}

int main(int argc, char **argv) {
    if (argc == 4 && !strcmp(argv[1], "--rank")) return be_a_rank(argv[2], argv[3]);
    forget_launchers();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sockets),
        cmocka_unit_test(test_death),
        cmocka_unit_test(test_giving_up),
        cmocka_unit_test(test_silence),
        cmocka_unit_test(test_different_places),
        cmocka_unit_test(test_missing_rank),
        cmocka_unit_test(test_other_world_size),
        cmocka_unit_test(test_one_rank),
        cmocka_unit_test(test_launchers),
        cmocka_unit_test(test_launchers_gone_wrong),
        cmocka_unit_test(test_mpi),
        cmocka_unit_test(test_mpi_failures),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
