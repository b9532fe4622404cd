// LINK: export
// LABELS: parity
// Exported folders and files: names, values to the bit, what is refused; imported again, the bits of before.
// tests/interop holds them against transformers and llama.cpp.
#include "base/memory.h"
#include "base/random.h"
#include "export/export.h"
#include "export/folder.h"
#include "export/import.h"
#include "format/safetensors.h"
#include "model/backbone.h"
#include "model/checkpoint.h"
#include "ops/cpu/cpu.h"
#include "support/data_case.h"
#include "text/tokenizer_gguf_write.h"

#include <ctype.h>

static const char *const cases[] = {"a_base", "b_untied", "f_text_only", "g_packed"};
enum { N_CASES = sizeof cases / sizeof *cases };

typedef struct Model {
    Backend *be;
    VLMConfig config;
    Params params;
    Tokenizer *tokenizer;
    ChatTemplate chat;
    char *tokenizer_path;
} Model;

static void plan(Model *m) {
    Error err;
    params_plan(&m->params, m->be, &m->config, (const bool[GROUP_TRAINED]){false});
    expect(params_allocate(&m->params, &err), &err);
}

static void open_model(Model *m, const char *name) {
    Error err;
    char *folder = golden_path("model/%s", name), *weights = path_join(folder, "model.safetensors");
    *m = (Model){.tokenizer_path = golden_path("model/tokenizer")};
    fields_set_defaults((FieldSet){&vlm_config_table, &m->config});
    expect(backend_cpu_create(&m->be, 1, &err) && checkpoint_load_config(&m->config, folder, &err), &err);
    plan(m);
    expect(params_load(&m->params, m->be, weights, &err), &err);
    expect(tokenizer_load(&m->tokenizer, m->tokenizer_path, &m->config.vlm_extra_tokens, &err) &&
               chat_template_init(&m->chat, m->tokenizer, m->config.lm_chat_template, &err),
           &err);
    free(weights);
    free(folder);
}

static void close_model(Model *m) {
    params_free(&m->params);
    backend_destroy(m->be);
    tokenizer_free(m->tokenizer);
    fields_free((FieldSet){&vlm_config_table, &m->config});
    free(m->tokenizer_path);
}

static ExportSource source_of(const Model *m, ExportPart part, GgufType type) {
    return (ExportSource){&m->config,        &m->params, m->be, m->tokenizer,
                          m->tokenizer_path, &m->chat,   part,  type};
}

static float *values_of(const Model *m, const char *name) {
    const Param *p = params_find((Params *)&m->params, name);
    assert_non_null(p);
    float *x = mem_alloc(tensor_bytes(p->w));
    tensor_download(m->be, STREAM_COMPUTE, x, p->w);
    backend_sync(m->be);
    return x;
}

static bool import_folder(Model *m, const char *path, Error *err) {
    ImportSource s = {0};
    *m = (Model){0};
    fields_set_defaults((FieldSet){&vlm_config_table, &m->config});
    bool ok = import_open(&s, path, err) && tokenizer_load(&m->tokenizer, path, NULL, err) &&
              import_configure(&s, &m->config, m->tokenizer, err) && backend_cpu_create(&m->be, 1, err) &&
              import_check(&s, m->be, &m->config, err);
    if (ok) plan(m);
    ok = ok && import_load(&s, &m->params, m->be, &m->config, err);
    import_close(&s);
    return ok;
}

static void expect_refusal(bool ok, const Error *err, const char *words) {
    assert_false(ok);
    if (!strstr(err->text, words)) fail_msg("\"%s\" does not say %s", err->text, words);
}

// ---- whole folders ----

static void assert_same_params(const Model *a, const Model *b) {
    assert_int_equal(a->params.count, b->params.count);
    for (size_t i = 0; i < a->params.count; i++) {
        const Param *p = &a->params.items[i];
        float *x = values_of(a, p->name), *y = values_of(b, p->name);
        assert_string_equal(p->name, b->params.items[i].name);
        if (memcmp(x, y, tensor_bytes(p->w))) fail_msg("%s is not the same", p->name);
        free(x);
        free(y);
    }
}

static void assert_same_config(const VLMConfig *a, const VLMConfig *b) {
    static const char *const other[] = {"vit_model_type", "lm_model_type", "lm_tokenizer", "lm_max_length",
                                        "max_img_size",   "hf_repo_name",  "lm_re_base"};
    json_t *x = fields_to_json((FieldSet){&vlm_config_table, (VLMConfig *)a}),
           *y = fields_to_json((FieldSet){&vlm_config_table, (VLMConfig *)b});
    for (size_t i = 0; i < sizeof other / sizeof *other; i++) {
        json_object_del(x, other[i]);
        json_object_del(y, other[i]);
    }
    assert_true(json_equal(x, y));
    assert_true(a->lm_re_base.value == b->lm_re_base.value);
    json_decref(x);
    json_decref(y);
}

static void test_round_trip(void **state) {
    (void)state;
    for (size_t i = 0; i < N_CASES; i++) {
        Error err;
        Model m, back;
        char *folder = make_folder();
        open_model(&m, cases[i]);
        const ExportSource s = source_of(&m, EXPORT_ALL, GGUF_TYPE_F32);
        expect(export_hf(&s, folder, &err), &err);
        expect(import_folder(&back, folder, &err), &err);
        assert_same_params(&m, &back);
        assert_same_config(&m.config, &back.config);
        close_model(&back);
        close_model(&m);
        remove_folder(folder);
    }
}

// In a grid with one row and one column more; what is behind is 0.
static void test_grid(void **state) {
    (void)state;
    Error err;
    Model m;
    Safetensors *st;
    open_model(&m, "a_base");
    char *folder = make_folder(), *path = path_join(folder, "model.safetensors");
    const ExportSource s = source_of(&m, EXPORT_ALL, GGUF_TYPE_F32);
    expect(export_hf(&s, folder, &err) && safetensors_open(&st, path, &err), &err);
    const SafetensorsEntry *e =
        safetensors_find(st, "model.vision_model.embeddings.position_embedding.weight");
    const size_t n = m.config.vit_img_size / m.config.vit_patch_size, C = m.config.vit_hidden_dim;
    float *ours = values_of(&m, "vision_encoder.patch_embedding.position_embedding"), theirs;
    assert_non_null(e);
    assert_int_equal(e->shape[0], (n + 1) * (n + 1));
    for (size_t y = 0; y <= n; y++)
        for (size_t x = 0; x <= n; x++)
            for (size_t c = 0; c < C; c++) {
                expect(safetensors_read_f32(&theirs, e, (y * (n + 1) + x) * C + c, 1, &err), &err);
                const float want = y < n && x < n ? ours[(y * n + x) * C + c] : 0;
                assert_memory_equal(&want, &theirs, sizeof want);
            }
    assert_null(safetensors_find(st, "lm_head.weight")); // tied
    safetensors_close(st);
    free(ours);
    free(path);
    remove_folder(folder);
    close_model(&m);
}

// ---- parts, read back as backbones ----

// A model whose rows are blocks of 32, which Q8_0 needs.
static void make_model(Model *m, bool tied) {
    open_model(m, "a_base");
    params_free(&m->params);
    m->config.lm_hidden_dim = 64;
    m->config.lm_inter_dim = 96;
    m->config.lm_n_heads = 4;
    m->config.lm_n_kv_heads = 2;
    m->config.lm_tie_weights = tied;
    plan(m);
    params_initialise(&m->params, m->be, &m->config, "scaled", 3);
}

// What becomes of values in a file of this type.
static void round_to(GgufType type, float *x, size_t n) {
    char *bytes = mem_alloc(gguf_type_row_bytes(type, n));
    gguf_encode(bytes, type, x, n);
    gguf_decode(x, type, bytes, n);
    free(bytes);
}

// Every parameter of the part has the values it had, rounded to the file's type; vectors of GGUF files stay
// F32.
static void compare_part(const Model *m, const Model *back, ParamGroup group, GgufType type, bool gguf) {
    size_t compared = 0;
    for (size_t i = 0; i < m->params.count; i++) {
        const Param *p = &m->params.items[i];
        if (p->group != group) continue;
        float *x = values_of(m, p->name), *y = values_of(back, p->name);
        if (!gguf || p->ndim > 1) round_to(type, x, tensor_count(p->w));
        if (memcmp(x, y, tensor_bytes(p->w)))
            fail_msg("%s, %s is not the same", gguf_type_name(type), p->name);
        free(x);
        free(y);
        compared++;
    }
    assert_true(compared > 10);
}

static void read_back(const Model *m, const char *path, BackboneKind kind, GgufType type, bool gguf) {
    Model back = {.config = m->config};
    Backbone b;
    Error err;
    const FieldSet before = {&vlm_config_table, (VLMConfig *)&m->config},
                   after = {&vlm_config_table, &back.config};
    expect(fields_copy(after, &m->config) && backbone_open(&b, kind, path, &err) &&
               backbone_configure(&b, &back.config, &err) && backend_cpu_create(&back.be, 1, &err),
           &err);
    json_t *x = fields_to_json(before), *y = fields_to_json(after);
    const char *field;
    json_t *value;
    json_object_foreach(x, field, value) {
        const json_t *other = json_object_get(y, field);
        const bool same = json_is_number(value) ? json_number_value(value) == json_number_value(other)
                                                : json_equal(value, other);
        if (!same) fail_msg("%s: the file's is another", field);
    }
    json_decref(x);
    json_decref(y);
    plan(&back);
    expect(backbone_load(&b, &back.params, back.be, &back.config, &(SourceRules){0}, &err), &err);
    compare_part(m, &back, kind == BACKBONE_VISION ? GROUP_VISION : GROUP_LANGUAGE, type, gguf);
    backbone_close(&b);
    close_model(&back);
}

// The template beside an exported decoder is ChatML to the letter, with the same system message.
static void expect_template(const Model *m, const char *folder) {
    Error err;
    Tokenizer *t;
    ChatTemplate c;
    expect(tokenizer_load(&t, folder, NULL, &err) && chat_template_init(&c, t, NULL, &err), &err);
    assert_string_equal(c.system, m->chat.system);
    tokenizer_free(t);
}

static void check_parts(const Model *m, GgufType type) {
    Error err;
    char *decoder = make_folder(), *tower = make_folder(), *gguf = make_folder(), *file;
    char name[32];
    const ExportSource language = source_of(m, EXPORT_DECODER, type),
                       vision = source_of(m, EXPORT_VISION, type);
    if (type != GGUF_TYPE_Q8_0) {
        expect(export_hf(&language, decoder, &err) && export_hf(&vision, tower, &err), &err);
        read_back(m, decoder, BACKBONE_LANGUAGE, type, false);
        expect_template(m, decoder);
        read_back(m, tower, BACKBONE_VISION, type, false);
    }
    expect(export_gguf(&language, gguf, "m", &err), &err);
    snprintf(name, sizeof name, "m-%s.gguf", gguf_type_name(type));
    for (char *c = name; *c; c++) *c = (char)tolower((unsigned char)*c);
    file = path_join(gguf, name);
    read_back(m, file, BACKBONE_LANGUAGE, type, true);
    free(file);
    remove_folder(decoder), remove_folder(tower), remove_folder(gguf);
}

static void test_parts_read_back(void **state) {
    (void)state;
    static const GgufType kinds[] = {GGUF_TYPE_F32, GGUF_TYPE_F16, GGUF_TYPE_BF16, GGUF_TYPE_Q8_0};
    for (int tied = 0; tied < 2; tied++) {
        Model m;
        make_model(&m, tied);
        for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) check_parts(&m, kinds[i]);
        close_model(&m);
    }
}

// ---- GGUF ----

// Every value of a text model in F32, read back as transformers' tensors.
static void test_llama_values(void **state) {
    (void)state;
    for (size_t i = 0; i < N_CASES; i++) {
        Error err;
        Model m;
        Weights *w;
        open_model(&m, cases[i]);
        char *folder = make_folder(), *path = path_join(folder, "m-f32.gguf");
        const ExportSource s = source_of(&m, EXPORT_DECODER, GGUF_TYPE_F32);
        expect(export_gguf(&s, folder, "m", &err) && weights_open(&w, path, &err), &err);
        size_t compared = 0;
        for (size_t j = 0; j < m.params.count; j++) {
            const Param *p = &m.params.items[j];
            if (p->group != GROUP_LANGUAGE) continue;
            const WeightsEntry *e = weights_find(w, p->backbone_name);
            if (!e) fail_msg("%s is missing", p->backbone_name);
            assert_int_equal(e->count, tensor_count(p->w));
            float *x = values_of(&m, p->name), *y = mem_alloc(tensor_bytes(p->w));
            expect(weights_read_f32(y, e, 0, e->count, &err), &err);
            if (memcmp(x, y, tensor_bytes(p->w))) fail_msg("%s is not the same", p->backbone_name);
            free(x);
            free(y);
            compared++;
        }
        assert_int_equal(compared, weights_count(w));
        weights_close(w);
        free(path);
        remove_folder(folder);
        close_model(&m);
    }
}

static void expect_same_ids(const Tokenizer *x, const Tokenizer *y, const char *text) {
    Int32Vec a = {0}, b = {0};
    tokenizer_encode(x, text, strlen(text), &a);
    tokenizer_encode(y, text, strlen(text), &b);
    assert_int_equal(a.count, b.count);
    assert_memory_equal(a.items, b.items, a.count * sizeof *a.items);
    vec_free(&a);
    vec_free(&b);
}

// Texts cut as before, and the tokens that llama.cpp looks up are there.
static void check_tokenizer(const char *path, const Tokenizer *from) {
    static const char *const wanted[] = {"\xC4\x8A", "\xC4\x8A\xC4\x8A", "<global-img>",
                                         "<fake_token_around_image>"};
    Error err;
    Tokenizer *t;
    Gguf *g;
    expect(tokenizer_load(&t, path, NULL, &err) && gguf_open(&g, path, &err), &err);
    expect_same_ids(from, t,
                    "<|im_start|>user\n<|image|>the these 12 théâtre\n\n<row_1_col_2> x<|im_end|>\n");
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
        assert_true(tokenizer_token_id(t, wanted[i]) >= 0);
    assert_int_equal(tokenizer_token_id(t, "<global-img>"), tokenizer_extra_id(from, "global_image_token"));
    assert_int_equal(gguf_find_tensor(g, "token_embd.weight")->shape[0], tokenizer_vocab_size(t));
    gguf_close(g);
    tokenizer_free(t);
}

static void check_mmproj(const char *path, const VLMConfig *c) {
    Error err;
    Gguf *g;
    expect(gguf_open(&g, path, &err), &err);
    assert_non_null(gguf_find_tensor(g, "mm.model.fc.weight"));
    assert_int_equal(gguf_find_tensor(g, "v.blk.1.ffn_up.weight")->shape[0], c->vit_inter_dim);
    assert_int_equal(gguf_find_tensor(g, "v.position_embd.weight")->type, GGUF_TYPE_F32);
    assert_int_equal(gguf_find_tensor(g, "mm.model.fc.weight")->type, GGUF_TYPE_F16);
    gguf_close(g);
}

static void test_gguf_of_both_parts(void **state) {
    (void)state;
    Error err;
    Model m;
    open_model(&m, "a_base");
    char *folder = make_folder(), *path = path_join(folder, "m-f16.gguf"),
         *vision = path_join(folder, "mmproj-m-f16.gguf");
    const ExportSource s = source_of(&m, EXPORT_ALL, GGUF_TYPE_F16);
    expect(export_gguf(&s, folder, "m", &err), &err);
    check_tokenizer(path, m.tokenizer);
    check_mmproj(vision, &m.config);
    free(vision);
    free(path);
    remove_folder(folder);
    close_model(&m);
}

static bool fill_nothing(void *context, size_t i, void *dst) {
    (void)context;
    (void)i;
    (void)dst;
    return false;
}

// The order of the merges: a tokenizer of some hundred of them cuts English text as before.
static void test_merges(void **state) {
    (void)state;
    static const char text[] =
        "How many of the 1234 shapes are there? The largest circle is left of the triangle, "
        "and nothing else stands beneath it; answer in one word.\nYellow squares.";
    Error err;
    Tokenizer *t, *back;
    GgufMetadata m = {0};
    Int32Vec a = {0}, b = {0};
    char *folder = make_folder(), *path = path_join(folder, "t.gguf");
    expect(tokenizer_load(&t, "assets/tokenizer", NULL, &err), &err);
    gguf_put_string(&m, "general.architecture", "llama");
    expect(tokenizer_put_gguf(t, &m, tokenizer_vocab_size(t), NULL, 0, "", &err) &&
               gguf_write(path, &m, NULL, 0, fill_nothing, NULL, &err) &&
               tokenizer_load(&back, path, NULL, &err),
           &err);
    tokenizer_encode(t, text, strlen(text), &a);
    tokenizer_encode(back, text, strlen(text), &b);
    assert_true(a.count < strlen(text) * 2 / 3);
    assert_int_equal(a.count, b.count);
    assert_memory_equal(a.items, b.items, a.count * sizeof *a.items);
    vec_free(&a);
    vec_free(&b);
    gguf_metadata_free(&m);
    tokenizer_free(back);
    tokenizer_free(t);
    free(path);
    remove_folder(folder);
}

// Tensors that are missing, and a folder of another model.
static void test_misfits(void **state) {
    (void)state;
    Error err;
    Model m, back;
    char *folder = make_folder(), *path = path_join(folder, "model.safetensors");
    open_model(&m, "a_base");
    const ExportSource s = source_of(&m, EXPORT_ALL, GGUF_TYPE_F32),
                       vision = source_of(&m, EXPORT_VISION, GGUF_TYPE_F32);
    char *other = make_folder(), *part = path_join(other, "model.safetensors");
    expect(export_hf(&s, folder, &err) && export_hf(&vision, other, &err), &err);
    copy_file(path, part, SIZE_MAX);
    expect_refusal(import_folder(&back, folder, &err), &err,
                   "model.connector.modality_projection.proj.weight is missing");
    close_model(&back);
    expect_refusal(import_folder(&back, other, &err), &err, "expected \"idefics3\"");
    close_model(&back);
    free(part);
    free(path);
    remove_folder(other);
    remove_folder(folder);
    close_model(&m);
}

// A block that config.json does not speak of.
static void test_unknown_tensors(void **state) {
    (void)state;
    Error err;
    Model m, back;
    char *folder = make_folder(), *path = path_join(folder, "config.json");
    open_model(&m, "a_base");
    const ExportSource s = source_of(&m, EXPORT_ALL, GGUF_TYPE_F32);
    expect(export_hf(&s, folder, &err), &err);
    json_t *config = json_load_file(path, 0, NULL);
    json_object_set_new(json_object_get(config, "text_config"), "num_hidden_layers", json_integer(1));
    assert_int_equal(json_dump_file(config, path, 0), 0);
    json_decref(config);
    expect_refusal(import_folder(&back, folder, &err), &err,
                   "model.text_model.layers.1.input_layernorm.weight has no place in this model");
    close_model(&back);
    free(path);
    remove_folder(folder);
    close_model(&m);
}

// A checkpoint cast to 16 bits, whose frequencies were cast with it, is exported with those of lm_re_base.
static void test_cast_frequencies(void **state) {
    (void)state;
    Error err;
    for (int half = 0; half < 2; half++) {
        Model m, back;
        char *folder = make_folder();
        open_model(&m, "a_base");
        const Param *p = m.params.decoder.inv_freq;
        float *exact = values_of(&m, p->name), *cast = values_of(&m, p->name);
        round_to(half ? GGUF_TYPE_F16 : GGUF_TYPE_BF16, cast, tensor_count(p->w));
        assert_memory_not_equal(exact, cast, tensor_bytes(p->w));
        tensor_upload(m.be, STREAM_COMPUTE, p->w, cast);
        backend_sync(m.be);
        const ExportSource s = source_of(&m, EXPORT_ALL, GGUF_TYPE_F32);
        expect(export_hf(&s, folder, &err) && import_folder(&back, folder, &err), &err);
        float *found = values_of(&back, p->name);
        assert_memory_equal(found, exact, tensor_bytes(p->w));
        free(found), free(exact), free(cast);
        close_model(&back);
        close_model(&m);
        remove_folder(folder);
    }
}

// ---- what is refused ----

static void test_refusals(void **state) {
    (void)state;
    Error err;
    Model m;
    char *folder = make_folder();
    open_model(&m, "d_scaling_odd");
    ExportSource s = source_of(&m, EXPORT_ALL, GGUF_TYPE_F32);
    expect_refusal(export_hf(&s, folder, &err), &err, "lm_attn_scaling is 1.3");
    expect_refusal(export_gguf(&s, folder, "m", &err), &err, "lm_attn_scaling is 1.3");
    close_model(&m);
    open_model(&m, "b_untied");
    s = source_of(&m, EXPORT_ALL, GGUF_TYPE_F32);
    expect_refusal(export_gguf(&s, folder, "m", &err), &err, "vit_img_size 13");
    s.type = GGUF_TYPE_Q8_0;
    expect_refusal(export_hf(&s, folder, &err), &err, "q8_0");
    s.part = EXPORT_DECODER;
    expect_refusal(export_gguf(&s, folder, "m", &err), &err, "blocks of 32");
    s = source_of(&m, EXPORT_ALL, GGUF_TYPE_F32);
    s.tokenizer_path = "tokenizer.gguf";
    expect_refusal(export_hf(&s, folder, &err), &err, "--lm_tokenizer");
    const float odd[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
    tensor_upload(m.be, STREAM_COMPUTE, m.params.decoder.inv_freq->w, odd);
    backend_sync(m.be);
    s = source_of(&m, EXPORT_ALL, GGUF_TYPE_F32);
    expect_refusal(export_hf(&s, folder, &err), &err, "inv_freq");
    close_model(&m);
    char *file = path_join(folder, "left"), *fresh;
    expect(file_write_text(file, "x", 1, &err), &err);
    fresh = export_folder_begin(folder, &err);
    expect_refusal(fresh != NULL, &err, "not empty");
    free(file);
    remove_folder(folder);
}

// config.json and preprocessor_config.json of a good folder, damaged: an error or a model, never a crash.
static void import_damaged(const char *folder, size_t rounds) {
    static const char *const files[] = {"config.json", "preprocessor_config.json", "tokenizer_config.json"};
    Random r = random_stream(7, RANDOM_TEST, 0);
    for (size_t i = 0; i < rounds; i++) {
        Error err;
        Model m;
        char *path = path_join(folder, files[i % 3]), *bytes, *good;
        size_t size;
        expect(file_read(&bytes, &size, path, &err) && file_read(&good, &size, path, &err), &err);
        for (uint32_t n = 1 + random_u32(&r) % 3; n > 0; n--)
            bytes[random_u32(&r) % size] = "0129-.\"{}[],:ntx"[random_u32(&r) % 16];
        expect(file_write_text(path, bytes, random_u32(&r) % 4 ? size : random_u32(&r) % size, &err), &err);
        if (!import_folder(&m, folder, &err)) assert_true(strlen(err.text) > 0);
        close_model(&m);
        expect(file_write_text(path, good, size, &err), &err);
        free(bytes);
        free(good);
        free(path);
    }
}

static void test_damaged(void **state) {
    (void)state;
    Error err;
    Model m;
    char *folder = make_folder();
    open_model(&m, "a_base");
    const ExportSource s = source_of(&m, EXPORT_ALL, GGUF_TYPE_F32);
    expect(export_hf(&s, folder, &err), &err);
    import_damaged(folder, 300);
    close_model(&m);
    remove_folder(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),      cmocka_unit_test(test_grid),
        cmocka_unit_test(test_llama_values),    cmocka_unit_test(test_gguf_of_both_parts),
        cmocka_unit_test(test_misfits),         cmocka_unit_test(test_merges),
        cmocka_unit_test(test_unknown_tensors), cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_parts_read_back), cmocka_unit_test(test_cast_frequencies),
        cmocka_unit_test(test_damaged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
