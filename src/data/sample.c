#include "data/sample.h"

#include "base/batch.h"
#include "text/unicode.h"

bool sample_rules_init(SampleRules *r, const Config *c, const Tokenizer *t, Error *err) {
    const TrainConfig *train = &c->train;
    *r = (SampleRules){.vlm = &c->vlm,
                       .train = train,
                       .image_token = tokenizer_extra_text(t, "image_token"),
                       .image_token_id = tokenizer_extra_id(t, "image_token"),
                       .jpeg_reduced_scale = c->options.jpeg_reduced_scale,
                       .global_tile = tokenizer_extra_id(t, "global_image_token") >= 0,
                       .truncate = strcmp(c->options.long_samples, "truncate") == 0,
                       .minima = {train->relevance_min_rating, train->image_correspondence_min_rating,
                                  train->visual_dependency_min_rating, train->formatting_min_rating}};
    return chat_check_image_token(t, err) && chat_template_init(&r->chat, t, c->vlm.lm_chat_template, err);
}

void sample_free(Sample *s) {
    for (size_t i = 0; i < s->n_pictures; i++) picture_free(&s->pictures[i]);
    free(s->pictures);
    vec_free(&s->ids);
    vec_free(&s->labels);
    *s = (Sample){0};
}

size_t sample_bytes(const Sample *s) {
    size_t bytes = sizeof *s + (s->ids.capacity + s->labels.capacity) * sizeof *s->ids.items;
    for (size_t i = 0; i < s->n_pictures; i++)
        bytes += 3 * s->pictures[i].image.width * s->pictures[i].image.height;
    return bytes;
}

size_t sample_building_bytes(const Sample *s) {
    size_t most = 0;
    for (size_t i = 0; i < s->n_pictures; i++)
        if (s->pictures[i].beside > most) most = s->pictures[i].beside;
    return most;
}

bool sample_tiles(float *out, const Sample *s, const SampleRules *r, Error *err) {
    const size_t P = r->vlm->vit_img_size;
    for (size_t i = 0; i < s->n_pictures; i++) {
        if (!picture_tiles(out, &s->pictures[i], P, r->global_tile, err)) return false;
        out += grid_tiles(picture_grid(&s->pictures[i], P), r->global_tile) * 3 * P * P;
    }
    return true;
}

// ---- building ----

// The messages under construction. Their contents lie in one growing text, so places are kept as offsets.
typedef struct Messages {
    CharVec text;
    VEC(size_t) ends;  // message i is text [ends[i-1], ends[i]); user and assistant in turn
    VEC(size_t) turns; // entries of the column that pass the ratings
} Messages;

static void messages_free(Messages *m) {
    vec_free(&m->text);
    vec_free(&m->ends);
    vec_free(&m->turns);
}

// Whether a text is one: a null is what nanoVLM dies of, and invalid UTF-8 as well, when Arrow makes a Python
// string of it.
static bool check_text(Column column, size_t i, const char *what, Error *err) {
    const uint8_t *bytes;
    size_t size;
    if (column_is_null(column, i)) return error_set(err, "no %s text", what);
    column_bytes(&bytes, &size, column, i);
    const size_t valid = utf8_valid_prefix((const char *)bytes, size);
    return valid == size || error_set(err, "the %s text is not UTF-8 at byte %zu", what, valid);
}

// The turns that pass the ratings.
static SampleFate choose_turns(Messages *m, const SampleRules *r, const RowColumns *c, size_t row,
                               Error *err) {
    size_t first, count;
    if (!row_turns(&first, &count, c, row, err)) return SAMPLE_BAD_TEXT;
    for (size_t i = 0; i < count; i++)
        if (row_turn_passes(c, row, i, r->minima)) vec_push(&m->turns, first + i);
    if (m->turns.count == 0) {
        error_set(err, "none of its %zu turns passes the minimum ratings", count);
        return SAMPLE_NO_TURN;
    }
    for (size_t i = 0; i < m->turns.count; i++) {
        const size_t turn = m->turns.items[i];
        const bool ok = column_is_null(c->turn, turn) ? error_set(err, "null")
                                                      : check_text(c->user, turn, "user", err) &&
                                                            check_text(c->assistant, turn, "assistant", err);
        if (!ok) {
            error_prefix(err, "turn %zu", turn - first);
            return SAMPLE_BAD_TEXT;
        }
    }
    return SAMPLE_KEPT;
}

static bool read_picture(Picture *p, const SampleRules *r, const RowColumns *c, size_t image, Error *err) {
    RowImage encoded;
    bool ok = row_image_open(&encoded, c, image, err) &&
              picture_decode(p, encoded.bytes, encoded.size, r->vlm, r->jpeg_reduced_scale, err);
    row_image_close(&encoded);
    return ok;
}

// Decodes the row's pictures and appends their image string to the text.
static SampleFate read_pictures(Sample *s, Messages *m, const SampleRules *r, const RowColumns *c, size_t row,
                                Error *err) {
    size_t first, count;
    row_images(&first, &count, c, row);
    if (count > r->train->max_images_per_example) {
        error_set(err, "%zu pictures, max_images_per_example is %zu", count,
                  r->train->max_images_per_example);
        return SAMPLE_TOO_MANY_IMAGES;
    }
    if (count == 0) return SAMPLE_KEPT;
    s->pictures = mem_zeroed(count, sizeof *s->pictures);
    ImageGrid *grids = mem_zeroed(count, sizeof *grids);
    bool ok = true;
    for (size_t i = 0; ok && i < count; i++) {
        ok = read_picture(&s->pictures[i], r, c, first + i, err) || error_prefix(err, "picture %zu", i);
        if (!ok) break;
        s->n_pictures++;
        grids[i] = picture_grid(&s->pictures[i], r->vlm->vit_img_size);
        s->n_tiles += grid_tiles(grids[i], r->global_tile);
    }
    ok = ok &&
         chat_image_string(&m->text, r->chat.tokenizer, grids, count, r->vlm->mp_image_token_length, err);
    free(grids);
    return ok ? SAMPLE_KEPT : SAMPLE_BAD_IMAGE;
}

// Appends an entry of a text column without the image tokens in it. True when there were any.
static bool append_text(Messages *m, const char *image_token, Column column, size_t i) {
    const uint8_t *bytes;
    size_t size, length = strlen(image_token);
    bool found = false;
    column_bytes(&bytes, &size, column, i);
    const char *at = (const char *)bytes, *end = at + size, *token;
    while (size && (token = memmem(at, (size_t)(end - at), image_token, length))) {
        vec_extend(&m->text, at, (size_t)(token - at));
        at = token + length;
        found = true;
    }
    vec_extend(&m->text, at, (size_t)(end - at));
    vec_push(&m->ends, m->text.count);
    return found;
}

static void encode(Sample *s, const Messages *m, const ChatTemplate *chat) {
    ChatMessage *messages = mem_alloc(m->ends.count * sizeof *messages);
    size_t begin = 0;
    for (size_t i = 0; i < m->ends.count; i++) {
        const char *content = m->text.count ? m->text.items + begin : "";
        messages[i] = (ChatMessage){i % 2 ? "assistant" : "user", content, m->ends.items[i] - begin};
        begin = m->ends.items[i];
    }
    chat_encode_training(chat, messages, m->ends.count, &s->ids, &s->labels);
    free(messages);
}

static SampleFate check_image_tokens(const Sample *s, const SampleRules *r, Error *err) {
    // Removing image tokens can put together a new one, for which there would be no picture.
    size_t found = 0, expected = s->n_tiles * r->vlm->mp_image_token_length;
    for (size_t i = 0; i < s->ids.count; i++) found += s->ids.items[i] == r->image_token_id;
    if (found == expected) return SAMPLE_KEPT;
    error_set(err, "%zu image tokens, its %zu tiles need %zu", found, s->n_tiles, expected);
    return SAMPLE_BAD_TEXT;
}

// Cuts the sample to its first n tokens. The last of them then has no target. False when this would leave
// nothing that is trained on. The pictures' tokens stand before all answers, so that they stay whole.
static bool cut(Sample *s, size_t n) {
    size_t trained = 0;
    for (size_t i = 0; i + 1 < n; i++) trained += s->labels.items[i] != IGNORE_INDEX;
    if (trained == 0) return false;
    s->ids.count = s->labels.count = n;
    s->labels.items[n - 1] = IGNORE_INDEX;
    s->truncated = true;
    return true;
}

// A sample that is too long is cut to what a sequence takes, its pad token counted, or left out.
static SampleFate check_length(Sample *s, const SampleRules *r, Error *err) {
    const size_t most = r->train->max_sample_length - 1, room = r->vlm->lm_max_length - 1;
    const bool too_long = s->ids.count > most;
    if (r->truncate && (too_long || s->ids.count > room)) {
        const size_t n = most < room ? most : room;
        if (cut(s, n)) return SAMPLE_KEPT;
        error_set(err, "%zu tokens, and nothing to train on in the first %zu, which is what fits",
                  s->ids.count, n);
        return SAMPLE_TOO_LONG;
    }
    if (!too_long) return SAMPLE_KEPT; // whether it fits a sequence is the packer's question
    error_set(err, "%zu tokens, max_sample_length is %zu", s->ids.count, r->train->max_sample_length);
    return SAMPLE_TOO_LONG;
}

SampleFate sample_build(Sample *s, const SampleRules *r, const RowColumns *c, size_t row, Error *err) {
    Messages m = {0};
    *s = (Sample){0};
    SampleFate fate = choose_turns(&m, r, c, row, err);
    if (fate == SAMPLE_KEPT) fate = read_pictures(s, &m, r, c, row, err);
    if (fate == SAMPLE_KEPT) {
        for (size_t i = 0; i < m.turns.count; i++) {
            s->had_image_token |= append_text(&m, r->image_token, c->user, m.turns.items[i]);
            s->had_image_token |= append_text(&m, r->image_token, c->assistant, m.turns.items[i]);
        }
        encode(s, &m, &r->chat);
        fate = check_image_tokens(s, r, err);
        if (fate == SAMPLE_KEPT) fate = check_length(s, r, err);
    }
    messages_free(&m);
    if (fate != SAMPLE_KEPT) sample_free(s);
    return fate;
}
