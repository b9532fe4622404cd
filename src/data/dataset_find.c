#include "data/dataset_find.h"

#include "base/file.h"
#include "base/memory.h"
#include "data/dataset_saved.h"
#include "data/dataset_source.h"

#include <stdlib.h>
#include <string.h>

static bool starts_with(const char *name, const char *prefix) {
    return strncmp(name, prefix, strlen(prefix)) == 0;
}

static bool is_wanted(const char *name, const char *prefix) {
    if (!source_kind(name) || !starts_with(name, prefix)) return false;
    return *prefix || !(starts_with(name, "test") || starts_with(name, "validation"));
}

// Adds the files of a folder whose names begin with prefix; a folder that cannot be listed has none.
static size_t add_files(StringList *files, const char *folder, const char *prefix) {
    StringList all;
    size_t before = files->count;
    if (!file_is_folder(folder) || !file_list(&all, folder, NULL)) return 0;
    for (size_t i = 0; i < all.count; i++)
        if (is_wanted(all.items[i], prefix)) string_list_add(files, path_join(folder, all.items[i]));
    string_list_free(&all);
    return files->count - before;
}

// A folder written by save_to_disk; false in *saved when it is none.
static bool find_saved(StringList *files, const char *folder, bool *saved, Error *err) {
    char *found = saved_folder_find(folder);
    *saved = found != NULL;
    bool ok = found && saved_folder_files(files, found, err);
    free(found);
    return ok;
}

static bool find_in_folder(StringList *files, const char *path, const char *name, Error *err) {
    bool is_default = strcmp(name, "default") == 0 || *name == '\0', saved;
    char *data = path_join(path, "data"), *own = is_default ? mem_strdup(path) : path_join(path, name);
    char *prefix = mem_printf("%s-", name);
    bool found = find_saved(files, own, &saved, err);
    if (!saved) {
        found = add_files(files, own, "train-") || add_files(files, own, "") ||
                add_files(files, data, is_default ? "train-" : prefix) ||
                (is_default && add_files(files, data, ""));
        if (!found) error_set(err, "%s holds no Parquet or Arrow file of the configuration %s", path, name);
    }
    free(prefix);
    free(own);
    free(data);
    return found;
}

bool dataset_find(StringList *files, const char *path, const char *name, Error *err) {
    if (file_is_folder(path)) return find_in_folder(files, path, name, err);
    if (!file_exists(path))
        return error_set(
            err, "%s: no such file or folder; download the data set and name the folder it lies in", path);
    if (!source_kind(path)) return error_set(err, "%s: neither a .parquet nor an .arrow file", path);
    string_list_add(files, mem_strdup(path));
    return true;
}

// ---- names that stand for several ----

// Parts of a configuration rather than ones of their own.
static bool is_part(const char *path, const char *name) {
    static const char *const splits[] = {"train", "validation", "test"};
    char *dict = path_join(path, "dataset_dict.json");
    bool part = strcmp(name, "data") == 0;
    for (size_t i = 0; !part && i < sizeof splits / sizeof *splits; i++)
        part = strcmp(name, splits[i]) == 0 && file_exists(dict);
    free(dict);
    return part;
}

static bool add_all(StringList *names, const char *path, Error *err) {
    StringList all = {0};
    StringList files = {0};
    if (dataset_find(&files, path, "default", NULL)) string_list_add(names, mem_strdup("default"));
    string_list_free(&files);
    if (file_is_folder(path) && !file_list(&all, path, err)) return false;
    for (size_t i = 0; i < all.count; i++) {
        char *folder = path_join(path, all.items[i]);
        if (file_is_folder(folder) && !is_part(path, all.items[i]) &&
            dataset_find(&files, folder, "default", NULL))
            string_list_add(names, mem_strdup(all.items[i]));
        string_list_free(&files);
        free(folder);
    }
    string_list_free(&all);
    return names->count > 0 || error_set(err, "%s holds no configuration with Parquet or Arrow files", path);
}

// The number of shard_N, or -1.
static long long shard_number(const char *name) {
    char *end;
    if (!starts_with(name, "shard_") || name[6] < '0' || name[6] > '9') return -1;
    long long n = strtoll(name + 6, &end, 10);
    return *end ? -1 : n;
}

static int compare_shards(const void *a, const void *b) {
    long long x = shard_number(*(char *const *)a), y = shard_number(*(char *const *)b);
    return (x > y) - (x < y);
}

static bool add_shards(StringList *names, const char *path, Error *err) {
    StringList all;
    if (!file_list(&all, path, err)) return false;
    for (size_t i = 0; i < all.count; i++)
        if (shard_number(all.items[i]) >= 0) string_list_add(names, mem_strdup(all.items[i]));
    string_list_free(&all);
    if (names->count == 0)
        return error_set(err, "%s holds no folder shard_0, shard_1, …, which shards stands for", path);
    qsort(names->items, names->count, sizeof *names->items, compare_shards);
    return true;
}

static bool contains(const StringList *names, const char *name) {
    for (size_t i = 0; i < names->count; i++)
        if (strcmp(names->items[i], name) == 0) return true;
    return false;
}

bool dataset_configurations(StringList *all, const char *path, const StringList *names, Error *err) {
    if (contains(names, "shards")) return add_shards(all, path, err);
    if (contains(names, "all")) return add_all(all, path, err);
    for (size_t i = 0; i < names->count; i++) string_list_add(all, mem_strdup(names->items[i]));
    return true;
}
