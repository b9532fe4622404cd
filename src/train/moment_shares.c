#include "train/moment_shares.h"
#include "base/check.h"

#include <string.h>

static float *values_of(const Param *p) {
    CHECK(p->w.dtype == DTYPE_F32, "%s: weights are spread in F32", p->name);
    return (float *)(void *)p->w.data;
}

// The parameters of a group lie behind one another; begins[r]: where the part of rank r begins, from *x on.
static bool find_parts(float **x, size_t *begins, const Optimizer *o, int group) {
    const Params *p = o->params;
    float *first = NULL, *end = NULL;
    size_t rank = 0;
    for (size_t i = 0; i < p->count; i++) {
        const Param *q = &p->items[i];
        if (!q->trained || (int)q->group != group) continue;
        float *w = values_of(q);
        if (!first) first = w;
        end = w + tensor_count(q->w);
        for (Slice s; rank < o->form.ranks; rank++) {
            s = optimizer_slice(o, rank, i);
            if (s.first == tensor_count(q->w)) break; // it begins in a later parameter
            begins[rank] = (size_t)(w + s.first - first);
        }
    }
    for (; first && rank <= o->form.ranks; rank++) begins[rank] = (size_t)(end - first);
    *x = first;
    return first != NULL;
}

// Of this rank's own slice the update has made them.
static void refresh_copies(const Optimizer *o) {
    for (size_t i = 0; i < o->params->count; i++) {
        const Param *p = &o->params->items[i];
        if (p->trained && optimizer_slice(o, o->form.rank, i).n < tensor_count(p->w)) param_refresh(p, o->be);
    }
}

bool moment_shares_spread(const Optimizer *o, Comm *comm) {
    if (!optimizer_is_shared(o)) return true;
    CHECK(comm_world_size(comm) == o->form.ranks, "shares of %zu ranks among %zu", o->form.ranks,
          comm_world_size(comm));
    backend_sync(o->be);
    for (int g = 0; g < GROUP_TRAINED; g++) {
        float *x;
        if (find_parts(&x, o->begins[g], o, g)) comm_share_start(comm, x, o->begins[g], "weights");
    }
    if (!comm_wait(comm, NULL)) return false;
    refresh_copies(o);
    return true;
}

static bool gather(const Optimizer *o, Comm *comm, size_t rank, Slice s, Tensor mine, char *all, Error *err) {
    const size_t at = optimizer_moment_bytes(o->form.moments, s.first),
                 n = optimizer_moment_bytes(o->form.moments, s.n);
    char *here = comm_rank(comm) == rank ? mine.data : all ? all + at : NULL;
    if (rank > 0) return comm_collect(comm, rank, here, n, "moments", err);
    if (comm_is_first(comm)) memcpy(all + at, here, n);
    return true;
}

bool moment_shares_gather(const Optimizer *o, Comm *comm, char *const *m, char *const *v, Error *err) {
    backend_sync(o->be);
    for (size_t i = 0; i < o->params->count; i++) {
        for (size_t r = 0; r < o->form.ranks; r++) {
            const Slice s = optimizer_slice(o, r, i);
            if (s.n == 0) continue;
            if (!gather(o, comm, r, s, o->m[i], m ? m[i] : NULL, err) ||
                !gather(o, comm, r, s, o->v[i], v ? v[i] : NULL, err))
                return false;
        }
    }
    return true;
}
