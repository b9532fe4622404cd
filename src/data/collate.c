#include "data/collate.h"

#include "base/check.h"

void sequence_append(Sequence *s, const Int32Vec *ids, const Int32Vec *labels, size_t n_images,
                     size_t n_tiles, int32_t pad_id) {
    CHECK(ids->count == labels->count, "%zu ids, %zu labels", ids->count, labels->count);
    vec_extend(&s->ids, ids->items, ids->count);
    vec_extend(&s->labels, labels->items, labels->count);
    int32_t start = (int32_t)s->starts.count;
    for (size_t i = 0; i < ids->count; i++) vec_push(&s->mask, 1);
    for (size_t i = 0; i <= ids->count; i++) vec_push(&s->starts, start);
    vec_push(&s->ids, pad_id);
    vec_push(&s->labels, IGNORE_INDEX);
    vec_push(&s->mask, 0);
    s->n_images += n_images;
    s->n_tiles += n_tiles;
    s->n_samples++;
}

void sequence_clear(Sequence *s) {
    vec_clear(&s->ids);
    vec_clear(&s->mask);
    vec_clear(&s->labels);
    vec_clear(&s->starts);
    s->n_images = s->n_tiles = s->n_samples = 0;
}

void sequence_free(Sequence *s) {
    vec_free(&s->ids);
    vec_free(&s->mask);
    vec_free(&s->labels);
    vec_free(&s->starts);
}

// row [T] = pad … pad, values
static void pad_left(int32_t *row, const Int32Vec *values, size_t T, int32_t pad) {
    size_t padding = T - values->count;
    for (size_t i = 0; i < padding; i++) row[i] = pad;
    if (values->count) memcpy(row + padding, values->items, values->count * sizeof *row);
}

// row [T] = 0, 1, 2 …, the sequence's starts moved behind this padding
static void shift_starts(int32_t *row, const Int32Vec *starts, size_t T) {
    size_t padding = T - starts->count;
    for (size_t i = 0; i < T; i++)
        row[i] = (int32_t)(i < padding ? i : padding + (size_t)starts->items[i - padding]);
}

void collate(Batch *b, const Sequence *const *sequences, size_t n, size_t T, int32_t pad_id) {
    b->B = b->n_images = b->n_tiles = b->n_samples = 0;
    b->T = T;
    for (size_t i = 0; i < n; i++) {
        const Sequence *s = sequences[i];
        if (!s || s->ids.count > T) continue;
        size_t row = b->B++ * T;
        pad_left(b->input_ids + row, &s->ids, T, pad_id);
        pad_left(b->attention_mask + row, &s->mask, T, 0);
        pad_left(b->labels + row, &s->labels, T, IGNORE_INDEX);
        shift_starts(b->starts + row, &s->starts, T);
        b->n_images += s->n_images;
        b->n_tiles += s->n_tiles;
        b->n_samples += s->n_samples;
    }
}
