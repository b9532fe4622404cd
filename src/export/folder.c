#include "export/folder.h"
#include "base/file.h"
#include "base/memory.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void remove_folder(const char *folder) {
    StringList files;
    if (!file_list(&files, folder, NULL)) return;
    for (size_t i = 0; i < files.count; i++) {
        char *path = path_join(folder, files.items[i]);
        unlink(path);
        free(path);
    }
    string_list_free(&files);
    rmdir(folder);
}

char *export_folder_begin(const char *folder, Error *err) {
    StringList files = {0};
    if (file_exists(folder)) {
        const bool ok = file_list(&files, folder, err);
        const size_t found = files.count;
        string_list_free(&files);
        if (!ok) return NULL;
        if (found) {
            error_set(err, "--out %s: the folder is not empty (%zu files); name a new one", folder, found);
            return NULL;
        }
    }
    size_t length = strlen(folder);
    while (length > 1 && folder[length - 1] == '/') length--;
    char *fresh = mem_printf("%.*s.tmp", (int)length, folder);
    remove_folder(fresh);
    if (file_make_folders(fresh, err)) return fresh;
    free(fresh);
    return NULL;
}

bool export_folder_end(const char *fresh, const char *folder, bool ok, Error *err) {
    ok = ok && file_sync_folder(fresh, err);
    if (ok && rename(fresh, folder)) // over an empty folder, if there is one
        ok = error_set(err, "%s: cannot be moved into place: %s", folder, strerror(errno));
    if (!ok) {
        remove_folder(fresh);
        return false;
    }
    char *parent = mem_printf("%s/..", folder);
    ok = file_sync_folder(parent, err);
    free(parent);
    return ok;
}
