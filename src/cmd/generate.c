// `vlm generate`: answers to a question about pictures, from a checkpoint (nanoVLM, generate.py), or to a
// question alone, from a decoder.
#include "base/file.h"
#include "base/log.h"
#include "cmd/answer.h"
#include "cmd/cmd.h"
#include "cmd/generate_batch.h"
#include "cmd/generate_chat.h"
#include "cmd/pictures.h"
#include "hub/hub.h"

#include <stdio.h>
#include <string.h>

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
    json_t *o = f->json ? answer_json(a) : NULL;
    if (o) json_object_set_new(o, "generation", json_integer((json_int_t)number));
    answer_end(a, g, o);
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

static bool check_flags(const void *flags, Error *err) {
    const GenerateFlags *f = flags;
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

static bool run(const void *flags, Error *err) {
    const GenerateFlags *f = flags;
    Session s;
    char *path = NULL;
    if (!f->verbose) log_set_level(LOG_WARNING);
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
    return command_run((FieldSet){&generate_table, &f}, argc, argv, check_flags, run);
}
