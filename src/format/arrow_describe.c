#include "format/arrow_describe.h"
#include "base/vec.h"
#include "format/arrow_batch.h"

#define MAX_DEPTH 32

// Arrow's format strings (https://arrow.apache.org/docs/format/CDataInterface.html); others are shown as
// they are.
static const struct {
    const char *format, *name;
} names[] = {
    {"n", "null"},    {"b", "bool"},   {"c", "int8"},         {"C", "uint8"},        {"s", "int16"},
    {"S", "uint16"},  {"i", "int32"},  {"I", "uint32"},       {"l", "int64"},        {"L", "uint64"},
    {"e", "float16"}, {"f", "float"},  {"g", "double"},       {"u", "string"},       {"U", "large_string"},
    {"z", "binary"},  {"+l", "list"},  {"Z", "large_binary"}, {"+L", "large_list"},  {"+s", "struct"},
    {"+m", "map"},    {"tdD", "date"}, {"vu", "string_view"}, {"vz", "binary_view"}, {"+vl", "list_view"},
};

static void put(CharVec *out, const char *text) {
    vec_extend(out, text, strlen(text));
}

static void put_type(CharVec *out, const struct ArrowSchema *schema, size_t depth) {
    const char *name = schema->format;
    if (depth == MAX_DEPTH) {
        put(out, "…");
        return;
    }
    if (schema->dictionary) {
        put(out, "dictionary<");
        put_type(out, schema->dictionary, depth + 1);
        put(out, ">");
        return;
    }
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(names[i].format, schema->format) == 0) name = names[i].name;
    put(out, name);
    if (schema->n_children == 0) return;
    const bool named = strcmp(name, "struct") == 0; // the fields of others have names that say nothing
    for (int64_t i = 0; i < schema->n_children; i++) {
        put(out, i ? ", " : "<");
        if (named) {
            put(out, schema->children[i]->name);
            put(out, ": ");
        }
        put_type(out, schema->children[i], depth + 1);
    }
    put(out, ">");
}

size_t record_batch_column_count(const RecordBatch *batch) {
    return (size_t)batch->schema.n_children;
}

const char *record_batch_column_name(const RecordBatch *batch, size_t i) {
    return batch->schema.children[i]->name;
}

char *record_batch_column_type(const RecordBatch *batch, size_t i) {
    CharVec out = {0};
    put_type(&out, batch->schema.children[i], 0);
    vec_push(&out, '\0');
    return out.items;
}
