#include "data/row_stream.h"

#include "base/check.h"

#include <pthread.h>

// Some rows in the order in which they are handed out, and the groups they lie in, each held once by the
// window itself.
struct RowWindow {
    VEC(RowRef) rows;
    size_t given;           // of rows
    VEC(size_t) numbers;    // of the groups in the data set
    VEC(RowGroup *) groups; // as many
};

struct RowStream {
    Dataset *data;
    RowStreamSettings settings;
    uint64_t *wanted; // a bit for each row of the data set
    RowOrder order;
    VEC(uint64_t) single; // places that come before the others
    uint64_t from;        // the first of the others
    uint64_t read, left;  // rows put into windows, rows not yet handed out
    RowPlaces places;     // of the window read last
    RowWindow *current, *next;
};

// ---- groups in memory ----

static void group_release(RowGroup *g) {
    if (__atomic_sub_fetch(&g->users, 1, __ATOMIC_ACQ_REL) > 0) return;
    if (g->batch) record_batch_free(g->batch);
    free(g->kept);
    free(g);
}

void row_release(RowRef *ref) {
    if (ref->group) group_release(ref->group);
    ref->group = NULL;
}

static void group_share(RowGroup *g) {
    __atomic_add_fetch(&g->users, 1, __ATOMIC_RELAXED);
}

static bool is_wanted(const RowStream *s, size_t row) {
    return s->wanted[row / 64] >> row % 64 & 1;
}

// Rows of validation lie among many others, which would take most of the memory. Training's own are left as
// they are: few others are among them.
static void cut_group(const RowStream *s, RowGroup *g) {
    const size_t n = record_batch_rows(g->batch);
    VEC(size_t) rows = {0};
    for (size_t row = 0; row < n; row++)
        if (is_wanted(s, g->first + row)) vec_push(&rows, row);
    if (rows.count <= n / 2 && record_batch_select(g->batch, rows.items, rows.count)) {
        g->kept = rows.items;
        g->n_kept = rows.count;
    } else {
        vec_free(&rows);
    }
}

static int by_number(const void *a, const void *b) {
    const size_t x = *(const size_t *)a, y = *(const size_t *)b;
    return (x > y) - (x < y);
}

static size_t row_in_memory(const RowGroup *g, size_t row) {
    if (!g->kept) return row;
    const size_t *found = bsearch(&row, g->kept, g->n_kept, sizeof row, by_number);
    CHECK(found, "row %zu of a group is not wanted", row);
    return (size_t)(found - g->kept);
}

// A group that is read takes several times what is kept of it, so the process reads one at a time, whichever
// stream it is for.
static bool read_alone(RecordBatch **batch, const RowStream *s, size_t i, Error *err) {
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&lock);
    const bool ok = dataset_read(batch, s->data, i, err);
    pthread_mutex_unlock(&lock);
    return ok;
}

// Reads a group; what is wrong with its content stays in the group, NULL means that its file is out of reach.
static RowGroup *read_group(RowStream *s, size_t i, Error *err) {
    if (!dataset_select(s->data, i, err)) return NULL;
    RowGroup *g = mem_zeroed(1, sizeof *g);
    g->users = 1;
    g->path = dataset_path(s->data, i);
    g->first = dataset_group(s->data, i)->first;
    g->first_in_file = dataset_group(s->data, i)->first_in_file;
    if (!read_alone(&g->batch, s, i, &g->err)) return g;
    cut_group(s, g);
    if (!row_columns_bind(&g->columns, g->batch, &g->err)) {
        record_batch_free(g->batch);
        g->batch = NULL;
    }
    return g;
}

// ---- windows ----

static void window_free(RowWindow *w) {
    if (!w) return;
    for (size_t i = w->given; i < w->rows.count; i++) row_release(&w->rows.items[i]);
    for (size_t i = 0; i < w->groups.count; i++) group_release(w->groups.items[i]);
    vec_free(&w->rows);
    vec_free(&w->numbers);
    vec_free(&w->groups);
    free(w);
}

// The group from the window before, when it lies there too, else from its file.
static RowGroup *get_group(RowStream *s, size_t number, Error *err) {
    const RowWindow *before = s->current;
    for (size_t i = 0; before && i < before->numbers.count; i++) {
        if (before->numbers.items[i] != number) continue;
        group_share(before->groups.items[i]);
        return before->groups.items[i];
    }
    return read_group(s, number, err);
}

static uint64_t rows_to_come(const RowStream *s) { // of the whole epoch, as it was begun
    return s->single.count + s->order.rows - s->from;
}

static uint64_t place_of(const RowStream *s, uint64_t i) {
    return i < s->single.count ? s->single.items[i] : s->from + (i - s->single.count);
}

static size_t *find_number(const RowWindow *w, size_t number) {
    return bsearch(&number, w->numbers.items, w->numbers.count, sizeof number, by_number);
}

static void ordered_range(const RowPlaces *places, size_t *low, size_t *high) {
    *low = SIZE_MAX, *high = 0;
    for (size_t i = 0; i < places->count; i++) {
        if (places->items[i].ordered < *low) *low = places->items[i].ordered;
        if (places->items[i].ordered > *high) *high = places->items[i].ordered;
    }
}

// Notes the groups that hold the rows to come from row s->read up to, but not including, the one returned,
// which is the first that is not in the window: each group once, as they follow one another in the files.
static uint64_t note_groups(const RowStream *s, RowWindow *w, size_t first, size_t end) {
    size_t low, high;
    uint64_t i = s->read;
    ordered_range(&s->places, &low, &high);
    bool *noted = mem_zeroed(high - low + 1, sizeof *noted);
    for (; i < rows_to_come(s) && place_of(s, i) >= first && place_of(s, i) < end; i++) {
        const size_t ordered = s->places.items[place_of(s, i) - first].ordered;
        if (!noted[ordered - low]) vec_push(&w->numbers, s->order.groups.items[ordered].group);
        noted[ordered - low] = true;
    }
    qsort(w->numbers.items, w->numbers.count, sizeof *w->numbers.items, by_number);
    free(noted);
    return i;
}

static bool load_groups(RowStream *s, RowWindow *w, Error *err) {
    for (size_t i = 0; i < w->numbers.count; i++) {
        RowGroup *g = get_group(s, w->numbers.items[i], err);
        if (!g) return false;
        vec_push(&w->groups, g);
    }
    return true;
}

// Adds the rows to come up to `behind`.
static void add_rows(const RowStream *s, RowWindow *w, size_t first, uint64_t behind) {
    w->rows.capacity = behind - s->read;
    w->rows.items = mem_alloc(w->rows.capacity * sizeof *w->rows.items);
    for (uint64_t i = s->read; i < behind; i++) {
        const RowPlace p = s->places.items[place_of(s, i) - first];
        const size_t *number = find_number(w, s->order.groups.items[p.ordered].group);
        RowGroup *g = w->groups.items[number - w->numbers.items];
        group_share(g);
        vec_push(&w->rows, (RowRef){g, row_in_memory(g, p.row), g->first + p.row, place_of(s, i)});
    }
}

// Groups in the order of the files, so that each is opened once. One window of shuffled groups takes them
// from many files, and what an open one takes is not needed until the next.
RowWindow *row_stream_read(RowStream *s, Error *err) {
    const size_t number = row_order_window_of(&s->order, place_of(s, s->read));
    const size_t first = s->order.windows.items[number], end = s->order.windows.items[number + 1];
    RowWindow *w = mem_zeroed(1, sizeof *w);
    row_order_window(&s->order, number, s->wanted, &s->places);
    const uint64_t behind = note_groups(s, w, first, end);
    const bool ok = load_groups(s, w, err);
    if (ok) add_rows(s, w, first, behind);
    vec_free(&s->places);
    if (s->settings.shuffle) {
        dataset_unselect(s->data);
        mem_trim();
    }
    if (ok) {
        s->read = behind;
        return w;
    }
    window_free(w);
    return NULL;
}

void row_stream_put(RowStream *s, RowWindow *w) {
    CHECK(!s->next, "a window waits already");
    s->next = w;
}

// ---- handing out ----

static bool at_hand(const RowWindow *w) {
    return w && w->given < w->rows.count;
}

bool row_stream_ready(const RowStream *s) {
    return s->left == 0 || at_hand(s->current) || s->next;
}

RowNeed row_stream_need(const RowStream *s) {
    if (s->next || s->read == rows_to_come(s)) return ROWS_NEED_NOTHING;
    return at_hand(s->current) && 2 * s->current->given < s->current->rows.count ? ROWS_NEED_SOON
                                                                                 : ROWS_NEED_NOW;
}

bool row_stream_next(RowStream *s, RowRef *ref, Error *err) {
    *ref = (RowRef){0};
    if (s->left == 0) return true;
    if (!at_hand(s->current)) {
        if (!s->next) s->next = row_stream_read(s, err);
        if (!s->next) return false;
        window_free(s->current);
        s->current = s->next;
        s->next = NULL;
    }
    *ref = s->current->rows.items[s->current->given++];
    s->left--;
    return true;
}

static void drop_windows(RowStream *s) {
    window_free(s->current);
    window_free(s->next);
    s->current = s->next = NULL;
}

static RowOrderSettings order_settings(const RowStreamSettings *s) {
    return (RowOrderSettings){s->shuffle, s->window_bytes, s->split == ROWS_TRAINING ? s->shuffle_buffer : 0,
                              s->seed};
}

void row_stream_seek(RowStream *s, uint64_t epoch, const uint64_t *places, size_t n, uint64_t from) {
    drop_windows(s);
    row_order_begin(&s->order, s->data, order_settings(&s->settings), s->wanted,
                    s->settings.split == ROWS_TRAINING ? epoch + 1 : 0);
    CHECK(from <= s->order.rows && (n == 0 || places[n - 1] < from), "from row %llu",
          (unsigned long long)from);
    vec_clear(&s->single);
    vec_extend(&s->single, places, n);
    s->from = from;
    s->read = 0;
    s->left = rows_to_come(s);
}

void row_stream_restart(RowStream *s, uint64_t epoch) {
    row_stream_seek(s, epoch, NULL, 0, 0);
}

uint64_t row_stream_rows(const RowStream *s) {
    return s->order.rows;
}

size_t row_stream_bytes(const RowStream *s) {
    size_t most = 0;
    for (size_t w = 0; w + 1 < s->order.windows.count; w++) {
        const size_t bytes = row_order_windows_bytes(&s->order, w > 0 ? w - 1 : 0, w);
        if (bytes > most) most = bytes;
    }
    return most;
}

size_t row_stream_file_bytes(const RowStream *s) {
    return dataset_file_bytes(s->data);
}

size_t row_stream_group_bytes(const RowStream *s) {
    return dataset_group_bytes(s->data);
}

size_t row_stream_reading_bytes(const RowStream *s) {
    return dataset_reading_bytes(s->data);
}

size_t row_stream_windows(const RowStream *s) {
    return s->order.windows.count - 1;
}

static void add_held(size_t *pages, size_t *taken, const RowStream *s, const RowWindow *w,
                     const RowWindow *before) {
    if (w) *taken += w->rows.capacity * sizeof *w->rows.items;
    for (size_t i = 0; w && i < w->groups.count; i++) {
        bool counted = false;
        for (size_t k = 0; before && k < before->groups.count; k++)
            counted |= before->groups.items[k] == w->groups.items[i];
        const RecordBatch *batch = w->groups.items[i]->batch;
        if (counted || !batch) continue;
        *pages += dataset_group(s->data, w->numbers.items[i])->bytes;
        *taken += sizeof(RowGroup) + record_batch_bytes(batch);
    }
}

void row_stream_held(size_t *pages, size_t *taken, const RowStream *s) {
    *pages = *taken = 0;
    add_held(pages, taken, s, s->current, NULL);
    add_held(pages, taken, s, s->next, s->current);
}

// ---- ranks and validation ----

static uint64_t *new_bits(size_t n, bool set) {
    uint64_t *words = mem_zeroed(n / 64 + 1, sizeof *words);
    if (set) memset(words, 0xff, (n / 64 + 1) * sizeof *words);
    return words;
}

static void set_bit(uint64_t *words, size_t i) {
    words[i / 64] |= (uint64_t)1 << i % 64;
}

// Order number 0 of the rows in s->wanted, without a shuffle buffer.
static void begin_order_0(RowStream *s) {
    RowOrderSettings settings = order_settings(&s->settings);
    settings.shuffle_buffer = 0;
    row_order_begin(&s->order, s->data, settings, s->wanted, 0);
}

// Leaves in s->wanted, which holds all rows, the rank's share; returns its size.
static size_t take_share(RowStream *s) {
    const size_t n = dataset_rows(s->data), world = s->settings.world_size, rank = s->settings.rank;
    const size_t odd = n % world, first = n / world * rank + (rank < odd ? rank : odd);
    const size_t end = first + n / world + (rank < odd);
    begin_order_0(s);
    memset(s->wanted, 0, (n / 64 + 1) * sizeof *s->wanted);
    for (size_t i = 0; i < s->order.groups.count; i++) {
        const DatasetGroup *g = dataset_group(s->data, s->order.groups.items[i].group);
        const size_t place = s->order.groups.items[i].first;
        for (size_t row = 0; row < g->rows; row++)
            if (place + row >= first && place + row < end) set_bit(s->wanted, g->first + row);
    }
    return end - first;
}

// Cuts s->wanted into its first n rows and the others, and keeps one of them.
static void split_share(RowStream *s, size_t n, bool keep_first) {
    uint64_t *held_out = new_bits(dataset_rows(s->data), false);
    begin_order_0(s);
    for (size_t w = 0; n > 0; w++) {
        row_order_window(&s->order, w, s->wanted, &s->places);
        for (size_t i = 0; i < s->places.count && n > 0; i++, n--) {
            const RowPlace p = s->places.items[i];
            set_bit(held_out, dataset_group(s->data, s->order.groups.items[p.ordered].group)->first + p.row);
        }
    }
    for (size_t i = 0; i <= dataset_rows(s->data) / 64; i++)
        s->wanted[i] &= keep_first ? held_out[i] : ~held_out[i];
    free(held_out);
}

// How many rows of a share are validation.
static bool validation_rows(size_t *n, const RowStreamSettings *s, size_t share, Error *err) {
    *n = s->val_size / s->world_size;
    if (s->split == ROWS_OWN) {
        if (s->val_size == 0 || *n > share) *n = share;
        return true;
    }
    if (*n < share) return true;
    if (s->world_size > 1)
        return error_set(
            err,
            "val_size is %zu, %zu for each of %zu ranks, but the share of rank %zu has only %zu rows, so "
            "none is left to train on; lower --val_size",
            s->val_size, *n, s->world_size, s->rank, share);
    return error_set(err,
                     "val_size is %zu, but the data set has only %zu rows, so none is left to train on; "
                     "lower --val_size",
                     s->val_size, share);
}

bool row_stream_open(RowStream **out, Dataset *d, RowStreamSettings settings, Error *err) {
    if (settings.world_size == 0) settings.world_size = 1;
    CHECK(settings.rank < settings.world_size, "rank %zu of %zu", settings.rank, settings.world_size);
    RowStream *s = mem_zeroed(1, sizeof *s);
    s->data = d;
    s->settings = settings;
    s->wanted = new_bits(dataset_rows(d), true);
    size_t n;
    if (!validation_rows(&n, &s->settings, take_share(s), err)) {
        row_stream_close(s);
        return false;
    }
    split_share(s, n, settings.split != ROWS_TRAINING);
    row_stream_restart(s, 0);
    *out = s;
    return true;
}

void row_stream_close(RowStream *s) {
    if (!s) return;
    drop_windows(s);
    row_order_free(&s->order);
    vec_free(&s->places);
    vec_free(&s->single);
    free(s->wanted);
    free(s);
}
