// LINK: base OpenMP::OpenMP_C
// How many threads compute: quotas of control groups of both versions, wherever on the way up they are set,
// and files that say nothing sensible. Where OpenMP binds threads, those of operators have a place each and
// all others stay free.
#include "support/folders.h"
#include "support/golden.h"

#include "base/cores.h"
#include "base/file.h"
#include "base/memory.h"

#include <math.h>
#include <omp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static char *root;

static void put(const char *folder, const char *name, const char *text) {
    Error err;
    char *path = mem_printf("%s/%s", root, folder), *file = path_join(path, name);
    if (!file_make_folders(path, &err) || !file_write_text(file, text, strlen(text), &err))
        fail_msg("%s", err.text);
    free(file);
    free(path);
}

static void expect_quota(const char *groups, double expected) {
    const double got = cores_quota(root, groups);
    if (!(got == expected)) fail_msg("%s: %g instead of %g", groups, got, expected);
}

static void quotas_of_version_2(void **state) {
    (void)state;
    put("", "cpu.max", "max 100000\n");
    put("a/b", "cpu.max", "250000 100000\n");
    put("a/b/c", "cpu.max", "400000 100000\n");
    put("odd", "cpu.max", "many\n");
    put("zero", "cpu.max", "100000 0\n");
    put("empty", "cpu.max", "");
    expect_quota("0::/a/b/c\n", 2.5); // the group above it has less
    expect_quota("0::/a/b", 2.5);
    expect_quota("0::/a", INFINITY);
    expect_quota("0::/a/b/not_here/at_all\n", 2.5);
    expect_quota("0::/\n", INFINITY);
    expect_quota("0::/odd\n", INFINITY);
    expect_quota("0::/zero\n", INFINITY);
    expect_quota("0::/empty\n", INFINITY);
    put("", "cpu.max", "50000 100000\n"); // a container sees its own group at the top
    expect_quota("0::/docker/1234567890\n", 0.5);
}

static void quotas_of_version_1(void **state) {
    (void)state;
    put("", "cpu.max", "max 100000\n");
    put("cpu,cpuacct/job", "cpu.cfs_quota_us", "300000\n");
    put("cpu,cpuacct/job", "cpu.cfs_period_us", "100000\n");
    put("cpu,cpuacct", "cpu.cfs_quota_us", "-1\n");
    put("cpu,cpuacct", "cpu.cfs_period_us", "100000\n");
    put("cpu/one", "cpu.cfs_quota_us", "100000\n");
    put("cpu/one", "cpu.cfs_period_us", "100000\n");
    put("cpu/half", "cpu.cfs_quota_us", "100000\n"); // no period
    expect_quota("4:memory:/job\n3:cpu,cpuacct:/job\n0::/\n", 3);
    expect_quota("3:cpu,cpuacct:/\n", INFINITY);
    expect_quota("1:cpuset:/one\n2:cpuacct:/one\n", INFINITY); // other controllers
    expect_quota("2:cpuacct:/\n1:cpu:/one/two\n", 1);
    expect_quota("1:cpu:/half\n", INFINITY);
}

// Whatever stands there, a number comes out.
static void memberships_that_make_no_sense(void **state) {
    (void)state;
    static const char text[] = "3:cpu,cpuacct:/job\n0::/a/b/c\n";
    expect_quota("", INFINITY);
    expect_quota("\n\n:::\n::\n:\n", INFINITY);
    for (size_t n = 0; n < sizeof text; n++) {
        char cut[sizeof text] = "";
        memcpy(cut, text, n);
        assert_true(cores_quota(root, cut) >= 0.5);
        cut[n / 2] = (char)(n % 7 ? ':' : '/');
        assert_true(cores_quota(root, cut) >= 0.5);
    }
    char longest[3000];
    memset(longest, '/', sizeof longest);
    memcpy(longest, "0::", 3);
    longest[sizeof longest - 1] = '\0';
    expect_quota(longest, INFINITY);
}

static void threads_follow_the_scarcer(void **state) {
    (void)state;
    static const struct {
        Cores cores;
        size_t threads;
    } cases[] = {
        {{8, 4, INFINITY, 0}, 4}, {{8, 4, 6.5, 0}, 4}, {{8, 4, 2.5, 0}, 2},
        {{8, 4, 1.999, 0}, 2},    {{8, 4, 0.3, 0}, 1}, {{1, 1, INFINITY, 0}, 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(cores_threads(cases[i].cores), cases[i].threads);
}

static void a_mask_is_respected(void **state) {
    (void)state;
    const Cores all = cores_here();
    cpu_set_t before, one;
    assert_true(all.cores >= 1 && all.cores <= all.processors && all.quota > 0);
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    CPU_ZERO(&one);
    for (int cpu = 0; CPU_COUNT(&one) == 0; cpu++)
        if (CPU_ISSET(cpu, &before)) CPU_SET(cpu, &one);
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
    const Cores bound = cores_here();
    assert_true(bound.processors == 1 && bound.cores == 1);
    assert_true((bound.set == all.set) == (all.processors == 1));
    assert_int_equal(sched_setaffinity(0, sizeof before, &before), 0);
    assert_true(cores_here().set == all.set);
}

static void *read_mask(void *mask) {
    CPU_ZERO((cpu_set_t *)mask);
    sched_getaffinity(0, sizeof(cpu_set_t), mask);
    return NULL;
}

// ---- this program again, with OMP_PROC_BIND or another variable; `processors` as counted without it ----

static int threads_have_a_place_each(cpu_set_t all) {
    const int n = omp_get_num_places();
    int odd = 0;
    cpu_set_t used;
    CPU_ZERO(&used);
#pragma omp parallel num_threads(n) reduction(+ : odd)
    {
        cpu_set_t mine, both;
        read_mask(&mine);
        CPU_AND(&both, &mine, &all);
#pragma omp critical
        {
            cpu_set_t again;
            CPU_AND(&again, &mine, &used);
            odd += !CPU_EQUAL(&both, &mine) || CPU_COUNT(&mine) == 0 || CPU_COUNT(&again) > 0;
            CPU_OR(&used, &used, &mine);
        }
    }
    return odd;
}

static int bound(size_t processors) {
    cpu_set_t mine, other;
    pthread_t thread;
    const Cores here = cores_here();
    read_mask(&mine);
    if (omp_get_num_places() < 1) return 2;
    if (here.processors != processors) return 3;
    if (processors > 1 && (size_t)CPU_COUNT(&mine) >= processors) return 4; // the variable did nothing
    if (cores_start_thread(&thread, read_mask, &other) || pthread_join(thread, NULL)) return 5;
    if ((size_t)CPU_COUNT(&other) != processors) return 6;
    return threads_have_a_place_each(other) ? 7 : 0;
}

static void bound_threads_leave_the_others_free(void **state) {
    (void)state;
    static const char *const variables[][2] = {
        {"OMP_PROC_BIND", "true"}, {"OMP_PROC_BIND", "close"}, {"OMP_PLACES", "threads"}};
    char processors[32];
    snprintf(processors, sizeof processors, "%zu", cores_here().processors);
    for (size_t i = 0; i < sizeof variables / sizeof *variables; i++) {
        int status;
        const pid_t child = fork();
        if (child == 0) {
            setenv(variables[i][0], variables[i][1], 1);
            execl("/proc/self/exe", "test_cores", "bound", processors, NULL);
            _exit(99);
        }
        assert_true(child > 0 && waitpid(child, &status, 0) == child);
        if (!WIFEXITED(status) || WEXITSTATUS(status))
            fail_msg("%s=%s: status %d", variables[i][0], variables[i][1], WEXITSTATUS(status));
    }
}

static int set_up(void **state) {
    (void)state;
    root = make_folder();
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    remove_folder(root);
    return 0;
}

int main(int argc, char **argv) {
    if (argc == 3) return bound((size_t)atol(argv[2]));
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(quotas_of_version_2),
        cmocka_unit_test(quotas_of_version_1),
        cmocka_unit_test(memberships_that_make_no_sense),
        cmocka_unit_test(threads_follow_the_scarcer),
        cmocka_unit_test(a_mask_is_respected),
        cmocka_unit_test(bound_threads_leave_the_others_free),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
