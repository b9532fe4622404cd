#include "data/row_stream.h"

#include "base/random.h"
#include "base/vec.h"

#define WINDOW_BYTES ((size_t)256 << 20)

typedef struct PlannedRow {
    size_t group, row;
} PlannedRow;

// An order of all rows, made window by window without reading any.
typedef struct RowOrder {
    const Dataset *data;
    bool shuffle;
    Random random;
    size_t *groups; // their order
    size_t next;    // place in groups
    VEC(PlannedRow) window;
} RowOrder;

struct RowStream {
    Dataset *data;
    RowStreamSettings settings;
    RowOrder order;
    uint64_t *held_out; // a bit for each row of the data set: validation
    VEC(RowRef) ready;  // rows of the window, each with its share of the group
    size_t given;       // of ready
    size_t left;        // rows still to come in this epoch
};

// ---- order ----

static void order_begin(RowOrder *o, const RowStreamSettings *settings, uint64_t index) {
    o->next = 0;
    o->random = random_stream(settings->seed, RANDOM_SHUFFLE, index);
    size_t n = dataset_group_count(o->data);
    for (size_t i = 0; i < n; i++) o->groups[i] = i;
    if (o->shuffle) random_permutation(o->groups, n, &o->random);
}

// The next window's rows; none at the end.
static void order_window(RowOrder *o) {
    size_t bytes = 0;
    vec_clear(&o->window);
    while (o->next < dataset_group_count(o->data)) {
        const DatasetGroup *g = dataset_group(o->data, o->groups[o->next]);
        bytes += g->bytes;
        if (o->window.count && (!o->shuffle || bytes > WINDOW_BYTES)) break;
        for (size_t i = 0; i < g->rows; i++) vec_push(&o->window, (PlannedRow){o->groups[o->next], i});
        o->next++;
    }
    for (size_t i = o->window.count; o->shuffle && i > 1; i--) {
        size_t j = (size_t)random_below(&o->random, i);
        PlannedRow t = o->window.items[i - 1];
        o->window.items[i - 1] = o->window.items[j];
        o->window.items[j] = t;
    }
}

// ---- validation rows ----

static size_t row_number(const RowStream *s, PlannedRow p) {
    return dataset_group(s->data, p.group)->first + p.row;
}

static bool is_wanted(const RowStream *s, PlannedRow p) {
    size_t n = row_number(s, p);
    return (s->held_out[n / 64] >> n % 64 & 1) == s->settings.validation;
}

static void hold_out(RowStream *s) {
    size_t left = s->settings.val_size;
    order_begin(&s->order, &s->settings, 0);
    while (left > 0) {
        order_window(&s->order);
        for (size_t i = 0; i < s->order.window.count && left > 0; i++, left--) {
            size_t n = row_number(s, s->order.window.items[i]);
            s->held_out[n / 64] |= (uint64_t)1 << n % 64;
        }
    }
}

// ---- reading ----

void row_release(RowRef *ref) {
    RowGroup *g = ref->group;
    ref->group = NULL;
    if (!g || __atomic_sub_fetch(&g->users, 1, __ATOMIC_ACQ_REL) > 0) return;
    if (g->batch) record_batch_free(g->batch);
    free(g);
}

// Reads a group; what is wrong with its content stays in the group, NULL means that its file is out of reach.
static RowGroup *read_group(RowStream *s, size_t i, Error *err) {
    if (!dataset_select(s->data, i, err)) return NULL;
    RowGroup *g = mem_zeroed(1, sizeof *g);
    g->path = dataset_path(s->data, i);
    g->first_in_file = dataset_group(s->data, i)->first_in_file;
    if (dataset_read(&g->batch, s->data, i, &g->err) && !row_columns_bind(&g->columns, g->batch, &g->err)) {
        record_batch_free(g->batch);
        g->batch = NULL;
    }
    return g;
}

static void drop_ready(RowStream *s) {
    for (size_t i = s->given; i < s->ready.count; i++) row_release(&s->ready.items[i]);
    vec_clear(&s->ready);
    s->given = 0;
}

// Fills `ready` with the wanted rows of the next window that has any.
static bool read_window(RowStream *s, Error *err) {
    size_t n = dataset_group_count(s->data);
    RowGroup **loaded = mem_zeroed(n, sizeof *loaded);
    bool ok = true;
    while (ok && s->ready.count == 0) {
        order_window(&s->order);
        for (size_t i = 0; ok && i < s->order.window.count; i++) {
            PlannedRow p = s->order.window.items[i];
            if (!is_wanted(s, p)) continue;
            if (!loaded[p.group]) loaded[p.group] = read_group(s, p.group, err);
            ok = loaded[p.group] != NULL;
            if (!ok) break;
            loaded[p.group]->users++;
            vec_push(&s->ready, (RowRef){loaded[p.group], p.row});
        }
    }
    free(loaded);
    if (!ok) drop_ready(s);
    return ok;
}

bool row_stream_next(RowStream *s, RowRef *ref, Error *err) {
    *ref = (RowRef){0};
    if (s->left == 0) return true;
    if (s->given == s->ready.count) {
        drop_ready(s);
        if (!read_window(s, err)) return false;
    }
    *ref = s->ready.items[s->given++];
    s->left--;
    return true;
}

void row_stream_restart(RowStream *s, uint64_t epoch) {
    const RowStreamSettings *settings = &s->settings;
    drop_ready(s);
    order_begin(&s->order, settings, settings->validation ? 0 : epoch + 1);
    s->left = settings->validation ? settings->val_size : dataset_rows(s->data) - settings->val_size;
}

bool row_stream_open(RowStream **out, Dataset *d, RowStreamSettings settings, Error *err) {
    size_t rows = dataset_rows(d);
    if (settings.val_size >= rows)
        return error_set(err,
                         "val_size is %zu, but the data set has only %zu rows, so none is left to train on; "
                         "lower --val_size",
                         settings.val_size, rows);
    RowStream *s = mem_zeroed(1, sizeof *s);
    s->data = d;
    s->settings = settings;
    s->order = (RowOrder){.data = d, .shuffle = settings.shuffle};
    s->order.groups = mem_alloc(dataset_group_count(d) * sizeof *s->order.groups);
    s->held_out = mem_zeroed(rows / 64 + 1, sizeof *s->held_out);
    hold_out(s);
    row_stream_restart(s, 0);
    *out = s;
    return true;
}

void row_stream_close(RowStream *s) {
    if (!s) return;
    drop_ready(s);
    vec_free(&s->ready);
    vec_free(&s->order.window);
    free(s->order.groups);
    free(s->held_out);
    free(s);
}
