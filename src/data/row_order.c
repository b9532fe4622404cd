#include "data/row_order.h"

#include "base/check.h"
#include "base/random.h"

static bool is_wanted(const uint64_t *wanted, size_t row) {
    return wanted[row / 64] >> row % 64 & 1;
}

static size_t count_wanted(const uint64_t *wanted, const DatasetGroup *g) {
    size_t n = 0;
    for (size_t row = g->first; row < g->first + g->rows;) {
        if (row % 64 == 0 && row + 64 <= g->first + g->rows) {
            n += (size_t)__builtin_popcountll(wanted[row / 64]);
            row += 64;
        } else {
            n += is_wanted(wanted, row++);
        }
    }
    return n;
}

// Number 0 of an epoch orders the groups, number w + 1 the rows of window w.
static Random epoch_random(const RowOrder *o, uint64_t number) {
    return random_stream(o->settings.seed, RANDOM_SHUFFLE, o->epoch << 32 | number);
}

static void order_groups(RowOrder *o, const uint64_t *wanted) {
    size_t n = dataset_group_count(o->data), *order = mem_alloc(n * sizeof *order);
    Random random = epoch_random(o, 0);
    if (o->settings.shuffle)
        random_permutation(order, n, &random);
    else
        for (size_t i = 0; i < n; i++) order[i] = i;
    vec_clear(&o->groups);
    o->rows = 0;
    for (size_t i = 0; i < n; i++) {
        size_t rows = count_wanted(wanted, dataset_group(o->data, order[i]));
        if (rows > 0) vec_push(&o->groups, (OrderedGroup){order[i], o->rows});
        o->rows += rows;
    }
    free(order);
}

static void cut_windows(RowOrder *o) {
    const RowOrderSettings *s = &o->settings;
    size_t bytes = 0;
    vec_clear(&o->windows);
    if (!s->shuffle && s->shuffle_buffer > 0) {
        for (size_t first = 0; first < o->rows; first += s->shuffle_buffer) {
            vec_push(&o->windows, first);
            if (s->shuffle_buffer > o->rows - first) break;
        }
    } else {
        for (size_t i = 0; i < o->groups.count; i++) {
            size_t size = dataset_group(o->data, o->groups.items[i].group)->bytes;
            bytes += size;
            if (i > 0 && s->shuffle && bytes <= s->window_bytes) continue;
            vec_push(&o->windows, o->groups.items[i].first);
            bytes = size;
        }
    }
    vec_push(&o->windows, o->rows);
}

void row_order_begin(RowOrder *o, const Dataset *data, RowOrderSettings settings, const uint64_t *rows_wanted,
                     uint64_t epoch) {
    o->data = data;
    o->settings = settings;
    o->epoch = epoch;
    order_groups(o, rows_wanted);
    cut_windows(o);
}

void row_order_free(RowOrder *o) {
    vec_free(&o->groups);
    vec_free(&o->windows);
}

size_t row_order_window_of(const RowOrder *o, size_t place) {
    CHECK(place < o->rows, "place %zu of %zu", place, o->rows);
    size_t low = 0, high = o->windows.count - 1; // windows[low] ≤ place < windows[high]
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        *(o->windows.items[middle] <= place ? &low : &high) = middle;
    }
    return low;
}

static size_t group_of(const RowOrder *o, size_t place) {
    size_t low = 0, high = o->groups.count;
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        *(o->groups.items[middle].first <= place ? &low : &high) = middle;
    }
    return low;
}

size_t row_order_windows_bytes(const RowOrder *o, size_t first, size_t last) {
    const size_t end = group_of(o, o->windows.items[last + 1] - 1);
    size_t bytes = 0;
    for (size_t g = group_of(o, o->windows.items[first]); g <= end; g++)
        bytes += dataset_group(o->data, o->groups.items[g].group)->bytes;
    return bytes;
}

// Appends those of the group's wanted rows that stand in [first, end) before the window changes their places.
static void append_rows(const RowOrder *o, size_t ordered, const uint64_t *wanted, size_t first, size_t end,
                        RowPlaces *places) {
    const DatasetGroup *g = dataset_group(o->data, o->groups.items[ordered].group);
    size_t place = o->groups.items[ordered].first;
    for (size_t row = 0; row < g->rows && place < end; row++) {
        if (!is_wanted(wanted, g->first + row)) continue;
        if (place++ >= first) vec_push(places, (RowPlace){ordered, row});
    }
}

static void shuffle(RowPlaces *places, Random random) {
    for (size_t i = places->count; i > 1; i--) {
        size_t j = (size_t)random_below(&random, i);
        RowPlace t = places->items[i - 1];
        places->items[i - 1] = places->items[j];
        places->items[j] = t;
    }
}

void row_order_window(const RowOrder *o, size_t w, const uint64_t *rows_wanted, RowPlaces *places) {
    CHECK(w + 1 < o->windows.count, "window %zu of %zu", w, o->windows.count - 1);
    size_t first = o->windows.items[w], end = o->windows.items[w + 1];
    vec_clear(places);
    for (size_t i = group_of(o, first); i < o->groups.count && o->groups.items[i].first < end; i++)
        append_rows(o, i, rows_wanted, first, end, places);
    if (o->settings.shuffle || o->settings.shuffle_buffer > 0) shuffle(places, epoch_random(o, w + 1));
}
