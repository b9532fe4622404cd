// Folders as `datasets.save_to_disk` writes them: state.json names the Arrow files that belong to it, in
// their order, and in folders of its early versions an indices file that gives the order of their rows.
#pragma once
#include "base/error.h"
#include "base/string_list.h"

#define SAVED_STATE "state.json"

typedef struct SavedFolder {
    StringList files, indices; // paths
} SavedFolder;

// state: the path of a state.json. Fails when it is damaged, names no file or one outside of its folder.
// Whether the files are there is seen when they are opened.
bool saved_folder_read(SavedFolder *s, const char *state, Error *err);
void saved_folder_free(SavedFolder *s);
// The folder that path stands for as a saved one: itself, or its `train` when path is a DatasetDict; NULL
// when it is neither. Caller frees.
char *saved_folder_find(const char *path);
// The files to open: those of state.json, or state.json itself when rows come in the order of an indices
// file. Appended to files.
bool saved_folder_files(StringList *files, const char *folder, Error *err);
