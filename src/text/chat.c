#include "text/chat.h"

#include "base/batch.h"
#include "text/chat_template.h"
#include "text/unicode.h"

#include <stdio.h>

static void append_text(CharVec *out, const char *text) {
    vec_extend(out, text, strlen(text));
}

static void append_header(CharVec *out, const ChatFormat *f, const char *role) {
    append_text(out, f->before_role);
    append_text(out, role);
    append_text(out, f->before_text);
}

static void append_message(CharVec *out, const ChatFormat *f, const ChatMessage *m) {
    const char *text = m->content;
    size_t size = m->size;
    append_header(out, f, m->role);
    if (f->trims) utf8_trim(&text, &size);
    vec_extend(out, text, size);
    append_text(out, f->after);
}

static bool parse_template(ChatTemplate *c, const char *from, const char *text, Error *err) {
    CharVec system = {0};
    bool ok = chat_template_parse(text, &system);
    if (!ok) {
        const char *more = strlen(text) > 200 ? "…" : "";
        error_set(err,
                  "%s is \"%.200s%s\", expected the ChatML template, the only one that is supported: leave "
                  "lm_chat_template at its default",
                  from, text, more);
    } else if (system.count >= CHAT_MAX_SYSTEM) {
        ok = error_set(err, "%s has a system message of %zu bytes, expected at most %d", from, system.count,
                       CHAT_MAX_SYSTEM - 1);
    } else if (system.count) {
        memcpy(c->system, system.items, system.count);
        c->system_size = system.count;
    }
    vec_free(&system);
    return ok;
}

bool chat_template_init(ChatTemplate *c, const Tokenizer *tokenizer, const char *template_text, Error *err) {
    *c = (ChatTemplate){.tokenizer = tokenizer, .format = &chat_ml, .first_id = -1, .first_plain_id = -1};
    const bool own = !template_text || !*template_text;
    if (own) template_text = tokenizer_chat_template(tokenizer);
    if (!template_text)
        return error_set(err,
                         "lm_chat_template is empty and the tokenizer has no chat_template, expected one "
                         "of them: leave lm_chat_template at its default");
    if (!parse_template(c, own ? "the tokenizer's chat_template" : "lm_chat_template", template_text, err))
        return false;
    CharVec text = {0};
    Int32Vec ids = {0};
    append_header(&text, c->format, "assistant");
    tokenizer_encode(tokenizer, text.items, text.count, &ids);
    c->prefix_len = ids.count + tokenizer_tokens_around(tokenizer);
    vec_clear(&ids);
    tokenizer_encode(tokenizer, c->system, c->system_size, &ids);
    c->system_tokens = ids.count;
    c->cuts_messages = tokenizer_cuts_before(tokenizer, c->format->before_role, '\n');
    vec_free(&text);
    vec_free(&ids);
    return true;
}

bool chat_template_init_alone(ChatTemplate *c, const Tokenizer *tokenizer, Error *err) {
    const bool known = chat_template_init(c, tokenizer, NULL, NULL);
    c->first_plain_id = tokenizer_first_id(tokenizer);
    if (known) return true;
    const char *text = tokenizer_chat_template(tokenizer);
    if (!text) return error_set(err, "has no chat template");
    const ChatFormat *format = chat_format_find(text);
    if (!format)
        return error_set(err, "the chat template \"%.200s%s\" is in no format that is known: %s", text,
                         strlen(text) > 200 ? "…" : "", chat_format_list());
    if (tokenizer_token_id(tokenizer, format->stop) < 0)
        return error_set(err, "the chat template is in the format %s, but the tokenizer has no token %s",
                         format->name, format->stop);
    c->format = format;
    c->by_mark = true;
    c->first_id = tokenizer_first_id(tokenizer);
    return true;
}

// Appends the ids of all messages. Where tokens cannot reach over the border of two messages these are
// encoded one by one, and ends holds the number of ids up to the end of each.
static void encode_messages(const ChatTemplate *c, const ChatMessage *messages, size_t n, Int32Vec *ids,
                            size_t *ends) {
    const size_t first = ids->count;
    CharVec text = {0};
    vec_extend(&text, c->system, c->system_size);
    for (size_t i = 0; i < n; i++) {
        append_message(&text, c->format, &messages[i]);
        if (!c->cuts_messages) continue;
        tokenizer_encode(c->tokenizer, text.items, text.count, ids);
        ends[i] = ids->count - first;
        vec_clear(&text);
    }
    if (text.count) tokenizer_encode(c->tokenizer, text.items, text.count, ids);
    vec_free(&text);
}

// Where messages end in the ids, as nanoVLM has it (data/datasets.py, _prepare_inputs_and_loss_mask): a
// message's place is the sum of the lengths that the messages before it have when each is encoded alone.
static void find_ends(const ChatTemplate *c, const ChatMessage *messages, size_t n, size_t *ends) {
    CharVec text = {0};
    Int32Vec alone = {0};
    size_t at = c->system_tokens;
    for (size_t i = 0; i < n; i++) {
        vec_clear(&text);
        vec_clear(&alone);
        append_message(&text, c->format, &messages[i]);
        tokenizer_encode(c->tokenizer, text.items, text.count, &alone);
        ends[i] = at += alone.count;
    }
    vec_free(&text);
    vec_free(&alone);
}

void chat_encode_training(const ChatTemplate *c, const ChatMessage *messages, size_t n, Int32Vec *ids,
                          Int32Vec *labels) {
    const size_t first = ids->count;
    size_t *ends = mem_alloc((n + 1) * sizeof *ends);
    encode_messages(c, messages, n, ids, ends);
    if (!c->cuts_messages) find_ends(c, messages, n, ends);
    const size_t n_ids = ids->count - first;
    vec_reserve(labels, labels->count + n_ids);
    int32_t *label = labels->items + labels->count;
    for (size_t i = 0; i < n_ids; i++) label[i] = IGNORE_INDEX;
    labels->count += n_ids;
    for (size_t i = 0; i < n; i++) {
        const size_t begin = (i ? ends[i - 1] : c->system_tokens) + c->prefix_len;
        const bool assistant = strcmp(messages[i].role, "assistant") == 0;
        for (size_t j = begin ? begin : 1; assistant && j < ends[i] && j < n_ids; j++)
            label[j - 1] = ids->items[first + j]; // shifted: the token before learns it
    }
    free(ends);
}

void chat_encode_turn(const ChatTemplate *c, const ChatMessage *message, Int32Vec *ids) {
    CharVec text = {0};
    append_text(&text, c->format->after);
    append_message(&text, c->format, message);
    append_header(&text, c->format, "assistant");
    tokenizer_encode(c->tokenizer, text.items, text.count, ids);
    vec_free(&text);
}

void chat_encode_prompt(const ChatTemplate *c, const ChatMessage *messages, size_t n, Int32Vec *ids) {
    CharVec text = {0};
    if (c->first_id >= 0) vec_push(ids, c->first_id);
    if (n == 0 || strcmp(messages[0].role, "system")) vec_extend(&text, c->system, c->system_size);
    for (size_t i = 0; i < n; i++) append_message(&text, c->format, &messages[i]);
    append_header(&text, c->format, "assistant");
    tokenizer_encode(c->tokenizer, text.items, text.count, ids);
    vec_free(&text);
}

bool chat_check_image_token(const Tokenizer *t, Error *err) {
    const char *text = tokenizer_extra_text(t, "image_token");
    const int32_t id = tokenizer_extra_id(t, "image_token");
    if (!text || !*text)
        return error_set(err, "the tokenizer has no image_token, expected one; name it in vlm_extra_tokens");
    CharVec several = {0};
    Int32Vec ids = {0};
    for (size_t i = 0; i < 4; i++) append_text(&several, text);
    tokenizer_encode(t, several.items, several.count, &ids);
    bool whole = ids.count == 4;
    for (size_t i = 0; i < ids.count; i++) whole &= ids.items[i] == id;
    if (!whole)
        error_set(err,
                  "four image tokens \"%s\" in a row become %zu tokens, expected four of id %d; give "
                  "image_token another text in vlm_extra_tokens",
                  text, ids.count, id);
    vec_free(&several);
    vec_free(&ids);
    return whole;
}

static void append_image_tokens(CharVec *out, const char *image_token, size_t n) {
    for (size_t i = 0; i < n; i++) append_text(out, image_token);
}

static bool append_tiles(CharVec *out, const Tokenizer *t, ImageGrid grid, const char *image_token,
                         size_t n_tokens, Error *err) {
    for (size_t row = 1; row <= grid.rows; row++)
        for (size_t col = 1; col <= grid.cols; col++) {
            char name[48];
            snprintf(name, sizeof name, "r%zuc%zu", row, col);
            const char *place = tokenizer_extra_text(t, name);
            if (!place)
                return error_set(
                    err,
                    "an image of %zu x %zu tiles needs the token %s, which vlm_extra_tokens does not "
                    "have: set max_img_size lower",
                    grid.rows, grid.cols, name);
            append_text(out, place);
            append_image_tokens(out, image_token, n_tokens);
        }
    return true;
}

bool chat_image_string(CharVec *out, const Tokenizer *t, const ImageGrid *grids, size_t n,
                       size_t mp_image_token_length, Error *err) {
    const char *image = tokenizer_extra_text(t, "image_token");
    const char *global = tokenizer_extra_text(t, "global_image_token");
    if (!image) return error_set(err, "vlm_extra_tokens has no image_token, expected one: images need it");
    for (size_t i = 0; i < n; i++) {
        if (n > 1) {
            char number[48];
            snprintf(number, sizeof number, "<image: %zu>", i);
            append_text(out, number);
        }
        if (global) {
            append_text(out, global);
            append_image_tokens(out, image, mp_image_token_length);
            if (grids[i].rows == 1 && grids[i].cols == 1) continue;
        }
        if (!append_tiles(out, t, grids[i], image, mp_image_token_length, err)) return false;
    }
    return true;
}
