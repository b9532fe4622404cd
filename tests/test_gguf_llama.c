// LINK: format
// LABELS: parity
// GGUF files as Llama checkpoints: what llama.cpp's converter made of models of transformers comes back as it
// was there, names, rows and config.json; what a decoder of ours cannot express is refused by name.
#include "support/golden.h"
#include "support/gguf_case.h"
#include "base/random.h"
#include "format/gguf_llama.h"
#include "format/safetensors.h"
#include "format/weights.h"

#include <math.h>

#define REFERENCE "tests/golden/gguf_llama" // a folder a model

static void expect_message(const Error *err, const char *part) {
    if (!strstr(err->text, part)) fail_msg("the message is \"%s\", expected \"%s\" in it", err->text, part);
}

// ---- reference files ----

// The whole tensor, and pieces that begin and end inside rows and blocks.
static void check_tensor(const WeightsEntry *e, const SafetensorsEntry *wanted) {
    Error err;
    float *expected = mem_alloc(wanted->count * sizeof *expected), *x = mem_alloc(wanted->count * sizeof *x);
    assert_int_equal(e->ndim, wanted->ndim);
    for (int d = 0; d < e->ndim; d++) assert_int_equal(e->shape[d], wanted->shape[d]);
    assert_true(safetensors_to_f32(expected, wanted, &err));
    for (uint64_t k = 0; k < 30; k++) {
        Random r = random_stream(8, RANDOM_TEST, k);
        const size_t first = k ? random_below(&r, e->count) : 0,
                     n = k ? random_below(&r, e->count - first + 1) : e->count;
        memset(x, 0xFF, e->count * sizeof *x);
        if (!weights_read_f32(x, e, first, n, &err)) fail_msg("%s", err.text);
        for (size_t i = 0; i < n; i++)
            if (memcmp(&x[i], &expected[first + i], sizeof *x) != 0)
                fail_msg("%s, value %zu: %a, expected %a", e->name, first + i, (double)x[i],
                         (double)expected[first + i]);
        if (n < e->count) assert_true(isnan(x[n]));
    }
    free(expected);
    free(x);
}

static void check_weights(const Weights *w, const char *expected_path) {
    Error err;
    Safetensors *expected;
    if (!safetensors_open(&expected, expected_path, &err)) fail_msg("%s", err.text);
    const size_t n = safetensors_count(expected), extra = weights_find(w, "rope_freqs.weight") ? 1 : 0;
    assert_int_equal(weights_count(w), n + extra);
    for (size_t i = 0; i < n; i++) {
        const SafetensorsEntry *wanted = safetensors_entry(expected, i);
        const WeightsEntry *e = weights_find(w, wanted->name);
        if (!e) fail_msg("%s is missing", wanted->name);
        check_tensor(e, wanted);
    }
    safetensors_close(expected);
}

static const char *const config_keys[] = {
    "model_type",          "hidden_size",         "intermediate_size", "num_hidden_layers",
    "num_attention_heads", "num_key_value_heads", "rms_norm_eps",      "max_position_embeddings",
    "tie_word_embeddings", "rope_theta",          "vocab_size",        "head_dim",
    "hidden_act"};

static void check_config(const Weights *w, const char *expected_path) {
    Error err;
    json_t *config = weights_config(w, &err), *expected = json_load_file(expected_path, 0, NULL);
    if (!config) fail_msg("%s", err.text);
    assert_non_null(expected);
    for (size_t i = 0; i < sizeof config_keys / sizeof *config_keys; i++) {
        const json_t *a = json_object_get(config, config_keys[i]),
                     *b = json_object_get(expected, config_keys[i]);
        if (!a || !json_equal(a, b)) fail_msg("%s: %s differs", expected_path, config_keys[i]);
    }
    json_decref(config);
    json_decref(expected);
}

static void converted_models(void **state) {
    (void)state;
    Error err;
    StringList cases;
    if (!file_list(&cases, REFERENCE, &err)) fail_msg("%s", err.text);
    size_t models = 0;
    for (size_t i = 0; i < cases.count; i++) {
        Weights *w;
        char *root = path_join(REFERENCE, cases.items[i]), *model = path_join(root, "model.gguf"),
             *values = path_join(root, "expected.safetensors"), *config = path_join(root, "config.json");
        if (file_is_folder(root)) {
            if (!weights_open(&w, model, &err)) fail_msg("%s", err.text);
            check_weights(w, values);
            check_config(w, config);
            print_message("%s: %zu tensors\n", cases.items[i], weights_count(w));
            weights_close(w);
            models++;
        }
        free(root);
        free(model);
        free(values);
        free(config);
    }
    string_list_free(&cases);
    assert_true(models >= 3);
}

// Written by the converter's rule once more, in C, so that the way back for an export is held to it as well.
static void names_and_rows_in_both_directions(void **state) {
    (void)state;
    Gguf *g = open_gguf(REFERENCE "/tied_f32/model.gguf");
    for (size_t i = 0; i < gguf_tensor_count(g); i++) {
        char hf[GGUF_LLAMA_MAX_NAME], back[GGUF_LLAMA_MAX_NAME];
        bool rotated, rotated_back;
        const char *name = gguf_tensor(g, i)->name;
        assert_true(gguf_llama_name_to_hf(hf, name, &rotated));
        assert_true(gguf_llama_name_from_hf(back, hf, &rotated_back));
        assert_string_equal(back, name);
        assert_int_equal(rotated, rotated_back);
        assert_int_equal(rotated, strstr(name, "attn_q") || strstr(name, "attn_k"));
    }
    gguf_close(g);
    for (size_t head_dim = 2; head_dim <= 64; head_dim += 2)
        for (size_t row = 0; row < 3 * head_dim; row++) {
            // reshape(heads, 2, D/2).swapaxes(1, 2): place (head, i, p) takes row (head, p, i)
            const size_t head = row / head_dim, p = row % head_dim / (head_dim / 2), i = row % (head_dim / 2);
            const size_t place = head * head_dim + 2 * i + p;
            assert_int_equal(gguf_llama_row_from_hf(row, head_dim), place);
            assert_int_equal(gguf_llama_row_to_hf(place, head_dim), row);
        }
}

static void names_without_counterpart(void **state) {
    (void)state;
    static const char *const unknown[] = {"",
                                          "blk.0.attn_q.bias",
                                          "blk.x.attn_q.weight",
                                          "blk..attn_q.weight",
                                          "blk.00.attn_q.weight",
                                          "blk.1234567.attn_q.weight",
                                          "blk.0.attn_q.weight.",
                                          "rope_freqs.weight",
                                          "model.layers.0.self_attn.q_proj.weight"};
    char name[GGUF_LLAMA_MAX_NAME];
    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++) {
        assert_false(gguf_llama_name_to_hf(name, unknown[i], NULL));
        assert_string_equal(name, "");
    }
    assert_true(gguf_llama_name_to_hf(name, "blk.17.ffn_down.weight", NULL));
    assert_string_equal(name, "model.layers.17.mlp.down_proj.weight");
    assert_false(gguf_llama_name_from_hf(name, "blk.17.ffn_down.weight", NULL));
}

// ---- what is refused ----

typedef struct Change { // a field of the metadata, and what is made of it
    const char *key;
    enum { ABSENT, U32, F32, TEXT, LIST } kind;
    double number;
    const char *text;
    const char *message; // a part of the error; NULL: it is accepted
} Change;

static const Change usual[] = {
    {"general.architecture", TEXT, 0, "llama", NULL},
    {"llama.embedding_length", U32, 8, NULL, NULL},
    {"llama.feed_forward_length", U32, 12, NULL, NULL},
    {"llama.block_count", U32, 1, NULL, NULL},
    {"llama.attention.head_count", U32, 2, NULL, NULL},
    {"llama.attention.layer_norm_rms_epsilon", F32, 1e-5, NULL, NULL},
    {"llama.context_length", U32, 64, NULL, NULL},
};

static const Change changes[] = {
    {"llama.vocab_size", U32, 5, NULL, NULL},
    {"general.architecture", TEXT, 0, "qwen2", "general.architecture is \"qwen2\", expected \"llama\""},
    {"general.architecture", ABSENT, 0, NULL, "general.architecture is missing"},
    {"general.architecture", U32, 1, NULL, "general.architecture is of type U32, expected a STRING"},
    {"llama.embedding_length", ABSENT, 0, NULL, "llama.embedding_length is missing"},
    {"llama.context_length", ABSENT, 0, NULL, "llama.context_length is missing"},
    {"llama.block_count", F32, 1, NULL, "llama.block_count is of type F32, expected an integer"},
    {"llama.block_count", U32, UINT32_MAX, NULL, "llama.block_count is 4294967295, expected at most"},
    {"llama.feed_forward_length", LIST, 12, NULL, "llama.feed_forward_length is of type ARRAY of I32"},
    {"llama.attention.head_count", U32, 0, NULL, "llama.attention.head_count is 0, expected a divisor"},
    {"llama.attention.head_count", U32, 3, NULL, "llama.attention.head_count is 3, expected a divisor"},
    {"llama.attention.head_count", U32, 8, NULL, "into even heads"},
    {"llama.attention.layer_norm_rms_epsilon", F32, NAN, NULL, "layer_norm_rms_epsilon is not finite"},
    {"llama.attention.key_length", U32, 6, NULL, "llama.attention.key_length is 6, expected 4"},
    {"llama.rope.dimension_count", U32, 2, NULL, "llama.rope.dimension_count is 2, expected 4"},
    {"llama.rope.dimension_count", U32, 4, NULL, NULL},
    {"llama.expert_count", U32, 8, NULL,
     "llama.expert_count is 8, expected 0: this decoder cannot express it"},
    {"llama.expert_count", U32, 0, NULL, NULL},
    {"llama.logit_scale", F32, 0.5, NULL, "llama.logit_scale is 0.5, expected 0"},
    {"llama.rope.scaling.type", TEXT, 0, "yarn", "llama.rope.scaling.type is \"yarn\", expected"},
    {"llama.rope.scaling.type", TEXT, 0, "linear", "llama.rope.scaling.factor is missing"},
    {"llama.rope.scaling.type", TEXT, 0, "none", NULL},
    {"split.count", U32, 3, NULL, "split.count is 3, expected a whole model"},
    {"split.count", U32, 1, NULL, NULL},
};

static bool fill_zeros(void *context, size_t i, void *dst) {
    memset(dst, 0, gguf_spec_bytes(&((const GgufSpec *)context)[i]));
    return true;
}

static void put(GgufMetadata *m, const Change *c) {
    if (c->kind == U32) gguf_put_u32(m, c->key, (uint32_t)c->number);
    if (c->kind == F32) gguf_put_f32(m, c->key, (float)c->number);
    if (c->kind == TEXT) gguf_put_string(m, c->key, c->text);
    if (c->kind == LIST) gguf_put_i32s(m, c->key, &(int32_t){(int32_t)c->number}, 1);
}

// A file with the usual metadata but for one field.
static void write_changed(const Change *c, const GgufSpec *specs, size_t n) {
    Error err;
    GgufMetadata m = {0};
    put(&m, c);
    for (size_t i = 0; i < sizeof usual / sizeof *usual; i++)
        if (strcmp(usual[i].key, c->key) != 0) put(&m, &usual[i]);
    if (!gguf_write(gguf_file, &m, specs, n, fill_zeros, (void *)specs, &err)) fail_msg("%s", err.text);
    gguf_metadata_free(&m);
}

static void changed_configurations(void **state) {
    (void)state;
    const GgufSpec specs[] = {{"token_embd.weight", GGUF_TYPE_F32, 2, {5, 8}}};
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        Error err = {0};
        Weights *w;
        write_changed(&changes[i], specs, 1);
        bool ok = weights_open(&w, gguf_file, &err);
        json_t *config = ok ? weights_config(w, &err) : NULL;
        if (!config != !!changes[i].message) fail_msg("case %zu: %s", i, config ? "accepted" : err.text);
        if (!config) expect_message(&err, changes[i].message);
        if (!config) expect_message(&err, gguf_file);
        if (config) assert_int_equal(json_integer_value(json_object_get(config, "vocab_size")), 5);
        json_decref(config);
        weights_close(w);
    }
}

static void linear_rope_scaling(void **state) {
    (void)state;
    Error err;
    Weights *w;
    const GgufSpec spec = {"token_embd.weight", GGUF_TYPE_F32, 2, {5, 8}};
    GgufMetadata m = {0};
    for (size_t i = 0; i < sizeof usual / sizeof *usual; i++) put(&m, &usual[i]);
    gguf_put_string(&m, "llama.rope.scaling.type", "linear");
    gguf_put_f32(&m, "llama.rope.scaling.factor", 2.1f);
    if (!gguf_write(gguf_file, &m, &spec, 1, fill_zeros, (void *)&spec, &err)) fail_msg("%s", err.text);
    gguf_metadata_free(&m);
    if (!weights_open(&w, gguf_file, &err)) fail_msg("%s", err.text);
    json_t *config = weights_config(w, &err), *scaling = json_object_get(config, "rope_scaling");
    assert_string_equal(json_string_value(json_object_get(scaling, "rope_type")), "linear");
    assert_true(json_number_value(json_object_get(scaling, "factor")) == 2.1);
    json_decref(config);
    weights_close(w);
}

// The only GGUF file of a folder is found there.
static void folder_with_a_file(void **state) {
    (void)state;
    Error err;
    Weights *w;
    if (!weights_open(&w, REFERENCE "/tied_f32", &err)) fail_msg("%s", err.text);
    assert_non_null(weights_find(w, "model.norm.weight"));
    assert_string_equal(weights_entry(w, 0)->type, "F32");
    weights_close(w);
}

static void tensors_that_do_not_fit(void **state) {
    (void)state;
    Error err = {0};
    Weights *w;
    const GgufSpec odd[] = {{"token_embd.weight", GGUF_TYPE_F32, 2, {5, 8}},
                            {"blk.0.attn_q.weight", GGUF_TYPE_F32, 2, {6, 8}}};
    write_changed(&changes[0], odd, 2);
    assert_false(weights_open(&w, gguf_file, &err));
    expect_message(&err, "tensor blk.0.attn_q.weight: 6 rows, expected a multiple of 4");
    const GgufSpec bias[] = {{"token_embd.weight", GGUF_TYPE_F32, 1, {8}},
                             {"blk.0.attn_q.bias", GGUF_TYPE_F32, 1, {8}}};
    write_changed(&changes[0], bias, 2);
    assert_true(weights_open(&w, gguf_file, &err));
    assert_non_null(weights_find(w, "blk.0.attn_q.bias")); // under its own name, which no model asks for
    assert_null(weights_config(w, &err));
    expect_message(&err, "token_embd.weight is not a matrix");
    weights_close(w);
    write_changed(&changes[0], NULL, 0);
    assert_true(weights_open(&w, gguf_file, &err));
    assert_null(weights_config(w, &err));
    expect_message(&err, "token_embd.weight is missing");
    weights_close(w);
}

static void undecodable_weights(void **state) {
    (void)state;
    Error err = {0};
    Weights *w;
    float x[32];
    const GgufSpec specs[] = {{"token_embd.weight", (GgufType)20, 2, {1, 32}}};
    write_changed(&changes[0], specs, 1);
    assert_true(weights_open(&w, gguf_file, &err));
    assert_false(weights_read_f32(x, weights_entry(w, 0), 0, 32, &err));
    expect_message(&err, gguf_file);
    expect_message(&err, "tensor token_embd.weight: values of type IQ4_NL cannot be read");
    weights_close(w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(converted_models),          cmocka_unit_test(names_and_rows_in_both_directions),
        cmocka_unit_test(names_without_counterpart), cmocka_unit_test(changed_configurations),
        cmocka_unit_test(linear_rope_scaling),       cmocka_unit_test(folder_with_a_file),
        cmocka_unit_test(tensors_that_do_not_fit),   cmocka_unit_test(undecodable_weights),
    };
    return cmocka_run_group_tests(tests, make_gguf_file, remove_gguf_file);
}
