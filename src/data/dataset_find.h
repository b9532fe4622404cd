// Where the files of a data set's configurations lie: layouts as `datasets` and the hub use them.
#pragma once
#include "base/error.h"
#include "config/fields.h"

#include <stddef.h>

// The files of configuration `name` under `path`, sorted, appended to files (each caller-freed). A path that
// is a file stands for itself. Else the first of these that holds a file:
//   name/train-*, name/*, data/name-*            (default: train-*, *, data/train-*, data/*)
// Files named test or validation are left out of what a * finds. Fails when there is none.
bool dataset_find(StringList *files, const char *path, const char *name, Error *err);
// The configurations `all` stands for: default, if path holds files, and each folder of files.
bool dataset_configurations(StringList *names, const char *path, Error *err);
void string_list_add(StringList *list, char *owned);
void string_list_free(StringList *list);
