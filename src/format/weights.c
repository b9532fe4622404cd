#include "format/weights.h"
#include "base/check.h"
#include "base/file.h"
#include "base/memory.h"
#include "base/vec.h"
#include "format/weights_kind.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const WeightsKind *const kinds[] = {&weights_safetensors, &weights_gguf};
enum { N_KINDS = sizeof kinds / sizeof *kinds, MAX_MAGIC = 16 };

static const char *const index_name = "model.safetensors.index.json", *const single_name =
                                                                          "model.safetensors";

struct Weights {
    char *path;
    VEC(WeightsFile *) files;
    json_t *index;         // of a folder with shards
    WeightsEntry *entries; // by name
    size_t count;
};

static bool ends_with(const char *text, const char *end) {
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

// The kind that fits a file, by its first bytes or its name; NULL when none does.
static const WeightsKind *find_kind(const char *path) {
    char bytes[MAX_MAGIC] = "";
    FILE *f = fopen(path, "rb");
    size_t n = f ? fread(bytes, 1, sizeof bytes, f) : 0;
    if (f) fclose(f);
    for (size_t i = 0; i < N_KINDS; i++) {
        size_t length = kinds[i]->magic ? strlen(kinds[i]->magic) : 0;
        if (length && n >= length && memcmp(bytes, kinds[i]->magic, length) == 0) return kinds[i];
    }
    for (size_t i = 0; i < N_KINDS; i++)
        if (ends_with(path, kinds[i]->suffix)) return kinds[i];
    return NULL;
}

// The kinds' suffixes, for messages.
static const char *known_suffixes(char *text, size_t size) {
    size_t used = 0;
    text[0] = '\0';
    for (size_t i = 0; i < N_KINDS && used < size; i++)
        used += (size_t)snprintf(text + used, size - used, "%s%s", i ? ", " : "", kinds[i]->suffix);
    return text;
}

static bool add_file(Weights *w, const char *path, Error *err) {
    char known[64];
    if (!file_exists(path)) return error_set(err, "%s: not found", path);
    const WeightsKind *kind = find_kind(path);
    if (!kind)
        return error_set(err, "%s: no known kind of weights; expected %s", path,
                         known_suffixes(known, sizeof known));
    WeightsFile *f = mem_zeroed(1, sizeof *f);
    *f = (WeightsFile){.kind = kind, .path = mem_strdup(path)};
    vec_push(&w->files, f);
    return kind->open(&f->file, path, err);
}

// ---- a folder ----

// A shard is a plain file of the folder itself: an index from elsewhere must not lead out of it.
static bool is_plain_name(const char *name) {
    return *name && *name != '.' && !strchr(name, '/');
}

static bool is_open(const Weights *w, const char *path) {
    for (size_t i = 0; i < w->files.count; i++)
        if (!strcmp(w->files.items[i]->path, path)) return true;
    return false;
}

static bool open_shard(Weights *w, const char *index, const char *tensor, const json_t *shard, Error *err) {
    const char *name = json_string_value(shard);
    if (!name) return error_set(err, "%s: weight_map: the file of %s is not a string", index, tensor);
    if (!is_plain_name(name))
        return error_set(err,
                         "%s: weight_map: the file of %s is \"%.200s\", expected a file of the same folder",
                         index, tensor, name);
    char *path = path_join(w->path, name);
    bool ok = true;
    if (!is_open(w, path)) {
        if (!file_exists(path))
            ok = error_set(err,
                           "%s: not found, though %s puts %s there; the download is not complete: fetch the "
                           "missing shard",
                           path, index_name, tensor);
        else
            ok = add_file(w, path, err);
    }
    free(path);
    return ok;
}

static bool open_shards(Weights *w, const char *index, Error *err) {
    char *bytes;
    size_t size;
    json_error_t where;
    if (!file_read(&bytes, &size, index, err)) return false;
    w->index = json_loadb(bytes, size, JSON_REJECT_DUPLICATES, &where);
    free(bytes);
    if (!w->index)
        return error_set(err, "%s: line %d, column %d: %s", index, where.line, where.column, where.text);
    const json_t *map = json_object_get(w->index, "weight_map");
    if (!json_is_object(map) || json_object_size(map) == 0)
        return error_set(err, "%s: weight_map is not an object of tensor: file", index);
    const char *tensor;
    json_t *shard;
    json_object_foreach((json_t *)map, tensor, shard) {
        if (!open_shard(w, index, tensor, shard, err)) return false;
    }
    return true;
}

// The only file of another kind in a folder without safetensors.
static bool open_only_file(Weights *w, Error *err) {
    StringList list;
    char *found = NULL, known[64];
    bool ok = file_list(&list, w->path, err);
    for (size_t i = 0; ok && i < list.count; i++) {
        bool fits = false;
        for (size_t k = 0; k < N_KINDS; k++)
            fits = fits || (kinds[k] != &weights_safetensors && ends_with(list.items[i], kinds[k]->suffix));
        if (!fits) continue;
        if (found)
            ok = error_set(err, "%s: holds %s and %s; give one of the files", w->path, found, list.items[i]);
        free(found);
        found = mem_strdup(list.items[i]);
    }
    if (ok && !found)
        ok = error_set(err, "%s: no weights in this folder; expected %s, %s or one file of %s", w->path,
                       single_name, index_name, known_suffixes(known, sizeof known));
    if (ok) {
        char *path = path_join(w->path, found);
        ok = add_file(w, path, err);
        free(path);
    }
    free(found);
    string_list_free(&list);
    return ok;
}

static bool open_folder(Weights *w, Error *err) {
    char *index = path_join(w->path, index_name), *single = path_join(w->path, single_name);
    bool ok;
    if (file_exists(index))
        ok = open_shards(w, index, err);
    else if (file_exists(single))
        ok = add_file(w, single, err);
    else
        ok = open_only_file(w, err);
    free(index);
    free(single);
    return ok;
}

// ---- entries ----

static int compare_entries(const void *a, const void *b) {
    return strcmp(((const WeightsEntry *)a)->name, ((const WeightsEntry *)b)->name);
}

static bool list_entries(Weights *w, Error *err) {
    size_t total = 0, n = 0;
    for (size_t f = 0; f < w->files.count; f++)
        total += w->files.items[f]->kind->count(w->files.items[f]->file);
    w->entries = mem_zeroed(total + 1, sizeof *w->entries);
    for (size_t f = 0; f < w->files.count; f++) {
        const WeightsFile *file = w->files.items[f];
        for (size_t i = 0; i < file->kind->count(file->file); i++, n++) {
            w->entries[n].file = file;
            file->kind->describe(&w->entries[n], file->file, i);
        }
    }
    w->count = total;
    qsort(w->entries, total, sizeof *w->entries, compare_entries);
    for (size_t i = 1; i < total; i++)
        if (compare_entries(&w->entries[i - 1], &w->entries[i]) == 0)
            return error_set(err, "tensor %s stands in %s and in %s; which one counts cannot be told",
                             w->entries[i].name, w->entries[i - 1].file->path, w->entries[i].file->path);
    return true;
}

// What the index promises must be where it says.
static bool check_index(const Weights *w, Error *err) {
    const char *tensor;
    json_t *shard;
    json_object_foreach(json_object_get(w->index, "weight_map"), tensor, shard) {
        char *path = path_join(w->path, json_string_value(shard));
        const WeightsEntry *e = weights_find(w, tensor);
        bool there = e && !strcmp(e->file->path, path);
        if (!there)
            error_set(err, "%s: tensor %s is missing, though %s puts it there", path, tensor, index_name);
        free(path);
        if (!there) return false;
    }
    return true;
}

bool weights_open(Weights **out, const char *path, Error *err) {
    *out = NULL;
    Weights *w = mem_zeroed(1, sizeof *w);
    w->path = mem_strdup(path);
    bool ok = file_is_folder(path) ? open_folder(w, err) : add_file(w, path, err);
    if (!ok || !list_entries(w, err) || !check_index(w, err)) {
        weights_close(w);
        return false;
    }
    *out = w;
    return true;
}

void weights_close(Weights *w) {
    if (!w) return;
    for (size_t i = 0; i < w->files.count; i++) {
        WeightsFile *f = w->files.items[i];
        if (f->file) f->kind->close(f->file);
        free(f->path);
        free(f);
    }
    vec_free(&w->files);
    json_decref(w->index);
    free(w->entries);
    free(w->path);
    free(w);
}

const char *weights_path(const Weights *w) {
    return w->path;
}

size_t weights_count(const Weights *w) {
    return w->count;
}

const WeightsEntry *weights_entry(const Weights *w, size_t i) {
    return i < w->count ? &w->entries[i] : NULL;
}

const WeightsEntry *weights_find(const Weights *w, const char *name) {
    const WeightsEntry key = {.name = name};
    return bsearch(&key, w->entries, w->count, sizeof *w->entries, compare_entries);
}

const char *weights_entry_path(const WeightsEntry *e) {
    return e->file->path;
}

bool weights_read_f32(float *out, const WeightsEntry *e, size_t first, size_t count, Error *err) {
    CHECK(first <= e->count && count <= e->count - first, "tensor %s: values %zu + %zu of %zu", e->name,
          first, count, e->count);
    return e->file->kind->read_f32(out, e, first, count, err);
}

// ---- configuration ----

static char *config_path(const Weights *w) {
    if (file_is_folder(w->path)) return path_join(w->path, "config.json");
    const char *slash = strrchr(w->path, '/');
    return slash ? mem_printf("%.*s/config.json", (int)(slash - w->path), w->path)
                 : mem_strdup("config.json");
}

json_t *weights_config(const Weights *w, Error *err) {
    const WeightsFile *f = w->files.items[0];
    if (f->kind->config) return f->kind->config(f->file, err);
    char *path = config_path(w), *bytes = NULL;
    size_t size;
    json_error_t where;
    json_t *config = NULL;
    if (!file_exists(path))
        error_set(err, "%s: not found; weights need the config.json that came with them", path);
    else if (file_read(&bytes, &size, path, err)) {
        config = json_loadb(bytes, size, 0, &where);
        if (!config) error_set(err, "%s: line %d, column %d: %s", path, where.line, where.column, where.text);
    }
    if (config && !json_is_object(config)) {
        error_set(err, "%s: not a JSON object", path);
        json_decref(config);
        config = NULL;
    }
    free(bytes);
    free(path);
    return config;
}
