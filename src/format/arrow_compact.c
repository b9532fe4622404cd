// Where rows lie. Arrow gives a buffer to each level of each column, aligned and with room to grow, and keeps
// an object for each: of a group of a hundred short rows that is half of its memory, and on a heap the rest
// of it are holes. So such groups are copied into one block.
#include "base/memory.h"
#include "format/arrow.h"
#include "format/arrow_batch.h"

#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LARGE = 128 << 10 }; // mem_settle's: from there on a block has pages of its own

// ---- sizes ----

// Bytes of buffer i, as far as entries use them.
static size_t buffer_bytes(const struct ArrowSchema *schema, const struct ArrowArray *array, int64_t i) {
    const size_t n = (size_t)(array->offset + array->length);
    size_t width = 0;
    bool has_offsets = false;
    column_width(&width, &has_offsets, schema->format);
    if (n == 0 || !array->buffers[i]) return 0;
    if (i == 0) return array->null_count == 0 ? 0 : (n + 7) / 8;
    if (i == 1) return (n + has_offsets) * width;
    const void *offsets = array->buffers[1];
    if (!has_offsets) return 0;
    return width == sizeof(int32_t) ? (size_t)((const int32_t *)offsets)[n]
                                    : (size_t)((const int64_t *)offsets)[n];
}

static bool is_left(const struct ArrowSchema *schema, const struct ArrowArray *array) {
    size_t width;
    bool has_offsets, left = !column_width(&width, &has_offsets, schema->format) || array->dictionary;
    for (int64_t i = 0; !left && i < array->n_buffers; i++) left = buffer_bytes(schema, array, i) >= LARGE;
    return left;
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

static const void *copy(Block *b, const void *from, size_t bytes) {
    void *to = take(b, bytes);
    if (to && bytes > 0) memcpy(to, from, bytes);
    return to;
}

static void put_schema(struct ArrowSchema *to, Block *b, const struct ArrowSchema *from) {
    const size_t n = (size_t)from->n_children;
    *to = (struct ArrowSchema){
        .format = copy(b, from->format, strlen(from->format) + 1),
        .name = copy(b, from->name ? from->name : "", from->name ? strlen(from->name) + 1 : 1),
        .flags = from->flags,
        .n_children = from->n_children,
        .children = take(b, n * sizeof *from->children)};
    for (size_t i = 0; i < n; i++) {
        struct ArrowSchema size_only, *child = take(b, sizeof *child);
        put_schema(child ? child : &size_only, b, from->children[i]);
        if (to->children) to->children[i] = child;
    }
}

// Gives back those below that were left with Arrow.
static void release_copied(struct ArrowArray *array) {
    for (int64_t i = 0; i < array->n_children; i++)
        if (array->children[i]->release) array->children[i]->release(array->children[i]);
    array->release = NULL;
}

static void put_array(struct ArrowArray *to, Block *b, struct ArrowArray *from,
                      const struct ArrowSchema *schema) {
    const size_t n = (size_t)from->n_children, n_buffers = (size_t)from->n_buffers;
    const void **buffers = take(b, n_buffers * sizeof *buffers);
    *to = (struct ArrowArray){.length = from->length,
                              .null_count = from->null_count,
                              .offset = from->offset,
                              .n_buffers = from->n_buffers,
                              .n_children = from->n_children,
                              .buffers = buffers,
                              .children = take(b, n * sizeof *from->children),
                              .release = release_copied};
    for (size_t i = 0; i < n_buffers; i++) {
        const size_t bytes = buffer_bytes(schema, from, (int64_t)i);
        const void *buffer = copy(b, from->buffers[i], bytes);
        if (buffers) buffers[i] = bytes ? buffer : NULL;
    }
    for (size_t i = 0; i < n; i++) {
        struct ArrowArray size_only, *child = take(b, sizeof *child);
        if (to->children) to->children[i] = child;
        if (!is_left(schema->children[i], from->children[i]))
            put_array(child ? child : &size_only, b, from->children[i], schema->children[i]);
        else if (child)
            *child = *from->children[i], from->children[i]->release = NULL; // it was moved
    }
}

void record_batch_compact(RecordBatch *batch) {
    struct ArrowSchema schema;
    struct ArrowArray array;
    Block b = {0};
    for (int i = 0; i < 2; i++) { // sizes, then values
        if (i > 0) b = (Block){batch->block = mem_alloc(b.used), 0};
        put_schema(&schema, &b, &batch->schema);
        put_array(&array, &b, &batch->array, &batch->schema);
    }
    batch->array.release(&batch->array);
    batch->schema.release(&batch->schema);
    batch->array = array;
    batch->schema = schema;
}

// ---- what is taken ----

static size_t taken(size_t bytes) {
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    return bytes < LARGE ? bytes : (bytes + page - 1) / page * page;
}

static size_t left_bytes(const struct ArrowSchema *schema, const struct ArrowArray *array) {
    size_t bytes = 0;
    for (int64_t i = 0; array->release != release_copied && i < array->n_buffers; i++)
        bytes += taken(buffer_bytes(schema, array, i));
    for (int64_t i = 0; i < array->n_children; i++)
        bytes += left_bytes(schema->children[i], array->children[i]);
    return bytes;
}

size_t record_batch_bytes(const RecordBatch *batch) {
    return (batch->block ? malloc_usable_size(batch->block) : 0) + left_bytes(&batch->schema, &batch->array);
}
