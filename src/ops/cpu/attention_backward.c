// Attention, backward: see attention.h.
#include "ops/cpu/attention.h"

// A task is a tile of keys of one key head. For each query head that reads it, it goes over the sample's
// queries: computes the weights again from lse, sums dk and dv in the tile, and adds its share to dq in
// memory. Quoted: s = scale q·k, p = exp(s − lse), o = Σ p v.
//
// Several tiles of keys add to the same rows of dq. So that its bits do not depend on the threads, they do it
// in the keys' order: before each step a tile waits until the tile before it is past these queries. Tasks are
// taken in an order in which this tile comes first, so it is done or under way. The tiles of a sample thus
// follow one another at a distance of one step and rarely have to wait.
static void any_backward_keys(BackwardTask a, size_t group, size_t apart, size_t j0, size_t keys) {
    if (BF16_PRODUCTS && a.q.dtype == DTYPE_BF16)
        KERNEL(attention_backward_bf16)(a, group, apart, j0, keys);
    else
        KERNEL(attention_backward_f32)(a, group, apart, j0, keys);
}

static size_t sample_end(const int *starts, size_t T, Tile t) {
    size_t end = starts ? t.first + t.length : T;
    while (end < T && (size_t)starts[end] == t.sample) end++;
    return end;
}

// `a` describes the sequence; progress: of its tiles of keys. Only a whole tile has one after it, and no two
// whole tiles begin within KEY_TILE positions, so these share an entry with nobody.
static BackwardTask of_sample(const BackwardTask *a, const int *starts, Tile t, Progress *progress) {
    BackwardTask s = *a;
    s.dq = from_row(a->dq, t.sample), s.dout = from_row(a->dout, t.sample), s.q = from_row(a->q, t.sample);
    s.dk = from_row(a->dk, t.sample), s.dv = from_row(a->dv, t.sample);
    s.k = from_row(a->k, t.sample), s.v = from_row(a->v, t.sample);
    s.mask = a->mask ? a->mask + t.sample : NULL;
    s.lse += t.sample, s.delta += t.sample, s.dq_sum += t.sample * a->dq_sum_stride;
    s.T = sample_end(starts, a->T, t) - t.sample;
    s.before = t.first > t.sample ? &progress[t.first / KEY_TILE - 1] : NULL;
    s.own = t.length == KEY_TILE ? &progress[t.first / KEY_TILE] : NULL;
    return s;
}

static void row_dots(float *delta, Head x, Head y, size_t n, size_t D) {
    float copy[2][ATTENTION_MAX_D];
    for (size_t i = 0; i < n; i++) {
        const float *a = load_rows(copy[0], x, i, 1, D).data, *b = load_rows(copy[1], y, i, 1, D).data;
        float dot = 0;
#pragma omp simd reduction(+ : dot)
        for (size_t d = 0; d < D; d++) dot += a[d] * b[d];
        delta[i] = dot;
    }
}

static void all_row_dots(Backend *be, Tensor delta, Tensor dout, Tensor o) {
    size_t B = o.shape[0], T = o.shape[1], H = o.shape[2], D = o.shape[3], windows = tile_count(T, TILE);
#pragma omp parallel for num_threads(threads_for(be, B *H *T *D))
    for (size_t task = 0; task < B * H * windows; task++) {
        size_t b = task / windows / H, h = task / windows % H, first = task % windows * TILE;
        row_dots(floats(delta) + (b * H + h) * T + first, from_row(head_of(dout, b, h), first),
                 from_row(head_of(o, b, h), first), tile_length(T, first, TILE), D);
    }
}

// A slot is used again when all tiles of the group before in it are done.
typedef struct Slots {
    float *memory; // NULL: dq is F32 and needs none
    size_t count, width, size;
} Slots;

static Slots take_slots(Backend *be, Tensor dq, size_t groups, size_t group, size_t tiles) {
    if (dq.dtype == DTYPE_F32) return (Slots){0};
    const SlotSizes s = slot_sizes(groups, group, dq.shape[1], dq.shape[3], tiles, (size_t)cpu_threads(be));
    return (Slots){cpu_scratch(be, s.scratch_bytes), s.count, s.width, s.size};
}

static void sum_dq_in(BackwardTask *a, const Slots *slots, size_t g) {
    a->dq_sum = slots->memory ? slots->memory + g % slots->count * slots->size : (float *)a->dq.data;
    a->dq_sum_stride = slots->memory ? slots->width : a->dq.stride;
    a->dq_sum_apart = slots->memory ? a->T * slots->width : a->D;
}

typedef struct Operands {
    Tensor dq, dk, dv, delta, dout, q, k, v, lse, mask, starts;
    float scale;
    bool causal;
} Operands;

// The whole sequence b, key head `head`.
static BackwardTask task_of(const Operands *x, const Slots *slots, size_t b, size_t head) {
    size_t T = x->q.shape[1], H = x->q.shape[2], K = x->k.shape[2], h = head * (H / K);
    BackwardTask a = {.dq = head_of(x->dq, b, h),
                      .dout = head_of(x->dout, b, h),
                      .q = head_of(x->q, b, h),
                      .dk = head_of(x->dk, b, head),
                      .dv = head_of(x->dv, b, head),
                      .k = head_of(x->k, b, head),
                      .v = head_of(x->v, b, head),
                      .mask = sequence(x->mask, b),
                      .lse = floats(x->lse) + (b * H + h) * T,
                      .delta = floats(x->delta) + (b * H + h) * T,
                      .T = T,
                      .D = x->q.shape[3],
                      .scale = x->scale,
                      .causal = x->causal};
    sum_dq_in(&a, slots, b * K + head);
    return a;
}

// Tiles of keys that begin in a window of KEY_TILE positions.
static void backward_window(const Operands *x, const Slots *slots, Progress *progress, Progress *finished,
                            size_t task) {
    size_t T = x->q.shape[1], K = x->k.shape[2], group = x->q.shape[2] / K, windows = tile_count(T, KEY_TILE);
    size_t g = task / windows, first = task % windows * KEY_TILE;
    const BackwardTask a = task_of(x, slots, g / K, g % K);
    const int *s = sequence(x->starts, g / K);
    if (slots->memory && g >= slots->count) wait_for(&finished[g - slots->count], windows);
    for (Tile t = tile_from(s, T, first, KEY_TILE); t.first < min_size(first + KEY_TILE, T);
         t = tile_from(s, T, t.first + t.length, KEY_TILE))
        any_backward_keys(of_sample(&a, s, t, progress + g * windows), group, T, t.first - t.sample,
                          t.length);
    atomic_fetch_add(&finished[g], 1);
}

void KERNEL(attention_backward)(Backend *be, Tensor dq, Tensor dk, Tensor dv, Tensor delta, Tensor dout,
                                Tensor q, Tensor k, Tensor v, Tensor o, Tensor lse, Tensor mask,
                                Tensor starts, float scale, bool causal) {
    size_t B = q.shape[0], T = q.shape[1], H = q.shape[2], D = q.shape[3], K = k.shape[2],
           windows = tile_count(T, KEY_TILE), tasks = B * K * windows;
    Progress progress[tasks], finished[B * K],
        next; // 8 bytes where k has KEY_TILE · D values: the stack has room
    const Operands x = {dq, dk, dv, delta, dout, q, k, v, lse, mask, starts, scale, causal};
    const Slots slots = take_slots(be, dq, B * K, H / K, windows);
    check_starts(starts);
    all_row_dots(be, delta, dout, o);
    for (size_t i = 0; i < tasks; i++) atomic_init(&progress[i], 0);
    for (size_t i = 0; i < B * K; i++) atomic_init(&finished[i], 0);
    atomic_init(&next, 0);
#pragma omp parallel num_threads(threads_for(be, B *H *T *T *D / 4))
    for (size_t task; (task = atomic_fetch_add(&next, 1)) < tasks;)
        backward_window(&x, &slots, progress, finished, task);
}
