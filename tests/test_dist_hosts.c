// LINK: dist
// Ranks on two hosts: network namespaces joined by a cable (veth), two ranks in each. They work, also when
// the cable is out for a moment, and when it stays out all end by themselves with the name of a rank. Needs
// root and iproute2; without, the tests say that they are skipped.
#include "base/memory.h"
#include "dist/comm.h"
#include "dist/launch.h"
#include "support/golden.h"
#include "support/ranks.h"

#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { N_RANKS = 4, VALUES = 100000 };

// ---- what a rank does ----

static bool sum(Comm *c, Error *err) {
    static float x[VALUES];
    const size_t world = comm_world_size(c);
    for (size_t i = 0; i < VALUES; i++) x[i] = (float)(comm_rank(c) + i % 100);
    comm_sum_start(c, x, VALUES, 1, "gradients");
    if (!comm_wait(c, err)) return false;
    for (size_t i = 0; i < VALUES; i++)
        if (x[i] != (float)(world * (world - 1) / 2 + world * (i % 100)))
            return error_set(err, "sum %zu is %g", i, (double)x[i]);
    return true;
}

static bool works(Comm *c, const char *folder, Error *err) {
    for (int i = 0; i < 200; i++) {
        if (!sum(c, err) || !comm_barrier(c, "a step", err)) return false;
        if (i == 0 && comm_is_first(c)) ranks_report(folder, 9, "begun");
    }
    return true;
}

static bool goes_on(Comm *c, const char *folder, Error *err) {
    while (sum(c, err) && comm_barrier(c, "a step", err))
        if (comm_is_first(c)) ranks_report(folder, 9, "begun");
    return false;
}

static int be_a_rank(const char *scene, const char *folder) {
    Comm *c;
    Error err = {""};
    Launch launch = {0};
    const double timeout = !strcmp(scene, "goes_on") ? 1 : 60;
    alarm(100); // what hangs is no pass
    bool ok = launch_read(&launch, &err) && comm_open(&c, timeout, &err);
    if (ok && !(ok = (timeout > 1 ? works : goes_on)(c, folder, &err)))
        comm_give_up(c, err.text);
    else if (ok)
        ok = comm_close(c, &err);
    ranks_report(folder, launch.rank, ok ? "fine" : err.text);
    return ok ? 0 : 1;
}

// ---- hosts ----

typedef struct Hosts {
    char names[2][32];
    int home;
} Hosts;

static bool shell(const char *format, ...) __attribute__((format(printf, 1, 2)));
static bool shell(const char *format, ...) {
    char line[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    return system(line) == 0;
}

static void close_hosts(Hosts *h) {
    for (int i = 0; i < 2; i++) shell("ip netns del %s >/dev/null 2>&1", h->names[i]);
    close(h->home);
}

// Two namespaces with 10.77.0.1 and 10.77.0.2.
static bool open_hosts(Hosts *h) {
    h->home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    for (int i = 0; i < 2; i++) snprintf(h->names[i], sizeof h->names[i], "vlm%d%c", (int)getpid(), 'a' + i);
    bool ok = geteuid() == 0 && shell("command -v ip >/dev/null");
    for (int i = 0; i < 2; i++) ok = ok && shell("ip netns add %s 2>/dev/null", h->names[i]);
    ok = ok && shell("ip -n %s link add cable type veth peer name cable netns %s", h->names[0], h->names[1]);
    for (int i = 0; i < 2; i++)
        ok = ok && shell("ip -n %s link set lo up && ip -n %s addr add 10.77.0.%d/24 dev cable && "
                         "ip -n %s link set cable up",
                         h->names[i], h->names[i], i + 1, h->names[i]);
    if (ok) return true;
    close_hosts(h);
    print_message(
        "SKIPPED: ranks on several hosts were NOT tested: network namespaces need root, the right to "
        "make them, and iproute2 (scripts/setup.sh installs it)\n");
    return false;
}

static void enter(int namespace) {
    if (setns(namespace, CLONE_NEWNET) != 0) fail_msg("setns");
}

static World start_all(const Hosts *h, const char *scene) {
    World w;
    open_world(&w, N_RANKS);
    w.master = "10.77.0.1";
    for (size_t r = 0; r < N_RANKS; r++) {
        char path[64];
        snprintf(path, sizeof path, "/run/netns/%s", h->names[r / 2]);
        const int there = open(path, O_RDONLY | O_CLOEXEC);
        assert_true(there >= 0);
        enter(there);
        w.children[r] = start_rank(&w, scene, r, N_RANKS, 29500);
        enter(h->home);
        close(there);
    }
    return w;
}

static void pull_cable(const Hosts *h, bool out) {
    assert_true(shell("ip -n %s link set cable %s", h->names[1], out ? "down" : "up"));
}

static void wait_until_begun(const World *w) {
    char *begun = mem_printf("%s/9", w->folder);
    for (int i = 0; i < 4000 && access(begun, F_OK) != 0; i++) usleep(5000);
    assert_int_equal(access(begun, F_OK), 0);
    free(begun);
}

static void finish(World *w) {
    for (size_t r = 0; r < N_RANKS; r++) w->ends[r] = end_of(w->children[r]);
    char *begun = mem_printf("%s/9", w->folder);
    unlink(begun);
    free(begun);
    read_reports(w);
}

// ---- tests ----

// What was on the cable while it was out is lost and sent again.
static void test_two_hosts(void **state) {
    (void)state;
    Hosts h;
    if (!open_hosts(&h)) skip();
    World w = start_all(&h, "works");
    wait_until_begun(&w);
    pull_cable(&h, true);
    usleep(100000);
    pull_cable(&h, false);
    finish(&w);
    close_hosts(&h);
    expect_fine(&w);
}

static void test_cut_cable(void **state) {
    (void)state;
    Hosts h;
    if (!open_hosts(&h)) skip();
    World w = start_all(&h, "goes_on");
    wait_until_begun(&w);
    pull_cable(&h, true);
    finish(&w);
    close_hosts(&h);
    for (size_t r = 0; r < N_RANKS; r++) {
        assert_int_equal(w.ends[r], 1);
        if (!strstr(w.reports[r], "no word from rank ") && !strstr(w.reports[r], "is gone"))
            fail_msg("rank %zu: %s", r, w.reports[r]);
    }
}

int main(int argc, char **argv) {
    if (argc == 4 && !strcmp(argv[1], "--rank")) return be_a_rank(argv[2], argv[3]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_two_hosts),
        cmocka_unit_test(test_cut_cable),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
