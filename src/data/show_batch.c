// A batch as a page: what the model gets, not what the rows hold.
#include "data/html.h"
#include "data/show.h"

#include <math.h>

// Where a sample lies in its batch.
typedef struct BatchSample {
    size_t sequence, begin, end;  // positions of the sequence; end: behind its last token
    size_t first_tile, last_tile; // last: behind it
} BatchSample;

// ---- tiles ----

// values [3, P, P] in [0, 1], as bytes; returns how many are not finite.
static size_t tile_to_image(Image *image, const float *values, size_t P) {
    static const uint8_t magenta[3] = {255, 0, 255};
    size_t bad = 0;
    for (size_t i = 0; i < P * P; i++) {
        const size_t before = bad;
        for (size_t c = 0; c < 3; c++) {
            const float v = values[c * P * P + i];
            bad += !isfinite(v);
            image->rgb[3 * i + c] = (uint8_t)(v > 0 ? v < 1 ? v * 255 + 0.5f : 255 : 0);
        }
        if (bad > before) memcpy(image->rgb + 3 * i, magenta, 3);
    }
    return bad;
}

static bool put_tile(CharVec *html, const Batch *b, size_t tile, size_t P, Error *err) {
    Image image = {P, P, mem_alloc(3 * P * P)};
    const size_t bad = tile_to_image(&image, b->images + tile * 3 * P * P, P);
    html_put(html, "<figure><img width=\"%zu\" src=\"", P < 160 ? P * 2 : 160);
    const bool ok = show_image(html, &image, err);
    html_put(html, "\" alt=\"\"><figcaption>tile %zu of the batch%s", tile, bad ? ": " : "");
    if (bad) html_put(html, "%zu values are not finite", bad);
    html_put(html, "</figcaption></figure>\n");
    image_free(&image);
    return ok;
}

static bool put_tiles(CharVec *html, const SampleRules *rules, const Batch *b, const BatchSample *s,
                      Error *err) {
    bool ok = true;
    html_put(html, "<div class=\"pictures\">\n");
    for (size_t tile = s->first_tile; ok && tile < s->last_tile; tile++)
        ok = put_tile(html, b, tile, rules->vlm->vit_img_size, err);
    html_put(html, "</div>\n");
    return ok;
}

// ---- samples ----

static bool is_token(const Batch *b, size_t at) {
    return !b->attention_mask || b->attention_mask[at];
}

// Moves on to the next sample of the batch; false: there is none. Padding in front of a sequence and the pad
// behind each sample have mask 0.
static bool find_sample(BatchSample *s, const SampleRules *rules, const Batch *b) {
    size_t at = s->sequence * b->T + s->end, image_tokens = 0;
    while (at < b->B * b->T && !is_token(b, at)) at++;
    if (at == b->B * b->T) return false;
    s->sequence = at / b->T;
    s->begin = at % b->T;
    s->first_tile = s->last_tile;
    for (; at < (s->sequence + 1) * b->T && is_token(b, at); at++)
        image_tokens += b->input_ids[at] == rules->image_token_id;
    s->end = at - s->sequence * b->T;
    s->last_tile += image_tokens / rules->vlm->mp_image_token_length;
    if (s->last_tile > b->n_tiles) s->last_tile = b->n_tiles;
    return true;
}

static bool put_sample(CharVec *html, const SampleRules *rules, const Batch *b, const BatchSample *s,
                       size_t number, Error *err) {
    const size_t at = s->sequence * b->T + s->begin, n = s->end - s->begin;
    size_t trained = 0;
    for (size_t i = 0; i < n; i++) trained += b->labels[at + i] != IGNORE_INDEX;
    html_put(html, "<section>\n<div class=\"top\"><h2>sequence %zu, positions %zu to %zu", s->sequence,
             s->begin, s->end - 1);
    if (b->rows && number < b->n_samples) html_put(html, ": row %zu", b->rows[number]);
    html_put(html, "</h2></div>\n<p class=\"facts\">tokens: %zu, trained on: %zu (%.1f%%) · tiles: %zu</p>\n",
             n, trained, 100.0 * (double)trained / (double)n, s->last_tile - s->first_tile);
    if (!put_tiles(html, rules, b, s, err)) return false;
    show_tokens(html, rules, b->input_ids + at, b->labels + at, n);
    html_put(html, "</section>\n");
    return true;
}

bool show_batch(CharVec *html, const SampleRules *rules, const Batch *batch, Error *err) {
    BatchSample s = {0};
    html_put(html,
             "<p class=\"facts\">%zu sequences of %zu positions, %zu samples, %zu pictures, %zu tiles</p>\n",
             batch->B, batch->T, batch->n_samples, batch->n_images, batch->n_tiles);
    for (size_t number = 0; find_sample(&s, rules, batch); number++)
        if (!put_sample(html, rules, batch, &s, number, err)) return false;
    return true;
}
