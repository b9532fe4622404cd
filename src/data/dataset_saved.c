#include "data/dataset_saved.h"

#include "base/file.h"
#include "base/memory.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

// Appends the files of one list of state.json, [{"filename": …}, …]; an absent or null list has none.
static bool add_named(StringList *files, const json_t *root, const char *key, const char *state, Error *err) {
    const json_t *list = json_object_get(root, key), *entry;
    size_t i;
    if (!list || json_is_null(list)) return true;
    if (!json_is_array(list)) return error_set(err, "%s: %s is not a list", state, key);
    json_array_foreach(list, i, entry) {
        const char *name = json_string_value(json_object_get(entry, "filename"));
        if (!name || !*name) return error_set(err, "%s: %s[%zu] has no filename", state, key, i);
        if (strchr(name, '/'))
            return error_set(err, "%s: %s[%zu] names %s, expected a file of the same folder", state, key, i,
                             name);
        size_t folder = (size_t)(strrchr(state, '/') + 1 - state);
        string_list_add(files, mem_printf("%.*s%s", (int)folder, state, name));
    }
    return true;
}

bool saved_folder_read(SavedFolder *s, const char *state, Error *err) {
    json_error_t at;
    char *bytes;
    size_t size;
    *s = (SavedFolder){0};
    if (!file_read(&bytes, &size, state, err)) return false;
    json_t *root = json_loadb(bytes, size, 0, &at);
    free(bytes);
    bool ok = json_is_object(root);
    if (!ok) error_set(err, "%s: not a JSON object: %s; copy the folder again", state, root ? "" : at.text);
    ok = ok && add_named(&s->files, root, "_data_files", state, err) &&
         add_named(&s->indices, root, "_indices_data_files", state, err) &&
         add_named(&s->indices, root, "_indices_files", state, err);
    if (ok && s->files.count == 0) ok = error_set(err, "%s: _data_files names no file", state);
    json_decref(root);
    if (!ok) saved_folder_free(s);
    return ok;
}

void saved_folder_free(SavedFolder *s) {
    string_list_free(&s->files);
    string_list_free(&s->indices);
}

static bool has_file(const char *folder, const char *name) {
    char *path = path_join(folder, name);
    bool found = file_exists(path);
    free(path);
    return found;
}

char *saved_folder_find(const char *path) {
    if (has_file(path, SAVED_STATE)) return mem_strdup(path);
    char *train = path_join(path, "train");
    if (has_file(path, "dataset_dict.json") || has_file(train, SAVED_STATE)) return train;
    free(train);
    return NULL;
}

bool saved_folder_files(StringList *files, const char *folder, Error *err) {
    SavedFolder s;
    char *state = path_join(folder, SAVED_STATE);
    if (!saved_folder_read(&s, state, err)) {
        free(state);
        return false;
    }
    if (s.indices.count > 0) {
        string_list_add(files, state);
    } else {
        for (size_t i = 0; i < s.files.count; i++) string_list_add(files, mem_strdup(s.files.items[i]));
        free(state);
    }
    saved_folder_free(&s);
    return true;
}
