#include "support/folders.h"
#include "support/golden.h"

#include "base/memory.h"

#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>

char *make_folder(void) {
    char *folder = mem_strdup("/tmp/test_vlm.XXXXXX");
    assert_non_null(mkdtemp(folder));
    return folder;
}

static int remove_entry(const char *path, const struct stat *info, int type, struct FTW *where) {
    (void)info, (void)type, (void)where;
    return remove(path);
}

void remove_folder_tree(const char *folder) {
    if (nftw(folder, remove_entry, 16, FTW_DEPTH | FTW_PHYS) != 0 && errno != ENOENT)
        fail_msg("%s: it can't be removed", folder);
}

void remove_folder(char *owned) {
    remove_folder_tree(owned);
    free(owned);
}

char *test_folder;

int make_test_folder(void **state) {
    (void)state;
    test_folder = make_folder();
    return 0;
}

const char *in_test_folder(const char *name) {
    static char paths[5][256];
    static size_t next;
    char *path = paths[next++ % 5];
    snprintf(path, sizeof paths[0], "%s/%s", test_folder, name);
    return path;
}

int remove_test_folder(void **state) {
    (void)state;
    remove_folder(test_folder);
    return 0;
}
