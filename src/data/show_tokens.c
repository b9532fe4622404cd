// Tokens as text: what is trained on, what is special, and pictures' places cut short.
#include "base/batch.h"
#include "data/html.h"
#include "data/show.h"
#include "text/unicode.h"

typedef struct TokenWriter {
    CharVec *html;
    const SampleRules *rules;
    const int32_t *ids, *labels;
    size_t n;
    CharVec bytes; // of the tokens at hand
} TokenWriter;

// Token i is trained on when the position before it has a label, which must then be this token.
static const char *training_class(const TokenWriter *w, size_t i) {
    const int32_t label = i > 0 ? w->labels[i - 1] : IGNORE_INDEX;
    return label == IGNORE_INDEX ? "" : label == w->ids[i] ? "y" : "x";
}

static bool is_special(const Tokenizer *t, int32_t id) {
    CharVec text = {0};
    tokenizer_decode_bytes(t, &id, 1, true, &text);
    const bool gone = text.count == 0;
    tokenizer_decode_bytes(t, &id, 1, false, &text);
    const bool special = gone && text.count > 0;
    vec_free(&text);
    return special;
}

// Whether the bytes end in the middle of a character that another byte could complete.
static bool is_unfinished(const CharVec *bytes) {
    for (size_t back = 1; back <= 3 && back <= bytes->count; back++) {
        const unsigned char lead = (unsigned char)bytes->items[bytes->count - back];
        if ((lead & 0xc0) == 0x80) continue;
        const size_t size = lead >= 0xf0 && lead < 0xf5 ? 4 : lead >= 0xe0 ? 3 : lead >= 0xc2 ? 2 : 1;
        return lead < 0xf5 && size > back;
    }
    return false;
}

// Tokens i … end − 1 make up whole characters, are trained on alike, and end at the latest with the text.
static size_t characters_end(TokenWriter *w, size_t i) {
    const Tokenizer *t = w->rules->chat.tokenizer;
    const char *class = training_class(w, i);
    size_t end = i;
    vec_clear(&w->bytes);
    do {
        tokenizer_decode_bytes(t, &w->ids[end], 1, false, &w->bytes);
        end++;
    } while (end < w->n && is_unfinished(&w->bytes) && !is_special(t, w->ids[end]) &&
             strcmp(training_class(w, end), class) == 0);
    return end;
}

static void put_title(const TokenWriter *w, size_t i, size_t end) {
    html_put(w->html, " title=\"position %zu", i);
    if (end - i > 1) html_put(w->html, " to %zu", end - 1);
    html_put(w->html, " · id");
    for (size_t k = i; k < end && k < i + 8; k++) html_put(w->html, " %d", w->ids[k]);
    html_put(w->html, " · label");
    for (size_t k = i; k < end && k < i + 8; k++)
        w->labels[k] == IGNORE_INDEX ? html_put(w->html, " –") : html_put(w->html, " %d", w->labels[k]);
    html_put(w->html, "\"");
}

// Line breaks and tabs are made and get a sign.
static void put_bytes(CharVec *html, const CharVec *bytes) {
    for (size_t at = 0, end; at < bytes->count; at = end + 1) {
        end = at;
        while (end < bytes->count && bytes->items[end] != '\n' && bytes->items[end] != '\t') end++;
        html_text(html, bytes->items + at, end - at);
        if (end < bytes->count) html_put(html, bytes->items[end] == '\n' ? "<i>↵</i>\n" : "<i>⇥</i>\t");
    }
}

static size_t put_image_block(TokenWriter *w, size_t i) {
    size_t end = i;
    while (end < w->n && w->ids[end] == w->rules->image_token_id &&
           strcmp(training_class(w, end), training_class(w, i)) == 0)
        end++;
    html_put(w->html, "<span class=\"i %s\" title=\"positions %zu to %zu · id %d\">", training_class(w, i), i,
             end - 1, w->ids[i]);
    html_text(w->html, w->rules->image_token, strlen(w->rules->image_token));
    html_put(w->html, " × %zu</span>", end - i);
    return end;
}

static size_t put_characters(TokenWriter *w, size_t i) {
    const size_t end = characters_end(w, i);
    const bool special = is_special(w->rules->chat.tokenizer, w->ids[i]);
    html_put(w->html, "<span class=\"%s%s\"", special ? "s " : "", training_class(w, i));
    put_title(w, i, end);
    html_put(w->html, ">");
    if (w->bytes.count)
        put_bytes(w->html, &w->bytes);
    else
        html_put(w->html, "[%d]", w->ids[i]); // no such token
    html_put(w->html, "</span>");
    return end;
}

void show_tokens(CharVec *html, const SampleRules *rules, const int32_t *ids, const int32_t *labels,
                 size_t n) {
    TokenWriter w = {html, rules, ids, labels, n, {0}};
    html_put(html, "<div class=\"tokens\">");
    for (size_t i = 0; i < n;)
        i = ids[i] == rules->image_token_id ? put_image_block(&w, i) : put_characters(&w, i);
    html_put(html, "</div>\n");
    vec_free(&w.bytes);
}
