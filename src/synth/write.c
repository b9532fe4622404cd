// Rows to Parquet files: threads draw a block of rows, one writes it, so the files do not depend on the
// threads.
#include "synth/kinds.h"
#include "base/clock.h"
#include "base/cores.h"
#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "format/arrow.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { BLOCK_ROWS = 256, MAX_THREADS = 64 };

typedef struct DrawnRow {
    SynthRow row;
    unsigned char *bytes[SCENE_MAX_PICTURES];
    size_t sizes[SCENE_MAX_PICTURES];
    bool ok;
    Error err;
} DrawnRow;

typedef struct Split {
    const SynthOptions *options;
    SynthSplit split;
    const char *name;
    size_t rows, shards, threads;
    DrawnRow *block;     // BLOCK_ROWS
    size_t first, count; // rows in the block
    atomic_size_t next;  // to be drawn
} Split;

static bool draw_row(DrawnRow *drawn, const Split *s, uint64_t index) {
    const SynthOptions *o = s->options;
    if (!synth_row(&drawn->row, o, s->split, index, &drawn->err)) return false;
    for (size_t i = 0; i < drawn->row.n_pictures; i++)
        if (!scene_encode(&drawn->bytes[i], &drawn->sizes[i], &drawn->row.pictures[i], o->image_size,
                          o->format, &drawn->err))
            return false;
    return true;
}

static void *draw_rows(void *argument) {
    Split *s = argument;
    size_t i;
    while ((i = atomic_fetch_add(&s->next, 1)) < s->count)
        s->block[i].ok = draw_row(&s->block[i], s, s->first + i);
    return NULL;
}

static void draw_block(Split *s) {
    pthread_t threads[MAX_THREADS];
    size_t started = 0;
    memset(s->block, 0, BLOCK_ROWS * sizeof *s->block);
    atomic_store(&s->next, 0);
    // This thread draws too; if others cannot be started it draws alone.
    while (started + 1 < s->threads && cores_start_thread(&threads[started], draw_rows, s) == 0) started++;
    draw_rows(s);
    for (size_t i = 0; i < started; i++) pthread_join(threads[i], NULL);
}

static bool write_row(ParquetWriter *w, const DrawnRow *drawn, const Split *s, uint64_t index, Error *err) {
    FineVisionImage images[SCENE_MAX_PICTURES];
    FineVisionTurn turns[SYNTH_MAX_TURNS];
    char names[SCENE_MAX_PICTURES][64];
    const SynthRow *row = &drawn->row;
    bool jpeg = !strcmp(s->options->format, "jpeg");
    for (size_t i = 0; i < row->n_pictures; i++) {
        snprintf(names[i], sizeof names[i], "%s-%08llu-%zu.%s", s->name, (unsigned long long)index, i,
                 jpeg ? "jpg" : "png");
        images[i] = (FineVisionImage){drawn->bytes[i], drawn->sizes[i], names[i]};
    }
    for (size_t i = 0; i < row->n_turns; i++) {
        const SynthTurn *t = &row->turns[i];
        turns[i] = (FineVisionTurn){t->user,       t->assistant,  t->ratings[0],
                                    t->ratings[1], t->ratings[2], t->ratings[3]};
    }
    FineVisionRow out = {images, row->n_pictures, turns, row->n_turns, "synth"};
    return parquet_write_row(w, &out, err);
}

static bool write_block(ParquetWriter *w, Split *s, Error *err) {
    bool ok = true;
    draw_block(s);
    for (size_t i = 0; i < s->count; i++) {
        DrawnRow *drawn = &s->block[i];
        if (ok && !drawn->ok) *err = drawn->err;
        ok = ok && drawn->ok && write_row(w, drawn, s, s->first + i, err);
        for (size_t k = 0; k < SCENE_MAX_PICTURES; k++) free(drawn->bytes[k]);
    }
    return ok;
}

static bool write_shard(Split *s, size_t shard, const char *path, Error *err) {
    ParquetWriter *w;
    size_t end = s->rows * (shard + 1) / s->shards;
    if (!parquet_create(&w, path, s->options->rows_per_group, err)) return false;
    for (s->first = s->rows * shard / s->shards; s->first < end; s->first += s->count) {
        s->count = end - s->first < BLOCK_ROWS ? end - s->first : BLOCK_ROWS;
        if (!write_block(w, s, err)) {
            parquet_abandon(w);
            return false;
        }
        progress_update(2, "synth: %s rows %zu of %zu", s->name, s->first + s->count, s->rows);
    }
    return parquet_finish(w, err);
}

static char *shard_name(const Split *s, size_t shard) {
    return mem_printf("%s-%05zu-of-%05zu.parquet", s->name, shard, s->shards);
}

// Files of an earlier run with another number of shards would be read together with the new ones.
static bool check_folder(const Split *s, const char *folder, Error *err) {
    StringList files;
    bool ok = true;
    if (!file_list(&files, folder, err)) return false;
    for (size_t i = 0; ok && i < files.count; i++) {
        const char *dot = strrchr(files.items[i], '.');
        bool ours = !dot || strcmp(dot, ".parquet");
        for (size_t shard = 0; !ours && shard < s->shards; shard++) {
            char *name = shard_name(s, shard);
            ours = !strcmp(name, files.items[i]);
            free(name);
        }
        if (!ours)
            ok = error_set(err,
                           "%s already holds %s, which would be read together with the new rows; remove it "
                           "or choose another --out",
                           folder, files.items[i]);
    }
    string_list_free(&files);
    return ok;
}

static bool write_split(Split *s, Error *err) {
    char *folder = path_join(s->options->out, s->name);
    bool ok = file_make_folders(folder, err) && check_folder(s, folder, err);
    s->block = mem_zeroed(BLOCK_ROWS, sizeof *s->block);
    for (size_t shard = 0; ok && shard < s->shards; shard++) {
        char *name = shard_name(s, shard), *path = path_join(folder, name);
        ok = write_shard(s, shard, path, err);
        free(name);
        free(path);
    }
    free(s->block);
    free(folder);
    return ok;
}

static size_t drawing_threads(const SynthOptions *o) {
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    size_t threads = o->threads ? o->threads : cores > 0 ? (size_t)cores : 1;
    return threads < MAX_THREADS ? threads : MAX_THREADS;
}

bool synth_write(const SynthOptions *o, Error *err) {
    if (!synth_options_check(o, err)) return false;
    double start = clock_seconds();
    Split splits[] = {
        {.options = o, .split = SYNTH_TRAIN, .name = "train", .rows = o->rows, .shards = o->shards},
        {.options = o, .split = SYNTH_TEST, .name = "test", .rows = o->test_rows, .shards = 1}};
    bool ok = true;
    for (size_t i = 0; ok && i < 2; i++) {
        splits[i].threads = drawing_threads(o);
        if (splits[i].rows > 0) ok = write_split(&splits[i], err);
    }
    progress_end();
    if (!ok || !synth_write_samples(o, err)) return false;
    double seconds = clock_seconds() - start;
    log_info("%s: %zu training rows, %zu test rows in %.1f s (%.0f rows/s)", o->out, o->rows, o->test_rows,
             seconds, (double)(o->rows + o->test_rows) / seconds);
    return true;
}
