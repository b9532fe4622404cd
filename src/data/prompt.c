#include "data/prompt.h"

#include <string.h>

// Resizes a picture, appends its tiles to p and tells its grid.
static bool add_image(Prompt *p, ImageGrid *grid, const VLMConfig *c, const Tokenizer *t, const Image *image,
                      Error *err) {
    size_t width, height, P = c->vit_img_size, values = 3 * P * P;
    Image resized = {0};
    if (!image_target_size(&width, &height, image->width, image->height, c->max_img_size, P,
                           c->resize_to_max_side_len, err) ||
        !image_resize_bicubic(&resized, image, width, height, err))
        return false;
    *grid = (ImageGrid){height / P, width / P};
    bool global = grid->rows * grid->cols > 1 && tokenizer_extra_id(t, "global_image_token") >= 0;
    size_t n = grid->rows * grid->cols + global;
    p->tiles = mem_resize(p->tiles, (p->n_tiles + n) * values * sizeof *p->tiles);
    image_to_tiles(p->tiles + p->n_tiles * values, &resized, P, global);
    p->n_tiles += n;
    image_free(&resized);
    return true;
}

bool prompt_build(Prompt *p, const VLMConfig *c, const ChatTemplate *chat, const Image *images, size_t n,
                  const char *text, Error *err) {
    *p = (Prompt){0};
    CharVec content = {0};
    ImageGrid *grids = mem_zeroed(n + 1, sizeof *grids);
    bool ok = true;
    for (size_t i = 0; ok && i < n; i++) ok = add_image(p, &grids[i], c, chat->tokenizer, &images[i], err);
    ok = ok &&
         (n == 0 || chat_image_string(&content, chat->tokenizer, grids, n, c->mp_image_token_length, err));
    if (ok) {
        vec_extend(&content, text, strlen(text));
        ChatMessage message = {"user", content.items, content.count};
        chat_encode_prompt(chat, &message, 1, &p->ids);
    }
    free(grids);
    vec_free(&content);
    if (!ok) prompt_free(p);
    return ok;
}

void prompt_free(Prompt *p) {
    vec_free(&p->ids);
    free(p->tiles);
    *p = (Prompt){0};
}
