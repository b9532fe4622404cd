#include "support/random_batch.h"

#include "base/memory.h"
#include "base/random.h"

#include <stdlib.h>

Batch random_batch(BatchShape s, const VLMConfig *c) {
    enum { FIRST_IMAGE = 3 };
    const size_t n = s.B * s.T, pixels = s.tiles * 3 * c->vit_img_size * c->vit_img_size,
                 images_end = FIRST_IMAGE + s.tiles / s.B * c->mp_image_token_length;
    Random r = random_stream(7, RANDOM_TEST, 0);
    Batch b = {.B = s.B, .T = s.T, .n_tiles = s.tiles};
    b.input_ids = mem_zeroed(n, sizeof *b.input_ids);
    b.labels = mem_zeroed(n, sizeof *b.labels);
    b.images = mem_zeroed(pixels, sizeof *b.images);
    if (s.second) b.starts = mem_zeroed(n, sizeof *b.starts);
    for (size_t i = 0; i < n; i++) {
        const size_t at = i % s.T;
        const bool is_image = at >= FIRST_IMAGE && at < images_end;
        b.input_ids[i] = is_image ? s.image_token : (int32_t)(10 + random_below(&r, 300));
        b.labels[i] = at + s.targets >= s.T ? b.input_ids[i] : IGNORE_INDEX;
        if (s.second && at >= s.second) b.starts[i] = (int32_t)s.second;
    }
    for (size_t i = 0; i < pixels; i++) b.images[i] = (float)random_uniform(&r);
    return b;
}

void random_batch_free(Batch *b) {
    free(b->input_ids);
    free(b->labels);
    free(b->starts);
    free(b->images);
}
