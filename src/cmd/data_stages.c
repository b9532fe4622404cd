#include "cmd/data_stages.h"
#include "base/log.h"

const char *const stage_names[N_STAGES] = {"read", "decode", "resize+tiles", "text", "pack", "collate"};

bool bench_enough(BenchLimit limit, uint64_t rows, BenchTime begin) {
    return (limit.rows && rows >= limit.rows) ||
           (limit.seconds > 0 && bench_since(begin).wall >= limit.seconds);
}

void stages_init(Stages *s, DataSetup *setup) {
    const Config *c = &setup->config;
    const size_t B = c->train.batch_size, positions = B * c->vlm.lm_max_length;
    *s = (Stages){.setup = setup};
    s->packer = packer_new(c->options.packing, data_setup_limits(c), B, 0);
    s->sequences = mem_zeroed(B, sizeof *s->sequences);
    s->batch.input_ids = mem_alloc(positions * sizeof *s->batch.input_ids);
    s->batch.attention_mask = mem_alloc(positions * sizeof *s->batch.attention_mask);
    s->batch.labels = mem_alloc(positions * sizeof *s->batch.labels);
    s->batch.starts = mem_alloc(positions * sizeof *s->batch.starts);
}

static void drop_sample(void *sample) {
    sample_free(sample);
    free(sample);
}

void stages_free(Stages *s) {
    packer_reset(s->packer, 0, 0, drop_sample);
    packer_free(s->packer);
    for (size_t i = 0; i < s->setup->config.train.batch_size; i++) sequence_free(&s->sequences[i]);
    free(s->sequences);
    free(s->batch.input_ids);
    free(s->batch.attention_mask);
    free(s->batch.labels);
    free(s->batch.starts);
    vec_free(&s->tiles);
}

static void collate_batch(Stages *s) {
    const Config *c = &s->setup->config;
    const Sequence **sequences = mem_alloc(s->n_sequences * sizeof *sequences);
    for (size_t i = 0; i < s->n_sequences; i++) sequences[i] = &s->sequences[i];
    collate(&s->batch, sequences, s->n_sequences, c->vlm.lm_max_length,
            tokenizer_eos_id(s->setup->tokenizer));
    for (size_t i = 0; i < s->n_sequences; i++) sequence_clear(&s->sequences[i]);
    s->n_sequences = 0;
    free(sequences);
}

static void collate_packs(Stages *s) {
    Pack pack;
    while (packer_take(s->packer, &pack)) {
        const BenchTime begin = bench_now();
        Sequence *sequence = &s->sequences[s->n_sequences++];
        for (size_t i = 0; i < pack.count; i++) {
            Sample *sample = pack.items[i].sample;
            sequence_append(sequence, &sample->ids, &sample->labels, sample->n_pictures, sample->n_tiles,
                            tokenizer_eos_id(s->setup->tokenizer));
            drop_sample(sample);
        }
        if (s->n_sequences == s->setup->config.train.batch_size) collate_batch(s);
        bench_add(&s->times[STAGE_COLLATE], begin);
    }
}

static void pack_sample(Stages *s, Sample *sample, size_t n_pictures, size_t n_tiles) {
    PackItem item = {.sample = sample,
                     .length = sample->ids.count + 1,
                     .images = n_pictures,
                     .tiles = n_tiles,
                     .bytes = sample_bytes(sample)};
    if (!packer_accepts(s->packer, &item)) {
        s->unusable++;
        drop_sample(sample);
        return;
    }
    s->amounts.tokens += sample->ids.count;
    const BenchTime begin = bench_now();
    packer_add(s->packer, item);
    bench_add(&s->times[STAGE_PACK], begin);
    collate_packs(s);
}

// Decodes a picture and makes its tiles.
static bool run_picture(Stages *s, ImageGrid *grid, const uint8_t *bytes, size_t size, Error *err) {
    const VLMConfig *c = &s->setup->config.vlm;
    const bool global = s->setup->rules.global_tile;
    Picture picture;
    BenchTime begin = bench_now();
    bool ok = picture_decode(&picture, bytes, size, c, s->setup->rules.jpeg_reduced_scale, err);
    bench_add(&s->times[STAGE_DECODE], begin);
    if (!ok) return false;
    begin = bench_now();
    *grid = picture_grid(&picture, c->vit_img_size);
    vec_reserve(&s->tiles, grid_tiles(*grid, global) * 3 * c->vit_img_size * c->vit_img_size);
    ok = picture_tiles(s->tiles.items, &picture, c->vit_img_size, global, err);
    picture_free(&picture);
    bench_add(&s->times[STAGE_TILES], begin);
    return ok;
}

static bool run_pictures(Stages *s, ImageGrid *grids, const RowColumns *columns, size_t first, size_t count,
                         Error *err) {
    for (size_t i = 0; i < count; i++) {
        RowImage encoded;
        if (!row_image_open(&encoded, columns, first + i, err)) return false;
        s->amounts.bytes += encoded.size;
        bool ok = run_picture(s, &grids[i], encoded.bytes, encoded.size, err);
        row_image_close(&encoded);
        if (!ok) return false;
    }
    s->amounts.images += count;
    return true;
}

// The text of a row alone, and the image string that goes with its pictures, so that nothing is decoded
// twice.
static bool run_text(Stages *s, Sample *sample, const RowColumns *columns, size_t row, const ImageGrid *grids,
                     size_t n, Error *err) {
    const SampleRules *rules = &s->setup->rules;
    RowColumns text_only = *columns;
    CharVec string = {0};
    Int32Vec ids = {0};
    text_only.has_images = false;
    bool ok = sample_build(sample, rules, &text_only, row, err) == SAMPLE_KEPT &&
              (n == 0 || chat_image_string(&string, rules->chat.tokenizer, grids, n,
                                           rules->vlm->mp_image_token_length, err));
    if (ok && n > 0) {
        tokenizer_encode(rules->chat.tokenizer, string.items, string.count, &ids);
        vec_extend(&sample->ids, ids.items, ids.count);
        for (size_t i = 0; i < ids.count; i++) vec_push(&sample->labels, IGNORE_INDEX);
    }
    vec_free(&ids);
    vec_free(&string);
    return ok;
}

static size_t text_bytes(const RowColumns *c, size_t row) {
    size_t first, count, bytes = 0;
    if (!row_turns(&first, &count, c, row, NULL)) return 0;
    for (size_t i = first; i < first + count; i++) {
        const Column columns[2] = {c->user, c->assistant};
        for (int k = 0; k < 2; k++) {
            const uint8_t *text;
            size_t size;
            column_bytes(&text, &size, columns[k], i);
            bytes += size;
        }
    }
    return bytes;
}

static void run_row(Stages *s, const RowColumns *columns, size_t row) {
    const SampleRules *rules = &s->setup->rules;
    size_t first, count, n_tiles = 0;
    Error err;
    s->amounts.rows++;
    row_images(&first, &count, columns, row);
    if (count > rules->train->max_images_per_example) {
        s->unusable++;
        return;
    }
    ImageGrid *grids = mem_zeroed(count + 1, sizeof *grids);
    Sample *sample = mem_zeroed(1, sizeof *sample);
    s->amounts.bytes += text_bytes(columns, row);
    bool ok = run_pictures(s, grids, columns, first, count, &err);
    if (ok) {
        const BenchTime begin = bench_now();
        ok = run_text(s, sample, columns, row, grids, count, &err);
        bench_add(&s->times[STAGE_TEXT], begin);
    }
    for (size_t i = 0; ok && i < count; i++) n_tiles += grid_tiles(grids[i], rules->global_tile);
    if (ok) {
        pack_sample(s, sample, count, n_tiles);
    } else {
        s->unusable++;
        drop_sample(sample);
    }
    free(grids);
}

bool stages_run(Stages *s, BenchLimit limit, Error *err) {
    RowStream *rows;
    RowRef ref;
    const BenchTime start = bench_now();
    bool ok = data_setup_rows(&rows, s->setup, err);
    if (!ok) return false;
    while (ok && !bench_enough(limit, s->amounts.rows, start)) {
        const BenchTime begin = bench_now();
        ok = row_stream_next(rows, &ref, err);
        bench_add(&s->times[STAGE_READ], begin);
        if (!ok || !ref.group) break;
        if (ref.group->batch)
            run_row(s, &ref.group->columns, ref.row);
        else
            s->amounts.rows++, s->unusable++;
        row_release(&ref);
        if (s->amounts.rows % 64 == 0)
            progress_update(10, "stages: row %llu", (unsigned long long)s->amounts.rows);
    }
    progress_end();
    packer_finish(s->packer);
    collate_packs(s);
    row_stream_close(rows);
    return ok;
}

BenchTime stages_total(const Stages *s) {
    BenchTime total = {0};
    for (size_t i = 0; i < N_STAGES; i++) total.cpu += s->times[i].cpu, total.wall += s->times[i].wall;
    return total;
}
