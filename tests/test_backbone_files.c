// LINK: model
// What backbones may look like: configurations and tensors that do not fit are named, dtypes, NaN,
// vocabularies, rotary scaling and positions of other grids, the last two against transformers; damaged files
// end in an error.
#include "base/memory.h"
#include "base/random.h"
#include "model/checkpoint.h"
#include "model/positions.h"
#include "model/rope_scaling.h"
#include "ops/cpu/cpu.h"
#include "support/backbone_case.h"
#include "support/folders.h"
#include "support/reference.h"
#include "support/weights_case.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *folder;
static const char *const reference_path =
    "tests/golden/adapted/reference.safetensors"; // make.py is beside it
static Backend *be;

// ---- a Llama of our own: width 16, 2 heads over 1, 1 block, 20 tokens ----

enum { EMBED, NORM, FIRST_IN_BLOCK, N_LLAMA = FIRST_IN_BLOCK + 9 };
static const TensorCase llama[N_LLAMA + 1] = {
    {"model.embed_tokens.weight", 2, {20, 16}},
    {"model.norm.weight", 1, {16}},
    {"model.layers.0.self_attn.q_proj.weight", 2, {16, 16}},
    {"model.layers.0.self_attn.k_proj.weight", 2, {8, 16}},
    {"model.layers.0.self_attn.v_proj.weight", 2, {8, 16}},
    {"model.layers.0.self_attn.o_proj.weight", 2, {16, 16}},
    {"model.layers.0.mlp.gate_proj.weight", 2, {12, 16}},
    {"model.layers.0.mlp.up_proj.weight", 2, {12, 16}},
    {"model.layers.0.mlp.down_proj.weight", 2, {16, 12}},
    {"model.layers.0.input_layernorm.weight", 1, {16}},
    {"model.layers.0.post_attention_layernorm.weight", 1, {16}},
    {NULL, 0, {0}},
};
#define LLAMA_CONFIG                                                                                         \
    "{\"model_type\": \"llama\", \"hidden_size\": 16, \"intermediate_size\": 12, \"num_attention_heads\": "  \
    "2, "                                                                                                    \
    "\"num_key_value_heads\": 1, \"num_hidden_layers\": 1, \"vocab_size\": 20, \"rms_norm_eps\": 1e-05, "    \
    "\"max_position_embeddings\": 64"

static char *llama_path(void) { // caller frees
    return path_join(folder, "llama");
}

// Writes the folder; more: fields after those above, e.g. ", \"hidden_act\": \"gelu\"".
static void write_llama(const TensorCase *tensors, Dtype dtype, const char *more) {
    char *path = llama_path(), *file = path_join(path, "model.safetensors"),
         *config = mem_printf("%s%s}", LLAMA_CONFIG, more);
    write_text(path, "config.json", config);
    write_tensors(file, tensors, dtype);
    free(config);
    free(file);
    free(path);
}

static bool open_llama(BackboneCase *c, size_t vocab_size, bool tied, Error *err) {
    static char path[128];
    snprintf(path, sizeof path, "%s/llama", folder);
    case_prepare(c, be, BACKBONE_LANGUAGE, path, vocab_size, tied);
    return case_open(c, NULL, err);
}

static void expect_llama_refused(const char *message) {
    BackboneCase c;
    Error err = {""};
    if (open_llama(&c, 24, true, &err)) fail_msg("accepted, expected: %s", message);
    if (!strstr(err.text, message) || !strstr(err.text, "--lm_model_type"))
        fail_msg("message is: %s", err.text);
    assert_false(c.model.be); // nothing was allocated
    case_close(&c);
}

// ---- configurations ----

// more: fields behind those of a sound config.json; a later one of the same name counts.
static void expect_refused_with(const char *more, const char *message) {
    char *fields = mem_printf(", %s", more);
    write_llama(llama, DTYPE_F32, fields);
    expect_llama_refused(message);
    free(fields);
}

static void test_what_cannot_be_expressed(void **state) {
    (void)state;
    static const struct {
        const char *more, *message;
    } cases[] = {
        {"\"model_type\": \"mistral\"", "model_type is \"mistral\", expected \"llama\""},
        {"\"hidden_act\": \"gelu\"", "hidden_act is \"gelu\", expected \"silu\""},
        {"\"attention_bias\": true", "attention_bias is true, expected false"},
        {"\"mlp_bias\": true", "mlp_bias is true"},
        {"\"sliding_window\": 4096", "sliding_window is 4096, expected null"},
        {"\"quantization_config\": {\"bits\": 4}", "quantization_config is {\"bits\":4}"},
        {"\"partial_rotary_factor\": 0.5", "partial_rotary_factor is 0.5"},
        {"\"head_dim\": 16", "head_dim is 16, expected hidden_size / num_attention_heads = 8"},
        {"\"num_attention_heads\": 3", "hidden_size 16 is no multiple of num_attention_heads 3"},
        {"\"num_key_value_heads\": 3", "num_attention_heads 2 is no multiple of num_key_value_heads 3"},
        {"\"vocab_size\": 25", "vocab_size 25 is larger than lm_vocab_size 24"},
        {"\"vocab_size\": 25.5", "vocab_size is not a whole number"},
        {"\"hidden_size\": \"16\"", "hidden_size: lm_hidden_dim"},
        {"\"hidden_size\": 0", "hidden_size: lm_hidden_dim"},
        {"\"num_hidden_layers\": 1e9", "num_hidden_layers: lm_n_blocks"},
        {"\"rope_theta\": \"x\"", "rope_theta: lm_re_base"},
        // all at once
        {"\"hidden_act\": \"relu\", \"attention_bias\": true, \"vocab_size\": 1000",
         "hidden_act is \"relu\", expected \"silu\"; attention_bias is true, expected false; vocab_size "
         "1000"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        expect_refused_with(cases[i].more, cases[i].message);
}

static void test_positions_that_cannot_be_expressed(void **state) {
    (void)state;
    static const struct {
        const char *more, *message;
    } cases[] = {
        {"\"rope_scaling\": {\"rope_type\": \"yarn\", \"factor\": 2}", "rope_type is \"yarn\""},
        {"\"rope_scaling\": {\"type\": \"dynamic\"}", "rope_type is \"dynamic\""},
        {"\"rope_scaling\": {\"type\": 7}", "rope_type is \"no text\""},
        {"\"rope_scaling\": {\"type\": \"linear\"}", "rope_scaling.factor is missing"},
        {"\"rope_scaling\": {\"type\": \"linear\", \"factor\": 0}",
         "rope_scaling.factor is missing or no number"},
        {"\"rope_parameters\": {\"rope_type\": \"llama3\", \"factor\": 8, \"low_freq_factor\": 4, "
         "\"high_freq_factor\": 4, \"original_max_position_embeddings\": 64}",
         "high_freq_factor 4 is not above low_freq_factor 4"},
        {"\"rope_parameters\": {\"partial_rotary_factor\": 0.25}", "partial_rotary_factor is not 1"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        expect_refused_with(cases[i].more, cases[i].message);
}

static void test_vision_that_cannot_be_expressed(void **state) {
    (void)state;
    static const struct {
        const char *config, *message;
    } cases[] = {
        {"{\"model_type\": \"siglip2\", \"vision_config\": {}}",
         "model_type is \"siglip2\", expected \"siglip\""},
        {"{\"model_type\": \"siglip2_vision_model\"}", "expected \"siglip_vision_model\""},
        {"{\"model_type\": \"siglip\", \"vision_config\": 5}", "vision_config is not an object"},
        {"{\"hidden_act\": \"quick_gelu\"}", "hidden_act is \"quick_gelu\", expected \"gelu_pytorch_tanh\""},
        {"{\"num_channels\": 1}", "num_channels is 1, expected 3"},
        {"{\"vision_config\": {\"num_channels\": 4}}", "num_channels is 4, expected 3"},
        {"{}", "tensor vision_model.embeddings.position_embedding.weight is missing"}, // SiglipVisionConfig's
                                                                                       // defaults
    };
    char *path = path_join(folder, "vision"), *file = path_join(path, "model.safetensors");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        BackboneCase c;
        Error err = {""};
        static const TensorCase one[] = {{"vision_model.post_layernorm.weight", 1, {8}}, {NULL, 0, {0}}};
        write_text(path, "config.json", cases[i].config);
        write_tensors(file, one, DTYPE_F32);
        case_prepare(&c, be, BACKBONE_VISION, path, 24, true);
        c.config.mp_pixel_shuffle_factor = 1; // 14 patches a side do not divide by 4
        if (case_open(&c, NULL, &err)) fail_msg("accepted: %s", cases[i].config);
        if (!strstr(err.text, cases[i].message)) fail_msg("%s: %s", cases[i].config, err.text);
        case_close(&c);
    }
    free(file);
    free(path);
}

// ---- tensors ----

static void expect_with_change(size_t which, TensorCase change, const char *message) {
    TensorCase changed[N_LLAMA + 2] = {{NULL, 0, {0}}};
    memcpy(changed, llama, sizeof llama);
    changed[which] = change; // N_LLAMA: one more
    if (!change.name) memmove(&changed[which], &changed[which + 1], (N_LLAMA - which) * sizeof *changed);
    write_llama(changed, DTYPE_F32, "");
    if (message) {
        expect_llama_refused(message);
        return;
    }
    BackboneCase c;
    Error err;
    if (!open_llama(&c, 24, true, &err)) fail_msg("%s", err.text);
    case_close(&c);
}

static void test_tensors_that_do_not_fit(void **state) {
    (void)state;
    const TensorCase left_out = {NULL, 0, {0}};
    expect_with_change(3, left_out, "tensor model.layers.0.self_attn.k_proj.weight is missing");
    expect_with_change(EMBED, left_out, "tensor model.embed_tokens.weight is missing");
    expect_with_change(
        6, (TensorCase){"model.layers.0.mlp.gate_proj.weight", 2, {16, 12}},
        "tensor model.layers.0.mlp.gate_proj.weight has shape [16, 12], the configuration expects "
        "[12, 16]");
    expect_with_change(NORM, (TensorCase){"model.norm.weight", 2, {16, 1}},
                       "model.norm.weight has shape [16, 1]");
    expect_with_change(EMBED, (TensorCase){"model.embed_tokens.weight", 2, {25, 16}}, "has shape [25, 16]");
    expect_with_change(6, (TensorCase){"model.layers.0.mlp.gate_proj.weight", 2, {10, 16}},
                       "has shape [10, 16]");
    expect_with_change(N_LLAMA, (TensorCase){"model.layers.1.mlp.up_proj.weight", 2, {12, 16}},
                       "tensor model.layers.1.mlp.up_proj.weight has no place in this model");
    expect_with_change(N_LLAMA, (TensorCase){"model.layers.0.self_attn.q_proj.bias", 1, {16}},
                       "has no place");
    // what is passed over or read besides
    expect_with_change(N_LLAMA, (TensorCase){"model.layers.0.self_attn.rotary_emb.inv_freq", 1, {4}}, NULL);
    expect_with_change(N_LLAMA, (TensorCase){"lm_head.weight", 2, {20, 16}}, NULL);
    expect_with_change(N_LLAMA, (TensorCase){"rope_freqs.weight", 1, {4}}, NULL);
    expect_with_change(N_LLAMA, llama[N_LLAMA], NULL); // nothing changed
}

static void test_many_misfits_in_one_line(void **state) {
    (void)state;
    write_llama(llama + N_LLAMA, DTYPE_F32, ", \"num_hidden_layers\": 3"); // no tensor at all
    expect_llama_refused("is missing; tensor model.layers.0.");
    expect_llama_refused("is missing; and ");
    expect_llama_refused(" more");
}

static void expect_one(const BackboneCase *c, const Param *p, size_t at, float expected) {
    float *values = tensor_values(c->be, p->w);
    assert_true(values[at] == expected);
    free(values);
}

// F16, BF16 and F64 hold these values exactly; names may lack "model.".
static void test_dtypes_and_names(void **state) {
    (void)state;
    static const Dtype dtypes[] = {DTYPE_F32, DTYPE_BF16, DTYPE_F16, DTYPE_F64};
    for (int i = 0; i < 8; i++) {
        TensorCase tensors[N_LLAMA + 1];
        memcpy(tensors, llama, sizeof llama);
        for (size_t t = 0; i % 2 && t < N_LLAMA; t++) tensors[t].name += strlen("model.");
        write_llama(tensors, dtypes[i / 2], "");
        BackboneCase c;
        Error err;
        if (!open_llama(&c, 24, true, &err)) fail_msg("%s", err.text);
        expect_one(&c, c.model.params.decoder.embedding, 37, case_value(EMBED, 37));
        expect_one(&c, c.model.params.decoder.blocks[0].down, 191, case_value(8, 191));
        case_close(&c);
    }
    write_llama(llama, DTYPE_I16, "");
    BackboneCase c;
    Error err;
    assert_false(open_llama(&c, 24, true, &err));
    assert_non_null(strstr(err.text, "dtype I16, expected F32"));
    case_close(&c);
}

// More values than are converted at a time: all of them arrive where they belong, and the next tensor's too.
static void test_large_tensors(void **state) {
    (void)state;
    enum { ROWS = 300000, WIDTH = 16 };
    TensorCase tensors[N_LLAMA + 1];
    memcpy(tensors, llama, sizeof llama);
    tensors[EMBED].shape[0] = ROWS;
    write_llama(tensors, DTYPE_BF16, ", \"vocab_size\": 300000");
    BackboneCase c;
    Error err;
    if (!open_llama(&c, ROWS, true, &err)) fail_msg("%s", err.text);
    float *values = tensor_values(be, c.model.params.decoder.embedding->w);
    for (size_t i = 0; i < (size_t)ROWS * WIDTH; i++) assert_true(values[i] == case_value(EMBED, i));
    free(values);
    expect_one(&c, c.model.params.decoder.norm, 15, case_value(NORM, 15));
    expect_one(&c, c.model.params.decoder.blocks[0].q, 255, case_value(2, 255));
    case_close(&c);
}

static void test_not_finite(void **state) {
    (void)state;
    static const uint32_t bad[] = {0x7fc00000, 0x7f800000, 0xff800000, 0xffffffff};
    for (size_t i = 0; i < 4; i++) {
        write_llama(llama, DTYPE_F32, "");
        char *path = llama_path(), *file = path_join(path, "model.safetensors"), *bytes;
        size_t size;
        Error err;
        assert_true(file_read(&bytes, &size, file, &err));
        memcpy(bytes + size - 4, &bad[i], 4); // the last tensor by name is model.norm.weight
        memcpy(bytes + size - 3 * 4, &bad[i], 4);
        assert_true(file_write_text(file, bytes, size, &err));
        BackboneCase c;
        assert_false(open_llama(&c, 24, true, &err));
        if (!strstr(err.text, "tensor model.norm.weight: 2 of 16 values are NaN or infinite (1 tensors"))
            fail_msg("%s", err.text);
        case_close(&c);
        free(bytes);
        free(file);
        free(path);
    }
}

// ---- vocabulary ----

static void test_new_rows(void **state) {
    (void)state;
    float *rows[3];
    write_llama(llama, DTYPE_F32, "");
    for (uint64_t i = 0; i < 3; i++) { // seeds 0, 0, 1
        BackboneCase c;
        Error err;
        const SourceRules rules = {true, "none", i / 2};
        char *path = llama_path();
        case_prepare(&c, be, BACKBONE_LANGUAGE, path, 24, true);
        if (!case_open(&c, &rules, &err)) fail_msg("%s", err.text);
        rows[i] = tensor_values(be, c.model.params.decoder.embedding->w);
        case_close(&c);
        free(path);
    }
    assert_memory_equal(rows[0], rows[1], 24 * 16 * sizeof(float));
    assert_memory_equal(rows[0], rows[2], 20 * 16 * sizeof(float));
    assert_memory_not_equal(rows[0] + 20 * 16, rows[2] + 20 * 16, 4 * 16 * sizeof(float));
    for (int i = 0; i < 3; i++) free(rows[i]);
}

// ---- against transformers ----

static void test_positions(void **state) {
    (void)state;
    static const size_t from[] = {3, 8}, to[] = {1, 2, 5, 8, 13};
    Safetensors *st;
    Error err;
    if (!safetensors_open(&st, reference_path, &err)) fail_msg("%s", err.text);
    for (size_t i = 0; i < 2; i++)
        for (size_t k = 0; k < 10; k++) {
            char name[32], table[8];
            const size_t side = to[k / 2];
            snprintf(table, sizeof table, "%zu", from[i]);
            snprintf(name, sizeof name, "%zu.%zu.%s", from[i], side, k % 2 ? "bilinear" : "bicubic");
            float *in = reference_f32(st, table), *expected = reference_f32(st, name),
                  *out = mem_alloc(side * side * 5 * sizeof *out);
            positions_interpolate(out, side, in, from[i], 5, k % 2 == 0);
            expect_within("positions, relative", relative_l2(out, expected, side * side * 5), 1e-6, "%s",
                          name);
            free(in);
            free(out);
            free(expected);
        }
    assert_int_equal(positions_side(16), 4);
    assert_int_equal(positions_side(15), 0);
    safetensors_close(st);
}

static void expect_frequencies(const Safetensors *st, const char *name, const char *config, size_t head_dim) {
    const TensorCase small[] = {
        {"embed_tokens.weight", 2, {3, 2 * head_dim}},
        {"norm.weight", 1, {2 * head_dim}},
        {"layers.0.self_attn.q_proj.weight", 2, {2 * head_dim, 2 * head_dim}},
        {"layers.0.self_attn.k_proj.weight", 2, {2 * head_dim, 2 * head_dim}},
        {"layers.0.self_attn.v_proj.weight", 2, {2 * head_dim, 2 * head_dim}},
        {"layers.0.self_attn.o_proj.weight", 2, {2 * head_dim, 2 * head_dim}},
        {"layers.0.mlp.gate_proj.weight", 2, {1, 2 * head_dim}},
        {"layers.0.mlp.up_proj.weight", 2, {1, 2 * head_dim}},
        {"layers.0.mlp.down_proj.weight", 2, {2 * head_dim, 1}},
        {"layers.0.input_layernorm.weight", 1, {2 * head_dim}},
        {"layers.0.post_attention_layernorm.weight", 1, {2 * head_dim}},
        {NULL, 0, {0}},
    };
    char more[600];
    snprintf(
        more, sizeof more,
        ", \"hidden_size\": %zu, \"intermediate_size\": 1, \"num_key_value_heads\": 2, \"vocab_size\": 3, "
        "\"max_position_embeddings\": 131072, %s",
        2 * head_dim, config);
    write_llama(small, DTYPE_F32, more);
    BackboneCase c;
    Error err;
    if (!open_llama(&c, 24, true, &err)) fail_msg("%s", err.text);
    float *expected = reference_f32(st, name),
          *values = tensor_values(be, c.model.params.decoder.inv_freq->w);
    assert_int_equal(tensor_count(c.model.params.decoder.inv_freq->w), head_dim / 2);
    expect_within("inv_freq, relative", relative_l2(values, expected, head_dim / 2), 1e-6, "%s", name);
    for (size_t i = 0; i < head_dim / 2; i++) // the small ones too
        assert_true(fabs(values[i] / expected[i] - 1) < 2e-6);
    free(expected);
    free(values);
    case_close(&c);
}

static void test_rope_scaling(void **state) {
    (void)state;
    Safetensors *st;
    Error err;
    if (!safetensors_open(&st, reference_path, &err)) fail_msg("%s", err.text);
#define LLAMA3                                                                                               \
    "\"low_freq_factor\": 1.0, \"high_freq_factor\": 4.0, \"original_max_position_embeddings\": 8192"
    expect_frequencies(
        st, "inv_freq.llama_3_2",
        "\"rope_theta\": 500000.0, \"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 32.0, " LLAMA3
        "}",
        64);
    expect_frequencies(
        st, "inv_freq.llama_3_1", // as transformers 5 writes it
        "\"rope_parameters\": {\"rope_type\": \"llama3\", \"rope_theta\": 500000.0, \"factor\": 8.0, " LLAMA3
        "}",
        128);
    expect_frequencies(st, "inv_freq.linear", "\"rope_scaling\": {\"type\": \"linear\", \"factor\": 4.0}",
                       64);
    expect_frequencies(st, "inv_freq.default", "\"rope_theta\": 100000, \"rope_scaling\": null", 64);
    safetensors_close(st);
}

static void test_rope_factors_of_the_file(void **state) {
    (void)state;
    TensorCase with[N_LLAMA + 2] = {{NULL, 0, {0}}};
    float *plain = NULL;
    for (int i = 0; i < 2; i++) {
        memcpy(with, llama, sizeof llama);
        if (i) with[N_LLAMA] = (TensorCase){"rope_freqs.weight", 1, {4}};
        write_llama(with, DTYPE_F32, "");
        BackboneCase c;
        Error err;
        if (!open_llama(&c, 24, true, &err)) fail_msg("%s", err.text);
        float *x = tensor_values(be, c.model.params.decoder.inv_freq->w);
        for (size_t k = 0; i && k < 4; k++) assert_true(x[k] == plain[k] / case_value(N_LLAMA, k));
        free(plain);
        plain = x;
        case_close(&c);
    }
    free(plain);
    with[N_LLAMA].shape[0] = 3;
    write_llama(with, DTYPE_F32, "");
    BackboneCase c;
    Error err;
    assert_false(open_llama(&c, 24, true, &err));
    assert_non_null(strstr(err.text, "rope_freqs.weight has 3 values, expected 4"));
    case_close(&c);
}

// ---- another grid, another vocabulary ----

static void test_vision_of_another_size(void **state) {
    (void)state;
    char *path = golden_path("backbones/siglip_vision");
    for (int i = 0; i < 3; i++) {
        static const char *const modes[] = {"none", "bicubic", "bilinear"};
        BackboneCase c;
        Error err = {""};
        case_prepare(&c, be, BACKBONE_VISION, path, 24, true);
        c.config.vit_img_size = 32; // 8 x 8 patches; the file has 4 x 4
        c.config.mp_image_token_length = i ? 4 : 1;
        const SourceRules rules = {true, modes[i], 0};
        if (!case_open(&c, &rules, &err)) fail_msg("%s", err.text);
        if (i) {
            float *in = mem_alloc(16 * 24 * sizeof *in), *expected = mem_alloc(64 * 24 * sizeof *expected);
            const WeightsEntry *e =
                weights_find(c.backbone.weights, "vision_model.embeddings.position_embedding.weight");
            assert_true(weights_read_f32(in, e, 0, e->count, &err));
            positions_interpolate(expected, 8, in, 4, 24, i == 1);
            float *x = tensor_values(be, c.model.params.vision.position->w);
            assert_int_equal(tensor_count(c.model.params.vision.position->w), 64 * 24);
            assert_memory_equal(x, expected, 64 * 24 * sizeof *x);
            free(x);
            free(in);
            free(expected);
        }
        case_close(&c);
    }
    free(path);
}

typedef struct Checkpoint {
    VLMConfig config;
    Vlm model;
} Checkpoint;

// a_base with other sizes; 0 keeps one.
static bool open_checkpoint(Checkpoint *c, size_t vocab_size, size_t img_size, const char *interpolate,
                            Error *err) {
    char *path = golden_path("model/a_base");
    const VlmPlan plan = {.max_batch = 1, .max_positions = 8, .max_tiles = 1};
    *c = (Checkpoint){0};
    fields_set_defaults((FieldSet){&vlm_config_table, &c->config});
    if (!checkpoint_load_config(&c->config, path, err)) fail_msg("%s", err->text);
    if (vocab_size) c->config.lm_vocab_size = vocab_size;
    if (vocab_size && vocab_size < 290) c->config.lm_base_vocab_size = vocab_size - 6;
    if (img_size) c->config.vit_img_size = img_size;
    const size_t side = c->config.vit_img_size / c->config.vit_patch_size / c->config.mp_pixel_shuffle_factor;
    c->config.mp_image_token_length = side * side;
    if (!vlm_create(&c->model, be, &c->config, &plan, err)) fail_msg("%s", err->text);
    const bool ok = interpolate ? checkpoint_load_changed(&c->model, path, interpolate, 3, err)
                                : checkpoint_load_weights(&c->model, path, err);
    free(path);
    return ok;
}

static void close_checkpoint(Checkpoint *c) {
    vlm_free(&c->model);
    fields_free((FieldSet){&vlm_config_table, &c->config});
}

static void test_changed_checkpoints(void **state) {
    (void)state;
    static const struct {
        size_t vocab_size, img_size;
        const char *interpolate, *message; // interpolate NULL: the strict way; message NULL: loads
    } cases[] = {
        {0, 0, "none", NULL},
        {300, 0, "none", NULL},
        {300, 0, NULL, "decoder.head.weight has shape [290, 48], the configuration expects [300, 48]"},
        {280, 0, "none", "decoder.head.weight has shape [290, 48]"},
        {0, 32, "none", "--interpolate_positions bicubic"},
        {0, 32, NULL, "--interpolate_positions bicubic"},
        {0, 32, "bicubic", NULL},
        {0, 8, "bilinear", NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Checkpoint same, c;
        Error err = {""};
        assert_true(open_checkpoint(&same, 0, 0, NULL, &err));
        const bool ok =
            open_checkpoint(&c, cases[i].vocab_size, cases[i].img_size, cases[i].interpolate, &err);
        if (ok != !cases[i].message || (!ok && !strstr(err.text, cases[i].message)))
            fail_msg("case %zu: %s", i, err.text);
        float *x = tensor_values(be, c.model.params.decoder.embedding->w),
              *y = tensor_values(be, same.model.params.decoder.embedding->w);
        if (ok) assert_memory_equal(x, y, 290 * 48 * sizeof *x);
        for (size_t k = 290 * 48; ok && k < cases[i].vocab_size * 48; k++)
            assert_true(x[k] != 0 && fabsf(x[k]) < 0.2f);
        if (!ok) assert_true(x[0] == 0); // refused before the first value
        free(x);
        free(y);
        close_checkpoint(&same);
        close_checkpoint(&c);
    }
}

// ---- damage ----

static void test_damaged_configurations(void **state) {
    (void)state;
    const char *more = ", \"rope_scaling\": {\"rope_type\": \"linear\", \"factor\": 4.0}, \"head_dim\": 8";
    char *text = mem_printf("%s%s}", LLAMA_CONFIG, more), *path = llama_path();
    const size_t n = strlen(text);
    Random r = random_stream(6, RANDOM_TEST, 0);
    size_t accepted = 0;
    write_llama(llama, DTYPE_F32, more);
    for (int round = 0; round < 1500; round++) {
        char *mutant = mem_strdup(text);
        for (uint64_t k = 1 + random_below(&r, 3); k > 0; k--) {
            const size_t at = random_below(&r, n);
            mutant[at] = random_below(&r, 2) ? "0123456789.-eE{}[],:\"nlt"[random_below(&r, 24)]
                                             : (char)(1 + random_below(&r, 255));
        }
        if (random_below(&r, 10) == 0) mutant[random_below(&r, n)] = '\0';
        write_text(path, "config.json", mutant);
        Backbone b;
        VLMConfig config;
        const FieldSet set = {&vlm_config_table, &config};
        const SourceRules rules = {true, "none", 0};
        Error err = {""};
        fields_set_defaults(set);
        const bool ok = backbone_open(&b, BACKBONE_LANGUAGE, path, &err) &&
                        backbone_configure(&b, &config, &err) && vlm_config_check(&config, &err) &&
                        backbone_check(&b, be, &config, &rules, &err);
        accepted += ok;
        assert_true(ok || err.text[0]);
        backbone_close(&b);
        fields_free(set);
        free(mutant);
    }
    printf("1500 damaged configurations: %zu accepted (a letter of a name, a digit of eps)\n", accepted);
    assert_true(accepted > 0 && accepted < 1000);
    free(text);
    free(path);
}

static void test_truncated_weights(void **state) {
    (void)state;
    write_llama(llama, DTYPE_F32, "");
    char *path = llama_path(), *file = path_join(path, "model.safetensors"), *bytes;
    size_t size;
    Error err;
    assert_true(file_read(&bytes, &size, file, &err));
    for (size_t k = 0; k < 100; k++) {
        assert_true(file_write_text(file, bytes, size * k / 100, &err));
        Backbone b;
        assert_false(backbone_open(&b, BACKBONE_LANGUAGE, path, &err));
        assert_non_null(strstr(err.text, "--lm_model_type: "));
        assert_non_null(strstr(err.text, "model.safetensors"));
    }
    free(bytes);
    free(file);
    free(path);
}

static int open_all(void **state) {
    (void)state;
    Error err;
    folder = make_folder();
    return backend_cpu_create(&be, 1, &err) ? 0 : -1;
}

static int close_all(void **state) {
    (void)state;
    backend_destroy(be);
    remove_folder(folder);
    print_worst_shares();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_cannot_be_expressed),
        cmocka_unit_test(test_positions_that_cannot_be_expressed),
        cmocka_unit_test(test_vision_that_cannot_be_expressed),
        cmocka_unit_test(test_tensors_that_do_not_fit),
        cmocka_unit_test(test_many_misfits_in_one_line),
        cmocka_unit_test(test_dtypes_and_names),
        cmocka_unit_test(test_large_tensors),
        cmocka_unit_test(test_not_finite),
        cmocka_unit_test(test_new_rows),
        cmocka_unit_test(test_positions),
        cmocka_unit_test(test_rope_scaling),
        cmocka_unit_test(test_rope_factors_of_the_file),
        cmocka_unit_test(test_vision_of_another_size),
        cmocka_unit_test(test_changed_checkpoints),
        cmocka_unit_test(test_damaged_configurations),
        cmocka_unit_test(test_truncated_weights),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
