// Fields as a whole: defaults, freeing, copying, and JSON objects. Single values are read in fields_value.c.
#include "config/fields_value.h"
#include "base/check.h"
#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

void fields_set_defaults(FieldSet set) {
    for (size_t i = 0; set.table && i < set.table->count; i++) {
        const Field *f = &set.table->fields[i];
        memset(field_at(set, f), 0, field_size(f->type));
        Error err;
        bool fits = !f->default_text || fields_set_text(set, f, f->default_text, &err);
        CHECK(fits, "default: %s", err.text);
    }
}

void field_free(FieldSet set, const Field *f) {
    void *p = field_at(set, f);
    switch (f->type) {
    case FIELD_STRING:
    case FIELD_OPTIONAL_STRING:
        free(*(char **)p);
        break;
    case FIELD_STRING_LIST:
    case FIELD_STRING_REPEATED:
        string_list_free(p);
        break;
    case FIELD_TOKEN_MAP: {
        TokenMap *map = p;
        for (size_t i = 0; i < map->count; i++) {
            free(map->items[i].name);
            free(map->items[i].token);
        }
        free(map->items);
        break;
    }
    default:
        break;
    }
    memset(p, 0, field_size(f->type));
}

void fields_free(FieldSet set) {
    for (size_t i = 0; set.table && i < set.table->count; i++) field_free(set, &set.table->fields[i]);
}

bool fields_copy(FieldSet to, const void *from_base) {
    FieldSet from = {to.table, (void *)from_base};
    for (size_t i = 0; i < to.table->count; i++) {
        const Field *f = &to.table->fields[i];
        json_t *value = fields_get_json(from, f);
        memset(field_at(to, f), 0, field_size(f->type));
        bool stored = field_store(to, f, value);
        json_decref(value);
        if (!stored) return false;
    }
    return true;
}

json_t *fields_to_json(FieldSet set) {
    json_t *object = json_object();
    for (size_t i = 0; i < set.table->count; i++) {
        const Field *f = &set.table->fields[i];
        json_object_set_new(object, f->name, fields_get_json(set, f));
    }
    return object;
}

static bool same_name(const char *field, const char *name, size_t length) {
    for (size_t i = 0; i < length; i++) {
        if (field[i] != (name[i] == '-' ? '_' : name[i])) return false;
    }
    return field[length] == '\0';
}

const Field *fields_find(const FieldTable *table, const char *name, size_t length) {
    for (size_t i = 0; table && i < table->count; i++) {
        if (same_name(table->fields[i].name, name, length)) return &table->fields[i];
    }
    return NULL;
}

static bool unknown_key(const FieldTable *table, const char *key, const char *file, Error *err) {
    const char **names = mem_zeroed(table->count, sizeof *names);
    for (size_t i = 0; i < table->count; i++) names[i] = table->fields[i].name;
    const char *near = nearest_name(key, names, table->count);
    free(names);
    if (near) return error_set(err, "%s: unknown key \"%.100s\"; did you mean \"%s\"?", file, key, near);
    return error_set(err, "%s: unknown key \"%.100s\": %s has no such field; remove it", file, key,
                     table->title);
}

bool fields_from_json(FieldSet set, const json_t *object, const char *file, Error *err) {
    if (!json_is_object(object))
        return error_set(err, "%s: expected a JSON object with the fields of %s", file, set.table->title);
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)object, key, value) {
        const Field *f = fields_find(set.table, key, strlen(key));
        if (!f || strcmp(f->name, key)) return unknown_key(set.table, key, file, err);
        if (!fields_set_json(set, f, value, err)) return error_prefix(err, "%s", file);
    }
    return true;
}
