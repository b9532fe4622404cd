#include "text/chat.h"

#include "base/batch.h"

#include <stdio.h>

static void append_text(CharVec *out, const char *text) {
    vec_extend(out, text, strlen(text));
}

static void append_header(CharVec *out, const char *role) {
    append_text(out, "<|im_start|>");
    append_text(out, role);
    append_text(out, "\n");
}

static void append_message(CharVec *out, const ChatMessage *m) {
    append_header(out, m->role);
    vec_extend(out, m->content, m->size);
    append_text(out, "<|im_end|>\n");
}

// A Jinja text in one of its spellings: inside {% %} and {{ }}, but outside string literals, white space is
// dropped; quotes are single ones, \n in a literal is a newline, adjacent literals are joined, message.x is
// message['x']; and one newline behind a %} is dropped, as transformers renders with trim_blocks.
static void normalise_template(CharVec *out, const char *text) {
    char quote = '\0';
    bool in_tag = false;
    for (const char *p = text; *p; p++) {
        const bool newline_escape = quote && p[0] == '\\' && p[1] == 'n';
        if (newline_escape || (quote && *p != quote)) {
            vec_push(out, newline_escape ? '\n' : *p);
            p += newline_escape;
        } else if (in_tag && (*p == '\'' || *p == '"')) {
            const bool joins = !quote && out->count >= 2 && memcmp(out->items + out->count - 2, "'+", 2) == 0;
            if (joins)
                out->count -= 2;
            else
                vec_push(out, '\'');
            quote = quote ? '\0' : *p;
        } else if (in_tag && strchr(" \t\r\n", *p)) {
            continue;
        } else if (in_tag && strncmp(p, "message.", 8) == 0) {
            append_text(out, "message['");
            for (p += 8; *p >= 'a' && *p <= 'z'; p++) vec_push(out, *p);
            append_text(out, "']");
            p--;
        } else {
            vec_push(out, *p);
            if (p > text && p[-1] == '{' && (*p == '%' || *p == '{')) in_tag = true;
            if (p > text && *p == '}' && (p[-1] == '%' || p[-1] == '}')) {
                in_tag = false;
                if (p[-1] == '%' && p[1] == '\n') p++;
            }
        }
    }
}

static bool is_chatml(const char *template_text) {
    static const char chatml[] =
        "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + "
        "'<|im_end|>' + "
        "'\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";
    CharVec expected = {0}, found = {0};
    normalise_template(&expected, chatml);
    normalise_template(&found, template_text);
    const bool same =
        expected.count == found.count && memcmp(expected.items, found.items, expected.count) == 0;
    vec_free(&expected);
    vec_free(&found);
    return same;
}

bool chat_template_init(ChatTemplate *c, const Tokenizer *tokenizer, const char *template_text, Error *err) {
    if (template_text && !is_chatml(template_text))
        return error_set(
            err,
            "lm_chat_template is \"%.200s%s\", expected the ChatML template, the only one that is "
            "supported: leave the field at its default",
            template_text, strlen(template_text) > 200 ? "…" : "");
    CharVec text = {0};
    Int32Vec ids = {0};
    append_header(&text, "assistant");
    tokenizer_encode(tokenizer, text.items, text.count, &ids);
    *c = (ChatTemplate){tokenizer, ids.count};
    vec_free(&text);
    vec_free(&ids);
    return true;
}

// Sets trained[i] for the tokens of assistant messages behind their first prefix_len. As in nanoVLM
// (data/datasets.py, _prepare_inputs_and_loss_mask) a message's place is the sum of the lengths that the
// messages before it have when each is encoded alone.
static void mark_trained(const ChatTemplate *c, const ChatMessage *messages, size_t n, bool *trained,
                         size_t n_ids) {
    CharVec text = {0};
    Int32Vec alone = {0};
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        vec_clear(&text);
        vec_clear(&alone);
        append_message(&text, &messages[i]);
        tokenizer_encode(c->tokenizer, text.items, text.count, &alone);
        const bool assistant = strcmp(messages[i].role, "assistant") == 0;
        for (size_t j = at + c->prefix_len; assistant && j < at + alone.count && j < n_ids; j++)
            trained[j] = true;
        at += alone.count;
    }
    vec_free(&text);
    vec_free(&alone);
}

void chat_encode_training(const ChatTemplate *c, const ChatMessage *messages, size_t n, Int32Vec *ids,
                          Int32Vec *labels) {
    CharVec text = {0};
    for (size_t i = 0; i < n; i++) append_message(&text, &messages[i]);
    const size_t first = ids->count;
    tokenizer_encode(c->tokenizer, text.items, text.count, ids);
    vec_free(&text);
    const size_t n_ids = ids->count - first;
    bool *trained = mem_zeroed(n_ids + 1, sizeof *trained); // one more, so that the last token has no target
    mark_trained(c, messages, n, trained, n_ids);
    for (size_t i = 0; i < n_ids; i++)
        vec_push(labels, trained[i + 1] ? ids->items[first + i + 1] : IGNORE_INDEX);
    free(trained);
}

void chat_encode_prompt(const ChatTemplate *c, const ChatMessage *messages, size_t n, Int32Vec *ids) {
    CharVec text = {0};
    for (size_t i = 0; i < n; i++) append_message(&text, &messages[i]);
    append_header(&text, "assistant");
    tokenizer_encode(c->tokenizer, text.items, text.count, ids);
    vec_free(&text);
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
