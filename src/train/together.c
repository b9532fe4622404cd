#include "train/together.h"

#include <math.h>

bool together_mean(Comm *comm, double *x, const char *what, Error *err) {
    double sum[2] = {isnan(*x) ? 0 : *x, !isnan(*x)}; // the sum, and of how many ranks
    if (!comm_combine(comm, sum, 2, COMM_SUM, what, err)) return false;
    *x = sum[1] > 0 ? sum[0] / sum[1] : NAN;
    return true;
}

bool together_statistics(Comm *comm, Statistics *s, Error *err) {
    static const char what[] = "statistics";
    double sums[2 * STATISTIC_COUNT], min[STATISTIC_COUNT], max[STATISTIC_COUNT];
    if (!comm) return true;
    for (int i = 0; i < STATISTIC_COUNT; i++) {
        const bool any = s->series[i].count > 0;
        sums[2 * i] = s->series[i].sum, sums[2 * i + 1] = (double)s->series[i].count;
        min[i] = any ? s->series[i].min : INFINITY, max[i] = any ? s->series[i].max : -INFINITY;
    }
    if (!comm_combine(comm, sums, 2 * STATISTIC_COUNT, COMM_SUM, what, err) ||
        !comm_combine(comm, min, STATISTIC_COUNT, COMM_MIN, what, err) ||
        !comm_combine(comm, max, STATISTIC_COUNT, COMM_MAX, what, err))
        return false;
    *s = (Statistics){0};
    for (int i = 0; comm_is_first(comm) && i < STATISTIC_COUNT; i++) {
        if (sums[2 * i + 1] == 0) continue;
        s->series[i].sum = sums[2 * i], s->series[i].count = (size_t)sums[2 * i + 1];
        s->series[i].min = min[i], s->series[i].max = max[i];
    }
    return true;
}

// ---- places: the number of ranks and the size of each rank's, then the places ----

bool together_places(Comm *comm, CharVec *place, Error *err) {
    static const char what[] = "places in the data";
    if (!comm) return true;
    const size_t world = comm_world_size(comm), mine = place->count;
    double longest = (double)mine;
    if (!comm_combine(comm, &longest, 1, COMM_MAX, what, err)) return false;
    const size_t most = (size_t)longest;
    uint64_t *sizes = mem_zeroed(world + 1, sizeof *sizes), size = mine;
    char *all = mem_zeroed(world, most + COMM_SMALL_BYTES), *piece = mem_zeroed(world, COMM_SMALL_BYTES);
    vec_reserve(place, most + COMM_SMALL_BYTES);
    memset(place->items + mine, 0, most + COMM_SMALL_BYTES - mine);
    bool ok = comm_gather(comm, &size, sizeof size, sizes + 1, what, err);
    for (size_t at = 0; ok && at < most; at += COMM_SMALL_BYTES) {
        ok = comm_gather(comm, place->items + at, COMM_SMALL_BYTES, piece, what, err);
        for (size_t r = 0; r < world; r++)
            memcpy(all + r * (most + COMM_SMALL_BYTES) + at, piece + r * COMM_SMALL_BYTES, COMM_SMALL_BYTES);
    }
    vec_clear(place);
    sizes[0] = world;
    vec_extend(place, (const char *)sizes, (world + 1) * sizeof *sizes);
    for (size_t r = 0; r < world; r++) vec_extend(place, all + r * (most + COMM_SMALL_BYTES), sizes[r + 1]);
    free(piece);
    free(all);
    free(sizes);
    return ok;
}

bool together_own_place(const Comm *comm, const void **place, size_t *size) {
    const size_t world = comm_world_size(comm), rank = comm_rank(comm), head = (world + 1) * sizeof(uint64_t);
    uint64_t n, at = head;
    const char *bytes = *place;
    if (!comm) return true;
    if (*size < head || (memcpy(&n, bytes, sizeof n), n != world)) return false;
    for (size_t r = 0; r <= rank; r++, at += n) {
        memcpy(&n, bytes + (r + 1) * sizeof n, sizeof n);
        if (n > *size - at) return false;
        *place = bytes + at;
    }
    *size = n;
    return true;
}
