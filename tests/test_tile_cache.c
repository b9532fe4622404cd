// LINK: data
// The cache of tiles' features on disk: what was kept comes back, under the same settings alone; damaged,
// cut and foreign entries are as if they weren't there; disks that are full or read-only cost the cache, not
// the run; many threads at once.
#include "support/data_case.h"

#include "data/tile_cache.h"

#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/statvfs.h>

enum { TILE = 1000, DISK = 1000 };
static const char *const made_by = "{\"weights\": 1}";

// In place of libc's: the disk that the cache sees has DISK blocks, and what is free of them for all but
// root.
static fsblkcnt_t free_blocks = DISK;

int fstatvfs(int file, struct statvfs *disk) {
    (void)file;
    *disk = (struct statvfs){.f_blocks = DISK, .f_bfree = DISK, .f_bavail = free_blocks};
    return 0;
}

static TileCache *open_cache(const char *folder, const char *by) {
    Error err;
    TileCache *c;
    expect(tile_cache_create(&c, folder, TILE, &err), &err);
    tile_cache_open(c, by);
    return c;
}

static Digest key_of(size_t i) {
    return digest_of((Digest){{0}}, &i, sizeof i);
}

static void fill_tile(unsigned char *tile, size_t i) {
    Random r = random_stream(i, RANDOM_TEST, 0);
    for (size_t k = 0; k < TILE; k++) tile[k] = (unsigned char)random_u32(&r);
}

static void keep(TileCache *c, size_t i) {
    unsigned char tile[TILE];
    fill_tile(tile, i);
    tile_cache_write(c, key_of(i), tile);
}

static bool is_known(TileCache *c, size_t i) {
    unsigned char tile[TILE], expected[TILE];
    fill_tile(expected, i);
    if (!tile_cache_read(c, key_of(i), tile)) return false;
    assert_memory_equal(tile, expected, TILE);
    return true;
}

// The file of entry i; caller frees.
static char *path_of(const char *folder, const char *by, size_t i) {
    char within[DIGEST_TEXT], name[DIGEST_TEXT];
    digest_text(within, digest_of((Digest){{0}}, by, strlen(by)));
    digest_text(name, key_of(i));
    return mem_printf("%s/%s/%.2s/%s", folder, within, name, name + 2);
}

static void digests_tell_bytes_apart(void **state) {
    (void)state;
    unsigned char bytes[100] = {0};
    Digest seen[301];
    size_t n = 0;
    for (size_t i = 0; i < 100; i++) { // every length, every place, two values
        seen[n++] = digest_of((Digest){{0}}, bytes, i);
        for (unsigned char value = 1; value < 129; value += 127) {
            bytes[i] = value;
            seen[n++] = digest_of((Digest){{0}}, bytes, 100);
            bytes[i] = 0;
        }
    }
    seen[n++] = digest_of((Digest){{1, 0}}, bytes, 100);
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < i; j++) assert_false(digest_equal(seen[i], seen[j]));
    assert_true(digest_equal(seen[3], digest_of((Digest){{0}}, bytes, 1)));
}

static void what_was_kept_comes_back(void **state) {
    (void)state;
    char *folder = make_folder(), *deep = path_join(folder, "a/b");
    Error err;
    TileCache *c;
    expect(tile_cache_create(&c, deep, TILE, &err), &err);
    keep(c, 1); // not open yet: nothing is kept, nothing known
    assert_false(is_known(c, 1));
    tile_cache_open(c, made_by);
    assert_false(is_known(c, 1));
    for (size_t i = 0; i < 40; i++) keep(c, i);
    keep(c, 7);
    for (size_t i = 0; i < 40; i++) assert_true(is_known(c, i));
    assert_false(is_known(c, 40));
    const TileCacheCounts n = tile_cache_counts(c);
    assert_true(n.known == 40 && n.unknown == 3 && n.kept == 41 && n.damaged == 0 && n.write_failed == 0);
    tile_cache_free(c);
    c = open_cache(deep, made_by);
    assert_true(is_known(c, 39));
    tile_cache_free(c);
    free(deep);
    remove_folder(folder);
}

static void other_weights_know_nothing_of_it(void **state) {
    (void)state;
    char *folder = make_folder(), *path = path_of(folder, made_by, 1);
    TileCache *one = open_cache(folder, made_by), *other = open_cache(folder, "{\"weights\": 2}");
    keep(one, 1);
    assert_false(is_known(other, 1));
    keep(other, 2);
    assert_true(is_known(one, 1) && is_known(other, 2) && !is_known(one, 2));
    assert_true(file_exists(path));
    tile_cache_free(one), tile_cache_free(other);
    free(path);
    remove_folder(folder);
}

// Every byte changed, every length: never taken, and the next write puts it right.
static void damaged_entries_are_not_taken(void **state) {
    (void)state;
    Error err;
    char *folder = make_folder(), *path = path_of(folder, made_by, 1), *bytes;
    size_t size;
    TileCache *c = open_cache(folder, made_by);
    keep(c, 1);
    expect(file_read(&bytes, &size, path, &err), &err);
    assert_int_equal(size, tile_cache_entry_bytes(TILE));
    for (size_t i = 0; i < size; i += i < 100 ? 1 : 37) {
        bytes[i] ^= 1 << i % 8;
        expect(file_write_text(path, bytes, size, &err), &err);
        assert_false(is_known(c, 1));
        bytes[i] ^= 1 << i % 8;
        expect(file_write_text(path, bytes, i, &err), &err);
        assert_false(is_known(c, 1));
    }
    bytes = mem_resize(bytes, size + 1);
    expect(file_write_text(path, bytes, size + 1, &err), &err);
    assert_false(is_known(c, 1));
    unlink(path);
    assert_int_equal(mkdir(path, 0777), 0);
    assert_false(is_known(c, 1));
    rmdir(path);
    const uint64_t damaged = tile_cache_counts(c).damaged;
    assert_true(damaged > 250);
    char *other = path_of(folder, made_by, 2); // a sound entry in another one's place
    keep(c, 2);
    free(bytes);
    expect(file_read(&bytes, &size, other, &err), &err);
    expect(file_write_text(path, bytes, size, &err), &err);
    assert_false(is_known(c, 1));
    keep(c, 1);
    assert_true(is_known(c, 1));
    assert_int_equal(tile_cache_counts(c).damaged, damaged + 1);
    tile_cache_free(c);
    free(bytes), free(path), free(other);
    remove_folder(folder);
}

// A limit on the size of files is a disk that has no room for an entry.
static void a_full_disk_ends_the_keeping(void **state) {
    (void)state;
    char *folder = make_folder();
    struct rlimit limit;
    TileCache *c = open_cache(folder, made_by);
    keep(c, 1);
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &limit);
    setrlimit(RLIMIT_FSIZE, &(struct rlimit){TILE / 2, limit.rlim_max});
    keep(c, 2);
    setrlimit(RLIMIT_FSIZE, &limit);
    keep(c, 3);
    assert_true(is_known(c, 1) && !is_known(c, 2) && !is_known(c, 3));
    assert_true(tile_cache_counts(c).kept == 1 && tile_cache_counts(c).write_failed == 1);
    char *path = path_of(folder, made_by, 2), *part = mem_strdup(path);
    *strrchr(part, '/') = '\0';
    StringList list = {0};
    file_list(&list, part, NULL);
    assert_int_equal(list.count, 0); // no part of it is left
    string_list_free(&list);
    tile_cache_free(c);
    free(path), free(part);
    remove_folder(folder);
}

// The disk is looked at before the first entry and every 64th one after.
static void a_twentieth_of_the_disk_is_left_free(void **state) {
    (void)state;
    char *folder = make_folder();
    TileCache *c = open_cache(folder, made_by);
    free_blocks = DISK / 20;
    for (size_t i = 0; i < 64; i++) keep(c, i);
    assert_int_equal(tile_cache_counts(c).kept, 64);
    free_blocks = DISK / 20 - 1;
    keep(c, 64);
    assert_true(is_known(c, 63) && !is_known(c, 64));
    assert_int_equal(tile_cache_counts(c).write_failed, 1);
    free_blocks = DISK;
    keep(c, 65); // the keeping has ended
    assert_false(is_known(c, 65));
    assert_int_equal(tile_cache_counts(c).kept, 64);
    tile_cache_free(c);
    remove_folder(folder);
}

static void chmod_or_fail(const char *path, mode_t mode) {
    assert_int_equal(chmod(path, mode), 0);
}

static void a_folder_may_be_read_only(void **state) {
    (void)state;
    char *folder = make_folder(), *within = path_of(folder, made_by, 1);
    TileCache *c = open_cache(folder, made_by);
    keep(c, 1);
    tile_cache_free(c);
    for (int i = 0; i < 2; i++) *strrchr(within, '/') = '\0';
    chmod_or_fail(within, 0555), chmod_or_fail(folder, 0555);
    const bool is_root = geteuid() == 0; // whom permissions do not bind
    if (is_root) assert_int_equal(seteuid(65534), 0);
    c = open_cache(folder, made_by); // read, not written
    keep(c, 2);
    assert_true(is_known(c, 1) && !is_known(c, 2));
    assert_int_equal(tile_cache_counts(c).write_failed, 0);
    tile_cache_free(c);
    c = open_cache(folder, "{}"); // nothing to read, nowhere to write
    keep(c, 1);
    assert_false(is_known(c, 1));
    tile_cache_free(c);
    if (is_root) assert_int_equal(seteuid(0), 0);
    chmod_or_fail(within, 0777), chmod_or_fail(folder, 0777);
    free(within);
    remove_folder(folder);
}

static void what_is_no_folder_is_refused(void **state) {
    (void)state;
    Error err;
    TileCache *c;
    assert_false(tile_cache_create(&c, "/dev/null/tiles", TILE, &err));
    assert_non_null(strstr(err.text, "cache_vision: /dev/null"));
    assert_null(c);
    tile_cache_free(c);
}

typedef struct Work {
    TileCache *cache;
    size_t first;
} Work;

static void *work(void *state) {
    const Work *w = state;
    for (size_t round = 0; round < 3; round++)
        for (size_t i = 0; i < 60; i++) {
            const size_t tile = (w->first + i) % 60;
            if (!is_known(w->cache, tile)) keep(w->cache, tile);
        }
    return NULL;
}

// Two caches stand for two processes.
static void threads_and_processes_share_it(void **state) {
    (void)state;
    char *folder = make_folder();
    TileCache *caches[] = {open_cache(folder, made_by), open_cache(folder, made_by)};
    pthread_t threads[4];
    Work works[4];
    for (size_t i = 0; i < 4; i++) {
        works[i] = (Work){caches[i % 2], 13 * i};
        assert_int_equal(pthread_create(&threads[i], NULL, work, &works[i]), 0);
    }
    for (size_t i = 0; i < 4; i++) pthread_join(threads[i], NULL);
    for (size_t i = 0; i < 60; i++) assert_true(is_known(caches[0], i));
    for (size_t i = 0; i < 2; i++) {
        const TileCacheCounts n = tile_cache_counts(caches[i]);
        assert_true(n.damaged == 0 && n.write_failed == 0);
        tile_cache_free(caches[i]);
    }
    remove_folder(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(digests_tell_bytes_apart),
        cmocka_unit_test(what_was_kept_comes_back),
        cmocka_unit_test(other_weights_know_nothing_of_it),
        cmocka_unit_test(damaged_entries_are_not_taken),
        cmocka_unit_test(a_full_disk_ends_the_keeping),
        cmocka_unit_test(a_twentieth_of_the_disk_is_left_free),
        cmocka_unit_test(a_folder_may_be_read_only),
        cmocka_unit_test(what_is_no_folder_is_refused),
        cmocka_unit_test(threads_and_processes_share_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
