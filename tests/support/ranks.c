#include "support/ranks.h"
#include "support/golden.h"

#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

// Below the ports that connections get by themselves, of which one might take it before the rank that waits
// there does.
int free_port(void) {
    enum { FIRST = 20000, PORTS = 10000 };
    static unsigned seed;
    if (seed == 0) seed = (unsigned)getpid() + (unsigned)time(NULL);
    for (;;) {
        const int port = FIRST + rand_r(&seed) % PORTS, file = socket(AF_INET, SOCK_STREAM, 0);
        const struct sockaddr_in a = {.sin_family = AF_INET,
                                      .sin_port = htons((uint16_t)port),
                                      .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        assert_true(file >= 0);
        const bool is_free = bind(file, (const struct sockaddr *)&a, sizeof a) == 0;
        close(file);
        if (is_free) return port;
    }
}

static void set_number(const char *name, size_t value) {
    char text[32];
    snprintf(text, sizeof text, "%zu", value);
    setenv(name, text, 1);
}

pid_t start_rank(const World *w, const char *scene, size_t rank, size_t said_world, int port) {
    fflush(NULL);
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child > 0) return child;
    setenv("MASTER_ADDR", w->master ? w->master : "localhost", 1);
    set_number("MASTER_PORT", (size_t)port);
    set_number("RANK", rank);
    set_number("LOCAL_RANK", rank);
    set_number("WORLD_SIZE", said_world);
    execl("/proc/self/exe", "ranks", "--rank", scene, w->folder, NULL);
    _exit(98);
}

int end_of(pid_t child) {
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

void read_reports(World *w) {
    for (size_t r = 0; r < w->size; r++) {
        char path[128];
        snprintf(path, sizeof path, "%s/%zu", w->folder, r);
        FILE *f = fopen(path, "r");
        const size_t n = f ? fread(w->reports[r], 1, sizeof w->reports[r] - 1, f) : 0;
        w->reports[r][n] = 0;
        if (f) fclose(f);
        unlink(path);
    }
    rmdir(w->folder);
}

void open_world(World *w, size_t size) {
    *w = (World){.folder = "/tmp/vlm_dist_XXXXXX", .size = size};
    assert_non_null(mkdtemp(w->folder));
}

World run_sockets(const char *scene, size_t size) {
    World w;
    open_world(&w, size);
    const int port = free_port();
    for (size_t r = 0; r < size; r++) w.children[r] = start_rank(&w, scene, r, size, port);
    for (size_t r = 0; r < size; r++) w.ends[r] = end_of(w.children[r]);
    read_reports(&w);
    return w;
}

// MPI leaves memory behind in modules it has unloaded, which no suppression can name; the sockets' runs look
// for leaks of ours.
World run_mpi(const char *scene, size_t size) {
    World w;
    char command[512], self[256];
    open_world(&w, size);
    const ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    assert_true(n > 0);
    self[n] = 0;
    snprintf(command, sizeof command,
             "ASAN_OPTIONS=${ASAN_OPTIONS:+$ASAN_OPTIONS:}detect_leaks=0 OMPI_ALLOW_RUN_AS_ROOT=1 "
             "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 mpirun --oversubscribe --bind-to none "
             "-np %zu %s --rank %s %s >/dev/null 2>&1",
             size, self, scene, w.folder);
    const int status = system(command);
    w.ends[0] = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    read_reports(&w);
    return w;
}

void expect_fine(const World *w) {
    for (size_t r = 0; r < w->size; r++) {
        if (w->ends[r] != 0 || strcmp(w->reports[r], "fine"))
            fail_msg("rank %zu ended with %d: %s", r, w->ends[r], w->reports[r]);
    }
}

void expect_failed(const World *w, const char *part, const char *other_part) {
    for (size_t r = 0; r + 1 < w->size; r++) {
        assert_int_equal(w->ends[r], 1);
        EXPECT_IN(w->reports[r], part);
        EXPECT_IN(w->reports[r], other_part);
    }
}

void ranks_report(const char *folder, size_t rank, const char *text) {
    char path[256];
    snprintf(path, sizeof path, "%s/%zu", folder, rank);
    FILE *f = fopen(path, "w");
    if (!f || fputs(text, f) < 0 || fclose(f) != 0) _exit(9);
}
