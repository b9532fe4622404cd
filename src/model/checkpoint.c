#include "model/checkpoint.h"
#include "base/file.h"
#include "base/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const file_names[] = {"config.json", "model.safetensors"};
enum { N_FILES = 2 };

static bool require(char **path, const char *folder, int file, Error *err) {
    *path = path_join(folder, file_names[file]);
    if (file_exists(*path)) return true;
    error_set(err, "%s: not found; a checkpoint folder holds config.json and model.safetensors", *path);
    free(*path);
    *path = NULL;
    return false;
}

// Removes a folder of ours: the two files, what their writing may have left, and the folder itself.
static void remove_folder(const char *folder) {
    for (int i = 0; i < N_FILES; i++) {
        char *path = path_join(folder, file_names[i]), *half = mem_printf("%s.tmp", path);
        unlink(path);
        unlink(half);
        free(half);
        free(path);
    }
    rmdir(folder);
}

static bool write_files(const Vlm *m, const char *folder, Error *err) {
    char *config = path_join(folder, file_names[0]), *weights = path_join(folder, file_names[1]);
    bool ok = file_make_folders(folder, err) && vlm_config_save(m->config, config, err) &&
              params_save(&m->params, m->be, weights, err) && file_sync_folder(folder, err);
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
    remove_folder(fresh); // the old one after an exchange, the half-made one after a failure
    return ok;
}

bool checkpoint_save(const Vlm *m, const char *folder, Error *err) {
    char *fresh = mem_printf("%s.tmp", folder);
    remove_folder(fresh); // of a run that was killed here
    bool ok = write_files(m, fresh, err);
    if (!ok) remove_folder(fresh);
    ok = ok && move_into_place(fresh, folder, err);
    if (ok) {
        char *parent = mem_printf("%s/..", folder);
        ok = file_sync_folder(parent, err);
        free(parent);
    }
    free(fresh);
    return ok;
}

bool checkpoint_load_weights(Vlm *m, const char *folder, Error *err) {
    char *path;
    if (!require(&path, folder, 1, err)) return false;
    bool ok = params_load(&m->params, m->be, path, err);
    free(path);
    return ok;
}

bool checkpoint_load_changed(Vlm *m, const char *folder, const char *interpolate, uint64_t seed, Error *err) {
    char *path;
    if (!require(&path, folder, 1, err)) return false;
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
