// The configuration of an imported folder.
#include "export/import.h"
#include "base/file.h"
#include "base/log.h"
#include "export/import_parts.h"
#include "model/backbone.h"

#include <stdio.h>
#include <string.h>

static json_t *read_pixels(const char *path, Error *err) {
    char *file = path_join(path, "preprocessor_config.json");
    json_error_t where;
    json_t *j = file_exists(file) ? json_load_file(file, 0, &where) : json_object();
    if (!j) error_set(err, "%s: line %d: %s", file, where.line, where.text);
    if (j && !json_is_object(j)) {
        error_set(err, "%s: expected a JSON object", file);
        json_decref(j);
        j = NULL;
    }
    free(file);
    return j;
}

static bool check_objects(const ImportSource *s, Error *err) {
    static const char *const parts[] = {"vision_config", "text_config"};
    const char *type = json_string_value(json_object_get(s->config, "model_type"));
    if (!type || (strcmp(type, "idefics3") && strcmp(type, "smolvlm")))
        return error_set(err,
                         "%s: config.json: model_type is \"%.60s\", expected \"idefics3\" or \"smolvlm\"",
                         s->path, type ? type : "missing");
    for (size_t i = 0; i < 2; i++) {
        const json_t *part = json_object_get(s->config, parts[i]);
        if (part && !json_is_object(part))
            return error_set(err, "%s: config.json: %s is not an object", s->path, parts[i]);
    }
    return true;
}

bool import_open(ImportSource *s, const char *path, Error *err) {
    *s = (ImportSource){.path = path};
    if (weights_open(&s->weights, path, err) && (s->config = weights_config(s->weights, err)) &&
        check_objects(s, err) && (s->pixels = read_pixels(path, err)))
        return true;
    import_close(s);
    return false;
}

void import_close(ImportSource *s) {
    weights_close(s->weights);
    json_decref(s->config);
    json_decref(s->pixels);
    *s = (ImportSource){0};
}

// ---- numbers ----

static const json_t *at(const json_t *object, const char *key, const char *inner) {
    const json_t *value = json_object_get(object, key);
    return inner ? json_object_get(value, inner) : value;
}

// A whole number of at least 1; absent or null: otherwise.
static size_t whole(Misfits *m, const json_t *value, const char *name, size_t otherwise) {
    if (!value || json_is_null(value)) return otherwise;
    const json_int_t n = json_integer_value(value);
    if (json_is_integer(value) && n >= 1 && n <= 1 << 20) return (size_t)n;
    misfit(m, "%s is no whole number from 1 to %d", name, 1 << 20);
    return otherwise;
}

// ---- the two halves ----

// What transformers takes where config.json is silent, which for the tower is not SiglipVisionConfig's.
static json_t *vision_config(const ImportSource *s) {
    static const struct {
        const char *key;
        int value;
    } absent[] = {{"hidden_size", 1152}, {"num_attention_heads", 16}, {"patch_size", 32}};
    json_t *given = json_object_get(s->config, "vision_config"),
           *j = given ? json_copy(given) : json_object();
    for (size_t i = 0; i < sizeof absent / sizeof *absent; i++)
        if (!json_object_get(j, absent[i].key))
            json_object_set_new(j, absent[i].key, json_integer(absent[i].value));
    const char *type = json_string_value(json_object_get(j, "model_type"));
    if (!type || !strcmp(type, "idefics3_vision") || !strcmp(type, "smolvlm_vision") ||
        !strcmp(type, "idefics3") || !strcmp(type, "smolvlm"))
        json_object_set_new(j, "model_type", json_string("siglip_vision_model"));
    return j;
}

static json_t *text_config(const ImportSource *s) {
    json_t *given = json_object_get(s->config, "text_config");
    return given ? json_copy(given) : json_pack("{s:f, s:i}", "rms_norm_eps", 1e-5, "vocab_size", 128259);
}

Backbone import_half(const ImportSource *s, BackboneKind kind) {
    json_t *config = kind == BACKBONE_VISION ? vision_config(s) : text_config(s);
    return (Backbone){.kind = kind, .weights = s->weights, .config = config};
}

static bool configure_half(const ImportSource *s, BackboneKind kind, VLMConfig *c, Error *err) {
    Backbone b = import_half(s, kind);
    const bool ok = backbone_configure(&b, c, err);
    json_decref(b.config);
    return ok || error_prefix(err, "%s", kind == BACKBONE_VISION ? "vision_config" : "text_config");
}

// ---- pictures ----

static void set_pictures(Misfits *m, const ImportSource *s, VLMConfig *c) {
    const size_t side = whole(m, at(s->pixels, "max_image_size", "longest_edge"),
                              "preprocessor_config.json: max_image_size.longest_edge", c->vit_img_size);
    if (side > c->vit_img_size)
        misfit(m,
               "preprocessor_config.json: tiles of %zu pixels are larger than vision_config.image_size %zu",
               side, c->vit_img_size);
    else
        c->vit_img_size = side;
    const size_t longest = whole(m, at(s->pixels, "size", "longest_edge"),
                                 "preprocessor_config.json: size.longest_edge", c->vit_img_size);
    const bool split = !json_is_false(json_object_get(s->pixels, "do_image_splitting"));
    c->max_img_size =
        split ? (longest + c->vit_img_size - 1) / c->vit_img_size * c->vit_img_size : c->vit_img_size;
    c->resize_to_max_side_len = true;
    c->mp_pixel_shuffle_factor = whole(m, json_object_get(s->config, "scale_factor"), "scale_factor", 2);
    const size_t grid =
        c->vit_patch_size ? c->vit_img_size / c->vit_patch_size / c->mp_pixel_shuffle_factor : 0;
    c->mp_image_token_length = grid * grid;
    if (json_is_false(json_object_get(s->pixels, "do_rescale")))
        misfit(m, "preprocessor_config.json: do_rescale is false, but nanoVLM's pixels are in [0, 1]");
}

// ---- tokens ----

static void add_token(VLMConfig *c, const char *name, const char *text) {
    TokenMap *map = &c->vlm_extra_tokens;
    map->items = mem_resize(map->items, (map->count + 1) * sizeof *map->items);
    map->items[map->count++] = (TokenPair){mem_strdup(name), mem_strdup(text)};
}

static void clear_tokens(TokenMap *map) {
    for (size_t i = 0; i < map->count; i++) {
        free(map->items[i].name);
        free(map->items[i].token);
    }
    free(map->items);
    *map = (TokenMap){0};
}

static void add_image_token(Misfits *m, const ImportSource *s, VLMConfig *c, const Tokenizer *t) {
    const json_t *id = json_object_get(s->config, "image_token_id");
    const json_int_t value = id ? json_integer_value(id) : 128257;
    if (value < 0 || (size_t)value >= tokenizer_vocab_size(t)) {
        misfit(m, "image_token_id %lld is no token of the tokenizer, which has %zu", (long long)value,
               tokenizer_vocab_size(t));
        return;
    }
    const int32_t token = (int32_t)value;
    CharVec text = {0};
    tokenizer_decode_bytes(t, &token, 1, false, &text);
    vec_push(&text, '\0');
    add_token(c, "image_token", text.items);
    vec_free(&text);
}

// The global tile's token: as our own folders name it, else SmolVLM's.
static void add_global_token(const ImportSource *s, VLMConfig *c, const Tokenizer *t) {
    char *file = path_join(s->path, "tokenizer_config.json");
    json_t *config = file_exists(file) ? json_load_file(file, 0, NULL) : NULL;
    const char *named = json_string_value(at(config, "extra_special_tokens", "global_image_token"));
    const char *text = named && *named ? named : "<global-img>";
    if (tokenizer_token_id(t, text) >= 0) add_token(c, "global_image_token", text);
    json_decref(config);
    free(file);
}

#define MAX_TILES_A_SIDE 64

static void add_grid_tokens(VLMConfig *c, const Tokenizer *t) {
    for (int row = 1; row <= MAX_TILES_A_SIDE; row++)
        for (int col = 1; col <= MAX_TILES_A_SIDE; col++) {
            char name[32], text[48];
            snprintf(name, sizeof name, "r%dc%d", row, col);
            snprintf(text, sizeof text, "<row_%d_col_%d>", row, col);
            if (tokenizer_token_id(t, text) < 0) break;
            add_token(c, name, text);
        }
}

static void set_tokens(Misfits *m, const ImportSource *s, VLMConfig *c, const Tokenizer *t) {
    clear_tokens(&c->vlm_extra_tokens);
    add_image_token(m, s, c, t);
    add_global_token(s, c, t);
    add_grid_tokens(c, t);
    c->extra_token_amount = c->vlm_extra_tokens.count;
    if (tokenizer_vocab_size(t) > c->lm_vocab_size)
        misfit(m, "the tokenizer has %zu tokens, text_config.vocab_size is %zu", tokenizer_vocab_size(t),
               c->lm_vocab_size);
    if (c->extra_token_amount > c->lm_vocab_size)
        misfit(m, "%zu tokens of pictures in a vocabulary of %zu", c->extra_token_amount, c->lm_vocab_size);
    else
        c->lm_base_vocab_size = c->lm_vocab_size - c->extra_token_amount;
    if (tokenizer_token_id(t, "<|im_start|>") < 0 || tokenizer_token_id(t, "<|im_end|>") < 0)
        log_warning(
            "%s: the tokenizer has no <|im_start|> and <|im_end|>, which nanoVLM's chat template writes; "
            "set lm_chat_template in the checkpoint's config.json",
            s->path);
}

// ---- all ----

static void set_names(const ImportSource *s, VLMConfig *c) {
    char **const fields[] = {&c->vit_model_type, &c->lm_model_type, &c->lm_tokenizer};
    for (size_t i = 0; i < 3; i++) {
        free(*fields[i]);
        *fields[i] = mem_strdup(s->path);
    }
    c->vlm_load_backbone_weights = false;
}

static bool is_tied(const ImportSource *s) {
    return json_is_true(json_object_get(s->config, "tie_word_embeddings")) ||
           !weights_find(s->weights, "lm_head.weight");
}

bool import_configure(const ImportSource *s, VLMConfig *c, const Tokenizer *t, Error *err) {
    Misfits m = {0};
    c->lm_vocab_size = whole(&m, at(s->config, "text_config", "vocab_size"), "text_config.vocab_size", 32000);
    if (!misfits_none(&m, s->path, err) || !configure_half(s, BACKBONE_VISION, c, err) ||
        !configure_half(s, BACKBONE_LANGUAGE, c, err))
        return false;
    set_pictures(&m, s, c);
    set_tokens(&m, s, c, t);
    set_names(s, c);
    c->lm_tie_weights = is_tied(s);
    if (c->lm_max_length > c->lm_max_position_embeddings) c->lm_max_length = c->lm_max_position_embeddings;
    return misfits_none(&m, s->path, err) && (vlm_config_check(c, err) || error_prefix(err, "%s", s->path));
}
