#include "format/gguf_llama.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ARCHITECTURE "general.architecture"

// ---- names ----

// # stands for the number of the block.
static const struct {
    const char *gguf, *hf;
    bool rotated;
} names[] = {
    {"token_embd.weight", "model.embed_tokens.weight", false},
    {"output_norm.weight", "model.norm.weight", false},
    {"output.weight", "lm_head.weight", false},
    {"blk.#.attn_norm.weight", "model.layers.#.input_layernorm.weight", false},
    {"blk.#.attn_q.weight", "model.layers.#.self_attn.q_proj.weight", true},
    {"blk.#.attn_k.weight", "model.layers.#.self_attn.k_proj.weight", true},
    {"blk.#.attn_v.weight", "model.layers.#.self_attn.v_proj.weight", false},
    {"blk.#.attn_output.weight", "model.layers.#.self_attn.o_proj.weight", false},
    {"blk.#.ffn_norm.weight", "model.layers.#.post_attention_layernorm.weight", false},
    {"blk.#.ffn_gate.weight", "model.layers.#.mlp.gate_proj.weight", false},
    {"blk.#.ffn_up.weight", "model.layers.#.mlp.up_proj.weight", false},
    {"blk.#.ffn_down.weight", "model.layers.#.mlp.down_proj.weight", false},
};
#define N_NAMES          (sizeof names / sizeof *names)
#define MAX_BLOCK_DIGITS 6

// The digits that # stands for, so that pattern becomes name; false when it cannot.
static bool match(const char *pattern, const char *name, char digits[MAX_BLOCK_DIGITS + 1]) {
    const char *place = strchr(pattern, '#');
    digits[0] = '\0';
    if (!place) return strcmp(pattern, name) == 0;
    const size_t before = (size_t)(place - pattern);
    if (strncmp(pattern, name, before) != 0) return false;
    const size_t n = strspn(name + before, "0123456789");
    if (n == 0 || n > MAX_BLOCK_DIGITS || (n > 1 && name[before] == '0')) return false;
    memcpy(digits, name + before, n);
    digits[n] = '\0';
    return strcmp(place + 1, name + before + n) == 0;
}

static void substitute(char name[GGUF_LLAMA_MAX_NAME], const char *pattern, const char *digits) {
    const char *place = strchr(pattern, '#');
    if (place)
        snprintf(name, GGUF_LLAMA_MAX_NAME, "%.*s%s%s", (int)(place - pattern), pattern, digits, place + 1);
    else
        snprintf(name, GGUF_LLAMA_MAX_NAME, "%s", pattern);
}

static bool translate(char name[GGUF_LLAMA_MAX_NAME], const char *from, bool to_hf, bool *rotated) {
    char digits[MAX_BLOCK_DIGITS + 1];
    for (size_t i = 0; i < N_NAMES; i++) {
        if (!match(to_hf ? names[i].gguf : names[i].hf, from, digits)) continue;
        substitute(name, to_hf ? names[i].hf : names[i].gguf, digits);
        if (rotated) *rotated = names[i].rotated;
        return true;
    }
    name[0] = '\0';
    return false;
}

bool gguf_llama_name_to_hf(char name[GGUF_LLAMA_MAX_NAME], const char *gguf_name, bool *rotated) {
    return translate(name, gguf_name, true, rotated);
}

bool gguf_llama_name_from_hf(char name[GGUF_LLAMA_MAX_NAME], const char *hf_name, bool *rotated) {
    return translate(name, hf_name, false, rotated);
}

// ---- rows ----

size_t gguf_llama_row_to_hf(size_t row, size_t head_dim) {
    const size_t within = row % head_dim;
    return row - within + within % 2 * (head_dim / 2) + within / 2;
}

size_t gguf_llama_row_from_hf(size_t row, size_t head_dim) {
    const size_t within = row % head_dim, half = head_dim / 2;
    return row - within + 2 * (within % half) + within / half;
}

// ---- configuration ----

typedef enum Kind { KIND_INTEGER, KIND_NUMBER } Kind;

// Fields of the metadata ("llama." or, with a dot in front, another prefix) and of config.json.
static const struct {
    const char *gguf, *hf;
    Kind kind;
    bool optional; // LlamaConfig's own default is then that of llama.cpp
} fields[] = {
    {"llama.embedding_length", "hidden_size", KIND_INTEGER, false},
    {"llama.feed_forward_length", "intermediate_size", KIND_INTEGER, false},
    {"llama.block_count", "num_hidden_layers", KIND_INTEGER, false},
    {"llama.attention.head_count", "num_attention_heads", KIND_INTEGER, false},
    {"llama.attention.head_count_kv", "num_key_value_heads", KIND_INTEGER, true},
    {"llama.attention.layer_norm_rms_epsilon", "rms_norm_eps", KIND_NUMBER, false},
    {"llama.rope.freq_base", "rope_theta", KIND_NUMBER, true},
    {"llama.context_length", "max_position_embeddings", KIND_INTEGER, false},
    {"tokenizer.ggml.bos_token_id", "bos_token_id", KIND_INTEGER, true},
    {"tokenizer.ggml.eos_token_id", "eos_token_id", KIND_INTEGER, true},
    {"tokenizer.ggml.padding_token_id", "pad_token_id", KIND_INTEGER, true},
};

// Fields that change what is computed in a way LlamaForCausalLM has no place for, unless they have this
// value.
static const struct {
    const char *gguf;
    double neutral;
} demands[] = {{"llama.expert_count", 0},        {"llama.attention.sliding_window", 0},
               {"llama.attention.clamp_kqv", 0}, {"llama.attention.scale", 0},
               {"llama.logit_scale", 0},         {"llama.residual_scale", 0},
               {"llama.embedding_scale", 0},     {"llama.rope.scale_linear", 1}};

// 1e-05 is stored as a float: the shortest decimal that is the same float is what was meant.
static double shortest(double value) {
    char text[32];
    for (int digits = 1; digits < 9; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (strtof(text, NULL) == (float)value) return strtod(text, NULL);
    }
    return value;
}

static bool set_field(json_t *config, const Gguf *g, size_t i, Error *err) {
    const GgufValue *v = gguf_find_value(g, fields[i].gguf);
    uint64_t integer;
    double number;
    if (!v && fields[i].optional) return true;
    if (fields[i].kind == KIND_INTEGER) {
        if (!gguf_get_u64(g, fields[i].gguf, &integer, err)) return false;
        if (integer > INT32_MAX)
            return error_set(err, "%s: field %s is %llu, expected at most %d", gguf_path(g), fields[i].gguf,
                             (unsigned long long)integer, INT32_MAX);
        json_object_set_new(config, fields[i].hf, json_integer((json_int_t)integer));
        return true;
    }
    if (!gguf_get_f64(g, fields[i].gguf, &number, err)) return false;
    if (!isfinite(number)) return error_set(err, "%s: field %s is not finite", gguf_path(g), fields[i].gguf);
    json_object_set_new(config, fields[i].hf, json_real(v->type == GGUF_F32 ? shortest(number) : number));
    return true;
}

static bool check_demand(const Gguf *g, size_t i, Error *err) {
    double found;
    if (!gguf_find_value(g, demands[i].gguf)) return true;
    if (!gguf_get_f64(g, demands[i].gguf, &found, err)) return false;
    return found == demands[i].neutral ||
           error_set(err, "%s: field %s is %g, expected %g: this decoder cannot express it", gguf_path(g),
                     demands[i].gguf, found, demands[i].neutral);
}

// The kinds of rope scaling that are fields; Llama 3's stands in the file as the tensor rope_freqs.weight.
static bool set_rope_scaling(json_t *config, const Gguf *g, Error *err) {
    GgufString type;
    double factor;
    if (!gguf_find_value(g, "llama.rope.scaling.type")) return true;
    if (!gguf_get_string(g, "llama.rope.scaling.type", &type, err)) return false;
    if (gguf_string_is(type, "none")) return true;
    if (!gguf_string_is(type, "linear"))
        return error_set(err,
                         "%s: field llama.rope.scaling.type is \"%.*s\", expected \"none\" or \"linear\"",
                         gguf_path(g), type.size < 64 ? (int)type.size : 64, type.text);
    if (!gguf_get_f64(g, "llama.rope.scaling.factor", &factor, err)) return false;
    json_object_set_new(config, "rope_scaling",
                        json_pack("{s:s, s:f}", "rope_type", "linear", "factor", shortest(factor)));
    return true;
}

bool gguf_llama_head_dim(const Gguf *g, size_t *head_dim, Error *err) {
    uint64_t width, heads, found;
    if (!gguf_get_u64(g, "llama.embedding_length", &width, err) ||
        !gguf_get_u64(g, "llama.attention.head_count", &heads, err))
        return false;
    if (heads == 0 || width == 0 || width % heads || width / heads % 2)
        return error_set(err,
                         "%s: field llama.attention.head_count is %llu, expected a divisor of "
                         "llama.embedding_length %llu into even heads",
                         gguf_path(g), (unsigned long long)heads, (unsigned long long)width);
    *head_dim = (size_t)(width / heads);
    static const char *const same[] = {"llama.rope.dimension_count", "llama.attention.key_length",
                                       "llama.attention.value_length"};
    for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
        if (!gguf_find_value(g, same[i])) continue;
        if (!gguf_get_u64(g, same[i], &found, err)) return false;
        if (found != *head_dim)
            return error_set(err, "%s: field %s is %llu, expected %zu, embedding_length / head_count",
                             gguf_path(g), same[i], (unsigned long long)found, *head_dim);
    }
    return true;
}

static bool check_architecture(const Gguf *g, Error *err) {
    GgufString found;
    if (!gguf_get_string(g, ARCHITECTURE, &found, err)) return false;
    return gguf_string_is(found, "llama") ||
           error_set(err,
                     "%s: field " ARCHITECTURE
                     " is \"%.*s\", expected \"llama\": no other decoder can be expressed",
                     gguf_path(g), found.size < 64 ? (int)found.size : 64, found.text);
}

// The size of the vocabulary is the number of rows of the embedding.
static bool set_vocabulary(json_t *config, const Gguf *g, Error *err) {
    const GgufTensor *embedding = gguf_find_tensor(g, "token_embd.weight");
    if (!embedding || embedding->ndim != 2)
        return error_set(err, "%s: tensor token_embd.weight %s", gguf_path(g),
                         embedding ? "is not a matrix" : "is missing; the file holds no model");
    json_object_set_new(config, "vocab_size", json_integer((json_int_t)embedding->shape[0]));
    json_object_set_new(config, "tie_word_embeddings", json_boolean(!gguf_find_tensor(g, "output.weight")));
    return true;
}

json_t *gguf_llama_config(const Gguf *g, Error *err) {
    size_t head_dim = 0;
    json_t *config = json_pack("{s:[s], s:s, s:s}", "architectures", "LlamaForCausalLM", "model_type",
                               "llama", "hidden_act", "silu");
    bool ok = check_architecture(g, err) && gguf_llama_head_dim(g, &head_dim, err);
    for (size_t i = 0; ok && i < sizeof demands / sizeof *demands; i++) ok = check_demand(g, i, err);
    for (size_t i = 0; ok && i < sizeof fields / sizeof *fields; i++) ok = set_field(config, g, i, err);
    ok = ok && set_rope_scaling(config, g, err) && set_vocabulary(config, g, err);
    json_object_set_new(config, "head_dim", json_integer((json_int_t)head_dim));
    if (ok) return config;
    json_decref(config);
    return NULL;
}
