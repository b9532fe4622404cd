#include "data/prompt.h"

#include <string.h>

// Appends the tiles of a picture to p and tells its grid.
static bool add_picture(Prompt *p, ImageGrid *grid, const VLMConfig *c, const Tokenizer *t,
                        const Picture *picture, Error *err) {
    size_t P = c->vit_img_size, values = 3 * P * P;
    bool global = tokenizer_extra_id(t, "global_image_token") >= 0;
    *grid = picture_grid(picture, P);
    size_t n = grid_tiles(*grid, global);
    p->tiles = mem_resize(p->tiles, (p->n_tiles + n) * values * sizeof *p->tiles);
    if (!picture_tiles(p->tiles + p->n_tiles * values, picture, P, global, err)) return false;
    p->n_tiles += n;
    return true;
}

static void encode(Int32Vec *ids, const ChatTemplate *chat, const CharVec *content, const PromptForm *form) {
    ChatMessage messages[2] = {{"user", content->items, content->count}};
    if (form->plain) {
        if (chat->first_plain_id >= 0) vec_push(ids, chat->first_plain_id);
        tokenizer_encode(chat->tokenizer, content->items, content->count, ids);
    } else if (form->follows) {
        chat_encode_turn(chat, messages, ids);
    } else if (form->system) {
        messages[1] = messages[0];
        messages[0] = (ChatMessage){"system", form->system, strlen(form->system)};
        chat_encode_prompt(chat, messages, 2, ids);
    } else {
        chat_encode_prompt(chat, messages, 1, ids);
    }
}

bool prompt_build(Prompt *p, const VLMConfig *c, const ChatTemplate *chat, const Picture *pictures, size_t n,
                  const char *text, Error *err) {
    return prompt_build_form(p, c, chat, pictures, n, text, &(PromptForm){0}, err);
}

bool prompt_build_form(Prompt *p, const VLMConfig *c, const ChatTemplate *chat, const Picture *pictures,
                       size_t n, const char *text, const PromptForm *form, Error *err) {
    *p = (Prompt){0};
    CharVec content = {0};
    ImageGrid *grids = mem_zeroed(n + 1, sizeof *grids);
    bool ok = true;
    for (size_t i = 0; ok && i < n; i++)
        ok = add_picture(p, &grids[i], c, chat->tokenizer, &pictures[i], err);
    ok = ok &&
         (n == 0 || chat_image_string(&content, chat->tokenizer, grids, n, c->mp_image_token_length, err));
    if (ok) {
        vec_extend(&content, text, strlen(text));
        encode(&p->ids, chat, &content, form);
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
