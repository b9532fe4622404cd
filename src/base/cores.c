#include "base/cores.h"
#include "base/bytes.h"
#include "base/memory.h"

#include <math.h>
#include <omp.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// ---- processors ----

// The lowest-numbered hardware thread of cpu's core, which stands for the core; cpu itself where Linux
// doesn't say.
static int core_of(int cpu) {
    char path[96];
    int first = cpu;
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", cpu);
    FILE *f = fopen(path, "r");
    if (!f) return cpu;
    if (fscanf(f, "%d", &first) != 1) first = cpu;
    fclose(f);
    return first;
}

static bool find_allowed(cpu_set_t *allowed) {
    CPU_ZERO(allowed);
    if (sched_getaffinity(0, sizeof *allowed, allowed) != 0) return false;
    for (int place = 0; place < omp_get_num_places(); place++) {
        const int n = omp_get_place_num_procs(place);
        int *cpus = mem_zeroed((size_t)n + 1, sizeof *cpus);
        omp_get_place_proc_ids(place, cpus);
        for (int i = 0; i < n; i++) CPU_SET((size_t)cpus[i], allowed);
        free(cpus);
    }
    return true;
}

int cores_start_thread(pthread_t *thread, void *(*run)(void *), void *state) {
    cpu_set_t allowed;
    pthread_attr_t attributes;
    int failed = pthread_attr_init(&attributes);
    if (failed) return failed;
    if (find_allowed(&allowed)) failed = pthread_attr_setaffinity_np(&attributes, sizeof allowed, &allowed);
    if (!failed) failed = pthread_create(thread, &attributes, run, state);
    pthread_attr_destroy(&attributes);
    return failed;
}

// ---- quota ----

// Reads up to two words of a file under root/controller/group; the number that were there.
static int read_words(char words[2][32], const char *root, const char *controller, const char *group,
                      const char *name) {
    char path[1024];
    words[0][0] = words[1][0] = '\0';
    if (snprintf(path, sizeof path, "%s%s%s/%s", root, controller, group, name) >= (int)sizeof path) return 0;
    FILE *f = fopen(path, "r");
    if (!f) return 0;
    const int n = fscanf(f, "%31s %31s", words[0], words[1]);
    fclose(f);
    return n < 0 ? 0 : n;
}

static double quotient(const char *quota, const char *period) {
    const double a = atof(quota), b = atof(period); // "max" and -1 are no limit
    return a > 0 && b > 0 ? a / b : INFINITY;
}

static double quota_of_group(const char *root, const char *controller, const char *group) {
    char words[2][32], period[2][32];
    if (!*controller)
        return read_words(words, root, "", group, "cpu.max") == 2 ? quotient(words[0], words[1]) : INFINITY;
    if (read_words(words, root, controller, group, "cpu.cfs_quota_us") < 1 ||
        read_words(period, root, controller, group, "cpu.cfs_period_us") < 1)
        return INFINITY;
    return quotient(words[0], period[0]);
}

// The least of a group and all above it. In a container the group's own folder may be out of sight, and what
// lies at the top is the container's.
static double quota_upwards(const char *root, const char *controller, char *group) {
    double least = INFINITY;
    for (;;) {
        while (*group && group[strlen(group) - 1] == '/') group[strlen(group) - 1] = '\0';
        least = fmin(least, quota_of_group(root, controller, group));
        char *slash = strrchr(group, '/');
        if (!slash) return least;
        *slash = '\0';
    }
}

// Whether `name` is one of the words between commas in list [length].
static bool is_listed(const char *name, const char *list, size_t length) {
    const size_t n = strlen(name);
    for (size_t at = 0; at + n <= length; at++)
        if (!strncmp(list + at, name, n) && (at == 0 || list[at - 1] == ',') &&
            (at + n == length || list[at + n] == ','))
            return true;
    return false;
}

// A line is "number:controllers:group"; version 2 names no controllers.
static double quota_of_line(const char *root, const char *line, size_t length) {
    char group[512], controller[64];
    const char *end = line + length, *list = memchr(line, ':', length);
    const char *path = list ? memchr(list + 1, ':', (size_t)(end - list - 1)) : NULL;
    if (!path || (size_t)(end - path) > sizeof group) return INFINITY;
    list++;
    const size_t named = (size_t)(path - list);
    snprintf(group, sizeof group, "%.*s", (int)(end - path - 1), path + 1);
    if (named == 0) return quota_upwards(root, "", group);
    if (!is_listed("cpu", list, named) || named + 2 > sizeof controller) return INFINITY;
    snprintf(controller, sizeof controller, "/%.*s", (int)named, list);
    char again[sizeof group];
    memcpy(again, group, sizeof group);
    return fmin(quota_upwards(root, controller, group), quota_upwards(root, "/cpu", again));
}

double cores_quota(const char *root, const char *groups) {
    double least = INFINITY;
    for (const char *line = groups; *line;) {
        const size_t length = strcspn(line, "\n");
        least = fmin(least, quota_of_line(root, line, length));
        line += length + (line[length] == '\n');
    }
    return least;
}

// ---- both ----

Cores cores_here(void) {
    cpu_set_t allowed, cores;
    char groups[4096] = "";
    Cores c = {1, 1, INFINITY, 0};
    CPU_ZERO(&cores);
    if (find_allowed(&allowed)) {
        for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
            if (CPU_ISSET(cpu, &allowed)) CPU_SET(core_of(cpu), &cores);
        c.processors = (size_t)CPU_COUNT(&allowed);
        c.cores = (size_t)CPU_COUNT(&cores);
        c.set = bytes_hash(BYTES_HASH, &allowed, sizeof allowed);
    }
    FILE *f = fopen("/proc/self/cgroup", "r");
    if (!f) return c;
    groups[fread(groups, 1, sizeof groups - 1, f)] = '\0';
    fclose(f);
    c.quota = cores_quota("/sys/fs/cgroup", groups);
    return c;
}

size_t cores_threads(Cores c) {
    const double paid = floor(c.quota + 0.01);
    if (paid >= (double)c.cores) return c.cores;
    return paid < 1 ? 1 : (size_t)paid;
}
