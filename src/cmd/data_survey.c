#include "cmd/data_survey.h"
#include "base/batch.h"
#include "base/log.h"
#include "image/probe.h"

#include <limits.h>

const char *const drop_names[N_DROPS] = {
    [SAMPLE_BAD_TEXT] = "text cannot be used",
    [SAMPLE_BAD_IMAGE] = "picture cannot be used",
    [SAMPLE_NO_TURN] = "no turn passes the ratings",
    [SAMPLE_TOO_MANY_IMAGES] = "too many pictures",
    [SAMPLE_TOO_LONG] = "too long",
    [DROP_GROUP] = "row group cannot be read",
    [DROP_PACK] = "no sequence can hold it",
};

// What one row comes to; made by any thread, added up in the order of the rows.
typedef struct RowLook {
    int fate; // SampleFate or DROP_GROUP
    Error reason;
    size_t length, trained, pictures, tiles, bytes;
    bool had_image_token, truncated;
} RowLook;

static void look_at_row(RowLook *look, const SampleRules *rules, const RowRef *ref) {
    Sample sample;
    *look = (RowLook){.fate = DROP_GROUP};
    if (!ref->group->batch) {
        look->reason = ref->group->err;
        return;
    }
    look->fate = (int)sample_build(&sample, rules, &ref->group->columns, ref->row, &look->reason);
    if (look->fate != SAMPLE_KEPT) return;
    look->length = sample.ids.count;
    for (size_t i = 0; i < sample.labels.count; i++) look->trained += sample.labels.items[i] != IGNORE_INDEX;
    look->pictures = sample.n_pictures;
    look->tiles = sample.n_tiles;
    look->bytes = sample_bytes(&sample);
    look->had_image_token = sample.had_image_token;
    look->truncated = sample.truncated;
    sample_free(&sample);
}

// ---- adding up ----

static void count_format(Survey *s, const char *name) {
    for (size_t i = 0; i < SURVEY_FORMATS; i++) {
        if (s->formats[i].name && strcmp(s->formats[i].name, name)) continue;
        s->formats[i].name = name;
        s->formats[i].pictures++;
        return;
    }
}

static void count_pictures(Survey *s, const RowColumns *columns, size_t row) {
    size_t first, count;
    row_images(&first, &count, columns, row);
    s->image_rows += count > 0;
    s->pictures += count;
    for (size_t i = first; i < first + count; i++) {
        RowImage encoded;
        if (!row_image_open(&encoded, columns, i, NULL)) {
            count_format(s, "missing");
            continue;
        }
        const ImageProbe probe = image_probe(encoded.bytes, encoded.size);
        count_format(s, probe.format);
        vec_push(&s->bytes, encoded.size);
        row_image_close(&encoded);
        if (probe.width && probe.height) vec_push(&s->sizes, (PictureSize){probe.width, probe.height});
    }
}

static void count_turns(Survey *s, const SampleRules *rules, const RowColumns *columns, size_t row) {
    size_t first, count;
    if (!row_turns(&first, &count, columns, row, NULL)) return;
    s->turns += count;
    for (size_t i = 0; i < count; i++) {
        s->turns_kept += row_turn_passes(columns, row, i, rules->minima);
        for (size_t k = 0; k < N_RATINGS; k++) {
            int alone[N_RATINGS] = {INT_MIN, INT_MIN, INT_MIN, INT_MIN};
            alone[k] = rules->minima[k];
            s->turns_low[k] += !row_turn_passes(columns, row, i, alone);
        }
    }
}

static void count_drop(Survey *s, int kind, const Error *reason) {
    Drop *drop = &s->drops[kind];
    if (drop->rows++ > 0) return;
    drop->example = s->rows;
    drop->reason = *reason;
}

static void count_sample(Survey *s, const RowLook *look, const TrainConfig *train) {
    Error reason;
    s->token_rows += look->had_image_token;
    s->cut_rows += look->truncated;
    vec_push(&s->lengths, look->length);
    vec_push(&s->tiles, look->tiles);
    if (look->length >= train->max_sample_length) {
        error_set(&reason, "%zu tokens, max_sample_length is %zu", look->length, train->max_sample_length);
        count_drop(s, SAMPLE_TOO_LONG, &reason);
    } else if (!pack_meter_add(&s->meter, look->length, look->pictures, look->tiles, look->bytes)) {
        error_set(&reason, "%zu tokens (lm_max_length), %zu pictures (max_images_per_knapsack), %zu tiles",
                  look->length + 1, look->pictures, look->tiles);
        count_drop(s, DROP_PACK, &reason);
    } else {
        s->drops[SAMPLE_KEPT].rows++;
        s->tokens += look->length;
        s->trained += look->trained;
    }
}

static void add_row(Survey *s, const DataSetup *setup, const RowRef *ref, const RowLook *look) {
    if (ref->group->batch) {
        count_pictures(s, &ref->group->columns, ref->row);
        count_turns(s, &setup->rules, &ref->group->columns, ref->row);
    }
    if (look->fate == SAMPLE_KEPT)
        count_sample(s, look, &setup->config.train);
    else
        count_drop(s, look->fate, &look->reason);
    s->rows++;
}

// ---- the pass over the rows ----

enum { CHUNK = 64 }; // rows a thread gets at a time, on average

typedef struct Chunk {
    RowRef *refs;
    RowLook *looks;
    size_t room, count;
} Chunk;

// Fewer rows than there is room for: the end.
static bool read_chunk(Chunk *c, RowStream *rows, size_t most, Error *err) {
    for (c->count = 0; c->count < c->room && c->count < most; c->count++) {
        if (!row_stream_next(rows, &c->refs[c->count], err)) return false;
        if (!c->refs[c->count].group) break;
    }
    return true;
}

static void look_at_chunk(Chunk *c, const SampleRules *rules, size_t threads) {
#pragma omp parallel for schedule(dynamic) num_threads((int)threads)
    for (size_t i = 0; i < c->count; i++) look_at_row(&c->looks[i], rules, &c->refs[i]);
}

static void add_chunk(Survey *s, const DataSetup *setup, Chunk *c) {
    for (size_t i = 0; i < c->count; i++) {
        add_row(s, setup, &c->refs[i], &c->looks[i]);
        row_release(&c->refs[i]);
    }
}

static bool pass_over_rows(Survey *s, DataSetup *setup, RowStream *rows, size_t most, Error *err) {
    TrainConfig any_length;
    const SampleRules rules = data_setup_any_length(&any_length, setup);
    Chunk chunk = {.room = CHUNK * s->threads};
    chunk.refs = mem_zeroed(chunk.room, sizeof *chunk.refs);
    chunk.looks = mem_zeroed(chunk.room, sizeof *chunk.looks);
    bool ok = true;
    do {
        ok = read_chunk(&chunk, rows, most - (size_t)s->rows, err);
        look_at_chunk(&chunk, &rules, s->threads);
        add_chunk(s, setup, &chunk);
        if (s->rows < most) progress_update(10, "row %llu of %zu", (unsigned long long)s->rows, most);
    } while (ok && chunk.count == chunk.room && s->rows < most);
    progress_end();
    free(chunk.refs);
    free(chunk.looks);
    return ok;
}

static int smaller_first(const void *a, const void *b) {
    const size_t x = *(const size_t *)a, y = *(const size_t *)b;
    return x < y ? -1 : x > y;
}

static int fewer_pixels_first(const void *a, const void *b) {
    const PictureSize *x = a, *y = b;
    const double p = (double)x->width * (double)x->height, q = (double)y->width * (double)y->height;
    return p < q ? -1 : p > q;
}

static void sort_sizes(SizeVec *sizes) {
    if (sizes->count) qsort(sizes->items, sizes->count, sizeof *sizes->items, smaller_first);
}

bool survey_run(Survey *s, DataSetup *setup, size_t rows, Error *err) {
    const Config *c = &setup->config;
    const size_t all = dataset_rows(setup->data);
    RowStream *stream;
    *s = (Survey){.threads = c->options.num_workers ? c->options.num_workers : 1};
    pack_meter_init(&s->meter, c->options.packing, data_setup_limits(c), c->train.batch_size);
    if (!data_setup_rows(&stream, setup, err)) return false;
    const BenchTime begin = bench_now();
    bool ok = pass_over_rows(s, setup, stream, rows && rows < all ? rows : all, err);
    s->time = bench_since(begin);
    row_stream_close(stream);
    pack_meter_finish(&s->meter);
    sort_sizes(&s->bytes);
    sort_sizes(&s->tiles);
    sort_sizes(&s->lengths);
    if (s->sizes.count) qsort(s->sizes.items, s->sizes.count, sizeof *s->sizes.items, fewer_pixels_first);
    return ok;
}

void survey_free(Survey *s) {
    pack_meter_free(&s->meter);
    vec_free(&s->sizes);
    vec_free(&s->bytes);
    vec_free(&s->tiles);
    vec_free(&s->lengths);
    *s = (Survey){0};
}
