// Files: whole-file reads, read-only maps, and writes that a kill can never leave half done.
#pragma once
#include "base/error.h"
#include "base/string_list.h"

#include <stddef.h>
#include <stdio.h>

bool file_exists(const char *path);
bool file_is_folder(const char *path);
bool file_make_folders(const char *path, Error *err); // mkdir -p

// The whole file, with a '\0' after its last byte (not counted in *size). Caller frees *bytes.
bool file_read(char **bytes, size_t *size, const char *path, Error *err);

// A read-only map of a file. bytes is NULL for an empty file. Unmap with file_unmap.
typedef struct FileMap {
    const unsigned char *bytes;
    size_t size;
} FileMap;
bool file_map(FileMap *map, const char *path, Error *err);
void file_unmap(FileMap *map);

// Atomic writing: file_create opens "<path>.tmp"; file_commit flushes it, syncs it to the disk, renames it to
// path and syncs the folder, so that whoever opens path sees the old file or the whole new one. file_abandon
// removes the temporary file. Both close the stream.
typedef struct FileWriter {
    FILE *stream;
    char *path, *temporary; // owned
} FileWriter;
bool file_create(FileWriter *w, const char *path, Error *err);
bool file_put(FileWriter *w, const void *bytes, size_t size, Error *err); // writes; then commit or abandon
bool file_commit(FileWriter *w, Error *err); // on failure the temporary file is removed and path is untouched
void file_abandon(FileWriter *w);
bool file_write_text(const char *path, const char *text, size_t size, Error *err); // create + write + commit

bool file_sync_folder(const char *path, Error *err); // fsync of a folder: makes renames in it durable

// Names in a folder, sorted bytewise; caller frees.
bool file_list(StringList *names, const char *folder, Error *err);
char *path_join(const char *folder, const char *name); // "folder/name"; caller frees
