// Attention, forward: see attention.h.
#include "ops/cpu/attention.h"

// s[j] = q · k_j · scale for a block of keys, and the largest of them.
static float row_scores(float *s, const ForwardTask *a, const float *q, Rows keys, Block b) {
    float largest = -INFINITY;
    for (size_t j = 0; j < b.keys; j++) {
        const float *k = keys.data + j * keys.stride;
        float dot = 0;
#pragma omp simd reduction(+ : dot)
        for (size_t d = 0; d < a->D; d++) dot += q[d] * k[d];
        s[j] = a->mask && !a->mask[b.j0 + j] ? HIDDEN : dot * a->scale;
        largest = s[j] > largest ? s[j] : largest;
    }
    return largest;
}

// One query alone, as in decoding: lanes are the values of a head.
static void forward_row(const ForwardTask *a) {
    float s[TILE] ALIGNED, o[ATTENTION_MAX_D] ALIGNED = {0}, max = -INFINITY, sum = 0;
    float q_copy[ATTENTION_MAX_D], copy[TILE * ATTENTION_MAX_D] ALIGNED;
    const float *q = load_rows(q_copy, a->q, a->i0, 1, a->D).data;
    for (size_t j0 = 0; j0 < a->keys; j0 += TILE) {
        Block b = {j0, tile_length(a->keys, j0, TILE), 0};
        float largest = row_scores(s, a, q, load_rows(copy, a->k, j0, b.keys, a->D), b), part = 0;
        largest = largest > max ? largest : max;
        float old = exp_f32(max - largest);
#pragma omp simd reduction(+ : part)
        for (size_t j = 0; j < b.keys; j++) part += s[j] = exp_f32(s[j] - largest);
        for (size_t d = 0; d < a->D; d++) o[d] *= old;
        Rows v = load_rows(copy, a->v, j0, b.keys, a->D);
        tile_product(o, ATTENTION_MAX_D, (Factor){s, TILE, 1}, v.data, v.stride, 1, a->D, b.keys, true);
        sum = sum * old + part;
        max = largest;
    }
    store_row(a->o, a->i0, o, 1.0f / sum, a->D);
    if (a->lse) a->lse[a->i0] = max + logf(sum);
}

// The tile's queries against the keys of its sample. `a` describes the head; later: how many keys lie before
// the first query of the sequence (a cache).
static ForwardTask of_tile(ForwardTask a, Tile t, size_t later, bool causal) {
    a.i0 = t.first, a.queries = t.length;
    a.k = from_row(a.k, t.sample), a.v = from_row(a.v, t.sample);
    a.mask = a.mask ? a.mask + t.sample : NULL;
    a.reach = causal ? t.first - t.sample + later + 1 : a.keys;
    a.keys = min_size(a.reach + t.length - 1, a.keys);
    return a;
}

// n ≤ FORWARD_GROUP tiles of one sample, the last of which may be a single query.
static void forward_tiles(const ForwardTask *a, size_t n) {
    if (n && a[n - 1].queries == 1) forward_row(&a[--n]);
    if (n && BF16_PRODUCTS && a->q.dtype == DTYPE_BF16)
        KERNEL(attention_forward_bf16)(a, n);
    else if (n)
        KERNEL(attention_forward_f32)(a, n);
}

// All tiles of queries that begin in [first, end).
static void forward_window(const ForwardTask *a, const int *starts, size_t Tq, size_t first, size_t end,
                           size_t later, bool causal) {
    ForwardTask tasks[FORWARD_GROUP];
    size_t n = 0, sample = Tq;
    for (Tile t = tile_from(starts, Tq, first, TILE); t.first < end;
         t = tile_from(starts, Tq, t.first + t.length, TILE)) {
        if (n == FORWARD_GROUP || (n && t.sample != sample)) {
            forward_tiles(tasks, n);
            n = 0;
        }
        sample = t.sample;
        tasks[n++] = of_tile(*a, t, later, causal);
    }
    forward_tiles(tasks, n);
}

// How many tiles a task has: more where packing is shared, but some tasks a thread, so that these end
// together.
static size_t tiles_of_task(const Backend *be, size_t tiles) {
    const size_t tasks = 8 * (size_t)cpu_threads(be);
    return tiles < 2 * tasks ? 1 : min_size(tiles / tasks, FORWARD_GROUP);
}

// The tasks of a key head follow one another, because its keys and values are then still in the cache; those
// that see the most keys come first, so that the threads end together.
void KERNEL(attention_forward)(Backend *be, Tensor o, Tensor lse, Tensor q, Tensor k, Tensor v, Tensor mask,
                               Tensor starts, float scale, bool causal) {
    size_t B = q.shape[0], Tq = q.shape[1], H = q.shape[2], D = q.shape[3], Tk = k.shape[1], K = k.shape[2],
           group = H / K, span = tiles_of_task(be, B * H * tile_count(Tq, TILE)) * TILE,
           windows = (Tq + span - 1) / span;
    check_starts(starts);
#pragma omp parallel for schedule(dynamic) num_threads(threads_for(be, B *H *Tq *Tk *D / 8))
    for (size_t task = 0; task < B * H * windows; task++) {
        size_t pair = task / (windows * group), window = windows - 1 - task / group % windows;
        size_t b = pair / K, head = pair % K, h = head * group + task % group, first = window * span;
        ForwardTask a = {.o = head_of(o, b, h),
                         .q = head_of(q, b, h),
                         .k = head_of(k, b, head),
                         .v = head_of(v, b, head),
                         .mask = sequence(mask, b),
                         .lse = tensor_exists(lse) ? floats(lse) + (b * H + h) * Tq : NULL,
                         .D = D,
                         .keys = Tk,
                         .scale = scale};
        forward_window(&a, sequence(starts, b), Tq, first, min_size(first + span, Tq), Tk - Tq, causal);
    }
}
