// config.json of a backbone and the fields of VLMConfig.
#include "model/backbone.h"
#include "model/rope_scaling.h"

#include <string.h>

// A field of VLMConfig and where it comes from. absent: what transformers takes when config.json is silent
// (SiglipVisionConfig, LlamaConfig), as JSON.
typedef struct Mapping {
    const char *key, *field, *absent;
} Mapping;

static const Mapping vision_mappings[] = {
    {"hidden_size", "vit_hidden_dim", "768"},     {"intermediate_size", "vit_inter_dim", "3072"},
    {"patch_size", "vit_patch_size", "16"},       {"image_size", "vit_img_size", "224"},
    {"num_attention_heads", "vit_n_heads", "12"}, {"attention_dropout", "vit_dropout", "0.0"},
    {"num_hidden_layers", "vit_n_blocks", "12"},  {"layer_norm_eps", "vit_ln_eps", "1e-06"},
};
static const Mapping language_mappings[] = {
    {"hidden_size", "lm_hidden_dim", "4096"},
    {"intermediate_size", "lm_inter_dim", "11008"},
    {"rms_norm_eps", "lm_rms_eps", "1e-06"},
    {"rope_theta", "lm_re_base", "10000.0"},
    {"max_position_embeddings", "lm_max_position_embeddings", "2048"},
    {"num_attention_heads", "lm_n_heads", "32"},
    {"num_key_value_heads", "lm_n_kv_heads", NULL}, // as many as num_attention_heads
    {"attention_dropout", "lm_dropout", "0.0"},
    {"num_hidden_layers", "lm_n_blocks", "32"},
};

// Fields that change what a model computes, and the only values ours can express, as JSON. Absent or null is
// right.
typedef struct Demand {
    const char *key, *value;
} Demand;

static const Demand vision_demands[] = {
    {"model_type", "\"siglip_vision_model\""},
    {"hidden_act", "\"gelu_pytorch_tanh\""},
    {"num_channels", "3"},
};
static const Demand language_demands[] = {
    {"model_type", "\"llama\""},     {"hidden_act", "\"silu\""},     {"attention_bias", "false"},
    {"mlp_bias", "false"},           {"partial_rotary_factor", "1"}, {"sliding_window", "null"},
    {"quantization_config", "null"},
};

static const struct {
    const Mapping *mappings;
    size_t n_mappings;
    const Demand *demands;
    size_t n_demands;
} tables[BACKBONE_COUNT] = {
    {vision_mappings, sizeof vision_mappings / sizeof(Mapping), vision_demands,
     sizeof vision_demands / sizeof(Demand)},
    {language_mappings, sizeof language_mappings / sizeof(Mapping), language_demands,
     sizeof language_demands / sizeof(Demand)},
};

const char *backbone_field(BackboneKind kind, size_t i) {
    return i < tables[kind].n_mappings ? tables[kind].mappings[i].field : NULL;
}

static const json_t *lookup(const json_t *config, const char *key) {
    const json_t *value = strcmp(key, "rope_theta") ? json_object_get(config, key) : rope_theta(config);
    return json_is_null(value) ? NULL : value;
}

static bool is_same(const json_t *a, const json_t *b) {
    if (json_is_number(a) && json_is_number(b)) return json_number_value(a) == json_number_value(b);
    return json_equal(a, b);
}

static void check_demands(Misfits *m, const Backbone *b) {
    for (size_t i = 0; i < tables[b->kind].n_demands; i++) {
        const Demand *demand = &tables[b->kind].demands[i];
        const json_t *found = lookup(b->config, demand->key);
        json_t *expected = json_loads(demand->value, JSON_DECODE_ANY, NULL);
        if (found && !is_same(found, expected)) {
            char *text = json_dumps(found, JSON_ENCODE_ANY | JSON_COMPACT);
            misfit(m, "%s is %.80s, expected %s", demand->key, text ? text : "unreadable", demand->value);
            free(text);
        }
        json_decref(expected);
    }
}

static void set_field(Misfits *m, const Backbone *b, const Mapping *map, FieldSet set) {
    const json_t *value = lookup(b->config, map->key);
    if (!value && !map->absent) value = lookup(b->config, "num_attention_heads");
    json_t *absent = value ? NULL : json_loads(map->absent ? map->absent : "32", JSON_DECODE_ANY, NULL);
    Error err;
    if (!fields_set_json(set, fields_find(set.table, map->field, strlen(map->field)), value ? value : absent,
                         &err))
        misfit(m, "%s: %.200s", map->key, err.text);
    json_decref(absent);
}

static void check_heads(Misfits *m, const Backbone *b, const VLMConfig *c) {
    const bool vision = b->kind == BACKBONE_VISION;
    const size_t width = vision ? c->vit_hidden_dim : c->lm_hidden_dim,
                 heads = vision ? c->vit_n_heads : c->lm_n_heads;
    const json_t *given = lookup(b->config, "head_dim");
    if (width % heads)
        misfit(m, "hidden_size %zu is no multiple of num_attention_heads %zu", width, heads);
    else if (given && json_number_value(given) != (double)(width / heads))
        misfit(m, "head_dim is %g, expected hidden_size / num_attention_heads = %zu",
               json_number_value(given), width / heads);
    if (!vision && heads % c->lm_n_kv_heads)
        misfit(m, "num_attention_heads %zu is no multiple of num_key_value_heads %zu", heads,
               c->lm_n_kv_heads);
}

static void check_vocabulary(Misfits *m, const Backbone *b, const VLMConfig *c) {
    const json_t *size = lookup(b->config, "vocab_size");
    if (size && !json_is_integer(size))
        misfit(m, "vocab_size is not a whole number");
    else if (size && json_integer_value(size) > (json_int_t)c->lm_vocab_size)
        misfit(m, "vocab_size %lld is larger than lm_vocab_size %zu, which must hold it and vlm_extra_tokens",
               (long long)json_integer_value(size), c->lm_vocab_size);
}

bool backbone_configure(const Backbone *b, VLMConfig *config, Error *err) {
    Misfits m = {0};
    VLMConfig changed = {0};
    FieldSet set = {&vlm_config_table, &changed}, target = {&vlm_config_table, config};
    if (!fields_copy(set, config)) return error_set(err, "the configuration cannot be copied");
    check_demands(&m, b);
    const size_t before = m.count;
    for (size_t i = 0; i < tables[b->kind].n_mappings; i++)
        set_field(&m, b, &tables[b->kind].mappings[i], set);
    if (m.count == before) check_heads(&m, b, &changed);
    if (b->kind == BACKBONE_LANGUAGE) {
        check_vocabulary(&m, b, &changed);
        rope_scaling_check(&m, b->config);
    }
    const bool ok = misfits_none(&m, weights_path(b->weights), err);
    fields_free(ok ? target : set);
    if (ok) *config = changed;
    return ok || error_prefix(err, "%s", b->flag);
}
