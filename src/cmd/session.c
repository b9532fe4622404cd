#include "cmd/session.h"
#include "cmd/backbones.h"
#include "model/checkpoint.h"
#include "ops/cpu/cpu.h"

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

bool session_open(Session *s, const char *checkpoint, const char *lm_tokenizer, Error *err) {
    *s = (Session){0};
    fields_set_defaults(config_set(s));
    bool ok = checkpoint_load_config(&s->config, checkpoint, err) && vlm_config_check(&s->config, err) &&
              tokenizer_open(&s->tokenizer, lm_tokenizer ? lm_tokenizer : s->config.lm_tokenizer,
                             &s->config.vlm_extra_tokens, err) &&
              check_vocabulary(s, err) &&
              chat_template_init(&s->chat, s->tokenizer, s->config.lm_chat_template, err);
    if (!ok) session_close(s);
    return ok;
}

bool session_load(Session *s, const char *checkpoint, size_t batch, size_t positions, size_t tiles,
                  size_t threads, Error *err) {
    VlmPlan plan = {.max_batch = batch, .max_positions = positions, .max_tiles = tiles};
    plan.image_token_id = tokenizer_extra_id(s->tokenizer, "image_token");
    return backend_cpu_create(&s->be, threads, err) && vlm_create(&s->model, s->be, &s->config, &plan, err) &&
           checkpoint_load_weights(&s->model, checkpoint, err);
}

void session_close(Session *s) {
    vlm_free(&s->model);
    backend_destroy(s->be);
    tokenizer_free(s->tokenizer);
    fields_free(config_set(s));
    *s = (Session){0};
}
