#include "data/dataset_find.h"

#include "base/file.h"
#include "base/memory.h"
#include "data/dataset_source.h"

#include <stdlib.h>
#include <string.h>

void string_list_add(StringList *list, char *owned) {
    list->items = mem_resize(list->items, (list->count + 1) * sizeof *list->items);
    list->items[list->count++] = owned;
}

void string_list_free(StringList *list) {
    for (size_t i = 0; i < list->count; i++) free(list->items[i]);
    free(list->items);
    *list = (StringList){0};
}

static bool starts_with(const char *name, const char *prefix) {
    return strncmp(name, prefix, strlen(prefix)) == 0;
}

static bool is_wanted(const char *name, const char *prefix) {
    if (!source_kind(name) || !starts_with(name, prefix)) return false;
    return *prefix || !(starts_with(name, "test") || starts_with(name, "validation"));
}

// Adds the files of a folder whose names begin with prefix; a folder that cannot be listed has none.
static size_t add_files(StringList *files, const char *folder, const char *prefix) {
    FileList all;
    size_t before = files->count;
    if (!file_is_folder(folder) || !file_list(&all, folder, NULL)) return 0;
    for (size_t i = 0; i < all.count; i++)
        if (is_wanted(all.names[i], prefix)) string_list_add(files, path_join(folder, all.names[i]));
    file_list_free(&all);
    return files->count - before;
}

bool dataset_find(StringList *files, const char *path, const char *name, Error *err) {
    if (file_exists(path) && !file_is_folder(path)) {
        if (!source_kind(path)) return error_set(err, "%s: not a .parquet file", path);
        string_list_add(files, mem_strdup(path));
        return true;
    }
    if (!file_is_folder(path))
        return error_set(
            err, "%s: no such file or folder; download the data set and name the folder it lies in", path);
    bool is_default = strcmp(name, "default") == 0 || *name == '\0';
    char *data = path_join(path, "data"), *own = is_default ? mem_strdup(path) : path_join(path, name);
    char *prefix = mem_printf("%s-", name);
    bool found = add_files(files, own, "train-") || add_files(files, own, "") ||
                 add_files(files, data, is_default ? "train-" : prefix) ||
                 (is_default && add_files(files, data, ""));
    free(prefix);
    free(own);
    free(data);
    return found || error_set(err, "%s holds no Parquet file of the configuration %s", path, name);
}

bool dataset_configurations(StringList *names, const char *path, Error *err) {
    FileList all = {0};
    StringList files = {0};
    if (dataset_find(&files, path, "default", NULL)) string_list_add(names, mem_strdup("default"));
    string_list_free(&files);
    if (file_is_folder(path) && !file_list(&all, path, err)) return false;
    for (size_t i = 0; i < all.count; i++) {
        char *folder = path_join(path, all.names[i]);
        if (strcmp(all.names[i], "data") != 0 && add_files(&files, folder, ""))
            string_list_add(names, mem_strdup(all.names[i]));
        string_list_free(&files);
        free(folder);
    }
    file_list_free(&all);
    return names->count > 0 || error_set(err, "%s holds no configuration with Parquet files", path);
}
