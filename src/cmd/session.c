#include "cmd/session.h"
#include "base/file.h"
#include "base/log.h"
#include "cmd/backbones.h"
#include "format/gguf.h"
#include "hub/hub.h"
#include "model/checkpoint.h"
#include "model/lora_file.h"
#include "ops/cpu/cpu.h"

#include <stdlib.h>
#include <string.h>

static FieldSet config_set(Session *s) {
    return (FieldSet){&vlm_config_table, &s->config};
}

static bool check_vocabulary(const Session *s, Error *err) {
    size_t tokens = tokenizer_vocab_size(s->tokenizer);
    if (tokens <= s->config.lm_vocab_size) return true;
    return error_set(
        err,
        "%s: the tokenizer has %zu tokens, the model's lm_vocab_size is %zu; give the tokenizer it was "
        "trained with by --lm_tokenizer",
        s->config.lm_tokenizer, tokens, s->config.lm_vocab_size);
}

// ---- what was given ----

static bool folder_has_gguf(const char *path) {
    StringList files;
    bool found = false;
    if (!file_list(&files, path, NULL)) return false;
    for (size_t i = 0; i < files.count; i++) found = found || gguf_is_file(files.items[i]);
    string_list_free(&files);
    return found;
}

bool is_decoder_alone(const char *path) {
    if (!file_is_folder(path)) return true;
    char *file = path_join(path, "config.json"), *text = NULL;
    size_t size;
    bool alone;
    if (!file_exists(file)) {
        alone = folder_has_gguf(path);
    } else {
        json_t *config = file_read(&text, &size, file, NULL) ? json_loadb(text, size, 0, NULL) : NULL;
        alone = json_object_get(config, "model_type") != NULL;
        json_decref(config);
    }
    free(text);
    free(file);
    return alone;
}

// ---- a decoder alone ----

static bool configure_decoder(Session *s, Error *err) {
    const Backbone *b = &s->backbone;
    const json_t *vocab = json_object_get(b->config, "vocab_size");
    if (json_is_object(json_object_get(b->config, "text_config")))
        return error_set(
            err,
            "%s: not a decoder but a whole model of transformers; of SmolVLM and Idefics3 folders "
            "`vlm import --model %s --out DIR` makes a checkpoint",
            s->path, s->path);
    if (!json_is_integer(vocab) || json_integer_value(vocab) < 1)
        return error_set(err, "%s: vocab_size is missing or no positive number", s->path);
    s->config.lm_vocab_size = s->config.lm_base_vocab_size = (size_t)json_integer_value(vocab);
    s->config.lm_tie_weights = json_is_true(json_object_get(b->config, "tie_word_embeddings")) ||
                               !weights_find(b->weights, "lm_head.weight");
    return backbone_configure(b, &s->config, err) && decoder_config_check(&s->config, err);
}

// Where the decoder's tokenizer lies: in the same GGUF file, or in the folder of the weights. Caller frees.
static char *decoder_tokenizer(const Session *s) {
    const char *file = weights_entry_path(weights_entry(s->backbone.weights, 0));
    if (gguf_is_file(file)) return mem_strdup(file);
    if (file_is_folder(s->path)) return mem_strdup(s->path);
    const char *slash = strrchr(s->path, '/');
    return slash ? mem_strndup(s->path, (size_t)(slash - s->path + 1)) : mem_strdup(".");
}

static bool open_decoder(Session *s, const char *lm_tokenizer, Error *err) {
    if (!backbone_open_flag(&s->backbone, BACKBONE_LANGUAGE, s->path, "--checkpoint", err)) return false;
    if (weights_count(s->backbone.weights) == 0) return error_set(err, "%s: holds no tensor", s->path);
    char *own = decoder_tokenizer(s);
    free(s->config.lm_tokenizer);
    s->config.lm_tokenizer = mem_strdup(lm_tokenizer ? lm_tokenizer : own);
    free(own);
    if (!configure_decoder(s, err) || !tokenizer_open(&s->tokenizer, s->config.lm_tokenizer, NULL, err) ||
        !check_vocabulary(s, err))
        return false;
    if (!chat_template_init_alone(&s->chat, s->tokenizer, &s->no_chat))
        error_prefix(&s->no_chat, "%s", s->config.lm_tokenizer);
    if (s->chat.by_mark)
        log_warning(
            "%s: the chat template is not known to the letter; it contains %s, so chats are written as "
            "%s, without a default system message, dates or tools that may stand in it",
            s->config.lm_tokenizer, s->chat.format->mark, s->chat.format->name);
    return true;
}

// ---- a checkpoint ----

static bool open_checkpoint(Session *s, const char *lm_tokenizer, Error *err) {
    return checkpoint_load_config(&s->config, s->path, err) && vlm_config_check(&s->config, err) &&
           tokenizer_open(&s->tokenizer, lm_tokenizer ? lm_tokenizer : s->config.lm_tokenizer,
                          &s->config.vlm_extra_tokens, err) &&
           check_vocabulary(s, err) &&
           chat_template_init(&s->chat, s->tokenizer, s->config.lm_chat_template, err);
}

bool session_open(Session *s, const char *checkpoint, const char *lm_tokenizer, Error *err) {
    *s = (Session){0};
    if (!hub_resolve(&s->path, checkpoint, err)) return false;
    s->decoder_alone = is_decoder_alone(s->path);
    fields_set_defaults(config_set(s));
    const bool ok =
        s->decoder_alone ? open_decoder(s, lm_tokenizer, err) : open_checkpoint(s, lm_tokenizer, err);
    if (ok)
        s->end_of_turn = tokenizer_token_id(s->tokenizer, s->chat.format->stop);
    else
        session_close(s);
    return ok;
}

bool session_merge(Params *p, Backend *be, const char *checkpoint, const char *adapter, Error *err) {
    if (!adapter) return true;
    char *a = realpath(checkpoint, NULL), *b = realpath(adapter, NULL);
    const bool same = a && b && !strcmp(a, b);
    free(a);
    free(b);
    if (same)
        return error_set(err,
                         "--adapter %s: this checkpoint's own adapters are merged in it already; leave the "
                         "flag out",
                         adapter);
    return lora_merge_files(p, be, adapter, err) || error_prefix(err, "--adapter");
}

static bool load_weights(Session *s, Error *err) {
    if (!s->decoder_alone) return checkpoint_load_weights(&s->model, s->path, err);
    return backbone_load(&s->backbone, &s->model.params, s->be, &s->config, &(SourceRules){0}, err);
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

bool session_load(Session *s, const SessionPlan *p, Error *err) {
    VlmPlan plan = {.max_batch = p->batch, .max_positions = p->positions, .max_tiles = p->tiles};
    plan.image_token_id = tokenizer_extra_id(s->tokenizer, "image_token");
    const ParamsForm form = {s->decoder_alone, p->weights};
    return backend_cpu_create(&s->be, p->threads, err) &&
           vlm_create_form(&s->model, s->be, &s->config, &plan, &form, err) && load_weights(s, err) &&
           session_merge(&s->model.params, s->be, s->path, p->adapter, err);
}

void session_close(Session *s) {
    vlm_free(&s->model);
    backend_destroy(s->be);
    backbone_close(&s->backbone);
    tokenizer_free(s->tokenizer);
    fields_free(config_set(s));
    free(s->path);
    *s = (Session){0};
}
