#include "data/show.h"
#include "data/html.h"
#include "data/show_style.h"

#include <stdio.h>

#define MAX_SIDE 896 // pixels of a picture on the page; larger ones are made smaller for it

// ---- pictures ----

bool show_image(CharVec *html, const Image *image, Error *err) {
    const size_t side = image->width > image->height ? image->width : image->height;
    Image smaller = {0};
    unsigned char *png;
    size_t size;
    if (side > MAX_SIDE) {
        const size_t width = (image->width * MAX_SIDE + side - 1) / side,
                     height = (image->height * MAX_SIDE + side - 1) / side;
        if (!image_resize_bicubic(&smaller, image, width, height, err)) return false;
        image = &smaller;
    }
    bool ok = image_encode_png(&png, &size, image, err);
    image_free(&smaller);
    if (!ok) return false;
    html_put(html, "data:image/png;base64,");
    html_base64(html, png, size);
    free(png);
    return true;
}

// The tiles' borders, twice: a light line with a dark one in it shows on any picture.
static void put_grid(CharVec *html, const Picture *p, size_t tile) {
    static const char *const classes[] = {"grid", "grid in"};
    for (size_t k = 0; k < 2; k++) {
        html_put(html, "<path class=\"%s\" d=\"", classes[k]);
        for (size_t x = tile; x < p->width; x += tile) html_put(html, "M%zu 0V%zu", x, p->height);
        for (size_t y = tile; y < p->height; y += tile) html_put(html, "M0 %zuH%zu", y, p->width);
        html_put(html, "\"/>");
    }
}

// Width on the page in CSS pixels: small pictures are enlarged.
static size_t shown_width(const Picture *p) {
    const size_t least = 288, most = p->height > p->width ? 420 : 640;
    return p->width < least ? least : p->width > most ? most : p->width;
}

static void put_tile_names(CharVec *html, const Picture *p, size_t tile) {
    const ImageGrid grid = picture_grid(p, tile);
    const double size = 14.0 * (double)p->width / (double)shown_width(p); // 14 pixels on the page
    for (size_t r = 0; r < grid.rows; r++)
        for (size_t c = 0; c < grid.cols; c++)
            html_put(html,
                     "<text class=\"tile\" x=\"%.1f\" y=\"%.1f\" font-size=\"%.1f\" "
                     "stroke-width=\"%.1f\">r%zuc%zu</text>",
                     (double)(c * tile) + size * 0.35, (double)(r * tile) + size * 1.05, size, size / 5,
                     r + 1, c + 1);
}

static bool put_picture_svg(CharVec *html, const Picture *p, size_t tile, size_t id, Error *err) {
    html_put(html,
             "<svg viewBox=\"0 0 %zu %zu\" width=\"%zu\"><image id=\"p%zu\" width=\"%zu\" height=\"%zu\" "
             "preserveAspectRatio=\"none\" href=\"",
             p->width, p->height, shown_width(p), id, p->width, p->height);
    if (!show_image(html, &p->image, err)) return false;
    html_put(html, "\"/>");
    const ImageGrid grid = picture_grid(p, tile);
    if (grid.rows * grid.cols > 1) {
        put_grid(html, p, tile);
        put_tile_names(html, p, tile);
    }
    html_put(html, "</svg>");
    return true;
}

// The whole picture in one tile, as the model gets it in front of the others.
static void put_global_tile(CharVec *html, const Picture *p, size_t tile, size_t id) {
    html_put(html,
             "<figure><svg viewBox=\"0 0 %zu %zu\" width=\"160\"><use href=\"#p%zu\" transform=\"scale(%.6f "
             "%.6f)\"/></svg><figcaption>global tile, %zu x %zu</figcaption></figure>\n",
             tile, tile, id, (double)tile / (double)p->width, (double)tile / (double)p->height, tile, tile);
}

// With its grid of tiles.
static bool show_picture(CharVec *html, const SampleRules *rules, const Picture *p, const char *title,
                         Error *err) {
    const size_t tile = rules->vlm->vit_img_size, id = html->count; // ids need only be different
    const ImageGrid grid = picture_grid(p, tile);
    html_put(html, "<figure>");
    if (!put_picture_svg(html, p, tile, id, err)) return false;
    html_put(html, "<figcaption>%s: resized to %zu x %zu, ", title, p->width, p->height);
    if (grid.rows * grid.cols == 1)
        html_put(html, "one tile</figcaption></figure>\n");
    else
        html_put(html, "%zu x %zu tiles (rows x columns) of %zu</figcaption></figure>\n", grid.rows,
                 grid.cols, tile);
    if (grid_tiles(grid, rules->global_tile) > grid.rows * grid.cols) put_global_tile(html, p, tile, id);
    return true;
}

static bool put_pictures(CharVec *html, const SampleRules *rules, const ShowSample *s, Error *err) {
    if (s->n_pictures == 0) return true;
    html_put(html, "<h3>Pictures</h3><div class=\"pictures\">\n");
    for (size_t i = 0; i < s->n_pictures; i++) {
        const ShowPicture *p = &s->pictures[i];
        char title[96];
        int n = snprintf(title, sizeof title, "picture %zu", i);
        if (p->width) snprintf(title + n, sizeof title - (size_t)n, ", %zu x %zu", p->width, p->height);
        if (p->picture) {
            if (!show_picture(html, rules, p->picture, title, err)) return false;
            continue;
        }
        html_put(html, "<figure><div class=\"missing\">");
        html_text(html, p->problem, strlen(p->problem));
        html_put(html, "</div><figcaption>%s</figcaption></figure>\n", title);
    }
    html_put(html, "</div>\n");
    return true;
}

// ---- turns ----

static void put_text_cell(CharVec *html, const char *text, size_t size) {
    if (!text) {
        html_put(html, "<td class=\"text null\">null</td>");
        return;
    }
    html_put(html, "<td class=\"text\">");
    html_text(html, text, size);
    html_put(html, "</td>");
}

static void put_turn(CharVec *html, const SampleRules *rules, const ShowTurn *t, size_t number) {
    html_put(html, "<tr%s><td class=\"number\">%zu</td>", t->kept ? "" : " class=\"dropped\"", number);
    put_text_cell(html, t->user, t->user_size);
    put_text_cell(html, t->assistant, t->assistant_size);
    for (size_t i = 0; i < N_RATINGS; i++) {
        const bool low = t->is_rated[i] && t->ratings[i] < rules->minima[i];
        html_put(html, "<td class=\"number%s\">", low ? " low" : "");
        t->is_rated[i] ? html_put(html, "%lld</td>", (long long)t->ratings[i]) : html_put(html, "–</td>");
    }
    html_put(html, "<td>%s</td></tr>\n", t->kept ? "kept" : "dropped");
}

static void put_turns(CharVec *html, const SampleRules *rules, const ShowSample *s) {
    static const char *const names[N_RATINGS] = {"relevance", "image corresp.", "visual dep.", "formatting"};
    if (s->n_turns == 0) return;
    html_put(html, "<h3>Turns</h3><div class=\"wide\"><table><tr><th class=\"number\">turn</th><th>user</th>"
                   "<th>assistant</th>");
    for (size_t i = 0; i < N_RATINGS; i++)
        html_put(html, "<th class=\"number\">%s ≥ %d</th>", names[i], rules->minima[i]);
    html_put(html, "<th></th></tr>\n");
    for (size_t i = 0; i < s->n_turns; i++) put_turn(html, rules, &s->turns[i], i);
    html_put(html, "</table></div>\n");
}

// ---- tokens ----

static void put_on_one_line(CharVec *html, const CharVec *text) {
    for (size_t at = 0, end; at < text->count; at = end + 1) {
        const char *newline = memchr(text->items + at, '\n', text->count - at);
        end = newline ? (size_t)(newline - text->items) : text->count;
        html_text(html, text->items + at, end - at);
        if (newline) html_put(html, "↵");
    }
}

static void put_ids_and_labels(CharVec *html, const SampleRules *rules, const Sample *s) {
    html_put(html, "<details><summary>ids and labels</summary><div class=\"wide\"><table><tr>"
                   "<th class=\"number\">position</th><th class=\"number\">id</th><th>token</th>"
                   "<th class=\"number\">label</th></tr>\n");
    CharVec token = {0};
    for (size_t i = 0; i < s->ids.count; i++) {
        vec_clear(&token);
        tokenizer_decode_bytes(rules->chat.tokenizer, &s->ids.items[i], 1, false, &token);
        html_put(html, "<tr><td class=\"number\">%zu</td><td class=\"number\">%d</td><td>", i,
                 s->ids.items[i]);
        put_on_one_line(html, &token);
        html_put(html, "</td><td class=\"number\">%d</td></tr>\n", s->labels.items[i]);
    }
    html_put(html, "</table></div></details>\n");
    vec_free(&token);
}

static void put_facts(CharVec *html, const ShowSample *s) {
    size_t trained = 0;
    for (size_t i = 0; i < s->sample->labels.count; i++)
        trained += s->sample->labels.items[i] != IGNORE_INDEX;
    const size_t n = s->sample->ids.count;
    html_put(html,
             "<p class=\"facts\">tokens: %zu, trained on: %zu (%.1f%%) · pictures: %zu, tiles: %zu</p>\n", n,
             trained, n ? 100.0 * (double)trained / (double)n : 0, s->sample->n_pictures, s->sample->n_tiles);
}

// ---- the page ----

static void put_top(CharVec *html, const ShowSample *s) {
    html_put(html, "<div class=\"top\"><h2>%s</h2><span class=\"chip %s\">%s</span>", s->title,
             s->problem ? "no" : "ok", s->problem ? "not trained on" : "trained on");
    if (s->sample && s->sample->had_image_token)
        html_put(html, "<span class=\"chip note\">image tokens were removed from its text</span>");
    html_put(html, "</div>\n<p class=\"facts\">");
    html_text(html, s->origin, strlen(s->origin));
    html_put(html, "</p>\n");
    if (!s->problem) return;
    html_put(html, "<p class=\"problem\">");
    html_text(html, s->problem, strlen(s->problem));
    html_put(html, "</p>\n");
}

bool show_sample(CharVec *html, const SampleRules *rules, const ShowSample *s, Error *err) {
    html_put(html, "<section>\n");
    put_top(html, s);
    if (s->sample) put_facts(html, s);
    if (!put_pictures(html, rules, s, err)) return error_prefix(err, "%s", s->title);
    if (s->sample) {
        html_put(html, "<h3>Tokens</h3>");
        show_tokens(html, rules, s->sample->ids.items, s->sample->labels.items, s->sample->ids.count);
    }
    put_turns(html, rules, s);
    if (s->sample) put_ids_and_labels(html, rules, s->sample);
    html_put(html, "</section>\n");
    return true;
}

void show_begin(CharVec *html, const char *title) {
    html_put(html,
             "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
             "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; img-src data:; "
             "style-src 'unsafe-inline'\">\n"
             "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n<title>");
    html_text(html, title, strlen(title));
    html_put(html, "</title>\n<style>");
    vec_extend(html, show_style, strlen(show_style));
    html_put(html, "</style></head><body>\n<header><h1>");
    html_text(html, title, strlen(title));
    html_put(html, "</h1>\n<p class=\"key\"><span class=\"y\">trained on</span><span>only read</span><span "
                   "class=\"s\">special token</span><span class=\"i\">picture</span><span class=\"x\">label "
                   "is another token</span> Point at a token for its position, id and label; the label is "
                   "the token to predict there.</p></header>\n");
}

void show_end(CharVec *html) {
    html_put(html, "</body></html>\n");
}
