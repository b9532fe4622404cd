#include "base/file.h"
#include "base/memory.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

bool file_exists(const char *path) {
    return access(path, F_OK) == 0;
}

bool file_is_folder(const char *path) {
    struct stat s;
    return stat(path, &s) == 0 && S_ISDIR(s.st_mode);
}

bool file_make_folders(const char *path, Error *err) {
    char *copy = mem_strdup(path);
    bool ok = true;
    for (char *p = copy + 1; ok; p++) {
        if (*p != '/' && *p != '\0') continue;
        bool last = *p == '\0';
        *p = '\0';
        if (mkdir(copy, 0777) != 0 && !(errno == EEXIST && file_is_folder(copy)))
            ok = error_set(err, "%s: cannot make the folder: %s; check the path and its permissions", copy,
                           strerror(errno));
        if (last) break;
        *p = '/';
    }
    free(copy);
    return ok;
}

static bool open_regular(int *fd, size_t *size, const char *path, Error *err) {
    *fd = open(path, O_RDONLY | O_CLOEXEC);
    if (*fd < 0) return error_set(err, "%s: cannot open: %s", path, strerror(errno));
    struct stat s;
    if (fstat(*fd, &s) == 0 && S_ISREG(s.st_mode)) {
        *size = (size_t)s.st_size;
        return true;
    }
    close(*fd);
    return error_set(err, "%s: expected a regular file, found something else", path);
}

bool file_read(char **bytes, size_t *size, const char *path, Error *err) {
    int fd;
    *bytes = NULL;
    if (!open_regular(&fd, size, path, err)) return false;
    char *buffer = malloc(*size + 1);
    size_t done = 0;
    while (buffer && done < *size) {
        ssize_t n = read(fd, buffer + done, *size - done);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) break;
        done += (size_t)n;
    }
    close(fd);
    if (!buffer || done < *size) {
        free(buffer);
        return error_set(err, "%s: read %zu of %zu bytes: %s", path, done, *size,
                         buffer ? strerror(errno) : "out of memory");
    }
    buffer[*size] = '\0';
    *bytes = buffer;
    return true;
}

bool file_map(FileMap *map, const char *path, Error *err) {
    int fd;
    *map = (FileMap){0};
    if (!open_regular(&fd, &map->size, path, err)) return false;
    if (map->size > 0) {
        void *p = mmap(NULL, map->size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (p == MAP_FAILED) {
            close(fd);
            return error_set(err, "%s: cannot map %zu bytes: %s", path, map->size, strerror(errno));
        }
        map->bytes = p;
    }
    close(fd);
    return true;
}

void file_unmap(FileMap *map) {
    if (map->bytes) munmap((void *)map->bytes, map->size);
    *map = (FileMap){0};
}

bool file_create(FileWriter *w, const char *path, Error *err) {
    w->path = mem_strdup(path);
    w->temporary = mem_printf("%s.tmp", path);
    w->stream = fopen(w->temporary, "wb");
    if (w->stream) return true;
    error_set(err, "%s: cannot create: %s; check that the folder exists and can be written", w->temporary,
              strerror(errno));
    free(w->path);
    free(w->temporary);
    *w = (FileWriter){0};
    return false;
}

bool file_put(FileWriter *w, const void *bytes, size_t size, Error *err) {
    if (fwrite(bytes, 1, size, w->stream) == size) return true;
    return error_set(err, "%s: writing %zu bytes failed: %s; free some space or choose another folder",
                     w->path, size, strerror(errno));
}

void file_abandon(FileWriter *w) {
    if (!w->path) return;
    if (w->stream) fclose(w->stream);
    unlink(w->temporary);
    free(w->path);
    free(w->temporary);
    *w = (FileWriter){0};
}

// The folder that holds path; caller frees.
static char *parent_folder(const char *path) {
    const char *slash = strrchr(path, '/');
    if (!slash) return mem_strdup(".");
    return slash == path ? mem_strdup("/") : mem_strndup(path, (size_t)(slash - path));
}

bool file_sync_folder(const char *path, Error *err) {
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool ok = fd >= 0 && fsync(fd) == 0;
    if (!ok) error_set(err, "%s: cannot sync the folder: %s", path, strerror(errno));
    if (fd >= 0) close(fd);
    return ok;
}

bool file_commit(FileWriter *w, Error *err) {
    bool ok = fflush(w->stream) == 0 && !ferror(w->stream) && fsync(fileno(w->stream)) == 0;
    int cause = errno;
    ok = fclose(w->stream) == 0 && ok;
    w->stream = NULL;
    if (ok && rename(w->temporary, w->path) != 0) ok = false, cause = errno;
    if (!ok) {
        error_set(err, "%s: writing failed: %s; free some space or choose another folder", w->path,
                  strerror(cause));
    } else {
        char *folder = parent_folder(w->path);
        ok = file_sync_folder(folder, err);
        free(folder);
    }
    file_abandon(w); // after a successful rename there is no temporary file left to remove
    return ok;
}

bool file_write_text(const char *path, const char *text, size_t size, Error *err) {
    FileWriter w;
    if (!file_create(&w, path, err)) return false;
    fwrite(text, 1, size, w.stream); // an error stays on the stream; file_commit sees it
    return file_commit(&w, err);
}

static int compare_names(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

bool file_list(StringList *names, const char *folder, Error *err) {
    *names = (StringList){0};
    DIR *dir = opendir(folder);
    if (!dir) return error_set(err, "%s: cannot open the folder: %s", folder, strerror(errno));
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;)
        if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
            string_list_add(names, mem_strdup(entry->d_name));
    closedir(dir);
    if (names->count) qsort(names->items, names->count, sizeof *names->items, compare_names);
    return true;
}

char *path_join(const char *folder, const char *name) {
    size_t n = strlen(folder);
    return mem_printf("%s%s%s", folder, n && folder[n - 1] == '/' ? "" : "/", name);
}
