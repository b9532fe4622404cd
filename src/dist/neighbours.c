#include "dist/neighbours.h"
#include "base/bytes.h"
#include "base/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct Place {
    uint64_t host, set;
} Place;

// Of the kernel as it was booted, because cloned hosts have the same name, and containers of a host others.
static uint64_t host_number(void) {
    char text[256] = "";
    gethostname(text, sizeof text - 1);
    uint64_t h = bytes_hash(BYTES_HASH, text, strlen(text));
    FILE *f = fopen("/proc/sys/kernel/random/boot_id", "r");
    if (!f) return h;
    const size_t n = fread(text, 1, sizeof text, f);
    fclose(f);
    return bytes_hash(BYTES_HASH, text, n);
}

static void count(Neighbours *all, const Place *places, size_t world) {
    for (size_t r = 0; r < world; r++) {
        all[r] = (Neighbours){0};
        for (size_t i = 0; i < world; i++) {
            const bool same = places[i].host == places[r].host && places[i].set == places[r].set;
            all[r].count += same;
            all[r].before += same && i < r;
        }
    }
}

bool neighbours_find(Neighbours *n, Comm *c, Cores cores, Error *err) {
    static const char what[] = "who shares the processors";
    const Place here = {host_number(), cores.set};
    const size_t world = comm_world_size(c), bytes = world * sizeof *n;
    *n = (Neighbours){1, 0};
    if (!c) return true;
    Place *places = mem_zeroed(world, sizeof *places);
    Neighbours *all = mem_zeroed(world, sizeof *all);
    bool ok = comm_gather(c, &here, sizeof here, places, what, err);
    if (ok && comm_is_first(c)) count(all, places, world);
    for (size_t at = 0; ok && at < bytes; at += COMM_SMALL_BYTES)
        ok = comm_broadcast(c, (char *)all + at,
                            bytes - at < COMM_SMALL_BYTES ? bytes - at : COMM_SMALL_BYTES, what, err);
    if (ok) *n = all[comm_rank(c)];
    free(places);
    free(all);
    return ok;
}

size_t neighbours_share(Neighbours n, size_t threads) {
    const size_t part = threads / n.count + (n.before < threads % n.count);
    return part ? part : 1;
}
