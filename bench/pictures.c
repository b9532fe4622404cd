// How long a picture takes, stage by stage, on one thread: bench_pictures REPEATS FILE...
// Prints one JSON object a file with the least processor time of each stage in milliseconds;
// bench/pictures.py runs it beside nanoVLM. Settings: nanoVLM's defaults.
#include "base/file.h"
#include "base/log.h"
#include "config/config.h"
#include "data/picture.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static double milliseconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

typedef struct Times {
    double decode, tiles;
    size_t n_tiles;
} Times;

static bool measure(Times *best, const char *bytes, size_t size, const VLMConfig *c, float **tiles,
                    Error *err) {
    Picture picture;
    const double start = milliseconds();
    if (!picture_decode(&picture, bytes, size, c, false, err)) return false;
    const double decoded = milliseconds();
    best->n_tiles = grid_tiles(picture_grid(&picture, c->vit_img_size), true);
    if (!*tiles) *tiles = calloc(best->n_tiles, 3 * c->vit_img_size * c->vit_img_size * sizeof **tiles);
    const double allocated = milliseconds();
    bool ok =
        *tiles ? picture_tiles(*tiles, &picture, c->vit_img_size, true, err) : error_set(err, "no memory");
    const double end = milliseconds();
    picture_free(&picture);
    if (decoded - start < best->decode) best->decode = decoded - start;
    if (end - allocated < best->tiles) best->tiles = end - allocated;
    return ok;
}

static bool measure_file(const char *path, int repeats, const VLMConfig *c, Error *err) {
    char *bytes;
    size_t size;
    float *tiles = NULL; // as the buffer of a batch, written to again and again
    Times best = {1e9, 1e9, 0};
    if (!file_read(&bytes, &size, path, err)) return false;
    bool ok = true;
    for (int i = 0; ok && i < repeats; i++) ok = measure(&best, bytes, size, c, &tiles, err);
    if (ok)
        printf("{\"file\": \"%s\", \"decode_ms\": %.3f, \"resize_and_split_ms\": %.3f, \"tiles\": %zu}\n",
               path, best.decode, best.tiles, best.n_tiles);
    free(tiles);
    free(bytes);
    return ok || error_prefix(err, "%s", path);
}

int main(int argc, char **argv) {
    Config config;
    Error err;
    if (argc < 3) {
        log_error("usage: bench_pictures REPEATS FILE...");
        return 2;
    }
    config_init(&config);
    bool ok = true;
    for (int i = 2; ok && i < argc; i++) ok = measure_file(argv[i], atoi(argv[1]), &config.vlm, &err);
    if (!ok) log_error("%s", err.text);
    config_free(&config);
    return !ok;
}
