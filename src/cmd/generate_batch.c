// `vlm generate --batch FILE --out FILE`: prompts from a file, answered in left-padded batches. An answer is
// a line of --out, in the order of the prompts; a prompt that cannot be answered gets a line that says why.
#include "cmd/generate_batch.h"
#include "base/file.h"
#include "base/log.h"
#include "base/pyjson.h"
#include "cmd/answer.h"
#include "cmd/pictures.h"
#include "text/unicode.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

// A line of the file while it is answered.
typedef struct Item {
    json_t *id; // as it stands there; NULL: none
    size_t line;
    Prompt prompt;
    Error err; // why there is no prompt; empty: there is one
    Int32Vec ids;
    CharVec text;
    const char *finish;
} Item;

typedef struct Job {
    Session *s;
    const GenerateFlags *f;
    FILE *in, *out;
    size_t line, context;
    char *buffer;
    size_t buffer_size;
    Item *items; // batch_size
    size_t count;
    Item **rows; // those that have a prompt
    size_t n_rows;
} Job;

// ---- reading ----

static bool has_text(const char *line, ssize_t n) {
    return n > 0 && strspn(line, " \t\r\n") < (size_t)n;
}

// The next line with something in it; false at the end.
static bool next_line(Job *j, size_t *size) {
    ssize_t n;
    while ((n = getline(&j->buffer, &j->buffer_size, j->in)) >= 0) {
        j->line++;
        *size = (size_t)n;
        if (has_text(j->buffer, n)) return true;
    }
    return false;
}

static bool add_images(Pictures *p, const Session *s, const json_t *images, Error *err) {
    if (images && !json_is_array(images)) return error_set(err, "images is no list of paths");
    for (size_t i = 0; i < json_array_size(images); i++) {
        const char *path = json_string_value(json_array_get(images, i));
        if (!path) return error_set(err, "images[%zu] is no path", i);
        if (!pictures_add(p, s, path, err)) return false;
    }
    return true;
}

static bool check_length(const Job *j, const Prompt *p, Error *err) {
    const size_t needed = p->ids.count + j->f->max_new_tokens;
    if (p->ids.count == 0) return error_set(err, "the prompt is empty");
    if (needed <= j->context) return true;
    return error_set(err, "the prompt has %zu tokens, with max_new_tokens %zu more than --context %zu",
                     p->ids.count, j->f->max_new_tokens, j->context);
}

static bool build_item(Item *item, const Job *j, const json_t *o, Error *err) {
    const PromptForm form = {.system = j->f->system, .plain = j->f->plain};
    const char *text = json_string_value(json_object_get(o, "prompt"));
    Pictures pictures = {0};
    if (!json_is_object(o)) return error_set(err, "not a JSON object");
    if (json_object_get(o, "id")) item->id = json_incref(json_object_get(o, "id"));
    if (!text) return error_set(err, "prompt is missing or no text");
    const bool ok = add_images(&pictures, j->s, json_object_get(o, "images"), err) &&
                    prompt_build_form(&item->prompt, &j->s->config, &j->s->chat, pictures.items,
                                      pictures.count, text, &form, err) &&
                    check_length(j, &item->prompt, err);
    pictures_free(&pictures);
    return ok;
}

static void read_item(Item *item, const Job *j, size_t size) {
    json_error_t where;
    json_t *o = json_loadb(j->buffer, size, 0, &where);
    *item = (Item){.line = j->line, .finish = "length"};
    const bool ok = o ? build_item(item, j, o, &item->err)
                      : error_set(&item->err, "column %d: %s", where.column, where.text);
    if (!ok) error_prefix(&item->err, "%s: line %zu", j->f->batch, j->line);
    json_decref(o);
}

static void read_batch(Job *j) {
    j->count = j->n_rows = 0;
    for (size_t size; j->count < j->f->batch_size && next_line(j, &size);) {
        Item *item = &j->items[j->count++];
        read_item(item, j, size);
        if (!item->err.text[0]) j->rows[j->n_rows++] = item;
    }
}

// ---- answering ----

// Left-pads the prompts to the longest and joins their tiles; the caller frees the three arrays.
static Batch join(const Job *j) {
    const size_t P = j->s->config.vit_img_size, tile = 3 * P * P;
    const int32_t pad = tokenizer_eos_id(j->s->tokenizer);
    Batch b = {.B = j->n_rows};
    for (size_t i = 0; i < b.B; i++) {
        const Prompt *p = &j->rows[i]->prompt;
        b.T = p->ids.count > b.T ? p->ids.count : b.T;
        b.n_tiles += p->n_tiles;
    }
    b.input_ids = mem_alloc(b.B * b.T * sizeof *b.input_ids);
    b.attention_mask = mem_alloc(b.B * b.T * sizeof *b.attention_mask);
    b.images = mem_alloc(b.n_tiles * tile * sizeof *b.images + 1);
    float *to = b.images;
    for (size_t i = 0; i < b.B; i++) {
        const Prompt *p = &j->rows[i]->prompt;
        const size_t padding = b.T - p->ids.count;
        for (size_t t = 0; t < b.T; t++) {
            b.input_ids[i * b.T + t] = t < padding ? pad : p->ids.items[t - padding];
            b.attention_mask[i * b.T + t] = t >= padding;
        }
        if (p->n_tiles) memcpy(to, p->tiles, p->n_tiles * tile * sizeof *to);
        to += p->n_tiles * tile;
    }
    return b;
}

static bool on_tokens(void *context, size_t step, const int32_t *tokens, bool *ended) {
    Job *j = context;
    (void)step;
    for (size_t i = 0; i < j->n_rows; i++) {
        Item *item = j->rows[i];
        if (ended[i]) {
            if (!strcmp(item->finish, "length")) item->finish = "stop";
            continue;
        }
        vec_push(&item->ids, tokens[i]);
        if (!answer_append(&item->text, j->s->tokenizer, tokens[i], &j->f->stop)) continue;
        item->finish = "stop_text";
        ended[i] = true;
    }
    return true;
}

static bool answer_batch(Job *j, Error *err) {
    const GenerateOptions o = generate_options(j->f, j->s, j->items[0].line);
    Generation g = {0};
    size_t steps;
    if (j->n_rows == 0) return true;
    Batch b = join(j);
    int32_t *tokens = mem_alloc(b.B * o.max_new_tokens * sizeof *tokens);
    const bool ok =
        generation_create(&g, &j->s->model, b.B, b.T + o.max_new_tokens, err) &&
        generate(tokens, &steps, &g, &b, &o, tokenizer_eos_id(j->s->tokenizer), on_tokens, j, err);
    generation_free(&g);
    free(tokens);
    free(b.input_ids);
    free(b.attention_mask);
    free(b.images);
    return ok;
}

// ---- writing ----

static json_t *item_json(const Item *item) {
    json_t *o = json_object(), *fields;
    json_object_set(o, "id", item->id ? item->id : json_null());
    if (item->err.text[0]) {
        CharVec text = {0}; // a long message may end within a character
        utf8_append_lossy(&text, item->err.text, strlen(item->err.text));
        json_object_set_new(o, "error", json_stringn(text.items, text.count));
        vec_free(&text);
        return o;
    }
    fields = answer_fields(&item->ids, &item->text, item->prompt.ids.count, item->finish);
    json_object_update(o, fields);
    json_decref(fields);
    return o;
}

static void free_items(Job *j) {
    for (size_t i = 0; i < j->count; i++) {
        Item *item = &j->items[i];
        json_decref(item->id);
        prompt_free(&item->prompt);
        vec_free(&item->ids);
        vec_free(&item->text);
    }
    j->count = j->n_rows = 0;
}

static bool write_batch(Job *j, Error *err) {
    for (size_t i = 0; i < j->count; i++) pyjson_print(j->out, item_json(&j->items[i]), -1);
    if (fflush(j->out) == 0 && !ferror(j->out)) return true;
    return error_set(err, "%s: cannot be written: %s", j->f->out, strerror(errno));
}

// ---- going on ----

// Opens --out behind its last whole line; *done: how many answers are there.
static bool open_out(Job *j, size_t *done, Error *err) {
    char *text = NULL;
    size_t size = 0, whole = 0;
    *done = 0;
    if (file_exists(j->f->out) && !file_read(&text, &size, j->f->out, err)) return false;
    for (size_t i = 0; i < size; i++)
        if (text[i] == '\n') whole = i + 1, ++*done;
    free(text);
    if (whole < size && truncate(j->f->out, (off_t)whole) != 0)
        return error_set(err, "%s: its half line cannot be taken off: %s", j->f->out, strerror(errno));
    j->out = fopen(j->f->out, "a");
    return j->out || error_set(err, "%s: cannot be opened for writing: %s", j->f->out, strerror(errno));
}

static bool pass_over(Job *j, size_t done, Error *err) {
    size_t size;
    for (size_t i = 0; i < done; i++)
        if (!next_line(j, &size))
            return error_set(err, "%s has %zu answers, but %s only %zu prompts; they do not belong together",
                             j->f->out, done, j->f->batch, i);
    if (done) log_info("%s: going on behind %zu answers", j->f->out, done);
    return true;
}

static bool open_files(Job *j, Error *err) {
    size_t done;
    j->in = fopen(j->f->batch, "r");
    if (!j->in) return error_set(err, "%s: cannot be opened: %s", j->f->batch, strerror(errno));
    return open_out(j, &done, err) && pass_over(j, done, err);
}

static bool answer_all(Job *j, Error *err) {
    bool ok = true;
    for (read_batch(j); ok && j->count; read_batch(j)) {
        ok = answer_batch(j, err) && write_batch(j, err);
        progress_update(5, "%zu lines of %s", j->line, j->f->batch);
        free_items(j);
    }
    progress_end();
    free_items(j);
    return ok;
}

bool generate_batch(Session *s, const GenerateFlags *f, Error *err) {
    const size_t context = generate_context(f, s), positions = f->batch_size * context;
    const SessionPlan plan = {
        f->batch_size, context, generate_tiles(s, positions), f->threads, weights_dtype(f->weights),
        f->adapter};
    Job j = {.s = s, .f = f, .context = context};
    j.items = mem_zeroed(f->batch_size, sizeof *j.items);
    j.rows = mem_zeroed(f->batch_size, sizeof *j.rows);
    bool ok = open_files(&j, err) && session_load(s, &plan, err) && answer_all(&j, err);
    if (j.in) fclose(j.in);
    if (j.out && fclose(j.out) != 0 && ok) ok = error_set(err, "%s: cannot be written", f->out);
    free(j.buffer);
    free(j.items);
    free(j.rows);
    return ok;
}
