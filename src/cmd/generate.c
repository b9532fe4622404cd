// `vlm generate`: answers to a question about pictures, from a checkpoint (nanoVLM, generate.py), or to a
// question alone, from a decoder.
#include "cmd/generate.h"
#include "base/file.h"
#include "base/log.h"
#include "base/pyjson.h"
#include "cmd/answer.h"
#include "cmd/cmd.h"
#include "hub/hub.h"

#include <stdio.h>
#include <string.h>

#define AT(field) offsetof(GenerateFlags, field)
static const Field generate_fields[] = {
    {"checkpoint", FIELD_STRING, AT(checkpoint), NULL, 0, 0, NULL,
     "folder with config.json and model.safetensors, or its name on the Hub (found in the local cache); or, "
     "to answer without pictures, a decoder alone: a .gguf file or a folder with a Llama model"},
    {"hf_model", FIELD_STRING, AT(hf_model), NULL, 0, 0, NULL,
     "the same as a name on the Hugging Face Hub, found in the local cache"},
    {"adapter", FIELD_STRING, AT(adapter), NULL, 0, 0, NULL,
     "folder with PEFT's adapter_config.json and adapter_model.safetensors, merged into the weights"},
    {"lm_tokenizer", FIELD_STRING, AT(lm_tokenizer), NULL, 0, 0, NULL,
     "tokenizer instead of the model's own"},
    {"weights", FIELD_STRING, AT(weights), "f32", 0, 0, WEIGHTS_CHOICES,
     "what weights are kept in; f32 is exact, q8_0 takes about a quarter of it"},
    {"image", FIELD_STRING_REPEATED, AT(image), NULL, 0, 0, NULL, "picture file; may be given several times"},
    {"prompt", FIELD_STRING, AT(prompt), "What is this?", 0, 0, NULL,
     "the question; -: all of standard input"},
    {"prompt_file", FIELD_STRING, AT(prompt_file), NULL, 0, 0, NULL, "a file that holds the question"},
    {"system", FIELD_STRING, AT(system), NULL, 0, 0, NULL, "system message, instead of the template's own"},
    {"plain", FIELD_BOOL, AT(plain), "false", 0, 0, NULL,
     "no chat template: the text of the prompt is continued"},
    {"interactive", FIELD_BOOL, AT(interactive), "false", 0, 0, NULL,
     "a chat: lines of standard input are turns; /help lists commands"},
    {"context", FIELD_SIZE, AT(context), "0", 0, 1e7, NULL,
     "most tokens of a chat, or of a prompt and answer of --batch; 0: as the model was made for, at most "
     "4096"},
    {"batch", FIELD_STRING, AT(batch), NULL, 0, 0, NULL,
     "file of prompts, one JSON object a line: {\"id\", \"prompt\", \"images\": [paths]}"},
    {"out", FIELD_STRING, AT(out), NULL, 0, 0, NULL,
     "where --batch writes its answers, a line each; goes on behind what is there"},
    {"batch_size", FIELD_SIZE, AT(batch_size), "4", 1, 4096, NULL, "prompts of --batch that run together"},
    {"generations", FIELD_SIZE, AT(generations), "1", 1, 1e6, NULL, "answers to print"},
    {"max_new_tokens", FIELD_SIZE, AT(max_new_tokens), "300", 1, 1e6, NULL, "most tokens of one answer"},
    {"stop", FIELD_STRING_REPEATED, AT(stop), NULL, 0, 0, NULL,
     "text that ends the answer and is left out; may be given several times"},
    {"greedy", FIELD_BOOL, AT(greedy), "false", 0, 0, NULL, "always the likeliest token instead of sampling"},
    {"top_k", FIELD_INT, AT(top_k), "50", -1e9, 1e9, NULL,
     "sample from the k likeliest tokens; 0 or less: from all"},
    {"top_p", FIELD_NUMBER, AT(top_p), "0.9", 0, 1, NULL,
     "sample within this cumulative probability; 1: no limit"},
    {"temperature", FIELD_NUMBER, AT(temperature), "0.5", 1e-6, 1e6, NULL,
     "divides the logits before sampling"},
    {"seed", FIELD_U64, AT(seed), "0", 0, 0, NULL, "of the sampling; the same seed gives the same answers"},
    {"threads", FIELD_SIZE, AT(threads), "0", 0, 4096, NULL,
     "threads of the model; 0: one per physical core"},
    {"json", FIELD_BOOL, AT(json), "false", 0, 0, NULL,
     "one JSON object an answer: text, ids, counts, why it ended, speeds"},
    {"logits_out", FIELD_STRING, AT(logits_out), NULL, 0, 0, NULL,
     "safetensors file for the tokens and the logits each was chosen by"},
    {"verbose", FIELD_BOOL, AT(verbose), "false", 0, 0, NULL, "print speeds and memory"},
};
static const FieldTable generate_table = {"Generation", generate_fields,
                                          sizeof generate_fields / sizeof *generate_fields};

// ---- flags as the model takes them ----

GenerateOptions generate_options(const GenerateFlags *f, const Session *s, uint64_t seed_offset) {
    static int32_t end_of_turn[1];
    end_of_turn[0] = tokenizer_token_id(s->tokenizer, s->chat.format->stop);
    return (GenerateOptions){.max_new_tokens = f->max_new_tokens,
                             .greedy = f->greedy,
                             .top_k = f->top_k > 0 ? (size_t)f->top_k : 0,
                             .top_p = f->top_p.value,
                             .temperature = f->temperature.value,
                             .seed = f->seed + seed_offset,
                             .stops = end_of_turn,
                             .n_stops = end_of_turn[0] >= 0};
}

Dtype weights_dtype(const char *choice) {
    static const struct {
        const char *name;
        Dtype dtype;
    } kinds[] = {{"bf16", DTYPE_BF16}, {"q8_0", DTYPE_Q8_0}};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (!strcmp(choice, kinds[i].name)) return kinds[i].dtype;
    return DTYPE_F32;
}

size_t generate_context(const GenerateFlags *f, const Session *s) {
    const size_t made_for = s->config.lm_max_position_embeddings;
    if (f->context) return f->context;
    return made_for < 4096 ? made_for : 4096;
}

size_t generate_tiles(const Session *s, size_t positions) {
    return s->decoder_alone ? 0 : positions / s->config.mp_image_token_length;
}

bool pictures_add(Pictures *p, const Session *s, const char *path, Error *err) {
    Image image;
    if (s->decoder_alone)
        return error_set(err,
                         "%s: %s is a decoder alone and sees no pictures; give a vision-language checkpoint",
                         path, s->path);
    if (!image_load(&image, path, false, err)) return false;
    p->items = mem_resize(p->items, (p->count + 1) * sizeof *p->items);
    if (!picture_init(&p->items[p->count], &image, &s->config, err)) return error_prefix(err, "%s", path);
    p->count++;
    return true;
}

void pictures_free(Pictures *p) {
    for (size_t i = 0; i < p->count; i++) picture_free(&p->items[i]);
    free(p->items);
    *p = (Pictures){0};
}

// ---- one prompt ----

static bool read_all_of(FILE *in, const char *name, char **text, Error *err) {
    CharVec bytes = {0};
    char piece[4096];
    for (size_t n; (n = fread(piece, 1, sizeof piece, in)) > 0;) vec_extend(&bytes, piece, n);
    vec_push(&bytes, '\0');
    *text = bytes.items;
    return !ferror(in) || error_set(err, "%s: cannot be read", name);
}

// The prompt that was asked for, owned; the last line's end does not belong to it.
static bool read_prompt(char **text, const GenerateFlags *f, Error *err) {
    size_t size;
    *text = NULL;
    if (f->prompt_file) {
        if (!file_read(text, &size, f->prompt_file, err)) return error_prefix(err, "--prompt_file");
    } else if (strcmp(f->prompt, "-")) {
        *text = mem_strdup(f->prompt);
        return true;
    } else if (!read_all_of(stdin, "standard input", text, err)) {
        return false;
    }
    size = strlen(*text);
    if (size && (*text)[size - 1] == '\n') (*text)[size - 1] = '\0';
    return true;
}

static bool print_answer(Answer *a, const Generation *g, const GenerateFlags *f, size_t number, Error *err) {
    if (f->json) {
        json_t *o = answer_json(a);
        json_object_set_new(o, "generation", json_integer((json_int_t)number));
        pyjson_print(stdout, o, -1);
    } else {
        putchar('\n');
    }
    if (f->verbose) answer_log(a, g);
    return !f->logits_out || number > 0 || answer_write_logits(a, f->logits_out, err);
}

static bool answer_prompt(Session *s, const GenerateFlags *f, const Prompt *prompt, Error *err) {
    const SessionPlan plan = {1,          prompt->ids.count,         prompt->n_tiles,
                              f->threads, weights_dtype(f->weights), f->adapter};
    Generation g = {0};
    if (prompt->ids.count == 0) return error_set(err, "the prompt is empty");
    bool ok = session_load(s, &plan, err) &&
              generation_create(&g, &s->model, 1, prompt->ids.count + f->max_new_tokens, err);
    for (size_t i = 0; ok && i < f->generations; i++) {
        Answer a;
        answer_init(&a, s, f, !f->json);
        ok = answer_run(&a, &g, prompt, false, f->max_new_tokens, i, err) && print_answer(&a, &g, f, i, err);
        answer_free(&a);
    }
    generation_free(&g);
    return ok;
}

static bool generate_once(Session *s, const GenerateFlags *f, Error *err) {
    const PromptForm form = {.system = f->system, .plain = f->plain};
    Pictures pictures = {0};
    Prompt prompt = {0};
    char *text = NULL;
    bool ok = read_prompt(&text, f, err);
    for (size_t i = 0; ok && i < f->image.count; i++) ok = pictures_add(&pictures, s, f->image.items[i], err);
    ok = ok &&
         prompt_build_form(&prompt, &s->config, &s->chat, pictures.items, pictures.count, text, &form, err);
    pictures_free(&pictures);
    ok = ok && answer_prompt(s, f, &prompt, err);
    prompt_free(&prompt);
    free(text);
    return ok;
}

// ---- the command ----

static bool check_flags(const GenerateFlags *f, Error *err) {
    if (!f->checkpoint == !f->hf_model)
        return error_set(
            err,
            "--checkpoint: %s; name a folder with config.json and model.safetensors, a .gguf file, "
            "or a model of the Hub by --hf_model",
            f->checkpoint ? "given together with --hf_model" : "not given");
    if (!f->batch != !f->out)
        return error_set(err, "--%s: not given; --batch reads prompts and --out takes the answers",
                         f->batch ? "out" : "batch");
    if (f->batch && f->interactive) return error_set(err, "--interactive and --batch: give one of them");
    if (f->logits_out && (f->batch || f->interactive))
        return error_set(err, "--logits_out: only for a single prompt, not with --%s",
                         f->batch ? "batch" : "interactive");
    if (f->interactive && f->plain) return error_set(err, "--plain: a chat needs its template");
    return true;
}

static bool run(const GenerateFlags *f, Error *err) {
    Session s;
    char *path = NULL;
    if (f->interactive) chat_catch_interrupts();
    if (f->hf_model && !hub_resolve(&path, f->hf_model, err)) return error_prefix(err, "--hf_model");
    bool ok = session_open(&s, path ? path : f->checkpoint, f->lm_tokenizer, err);
    free(path);
    if (!ok) return false;
    if (s.no_chat.text[0] && !f->plain)
        ok = error_set(err, "%s; use --plain: no template, the prompt's text is continued", s.no_chat.text);
    else
        ok = (f->interactive ? generate_chat : f->batch ? generate_batch : generate_once)(&s, f, err);
    session_close(&s);
    return ok;
}

int cmd_generate(int argc, char **argv) {
    GenerateFlags f;
    FieldSet set = {&generate_table, &f};
    Error err;
    fields_set_defaults(set);
    int status = EXIT_USAGE;
    if (flags_parse(&set, 1, argc, argv, NULL, &err) && check_flags(&f, &err)) {
        if (!f.verbose) log_set_level(LOG_WARNING);
        status = run(&f, &err) ? EXIT_DONE : EXIT_FAILED;
    }
    if (status != EXIT_DONE) log_error("%s", err.text);
    fields_free(set);
    return status;
}
