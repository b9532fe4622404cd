#include "cmd/answer.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mib.h"
#include "base/pyjson.h"
#include "format/safetensors.h"
#include "text/unicode.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

static atomic_bool interrupted;

void answer_interrupt(bool stop) {
    interrupted = stop;
}

void answer_init(Answer *a, const Session *s, const GenerateFlags *f, bool echo) {
    *a = (Answer){.session = s, .flags = f, .echo = echo};
}

void answer_free(Answer *a) {
    vec_free(&a->ids);
    vec_free(&a->text);
    vec_free(&a->logits);
}

// ---- text ----

// Length of the longest prefix of text[0..n) that ends on a character's border.
static size_t whole_characters(const char *text, size_t n) {
    for (size_t back = 1; back <= 3 && back <= n; back++) {
        unsigned char c = (unsigned char)text[n - back];
        if (c < 0x80) return n;
        size_t length = c >= 0xF0 ? 4 : c >= 0xE0 ? 3 : c >= 0xC0 ? 2 : 0;
        if (length) return back < length ? n - back : n;
    }
    return n;
}

// Length of the longest end of text that begins the stop text.
static size_t begun(const CharVec *text, const char *stop) {
    size_t n = strlen(stop);
    n = n < text->count ? n : text->count;
    while (n > 0 && memcmp(text->items + text->count - n, stop, n)) n--;
    return n;
}

size_t answer_settled(const CharVec *text, const StringList *stops) {
    size_t held = 0;
    for (size_t i = 0; i < stops->count; i++) {
        const size_t n = begun(text, stops->items[i]);
        if (n > held) held = n;
    }
    return whole_characters(text->items, text->count - held);
}

bool answer_append(CharVec *text, const Tokenizer *t, int32_t id, const StringList *stops) {
    const size_t before = text->count;
    tokenizer_decode_bytes(t, &id, 1, true, text);
    for (size_t i = 0; i < stops->count; i++) {
        const size_t n = strlen(stops->items[i]), from = before < n ? 0 : before - n;
        const char *at = n ? memmem(text->items + from, text->count - from, stops->items[i], n) : NULL;
        if (!at) continue;
        text->count = (size_t)(at - text->items);
        return true;
    }
    return false;
}

static void print_up_to(Answer *a, size_t end) {
    if (!a->echo || end <= a->printed) return;
    CharVec shown = {0};
    utf8_append_lossy(&shown, a->text.items + a->printed, end - a->printed);
    fwrite(shown.items, 1, shown.count, stdout);
    fflush(stdout);
    vec_free(&shown);
    a->printed = end;
}

// ---- running ----

static bool on_token(void *context, size_t step, const int32_t *tokens, bool *ended) {
    Answer *a = context;
    (void)step;
    if (ended[0]) {
        a->finish = "stop";
        return false;
    }
    vec_push(&a->ids, tokens[0]);
    if (a->flags->logits_out)
        vec_extend(&a->logits, generation_logits(a->generation), a->session->config.lm_vocab_size);
    if (answer_append(&a->text, a->session->tokenizer, tokens[0], &a->flags->stop)) {
        a->finish = "stop_text";
        return false;
    }
    print_up_to(a, answer_settled(&a->text, &a->flags->stop));
    if (interrupted) a->finish = "interrupted";
    return !interrupted;
}

static bool prefill(Generation *g, const Prompt *prompt, bool follows, Error *err) {
    const Batch batch = {.B = 1,
                         .T = prompt->ids.count,
                         .input_ids = prompt->ids.items,
                         .n_tiles = prompt->n_tiles,
                         .images = prompt->tiles};
    return follows ? generation_extend(g, &batch, err) : generation_prefill(g, &batch, err);
}

bool answer_run(Answer *a, Generation *g, const Prompt *prompt, bool follows, size_t limit,
                uint64_t seed_offset, Error *err) {
    GenerateOptions o = generate_options(a->flags, a->session, seed_offset);
    const int32_t eos = tokenizer_eos_id(a->session->tokenizer);
    const double vision = g->vision_seconds, begin = clock_seconds();
    size_t steps;
    o.max_new_tokens = limit;
    a->generation = g;
    a->finish = "length";
    a->prompt_tokens = prompt->ids.count;
    if (!prefill(g, prompt, follows, err)) return false;
    const double filled = clock_seconds();
    int32_t *tokens = mem_zeroed(limit + 1, sizeof *tokens);
    const bool ok = generation_run(tokens, &steps, g, &o, eos, on_token, a, err);
    free(tokens);
    print_up_to(a, a->text.count);
    a->prefill_seconds = filled - begin;
    a->vision_seconds = g->vision_seconds - vision;
    a->decode_seconds = clock_seconds() - filled;
    return ok;
}

// ---- results ----

static double rate(size_t n, double seconds) {
    return seconds > 0 ? (double)n / seconds : 0;
}

// The first token comes out of the prompt's own pass.
static double decode_rate(const Answer *a) {
    return a->ids.count > 1 ? rate(a->ids.count - 1, a->decode_seconds) : 0;
}

json_t *answer_fields(const Int32Vec *ids, const CharVec *text, size_t prompt_tokens, const char *finish) {
    CharVec shown = {0};
    json_t *list = json_array(), *o = json_object();
    utf8_append_lossy(&shown, text->items, text->count);
    for (size_t i = 0; i < ids->count; i++) json_array_append_new(list, json_integer(ids->items[i]));
    json_object_set_new(o, "text", json_stringn(shown.items ? shown.items : "", shown.count));
    json_object_set_new(o, "ids", list);
    json_object_set_new(o, "prompt_tokens", json_integer((json_int_t)prompt_tokens));
    json_object_set_new(o, "new_tokens", json_integer((json_int_t)ids->count));
    json_object_set_new(o, "finish", json_string(finish));
    vec_free(&shown);
    return o;
}

json_t *answer_json(const Answer *a) {
    json_t *o = answer_fields(&a->ids, &a->text, a->prompt_tokens, a->finish);
    const struct {
        const char *key;
        double value;
    } numbers[] = {{"prefill_seconds", a->prefill_seconds},
                   {"vision_seconds", a->vision_seconds},
                   {"decode_seconds", a->decode_seconds},
                   {"prefill_tokens_per_second", rate(a->prompt_tokens, a->prefill_seconds)},
                   {"decode_tokens_per_second", decode_rate(a)}};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        json_object_set_new(o, numbers[i].key, json_real(numbers[i].value));
    return o;
}

static void log_costs(const Answer *a, const Generation *g) {
    log_info("%zu prompt tokens in %.3f s (%.1f tokens/s, of that pictures %.3f s), %zu new tokens in %.3f s "
             "(%.1f tokens/s), ended by %s",
             a->prompt_tokens, a->prefill_seconds, rate(a->prompt_tokens, a->prefill_seconds),
             a->vision_seconds, a->ids.count, a->decode_seconds, decode_rate(a), a->finish);
    log_info("memory: weights %.1f MiB (%s), cache %.1f MiB for %zu positions, %.1f MiB resident at most",
             in_mib(g->m->params.values.size), dtype_name(g->m->params.weights), in_mib(g->cache.arena.size),
             g->capacity, in_mib(mem_resident_peak()));
}

void answer_end(const Answer *a, const Generation *g, json_t *object) {
    if (a->flags->json)
        pyjson_print(stdout, object, -1);
    else
        putchar('\n');
    fflush(stdout);
    if (a->flags->verbose) log_costs(a, g);
}

static bool fill_logits(void *context, size_t i, void *dst) {
    const Answer *a = context;
    if (i == 0)
        memcpy(dst, a->logits.items, a->logits.count * sizeof *a->logits.items);
    else
        memcpy(dst, a->ids.items, a->ids.count * sizeof *a->ids.items);
    return true;
}

bool answer_write_logits(const Answer *a, const char *path, Error *err) {
    const SafetensorsSpec specs[] = {
        {"logits", DTYPE_F32, 2, {a->ids.count, a->session->config.lm_vocab_size}},
        {"tokens", DTYPE_I32, 1, {a->ids.count}},
    };
    if (a->ids.count == 0) return error_set(err, "%s: not written, the answer has no token", path);
    return safetensors_write(path, specs, 2, NULL, 0, fill_logits, (void *)a, err);
}
