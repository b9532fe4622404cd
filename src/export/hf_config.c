#include "export/hf_config.h"
#include "base/memory.h"

#include <string.h>

// transformers takes a tile of which every value is 0 for padding and drops it (Idefics3Model,
// get_image_features), but a black tile is all 0 here. This mean keeps it apart and changes no other value:
// it is far below the rounding of any pixel.
#define PIXEL_MEAN 1e-30

static json_t *size_json(size_t n) {
    return json_integer((json_int_t)n);
}

static const char *type_name(GgufType type) {
    return type == GGUF_TYPE_F16 ? "float16" : type == GGUF_TYPE_BF16 ? "bfloat16" : "float32";
}

static json_t *text_config(const ExportSource *s, const float *factors) {
    const VLMConfig *c = s->config;
    json_t *j = json_pack(
        "{s:[s], s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:s, s:f, s:f, s:o, s:o, s:b, s:f, s:b, s:b, s:s, s:b}",
        "architectures", "LlamaForCausalLM", "model_type", "llama", "hidden_size",
        size_json(c->lm_hidden_dim), "intermediate_size", size_json(c->lm_inter_dim), "num_hidden_layers",
        size_json(c->lm_n_blocks), "num_attention_heads", size_json(c->lm_n_heads), "num_key_value_heads",
        size_json(c->lm_n_kv_heads), "head_dim", size_json(vlm_config_head_dim(c)), "hidden_act", "silu",
        "rms_norm_eps", c->lm_rms_eps.value, "rope_theta", c->lm_re_base.value, "max_position_embeddings",
        size_json(c->lm_max_position_embeddings), "vocab_size", size_json(c->lm_vocab_size), "attention_bias",
        0, "attention_dropout", c->lm_dropout.value, "mlp_bias", 0, "tie_word_embeddings", c->lm_tie_weights,
        "torch_dtype", type_name(s->type), "use_cache", 1);
    if (factors)
        json_object_set_new(j, "rope_scaling",
                            json_pack("{s:s, s:f}", "rope_type", "linear", "factor", (double)factors[0]));
    const int32_t eos = tokenizer_eos_id(s->tokenizer);
    json_object_set_new(j, "eos_token_id", json_integer(eos));
    json_object_set_new(j, "pad_token_id", json_integer(eos));
    json_object_set_new(j, "bos_token_id", json_null());
    return j;
}

// The whole model's positions stand in a grid with one row and one column more (docs/export.md).
static json_t *vision_config(const ExportSource *s) {
    const VLMConfig *c = s->config;
    const bool whole = s->part == EXPORT_ALL;
    const size_t side =
        whole ? (c->vit_img_size / c->vit_patch_size + 1) * c->vit_patch_size : c->vit_img_size;
    return json_pack(
        "{s:s, s:o, s:o, s:o, s:o, s:i, s:o, s:o, s:s, s:f, s:f, s:s}", "model_type",
        whole ? "idefics3_vision" : "siglip_vision_model", "hidden_size", size_json(c->vit_hidden_dim),
        "intermediate_size", size_json(c->vit_inter_dim), "num_hidden_layers", size_json(c->vit_n_blocks),
        "num_attention_heads", size_json(c->vit_n_heads), "num_channels", 3, "image_size", size_json(side),
        "patch_size", size_json(c->vit_patch_size), "hidden_act", "gelu_pytorch_tanh", "layer_norm_eps",
        c->vit_ln_eps.value, "attention_dropout", c->vit_dropout.value, "torch_dtype", type_name(s->type));
}

json_t *export_hf_config(const ExportSource *s, const float *factors) {
    if (s->part == EXPORT_DECODER) return text_config(s, factors);
    json_t *vision = vision_config(s);
    if (s->part == EXPORT_VISION) {
        json_object_set_new(vision, "architectures", json_pack("[s]", "SiglipVisionModel"));
        json_object_set_new(vision, "vision_use_head", json_false());
        return vision;
    }
    const int32_t eos = tokenizer_eos_id(s->tokenizer);
    return json_pack("{s:[s], s:s, s:i, s:o, s:b, s:i, s:i, s:s, s:b, s:o, s:o}", "architectures",
                     "Idefics3ForConditionalGeneration", "model_type", "idefics3", "image_token_id",
                     (int)tokenizer_extra_id(s->tokenizer, "image_token"), "scale_factor",
                     size_json(s->config->mp_pixel_shuffle_factor), "tie_word_embeddings",
                     s->config->lm_tie_weights, "eos_token_id", (int)eos, "pad_token_id", (int)eos,
                     "torch_dtype", type_name(s->type), "use_cache", 1, "text_config",
                     text_config(s, factors), "vision_config", vision);
}

json_t *export_hf_generation_config(const ExportSource *s) {
    const int eos = tokenizer_eos_id(s->tokenizer);
    return json_pack("{s:i, s:i}", "eos_token_id", eos, "pad_token_id", eos);
}

// ---- processors ----

static json_t *pixels_json(const char *type) {
    return json_pack("{s:s, s:b, s:b, s:i, s:b, s:f, s:b, s:[f,f,f], s:[f,f,f]}", "image_processor_type",
                     type, "do_convert_rgb", 1, "do_resize", 1, "resample", 3, "do_rescale", 1,
                     "rescale_factor", 1.0 / 255, "do_normalize", 1, "image_mean", PIXEL_MEAN, PIXEL_MEAN,
                     PIXEL_MEAN, "image_std", 1.0, 1.0, 1.0);
}

json_t *export_hf_image_processor(const ExportSource *s) {
    const VLMConfig *c = s->config;
    json_t *j = pixels_json(s->part == EXPORT_ALL ? "SmolVLMImageProcessor" : "SiglipImageProcessor");
    if (s->part == EXPORT_VISION) {
        json_object_set_new(j, "size",
                            json_pack("{s:o, s:o}", "height", size_json(c->vit_img_size), "width",
                                      size_json(c->vit_img_size)));
        return j;
    }
    json_object_set_new(j, "processor_class", json_string("SmolVLMProcessor"));
    json_object_set_new(j, "do_image_splitting", json_boolean(c->max_img_size > c->vit_img_size));
    json_object_set_new(j, "do_pad", json_true());
    json_object_set_new(j, "size", json_pack("{s:o}", "longest_edge", size_json(c->max_img_size)));
    json_object_set_new(j, "max_image_size", json_pack("{s:o}", "longest_edge", size_json(c->vit_img_size)));
    return j;
}

json_t *export_hf_processor(const ExportSource *s) {
    return json_pack("{s:s, s:o}", "processor_class", "SmolVLMProcessor", "image_seq_len",
                     size_json(s->config->mp_image_token_length));
}

// ---- tokenizer ----

static char *tokenizer_file(const ExportSource *s, const char *name) {
    const size_t n = strlen(s->tokenizer_path), suffix = strlen(".json");
    if (n < suffix || strcmp(s->tokenizer_path + n - suffix, ".json"))
        return mem_printf("%s/%s", s->tokenizer_path, name);
    const char *slash = strrchr(s->tokenizer_path, '/');
    return slash ? mem_printf("%.*s/%s", (int)(slash - s->tokenizer_path), s->tokenizer_path, name)
                 : mem_strdup(name);
}

static json_t *read_object(const char *path, Error *err) {
    json_error_t where;
    json_t *j = json_load_file(path, JSON_ALLOW_NUL, &where);
    if (!j) error_set(err, "%s: line %d: %s", path, where.line, where.text);
    if (j && !json_is_object(j)) {
        error_set(err, "%s: expected a JSON object", path);
        json_decref(j);
        j = NULL;
    }
    return j;
}

static bool is_listed(const json_t *added, int32_t id) {
    for (size_t i = 0; i < json_array_size(added); i++)
        if (json_integer_value(json_object_get(json_array_get(added, i), "id")) == id) return true;
    return false;
}

json_t *export_hf_tokenizer(const ExportSource *s, Error *err) {
    if (gguf_is_file(s->tokenizer_path)) {
        error_set(
            err,
            "%s: a tokenizer out of a GGUF file cannot be written as tokenizer.json; name the folder of "
            "the same tokenizer by --lm_tokenizer, or export --to gguf",
            s->tokenizer_path);
        return NULL;
    }
    char *path = tokenizer_file(s, "tokenizer.json");
    json_t *j = read_object(path, err);
    free(path);
    if (!j) return NULL;
    json_t *added = json_object_get(j, "added_tokens");
    if (!json_is_array(added)) json_object_set_new(j, "added_tokens", added = json_array());
    for (size_t i = 0; i < s->config->vlm_extra_tokens.count; i++) {
        const TokenPair *token = &s->config->vlm_extra_tokens.items[i];
        const int32_t id = tokenizer_extra_id(s->tokenizer, token->name);
        if (is_listed(added, id)) continue;
        json_array_append_new(added, json_pack("{s:i, s:s, s:b, s:b, s:b, s:b, s:b}", "id", (int)id,
                                               "content", token->token, "single_word", 0, "lstrip", 0,
                                               "rstrip", 0, "normalized", 0, "special", 1));
    }
    return j;
}

static void set_extra(json_t *extra, const char *key, const char *text) {
    if (text) json_object_set_new(extra, key, json_string(text));
}

// SmolVLMProcessor asks the tokenizer for the texts of its tokens. The one around pictures, which nanoVLM has
// not, is empty.
static json_t *extra_tokens(const ExportSource *s) {
    json_t *extra = json_object();
    set_extra(extra, "image_token", tokenizer_extra_text(s->tokenizer, "image_token"));
    const char *global = tokenizer_extra_text(s->tokenizer, "global_image_token");
    set_extra(extra, "global_image_token", global ? global : "");
    set_extra(extra, "fake_image_token", "");
    return extra;
}

json_t *export_hf_tokenizer_config(const ExportSource *s, Error *err) {
    static const char *const kept[] = {"bos_token", "unk_token", "clean_up_tokenization_spaces"};
    char *path = tokenizer_file(s, "tokenizer_config.json");
    FILE *exists = fopen(path, "r");
    json_t *from = exists ? read_object(path, err) : json_object();
    if (exists) fclose(exists);
    free(path);
    if (!from) return NULL;
    CharVec eos = {0};
    const int32_t id = tokenizer_eos_id(s->tokenizer);
    tokenizer_decode_bytes(s->tokenizer, &id, 1, false, &eos);
    json_t *j = json_pack(
        "{s:s, s:s%, s:s%, s:s, s:o, s:[s, s]}", "tokenizer_class", "PreTrainedTokenizerFast", "eos_token",
        eos.items, eos.count, "pad_token", eos.items, eos.count, "padding_side", "left", "model_max_length",
        size_json(s->config->lm_max_position_embeddings), "model_input_names", "input_ids", "attention_mask");
    vec_free(&eos);
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++)
        if (json_object_get(from, kept[i])) json_object_set(j, kept[i], json_object_get(from, kept[i]));
    if (s->part == EXPORT_ALL) {
        json_object_set_new(j, "processor_class", json_string("SmolVLMProcessor"));
        json_object_set_new(j, "extra_special_tokens", extra_tokens(s));
    }
    json_decref(from);
    return j;
}

// ---- chat template ----

static void put(CharVec *out, const char *text) {
    vec_extend(out, text, strlen(text));
}

char *export_hf_chat_template(const ExportSource *s) {
    CharVec out = {0};
    const char *image = tokenizer_extra_text(s->tokenizer, "image_token");
    if (s->chat->system_size) {
        json_t *system = json_stringn(s->chat->system, s->chat->system_size);
        char *text = json_dumps(system, JSON_ENCODE_ANY);
        put(&out, "{% if messages[0]['role'] != 'system' %}{{ ");
        put(&out, text ? text : "\"\"");
        put(&out, " }}{% endif %}");
        free(text);
        json_decref(system);
    }
    put(&out, "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}");
    if (s->part == EXPORT_ALL) {
        put(&out, "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
                  "{% for part in message['content'] %}{% if part['type'] == 'image' %}{{ '");
        put(&out, image);
        put(&out,
            "' }}{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}");
    } else { // a decoder's messages are texts
        put(&out, "{{ message['content'] }}");
    }
    put(&out, "{{ '<|im_end|>\\n' }}{% endfor %}"
              "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}");
    vec_push(&out, '\0');
    return out.items;
}
