// `vlm generate`: answers to a question about pictures, from a checkpoint (nanoVLM, generate.py).
#include "base/clock.h"
#include "base/log.h"
#include "cmd/cmd.h"
#include "cmd/session.h"

#include <stdio.h>
#include <string.h>

typedef struct GenerateFlags {
    char *checkpoint, *prompt, *lm_tokenizer;
    StringList image;
    size_t generations, max_new_tokens, threads;
    bool greedy, verbose;
    int top_k;
    Number top_p, temperature;
    uint64_t seed;
} GenerateFlags;

#define AT(field) offsetof(GenerateFlags, field)
static const Field generate_fields[] = {
    {"checkpoint", FIELD_STRING, AT(checkpoint), NULL, 0, 0, NULL,
     "folder with config.json and model.safetensors"},
    {"image", FIELD_STRING_REPEATED, AT(image), NULL, 0, 0, NULL, "picture file; may be given several times"},
    {"prompt", FIELD_STRING, AT(prompt), "What is this?", 0, 0, NULL, "the question"},
    {"generations", FIELD_SIZE, AT(generations), "1", 1, 1e6, NULL, "answers to print"},
    {"max_new_tokens", FIELD_SIZE, AT(max_new_tokens), "300", 1, 1e6, NULL, "most tokens of one answer"},
    {"greedy", FIELD_BOOL, AT(greedy), "false", 0, 0, NULL, "always the likeliest token instead of sampling"},
    {"top_k", FIELD_INT, AT(top_k), "50", -1e9, 1e9, NULL,
     "sample from the k likeliest tokens; 0 or less: from all"},
    {"top_p", FIELD_NUMBER, AT(top_p), "0.9", 0, 1, NULL,
     "sample within this cumulative probability; 1: no limit"},
    {"temperature", FIELD_NUMBER, AT(temperature), "0.5", 1e-6, 1e6, NULL,
     "divides the logits before sampling"},
    {"seed", FIELD_U64, AT(seed), "0", 0, 0, NULL, "of the sampling; the same seed gives the same answers"},
    {"lm_tokenizer", FIELD_STRING, AT(lm_tokenizer), NULL, 0, 0, NULL,
     "tokenizer folder instead of the checkpoint's"},
    {"threads", FIELD_SIZE, AT(threads), "0", 0, 4096, NULL,
     "threads of the model; 0: one per physical core"},
    {"verbose", FIELD_BOOL, AT(verbose), "false", 0, 0, NULL, "print speeds"},
};
static const FieldTable generate_table = {"Generation", generate_fields,
                                          sizeof generate_fields / sizeof *generate_fields};

// An answer while it comes: bytes that end within a character wait for the rest of it.
typedef struct AnswerStream {
    const Tokenizer *tokenizer;
    int32_t eos;
    Int32Vec ids;
    size_t printed; // bytes of the decoded text that are out
} AnswerStream;

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

static void print_new_text(AnswerStream *s, bool last) {
    CharVec bytes = {0};
    tokenizer_decode_bytes(s->tokenizer, s->ids.items, s->ids.count, true, &bytes);
    size_t end = last ? bytes.count : whole_characters(bytes.items, bytes.count);
    if (end > s->printed) {
        fwrite(bytes.items + s->printed, 1, end - s->printed, stdout);
        fflush(stdout);
        s->printed = end;
    }
    vec_free(&bytes);
}

static bool on_token(void *context, size_t step, const int32_t *tokens) {
    AnswerStream *s = context;
    (void)step;
    if (tokens[0] == s->eos) return false;
    vec_push(&s->ids, tokens[0]);
    print_new_text(s, false);
    return true;
}

static bool load_pictures(Picture **pictures, const StringList *paths, const VLMConfig *config, Error *err) {
    *pictures = mem_zeroed(paths->count + 1, sizeof **pictures);
    for (size_t i = 0; i < paths->count; i++) {
        Image image;
        if (!image_load(&image, paths->items[i], false, err)) return false;
        if (!picture_init(&(*pictures)[i], &image, config, err))
            return error_prefix(err, "%s", paths->items[i]);
    }
    return true;
}

static void free_pictures(Picture *pictures, size_t n) {
    for (size_t i = 0; pictures && i < n; i++) picture_free(&pictures[i]);
    free(pictures);
}

static bool answer(Session *s, Generation *g, const Prompt *prompt, const GenerateFlags *f, size_t number,
                   Error *err) {
    Batch batch = {.B = 1,
                   .T = prompt->ids.count,
                   .input_ids = prompt->ids.items,
                   .n_tiles = prompt->n_tiles,
                   .images = prompt->tiles};
    GenerateOptions o = {
        f->max_new_tokens,    f->greedy,       f->top_k > 0 ? (size_t)f->top_k : 0, f->top_p.value,
        f->temperature.value, f->seed + number};
    AnswerStream stream = {.tokenizer = s->tokenizer, .eos = tokenizer_eos_id(s->tokenizer)};
    int32_t *tokens = mem_zeroed(f->max_new_tokens, sizeof *tokens);
    size_t steps;
    double start = clock_seconds();
    bool ok = generate(tokens, &steps, g, &batch, &o, stream.eos, on_token, &stream, err);
    print_new_text(&stream, true);
    putchar('\n');
    double seconds = clock_seconds() - start;
    if (ok && f->verbose)
        log_info("%zu prompt tokens, %zu new tokens in %.2f s (%.1f tokens/s)", prompt->ids.count, steps,
                 seconds, (double)steps / seconds);
    vec_free(&stream.ids);
    free(tokens);
    return ok;
}

static bool answer_all(const GenerateFlags *f, Error *err) {
    Session s;
    if (!session_open(&s, f->checkpoint, f->lm_tokenizer, err)) return false;
    Picture *pictures = NULL;
    Prompt prompt = {0};
    Generation g = {0};
    bool ok = load_pictures(&pictures, &f->image, &s.config, err) &&
              prompt_build(&prompt, &s.config, &s.chat, pictures, f->image.count, f->prompt, err) &&
              session_load(&s, f->checkpoint, 1, prompt.ids.count, prompt.n_tiles, f->threads, err) &&
              generation_create(&g, &s.model, 1, prompt.ids.count + f->max_new_tokens, err);
    for (size_t i = 0; ok && i < f->generations; i++) ok = answer(&s, &g, &prompt, f, i, err);
    generation_free(&g);
    prompt_free(&prompt);
    free_pictures(pictures, f->image.count);
    session_close(&s);
    return ok;
}

int cmd_generate(int argc, char **argv) {
    GenerateFlags f;
    FieldSet set = {&generate_table, &f};
    Error err;
    fields_set_defaults(set);
    int status = EXIT_USAGE;
    if (!flags_parse(&set, 1, argc, argv, NULL, &err)) {
    } else if (!f.checkpoint) {
        error_set(&err, "--checkpoint: not given; name a folder with config.json and model.safetensors");
    } else {
        status = answer_all(&f, &err) ? EXIT_DONE : EXIT_FAILED;
    }
    if (status != EXIT_DONE) log_error("%s", err.text);
    fields_free(set);
    return status;
}
