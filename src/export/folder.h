// A folder that appears whole or not at all.
#pragma once
#include "base/error.h"

// Makes "<folder>.tmp" and returns its name; caller frees. NULL with an error when folder exists and is not
// empty. What an earlier run that was killed left there is removed.
char *export_folder_begin(const char *folder, Error *err);
// Syncs the fresh folder and renames it to folder; ok false: removes it. Returns whether folder stands.
bool export_folder_end(const char *fresh, const char *folder, bool ok, Error *err);
