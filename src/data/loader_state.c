// Saving and restoring a loader. The state is the settings it depends on, by value, so that a mismatch can be
// named; what has been counted; the next row of the epoch; and the packer (packer_state.c). Everything else,
// the rows read ahead and the batches formed ahead, is made again from these.
#include "data/loader_stages.h"

#define MAGIC   "VLMDATA"
#define VERSION 1

// ---- what a state depends on ----

typedef struct Setting {
    const char *name;
    uint64_t value;
    bool is_hash; // says that it differs, not what it is
} Setting;
enum { MAX_SETTINGS = 40 };

typedef struct Settings {
    Setting items[MAX_SETTINGS];
    size_t count;
} Settings;

static void add(Settings *s, const char *name, uint64_t value, bool is_hash) {
    s->items[s->count++] = (Setting){name, value, is_hash};
}

static uint64_t hash_text(const char *text) {
    return bytes_hash(BYTES_HASH, text, strlen(text));
}

// File names (not their folders: a data set may move) and the rows of every group.
static uint64_t hash_groups(const Dataset *d) {
    uint64_t h = BYTES_HASH;
    for (size_t i = 0; i < dataset_group_count(d); i++) {
        const char *path = dataset_path(d, i), *slash = strrchr(path, '/');
        const char *name = slash ? slash + 1 : path;
        h = bytes_hash(h, name, strlen(name) + 1);
        h = bytes_hash_u64(h, dataset_group(d, i)->rows);
    }
    return h;
}

void loader_identity(const Loader *l, uint64_t *rows, uint64_t *files) {
    *rows = dataset_rows(l->data);
    *files = hash_groups(l->data);
}

static void add_data(Settings *s, const Loader *l) {
    const TrainConfig *t = &l->config->train;
    const TrainOptions *o = &l->config->options;
    add(s, "rows of the data set", dataset_rows(l->data), false);
    add(s, "row groups of the data set", dataset_group_count(l->data), false);
    add(s, "list of files and row groups of the data set", hash_groups(l->data), true);
    add(s, "rank", l->ranks.rank, false);
    add(s, "world_size", l->ranks.world_size, false);
    add(s, "rows of an epoch (val_size, val_dataset_path)", row_stream_rows(l->rows), false);
    add(s, "split (training or validation)", l->split, false);
    add(s, "seed", o->seed, false);
    add(s, "stream_dataset", t->stream_dataset, false);
    add(s, "shuffle_window", t->stream_dataset ? 0 : o->shuffle_window, false);
    add(s, "shuffle_buffer", t->stream_dataset ? o->shuffle_buffer : 0, false);
}

static void add_samples(Settings *s, const Loader *l) {
    const VLMConfig *v = &l->config->vlm;
    const TrainConfig *t = &l->config->train;
    const Tokenizer *tokenizer = l->rules.chat.tokenizer;
    add(s, "tokens of the tokenizer", tokenizer_vocab_size(tokenizer), false);
    add(s, "image token", (uint64_t)l->rules.image_token_id, false);
    add(s, "lm_chat_template", hash_text(v->lm_chat_template), true);
    add(s, "vit_img_size", v->vit_img_size, false);
    add(s, "max_img_size", v->max_img_size, false);
    add(s, "resize_to_max_side_len", v->resize_to_max_side_len, false);
    add(s, "mp_image_token_length", v->mp_image_token_length, false);
    add(s, "relevance_min_rating", (uint64_t)(int64_t)t->relevance_min_rating, false);
    add(s, "image_correspondence_min_rating", (uint64_t)(int64_t)t->image_correspondence_min_rating, false);
    add(s, "visual_dependency_min_rating", (uint64_t)(int64_t)t->visual_dependency_min_rating, false);
    add(s, "formatting_min_rating", (uint64_t)(int64_t)t->formatting_min_rating, false);
    add(s, "max_images_per_example", t->max_images_per_example, false);
    add(s, "max_sample_length", t->max_sample_length, false);
    add(s, "long_samples", hash_text(l->config->options.long_samples), true);
    add(s, "jpeg_reduced_scale", l->config->options.jpeg_reduced_scale, false);
}

static void add_packs(Settings *s, const Loader *l) {
    const Config *c = l->config;
    add(s, "packing", hash_text(c->options.packing), true);
    add(s, "lm_max_length", c->vlm.lm_max_length, false);
    add(s, "batch_size", c->train.batch_size, false);
    add(s, "max_images_per_knapsack", c->train.max_images_per_knapsack, false);
    add(s, "tiles of a batch (max_tiles)", l->max_tiles, false);
}

static Settings settings_of(const Loader *l) {
    Settings s = {.count = 0};
    add_data(&s, l);
    add_samples(&s, l);
    add_packs(&s, l);
    return s;
}

static bool same_setting(const Setting *now, uint64_t saved, Error *err) {
    if (now->value == saved) return true;
    if (now->is_hash)
        return error_set(err,
                         "the saved data position was made with another %s; give the same, or begin the data "
                         "anew",
                         now->name);
    return error_set(
        err,
        "the saved data position was made with %s %lld, now it is %lld; give the same, or begin the "
        "data anew",
        now->name, (long long)saved, (long long)now->value);
}

// ---- saving ----

static const size_t count_offsets[] = {
    offsetof(LoaderCounts, rows),
    offsetof(LoaderCounts, samples),
    offsetof(LoaderCounts, packs),
    offsetof(LoaderCounts, batches),
    offsetof(LoaderCounts, skipped_unreadable),
    offsetof(LoaderCounts, skipped_ratings),
    offsetof(LoaderCounts, skipped_too_long),
    offsetof(LoaderCounts, skipped_images),
    offsetof(LoaderCounts, skipped_no_image),
    offsetof(LoaderCounts, truncated),
};
enum { N_COUNTS = sizeof count_offsets / sizeof *count_offsets };
_Static_assert(N_COUNTS * sizeof(uint64_t) == sizeof(LoaderCounts), "every count is saved");

static uint64_t *count_at(LoaderCounts *c, size_t i) {
    return (uint64_t *)((char *)c + count_offsets[i]);
}

void loader_put_stages(const Loader *l, CharVec *state) {
    bytes_put_varint(state, l->next_place);
    packer_save(l->packer, state);
}

void loader_save(Loader *l, CharVec *state) {
    const size_t begin = state->count;
    vec_extend(state, MAGIC, sizeof MAGIC);
    bytes_put_varint(state, VERSION);
    pthread_mutex_lock(&l->lock);
    const Settings settings = settings_of(l);
    bytes_put_varint(state, settings.count);
    for (size_t i = 0; i < settings.count; i++) bytes_put_varint(state, settings.items[i].value);
    bytes_put_varint(state, l->epoch);
    bytes_put_varint(state, l->given);
    bytes_put_varint(state, l->ended && !l->broken);
    for (size_t i = 0; i < N_COUNTS; i++) bytes_put_varint(state, *count_at(&l->given_counts, i));
    vec_extend(state, l->given_state.items, l->given_state.count);
    pthread_mutex_unlock(&l->lock);
    bytes_put_u64(state, bytes_hash(BYTES_HASH, state->items + begin, state->count - begin));
}

// ---- restoring ----

static bool check_frame(ByteReader *in, const void *state, size_t size, Error *err) {
    *in = byte_reader(state, size);
    const uint8_t *magic = byte_reader_take(in, sizeof MAGIC);
    if (!magic || memcmp(magic, MAGIC, sizeof MAGIC) != 0)
        return error_set(err, "the %zu bytes are no saved data position", size);
    const uint64_t version = byte_reader_varint(in);
    if (!in->failed && version != VERSION)
        return error_set(err, "the saved data position is of version %llu, this program reads version %d",
                         (unsigned long long)version, VERSION);
    const size_t left = byte_reader_left(in), tail = sizeof(uint64_t);
    if (in->failed || left < tail)
        return error_set(err, "the saved data position ends after %zu bytes", size);
    ByteReader sum = byte_reader(in->end - tail, tail);
    if (byte_reader_u64(&sum) != bytes_hash(BYTES_HASH, state, size - tail))
        return error_set(err, "the saved data position of %zu bytes is damaged or cut: its checksum differs",
                         size);
    in->end -= tail;
    return true;
}

static bool check_settings(ByteReader *in, const Loader *l, Error *err) {
    const Settings now = settings_of(l);
    if (byte_reader_varint(in) != now.count)
        return error_set(err, "the saved data position names other settings than this program knows");
    for (size_t i = 0; i < now.count; i++)
        if (!same_setting(&now.items[i], byte_reader_varint(in), err)) return false;
    return true;
}

typedef struct Position {
    uint64_t epoch, given, next_place;
    bool over;
    LoaderCounts counts;
} Position;

static bool read_position(Position *p, ByteReader *in, const Loader *l, Error *err) {
    p->epoch = byte_reader_varint(in);
    p->given = byte_reader_varint(in);
    p->over = byte_reader_varint(in) != 0;
    for (size_t i = 0; i < N_COUNTS; i++) *count_at(&p->counts, i) = byte_reader_varint(in);
    p->next_place = byte_reader_varint(in);
    if (in->failed || p->next_place > row_stream_rows(l->rows))
        return error_set(err, "the saved data position stands at row %llu of an epoch of %llu",
                         (unsigned long long)p->next_place, (unsigned long long)row_stream_rows(l->rows));
    return true;
}

// Nothing is under way; the rest of `in` is the packer.
static bool stand_at(Loader *l, const Position *p, ByteReader *in, Error *err) {
    const uint8_t *packer = in->at;
    l->epoch = p->epoch;
    loader_clear(l);
    if (!packer_restore(l->packer, in, p->next_place, NULL, err)) return false;
    if (byte_reader_left(in) > 0)
        return error_set(err, "the saved data position has %zu bytes too many", byte_reader_left(in));
    l->given = p->given;
    l->next_place = p->next_place;
    l->counts = l->given_counts = p->counts;
    l->ended = l->over = l->rows_over = l->pack_ended = p->over;
    vec_clear(&l->given_state);
    bytes_put_varint(&l->given_state, p->next_place);
    vec_extend(&l->given_state, (const char *)packer, (size_t)(in->end - packer));
    row_stream_seek(l->rows, l->epoch, packer_missing_rows(l->packer), packer_missing(l->packer),
                    p->next_place);
    return true;
}

bool loader_restore(Loader *l, const void *state, size_t size, Error *err) {
    ByteReader in;
    Position p = {0};
    pthread_mutex_lock(&l->lock);
    loader_pause(l);
    const uint64_t epoch = l->epoch;
    bool ok = check_frame(&in, state, size, err) && check_settings(&in, l, err) &&
              read_position(&p, &in, l, err) && stand_at(l, &p, &in, err);
    if (!ok) {
        l->epoch = epoch;
        loader_clear(l);
    }
    loader_resume(l);
    pthread_mutex_unlock(&l->lock);
    return ok;
}
