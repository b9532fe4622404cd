// Where the files of a data set's configurations lie: layouts as `datasets` and the hub use them.
#pragma once
#include "base/error.h"
#include "base/string_list.h"

#include <stddef.h>

// The files of configuration `name` under `path`, sorted, appended to files (each caller-freed). A path that
// is a file stands for itself. Else the first of these that holds a file:
//   name as a folder of save_to_disk (data/dataset_saved.h), or the train folder of such a DatasetDict
//   name/train-*, name/*, data/name-*            (default: train-*, *, data/train-*, data/*)
// Files named test or validation are left out of what a * finds. Fails when there is none.
bool dataset_find(StringList *files, const char *path, const char *name, Error *err);
// The configurations that names stand for, appended to all: `shards` stands for path/shard_0, shard_1, … as
// far as they exist, and `all` for default, if path holds files, and each folder of files; each stands alone,
// as in nanoVLM, even among others.
bool dataset_configurations(StringList *all, const char *path, const StringList *names, Error *err);
