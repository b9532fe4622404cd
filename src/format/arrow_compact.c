// Where rows lie. Arrow gives a buffer to each level of each column, aligned and with room to grow, and keeps
// an object for each: of a group of a hundred short rows that is half of its memory. So they are copied into
// one block, all of them or those that are wanted.
#include "base/vec.h"
#include "format/arrow.h"
#include "format/arrow_batch.h"

#include <malloc.h>
#include <unistd.h>

enum { LARGE = 128 << 10 }; // mem_settle's: from there on a block has pages of its own

// Entries of a column, as they are counted in its buffers.
typedef struct Range {
    size_t first, end;
} Range;
typedef VEC(Range) Ranges;

static void add_range(Ranges *r, size_t first, size_t end) {
    if (first == end) return;
    if (r->count > 0 && r->items[r->count - 1].end == first)
        r->items[r->count - 1].end = end;
    else
        vec_push(r, (Range){first, end});
}

static size_t count_entries(const Ranges *r) {
    size_t n = 0;
    for (size_t i = 0; i < r->count; i++) n += r->items[i].end - r->items[i].first;
    return n;
}

// ---- a column's buffers ----

typedef struct Buffers {
    bool is_known, has_offsets; // format
    size_t width;               // of the second one's entries
    const struct ArrowArray *array;
} Buffers;

static Buffers buffers_of(const struct ArrowSchema *schema, const struct ArrowArray *array) {
    Buffers b = {.array = array};
    b.is_known = column_width(&b.width, &b.has_offsets, schema->format) && !array->dictionary;
    return b;
}

static size_t offset_at(Buffers b, size_t i) {
    const void *offsets = b.array->buffers[1];
    return b.width == sizeof(int32_t) ? (size_t)((const int32_t *)offsets)[i]
                                      : (size_t)((const int64_t *)offsets)[i];
}

static size_t bytes_behind(Buffers b, Range r) { // of binary and text
    return offset_at(b, r.end) - offset_at(b, r.first);
}

// Bytes of all buffers, as far as entries use them; of the largest, if `largest`.
static size_t buffer_bytes(Buffers b, bool largest) {
    const size_t n = (size_t)(b.array->offset + b.array->length);
    size_t bytes[3] = {0};
    if (!b.is_known || n == 0 || b.array->n_buffers == 0) return 0;
    if (b.array->buffers[0]) bytes[0] = (n + 7) / 8;
    if (b.array->n_buffers > 1) bytes[1] = (n + b.has_offsets) * b.width;
    if (b.array->n_buffers > 2) bytes[2] = bytes_behind(b, (Range){0, n});
    size_t sum = 0, most = 0;
    for (size_t i = 0; i < 3; i++) {
        sum += bytes[i];
        if (bytes[i] > most) most = bytes[i];
    }
    return largest ? most : sum;
}

// ---- one block ----

// Gives out memory from its beginning on; without memory it only adds up.
typedef struct Block {
    char *memory;
    size_t used;
} Block;

static void *take(Block *b, size_t bytes) {
    void *p = b->memory ? b->memory + b->used : NULL;
    b->used += (bytes + sizeof(int64_t) - 1) / sizeof(int64_t) * sizeof(int64_t);
    return p;
}

static const char *put_text(Block *b, const char *text) {
    const size_t bytes = strlen(text) + 1;
    char *to = take(b, bytes);
    return to ? memcpy(to, text, bytes) : NULL;
}

static void put_schema(struct ArrowSchema *to, Block *b, const struct ArrowSchema *from) {
    const size_t n = (size_t)from->n_children;
    *to = (struct ArrowSchema){.format = put_text(b, from->format),
                               .name = put_text(b, from->name ? from->name : ""),
                               .flags = from->flags,
                               .n_children = from->n_children,
                               .children = take(b, n * sizeof *from->children)};
    for (size_t i = 0; i < n; i++) {
        struct ArrowSchema size_only, *child = take(b, sizeof *child);
        put_schema(child ? child : &size_only, b, from->children[i]);
        if (to->children) to->children[i] = child;
    }
}

static const void *put_bits(Block *b, const uint8_t *from, const Ranges *r) {
    const size_t bytes = (count_entries(r) + 7) / 8;
    uint8_t *to = take(b, bytes);
    size_t n = 0;
    if (to) memset(to, 0, bytes);
    for (size_t k = 0; to && k < r->count; k++)
        for (size_t i = r->items[k].first; i < r->items[k].end; i++, n++)
            to[n / 8] |= (uint8_t)((from[i / 8] >> i % 8 & 1) << n % 8);
    return to;
}

static const void *put_values(Block *b, const char *from, size_t width, const Ranges *r) {
    char *to = take(b, count_entries(r) * width), *at = to;
    for (size_t k = 0; to && k < r->count; k++) {
        const size_t bytes = (r->items[k].end - r->items[k].first) * width;
        if (bytes > 0) memcpy(at, from + r->items[k].first * width, bytes);
        at += bytes;
    }
    return to;
}

static const void *put_offsets(Block *b, Buffers from, const Ranges *r) {
    char *to = take(b, (count_entries(r) + 1) * from.width);
    size_t n = 0;
    int64_t offset = 0; // little-endian, as Arrow's buffers: its first bytes are the number in 32 bits
    if (to) memcpy(to, &offset, from.width);
    for (size_t k = 0; to && k < r->count; k++)
        for (size_t i = r->items[k].first; i < r->items[k].end; i++) {
            offset += (int64_t)bytes_behind(from, (Range){i, i + 1});
            memcpy(to + ++n * from.width, &offset, from.width);
        }
    return to;
}

// What the offsets of a list, of binary or of text lead to; for a struct the same entries.
static void ranges_behind(Ranges *out, Buffers from, const Ranges *r, size_t offset) {
    for (size_t k = 0; k < r->count; k++) {
        const Range in = r->items[k];
        const size_t first = from.has_offsets ? offset_at(from, in.first) : in.first,
                     end = from.has_offsets ? offset_at(from, in.end) : in.end;
        add_range(out, offset + first, offset + end);
    }
}

static void put_buffers(struct ArrowArray *to, Block *b, Buffers from, const Ranges *r) {
    const struct ArrowArray *a = from.array;
    const void *own[3] = {0};
    if (a->n_buffers > 0 && a->buffers[0] && a->null_count != 0) own[0] = put_bits(b, a->buffers[0], r);
    if (a->n_buffers > 1)
        own[1] = from.has_offsets ? put_offsets(b, from, r) : put_values(b, a->buffers[1], from.width, r);
    if (a->n_buffers > 2) {
        Ranges bytes = {0};
        ranges_behind(&bytes, from, r, 0);
        own[2] = put_values(b, a->buffers[2], 1, &bytes);
        vec_free(&bytes);
    }
    const size_t size = (size_t)a->n_buffers * sizeof *own;
    to->buffers = take(b, size);
    if (to->buffers && size > 0) memcpy(to->buffers, own, size);
}

// Gives back those below that were left with Arrow.
static void release_copied(struct ArrowArray *array) {
    for (int64_t i = 0; i < array->n_children; i++)
        if (array->children[i]->release) array->children[i]->release(array->children[i]);
    array->release = NULL;
}

// `from` itself, which is then another's no more.
static void move(struct ArrowArray *to, struct ArrowArray *from, const Ranges *r) {
    *to = *from;
    to->offset = r->count > 0 ? (int64_t)r->items[0].first : 0;
    to->length = (int64_t)count_entries(r);
    from->release = NULL;
}

// The entries r of an array. all: large buffers may stay where they are, because all of them is wanted.
static void put_array(struct ArrowArray *to, Block *b, struct ArrowArray *from,
                      const struct ArrowSchema *schema, const Ranges *r, bool all) {
    const size_t n = (size_t)from->n_children;
    *to = (struct ArrowArray){.length = (int64_t)count_entries(r),
                              .null_count = from->null_count == 0 ? 0 : -1,
                              .n_buffers = from->n_buffers,
                              .n_children = from->n_children,
                              .children = take(b, n * sizeof *from->children),
                              .release = release_copied};
    const Buffers buffers = buffers_of(schema, from);
    put_buffers(to, b, buffers, r);
    for (size_t i = 0; i < n; i++) {
        struct ArrowArray size_only, *child = take(b, sizeof *child), *of = from->children[i];
        const Buffers below = buffers_of(schema->children[i], of);
        Ranges entries = {0};
        ranges_behind(&entries, buffers, r, (size_t)of->offset);
        if (below.is_known && !(all && buffer_bytes(below, true) >= LARGE))
            put_array(child ? child : &size_only, b, of, schema->children[i], &entries, all);
        else if (child)
            move(child, of, &entries);
        if (to->children) to->children[i] = child;
        vec_free(&entries);
    }
}

static void put_rows(RecordBatch *batch, const Ranges *rows, bool all) {
    struct ArrowSchema schema;
    struct ArrowArray array;
    Block b = {0};
    for (int i = 0; i < 2; i++) { // sizes, then values
        if (i > 0) b = (Block){mem_alloc(b.used), 0};
        put_schema(&schema, &b, &batch->schema);
        put_array(&array, &b, &batch->array, &batch->schema, rows, all);
    }
    record_batch_release(batch);
    batch->array = array;
    batch->schema = schema;
    batch->block = b.memory;
}

void record_batch_compact(RecordBatch *batch) {
    const size_t first = (size_t)batch->array.offset;
    Ranges all = {0};
    add_range(&all, first, first + record_batch_rows(batch));
    put_rows(batch, &all, true);
    vec_free(&all);
}

bool record_batch_select(RecordBatch *batch, const size_t *rows, size_t n) {
    if (!batch->block) return false;
    Ranges some = {0};
    for (size_t i = 0; i < n; i++) add_range(&some, rows[i], rows[i] + 1);
    put_rows(batch, &some, false);
    vec_free(&some);
    return true;
}

// ---- what is taken ----

static size_t left_bytes(const struct ArrowSchema *schema, const struct ArrowArray *array) {
    size_t bytes = array->release == release_copied ? 0 : buffer_bytes(buffers_of(schema, array), false);
    for (int64_t i = 0; i < array->n_children; i++)
        bytes += left_bytes(schema->children[i], array->children[i]);
    return bytes;
}

size_t record_batch_bytes(const RecordBatch *batch) {
    return (batch->block ? malloc_usable_size(batch->block) : 0) + left_bytes(&batch->schema, &batch->array);
}
