#include "data/tile_cache.h"

#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/mib.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <unistd.h>

struct TileCache {
    char *folder, *within; // within: of what was opened
    size_t tile_bytes;
    atomic_int directory;      // of `within`; -1: nothing is known
    atomic_bool writes;        // entries are kept
    uint64_t process;          // random: tells temporary files of processes and hosts apart
    atomic_ullong temporaries; // made so far
    atomic_bool told_damage;
    atomic_ullong known, unknown, damaged, kept, write_failed;
};

// In front of an entry's bytes.
typedef struct Header {
    char magic[8];
    uint64_t tile_bytes;
    Digest key, content;
} Header;
static const char magic[8] = "VLMTILE";

enum { NAME = DIGEST_TEXT + 1, TEMPORARY = NAME + 40, DISK_CHECKS = 64, LEFT_FREE = 20 };

// ---- opening ----

bool tile_cache_create(TileCache **out, const char *folder, size_t tile_bytes, Error *err) {
    *out = NULL;
    if (!file_make_folders(folder, err)) return error_prefix(err, "cache_vision");
    TileCache *c = mem_zeroed(1, sizeof *c);
    c->folder = mem_strdup(folder);
    c->tile_bytes = tile_bytes;
    atomic_init(&c->directory, -1);
    if (getrandom(&c->process, sizeof c->process, 0) != sizeof c->process) c->process = (uint64_t)getpid();
    *out = c;
    return true;
}

void tile_cache_free(TileCache *c) {
    if (!c) return;
    const int directory = atomic_load(&c->directory);
    if (directory >= 0) close(directory);
    free(c->folder);
    free(c->within);
    free(c);
}

size_t tile_cache_tile_bytes(const TileCache *c) {
    return c->tile_bytes;
}

size_t tile_cache_entry_bytes(size_t tile_bytes) {
    return tile_bytes + sizeof(Header);
}

// Makes the folder with made_by.json in it. False when nothing can be written there.
static bool make_within(const TileCache *c, const char *made_by, Error *err) {
    char *path = path_join(c->within, "made_by.json");
    bool ok = file_make_folders(c->within, err);
    if (ok && !file_exists(path)) // another process may do the same now
        ok = file_write_text(path, made_by, strlen(made_by), err) || file_exists(path);
    free(path);
    if (ok && faccessat(AT_FDCWD, c->within, W_OK, AT_EACCESS) != 0)
        ok = error_set(err, "%s: %s", c->within, strerror(errno));
    return ok;
}

// Folders of other weights or settings, which nobody but the user can tell to be superfluous.
static size_t count_others(const TileCache *c) {
    const char *own = strrchr(c->within, '/') + 1;
    StringList list;
    size_t n = 0;
    if (!file_list(&list, c->folder, NULL)) return 0;
    for (size_t i = 0; i < list.count; i++)
        n += strlen(list.items[i]) == DIGEST_TEXT - 1 && strcmp(list.items[i], own) != 0;
    string_list_free(&list);
    return n;
}

void tile_cache_open(TileCache *c, const char *made_by) {
    char name[DIGEST_TEXT];
    Error err;
    digest_text(name, digest_of((Digest){{0}}, made_by, strlen(made_by)));
    c->within = path_join(c->folder, name);
    const bool was_there = file_is_folder(c->within), writes = make_within(c, made_by, &err);
    const int directory = open(c->within, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (!writes)
        log_warning("cache_vision: %s; %s", err.text,
                    directory >= 0 ? "what is there is read, and nothing added to it"
                                   : "training goes on without a cache");
    if (directory < 0) return;
    const size_t others = count_others(c);
    log_info("cache_vision: %s, %s; %.3f MiB a tile", c->within,
             was_there ? "which was begun earlier with the same weights and settings" : "begun now",
             in_mib(tile_cache_entry_bytes(c->tile_bytes)));
    if (others)
        log_info("cache_vision: %zu other folder%s there, of other weights or settings (made_by.json in each "
                 "says which), may be removed if no other run uses them",
                 others, others == 1 ? " is" : "s are");
    atomic_store(&c->writes, writes);
    atomic_store(&c->directory, directory);
}

// ---- entries ----

static void name_of(char name[NAME], Digest key) {
    digest_text(name + 1, key);
    memmove(name, name + 1, 2);
    name[2] = '/';
}

static Digest content_digest(const TileCache *c, Digest key, const void *bytes) {
    return digest_of(key, bytes, c->tile_bytes);
}

// Reads exactly `size` bytes, whatever the pieces they come in.
static bool read_all(int file, void *bytes, size_t size) {
    char *at = bytes;
    while (size > 0) {
        const ssize_t n = read(file, at, size);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false;
        at += n;
        size -= (size_t)n;
    }
    return true;
}

// NULL: sound; else what is wrong with it.
static const char *read_entry(const TileCache *c, int file, Digest key, void *bytes) {
    Header h;
    struct stat info;
    if (fstat(file, &info) != 0 || (size_t)info.st_size != tile_cache_entry_bytes(c->tile_bytes))
        return "another size";
    if (!read_all(file, &h, sizeof h) || !read_all(file, bytes, c->tile_bytes)) return "unreadable bytes";
    if (memcmp(h.magic, magic, sizeof magic) != 0 || h.tile_bytes != c->tile_bytes ||
        !digest_equal(h.key, key))
        return "another header";
    return digest_equal(h.content, content_digest(c, key, bytes)) ? NULL : "other bytes";
}

static void report_damage(TileCache *c, const char *name, const char *what) {
    atomic_fetch_add(&c->damaged, 1);
    if (atomic_exchange(&c->told_damage, true)) return;
    log_warning("%s/%s: damaged: %s than was written; the tile is encoded again (further ones are counted)",
                c->within, name, what);
}

bool tile_cache_read(TileCache *c, Digest key, void *bytes) {
    const int directory = atomic_load(&c->directory);
    char name[NAME];
    name_of(name, key);
    const int file = directory < 0 ? -1 : openat(directory, name, O_RDONLY | O_CLOEXEC);
    const char *wrong = file < 0 ? "" : read_entry(c, file, key, bytes);
    if (file >= 0) close(file);
    if (wrong && *wrong) report_damage(c, name, wrong);
    atomic_fetch_add(wrong ? &c->unknown : &c->known, 1);
    return !wrong;
}

static bool write_all(int file, const Header *h, const void *bytes, size_t size) {
    struct iovec parts[] = {{(void *)h, sizeof *h}, {(void *)bytes, size}};
    ssize_t n = writev(file, parts, 2);
    if (n < (ssize_t)sizeof *h) return false;
    size_t done = (size_t)n - sizeof *h;
    while (done < size) {
        n = write(file, (const char *)bytes + done, size - done);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false;
        done += (size_t)n;
    }
    return true;
}

static bool has_room(int directory) {
    struct statvfs disk;
    if (fstatvfs(directory, &disk) != 0 || disk.f_bavail >= disk.f_blocks / LEFT_FREE) return true;
    errno = ENOSPC;
    return false;
}

// Not synced: what a power cut takes is noticed by its digest and made again.
static bool write_entry(const TileCache *c, int directory, const char *temporary, Digest key,
                        const void *bytes) {
    Header h = {.tile_bytes = c->tile_bytes, .key = key, .content = content_digest(c, key, bytes)};
    char name[NAME];
    memcpy(h.magic, magic, sizeof magic);
    name_of(name, key);
    int file = openat(directory, temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (file < 0 && errno == ENOENT) { // the first entry with these digits
        const char part[] = {name[0], name[1], '\0'};
        if (mkdirat(directory, part, 0777) != 0 && errno != EEXIST) return false;
        file = openat(directory, temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    }
    if (file < 0) return false;
    bool ok = write_all(file, &h, bytes, c->tile_bytes);
    int cause = errno;
    if (close(file) != 0 && ok) ok = false, cause = errno;
    if (ok && renameat(directory, temporary, directory, name) != 0) ok = false, cause = errno;
    if (!ok) unlinkat(directory, temporary, 0);
    errno = cause;
    return ok;
}

void tile_cache_write(TileCache *c, Digest key, const void *bytes) {
    const int directory = atomic_load(&c->directory);
    if (directory < 0 || !atomic_load(&c->writes)) return;
    char temporary[TEMPORARY];
    const unsigned long long number = atomic_fetch_add(&c->temporaries, 1);
    name_of(temporary, key);
    snprintf(temporary + NAME - 1, sizeof temporary - (NAME - 1), ".%016llx.%llx",
             (unsigned long long)c->process, number);
    const bool ok =
        (number % DISK_CHECKS || has_room(directory)) && write_entry(c, directory, temporary, key, bytes);
    atomic_fetch_add(ok ? &c->kept : &c->write_failed, 1);
    const int cause = errno;
    if (ok || !atomic_exchange(&c->writes, false)) return;
    log_warning("cache_vision: %s: nothing more can be kept: %s%s; training goes on, and tiles that are not "
                "there are encoded each time",
                c->within, strerror(cause),
                cause == ENOSPC ? " (a twentieth of the disk is left to checkpoints)" : "");
}

TileCacheCounts tile_cache_counts(const TileCache *c) {
    TileCache *open = (TileCache *)c;
    return (TileCacheCounts){atomic_load(&open->known), atomic_load(&open->unknown),
                             atomic_load(&open->damaged), atomic_load(&open->kept),
                             atomic_load(&open->write_failed)};
}
