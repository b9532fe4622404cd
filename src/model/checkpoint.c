#include "model/checkpoint.h"
#include "base/file.h"
#include "base/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const file_names[] = {"config.json", "model.safetensors"};
static const char *const index_file = "model.safetensors.index.json";

static bool require(char **path, const char *folder, int file, Error *err) {
    *path = path_join(folder, file_names[file]);
    if (file_exists(*path)) return true;
    error_set(err, "%s: not found; a checkpoint folder holds config.json and model.safetensors", *path);
    free(*path);
    *path = NULL;
    return false;
}

// The files a checkpoint may hold, and what their writing may have left.
static bool is_ours(const char *name) {
    static const char *const patterns[] = {"config.json",
                                           "model.safetensors",
                                           "run.json",
                                           "trainer.json",
                                           "state-rank*.safetensors",
                                           "adapter_config.json",
                                           "adapter_model.safetensors"};
    for (size_t i = 0; i < sizeof patterns / sizeof *patterns; i++) {
        char half[64];
        snprintf(half, sizeof half, "%s.tmp", patterns[i]);
        if (fnmatch(patterns[i], name, 0) == 0 || fnmatch(half, name, 0) == 0) return true;
    }
    return false;
}

void checkpoint_remove(const char *folder) {
    StringList list;
    if (!file_list(&list, folder, NULL)) return;
    for (size_t i = 0; i < list.count; i++) {
        char *path = path_join(folder, list.items[i]);
        if (is_ours(list.items[i])) unlink(path);
        free(path);
    }
    string_list_free(&list);
    rmdir(folder);
}

static bool write_model(void *model, const char *folder, Error *err) {
    const Vlm *m = model;
    char *config = path_join(folder, file_names[0]), *weights = path_join(folder, file_names[1]);
    bool ok = vlm_config_save(m->config, config, err) && params_save(&m->params, m->be, weights, err);
    free(config);
    free(weights);
    return ok;
}

// Puts `fresh` at `folder`. An older folder there is exchanged in one step, then removed.
static bool move_into_place(const char *fresh, const char *folder, Error *err) {
    bool ok;
    if (file_exists(folder)) {
        ok = renameat2(AT_FDCWD, fresh, AT_FDCWD, folder, RENAME_EXCHANGE) == 0;
    } else {
        ok = rename(fresh, folder) == 0;
    }
    if (!ok) error_set(err, "%s: cannot be moved into place: %s", folder, strerror(errno));
    checkpoint_remove(fresh); // the old one after an exchange, the half-made one after a failure
    return ok;
}

bool checkpoint_write(const char *folder, bool (*write)(void *context, const char *folder, Error *err),
                      void *context, Error *err) {
    char *fresh = mem_printf("%s.tmp", folder);
    checkpoint_remove(fresh); // of a run that was killed here
    bool ok = file_make_folders(fresh, err) && write(context, fresh, err) && file_sync_folder(fresh, err);
    if (!ok) checkpoint_remove(fresh);
    ok = ok && move_into_place(fresh, folder, err);
    if (ok) {
        char *parent = mem_printf("%s/..", folder);
        ok = file_sync_folder(parent, err);
        free(parent);
    }
    free(fresh);
    return ok;
}

bool checkpoint_save(const Vlm *m, const char *folder, Error *err) {
    return checkpoint_write(folder, write_model, (void *)m, err);
}

bool checkpoint_find_weights(char **path, const char *folder, Error *err) {
    char *index = path_join(folder, index_file), *single = path_join(folder, file_names[1]);
    const bool shards = file_exists(index) && !file_exists(single);
    free(index);
    free(single);
    if (!shards) return require(path, folder, 1, err);
    *path = mem_strdup(folder);
    return true;
}

bool checkpoint_load_weights(Vlm *m, const char *folder, Error *err) {
    char *path;
    if (!checkpoint_find_weights(&path, folder, err)) return false;
    bool ok = params_load(&m->params, m->be, path, err);
    free(path);
    return ok;
}

bool checkpoint_load_changed(Vlm *m, const char *folder, const char *interpolate, uint64_t seed, Error *err) {
    char *path;
    if (!checkpoint_find_weights(&path, folder, err)) return false;
    bool ok = params_load_changed(&m->params, m->be, path, interpolate, seed, err);
    free(path);
    return ok;
}

bool checkpoint_load_config(VLMConfig *config, const char *folder, Error *err) {
    char *path;
    if (!require(&path, folder, 0, err)) return false;
    bool ok = vlm_config_load(config, path, err);
    free(path);
    return ok;
}
