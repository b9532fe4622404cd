#include "cmd/train_threads.h"
#include "base/log.h"
#include "dist/neighbours.h"

#include <math.h>
#include <stdio.h>

static void say(size_t threads, const TrainOptions *o, Cores c, Neighbours n) {
    char quota[48] = "", shared[64] = "";
    if (isfinite(c.quota)) snprintf(quota, sizeof quota, ", a quota of %.3g processors", c.quota);
    if (n.count > 1) snprintf(shared, sizeof shared, ", shared by %zu ranks", n.count);
    log_info("threads: %zu for operators (%s; %zu core%s, %zu hardware thread%s%s%s), %zu for the loader",
             threads, o->threads ? "as given" : "one a core", c.cores, c.cores == 1 ? "" : "s", c.processors,
             c.processors == 1 ? "" : "s", quota, shared, o->num_workers);
    const size_t all = threads * n.count;
    if (all > c.cores || (double)all > c.quota + 0.01)
        log_warning(
            "%zu threads for operators%s are more than the cores or the quota: they will wait for one "
            "another; lower --threads%s",
            all, n.count > 1 ? " of all ranks here" : "", n.count > 1 ? " or start fewer ranks" : "");
}

bool train_threads(size_t *threads, const TrainOptions *o, Comm *comm, Error *err) {
    const Cores here = cores_here();
    Neighbours n;
    if (!neighbours_find(&n, comm, here, err)) return false;
    *threads = o->threads ? o->threads : neighbours_share(n, cores_threads(here));
    say(*threads, o, here, n);
    return true;
}
