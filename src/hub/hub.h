// Names of models on the Hugging Face Hub, found in the local cache as huggingface_hub keeps it:
// models--ORG--NAME/refs/REVISION holds a commit, models--ORG--NAME/snapshots/COMMIT its files.
#pragma once
#include "base/error.h"

// The cache: HF_HUB_CACHE (or HUGGINGFACE_HUB_CACHE), else $HF_HOME/hub, else
// $XDG_CACHE_HOME/huggingface/hub, else ~/.cache/huggingface/hub; ~ and $VAR are replaced, an empty variable
// counts as none. Caller frees.
char *hub_cache_folder(void);

// *path becomes where `name` lies on this machine: name itself when there is such a file or folder, else the
// snapshot of ORG/NAME or ORG/NAME@REVISION (a branch, tag or commit; without one: main). Caller frees. An
// error says where it was looked for and how to get it. *path is NULL after a failure.
bool hub_resolve(char **path, const char *name, Error *err);
