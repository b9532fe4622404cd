// LINK: model
// LABELS: parity
// Backbones against nanoVLM and transformers: every folder and variant of the reference data, its
// configuration, its values byte for byte and what the model then computes, on the CPU backend and under the
// guard.
#include "base/memory.h"
#include "model/backbone.h"
#include "model/vlm.h"
#include "ops/cpu/cpu.h"
#include "support/backbone_case.h"
#include "support/guard_backend.h"
#include "support/reference.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const double forward_limit = 1e-5;   // as test_model: another float32 implementation
static const double frequency_limit = 1e-6; // inv_freq is computed, not read; powf may round otherwise

static Backend *backends[2];

// ---- configuration ----

// What nanoVLM changed, and that no other field is another one. Fields that it set to what they were are not
// listed.
static void compare_config(const BackboneCase *c, const json_t *changed) {
    VLMConfig defaults;
    const FieldSet nanovlm = {&vlm_config_table, &defaults}, ours = {&vlm_config_table, (void *)&c->config};
    fields_set_defaults(nanovlm);
    const char *name;
    size_t listed = 0;
    for (size_t i = 0; (name = backbone_field(c->kind, i)); i++) {
        const Field *f = fields_find(&vlm_config_table, name, strlen(name));
        json_t *value = fields_get_json(ours, f), *before = fields_get_json(nanovlm, f);
        const json_t *expected = json_object_get(changed, name);
        listed += expected != NULL;
        if (!json_equal(value, expected ? expected : before))
            fail_msg("%s: %s is %s", c->path, name, json_dumps(value, JSON_ENCODE_ANY));
        json_decref(value);
        json_decref(before);
    }
    assert_int_equal(listed, json_object_size(changed));
    fields_free(nanovlm);
}

// ---- values ----

static void compare_bytes(const BackboneCase *c, const char *name, const float *expected, size_t n) {
    const Param *p = params_find(&((BackboneCase *)c)->model.params, name);
    if (!p) fail_msg("%s: no parameter %s", c->path, name);
    float *values = tensor_values(c->be, p->w);
    assert_true(n <= tensor_count(p->w));
    if (!strcmp(name, "decoder.rotary_embd.inv_freq"))
        expect_within("inv_freq, relative", relative_l2(values, expected, n), frequency_limit, "%s", c->path);
    else if (memcmp(values, expected, n * sizeof *values))
        fail_msg("%s: %s holds other values", c->path, name);
    free(values);
}

// nanoVLM's state_dict. Embedding and head are left to compare_vocabulary, because ours obeys other rules.
static void compare_state(const BackboneCase *c, const Safetensors *state) {
    size_t compared = 0;
    for (size_t i = 0; i < safetensors_count(state); i++) {
        const SafetensorsEntry *e = safetensors_entry(state, i);
        if (!strcmp(e->name, "token_embedding.weight") || !strcmp(e->name, "head.weight")) continue;
        char *name = mem_printf("%s.%s", c->kind == BACKBONE_VISION ? "vision_encoder" : "decoder", e->name);
        float *expected = reference_f32(state, e->name);
        compare_bytes(c, name, expected, e->count);
        compared++;
        free(expected);
        free(name);
    }
    assert_true(compared > 10);
}

static float *read_entry(const WeightsEntry *e) {
    float *values = mem_alloc(e->count * sizeof *values);
    Error err;
    if (!weights_read_f32(values, e, 0, e->count, &err)) fail_msg("%s", err.text);
    return values;
}

// The embedding is the file's. The head is lm_head where there is one and the model is untied, else the
// embedding.
static void compare_vocabulary(const BackboneCase *c) {
    const Params *p = &c->model.params;
    const WeightsEntry *embedding = weights_find(c->backbone.weights, "model.embed_tokens.weight"),
                       *head = weights_find(c->backbone.weights, "lm_head.weight");
    const bool copied = !p->tied && !head;
    float *from = read_entry(embedding), *own = head ? read_entry(head) : NULL;
    compare_bytes(c, "decoder.token_embedding.weight", from, embedding->count);
    compare_bytes(c, "decoder.head.weight", p->tied || copied ? from : own, embedding->count);
    const size_t extra = tensor_count(p->decoder.embedding->w) - embedding->count;
    float *rows = tensor_values(c->be, p->decoder.embedding->w),
          *other = tensor_values(c->be, p->decoder.head->w);
    if (extra) {
        const float *a = rows + embedding->count, *b = other + embedding->count;
        double squares = 0;
        for (size_t i = 0; i < extra; i++) squares += (double)a[i] * a[i];
        const double std = sqrt(squares / (double)extra);
        if (std < 0.017 || std > 0.023) fail_msg("%s: new rows have a spread of %g", c->path, std);
        assert_true((memcmp(a, b, extra * sizeof *a) == 0) == (p->tied || copied));
    }
    free(rows);
    free(other);
    free(from);
    free(own);
}

// ---- what the model computes ----

static void compare_output(const BackboneCase *c, const Safetensors *file, const char *name, Tensor t) {
    float *expected = reference_f32(file, name), *values = tensor_values(c->be, t);
    if (!expected) fail_msg("%s: no reference %s", c->path, name);
    const size_t n = safetensors_find(file, name)->count;
    assert_int_equal(tensor_count(t), n);
    expect_within("forward, relative", relative_l2(values, expected, n), forward_limit, "%s %s (%s)", c->path,
                  name, c->be->name);
    free(expected);
    free(values);
}

static void run_vision(BackboneCase *c, const Safetensors *forward) {
    const SafetensorsEntry *images = safetensors_find(forward, "images");
    const size_t I = images->shape[0], per_tile = c->config.mp_image_token_length;
    Batch b = {.B = 1, .T = I * per_tile, .n_tiles = I, .images = reference_f32(forward, "images")};
    b.input_ids = mem_zeroed(b.T, sizeof *b.input_ids); // all are the image token, 0
    Error err;
    if (!vlm_forward(&c->model, &b, 0, &err)) fail_msg("%s", err.text);
    compare_output(c, forward, "output", c->model.vision.out);
    compare_output(c, forward, "transformers_output", c->model.vision.out);
    reference_batch_free(&b);
}

// The logits of the file's vocabulary at all positions, from a scratch arena.
static void compare_logits(const BackboneCase *c, const Safetensors *forward) {
    const size_t M = c->model.B * c->model.T, V = c->config.lm_vocab_size;
    float *logits = case_logits(c), *expected = reference_f32(forward, "transformers_logits");
    const size_t old = safetensors_find(forward, "transformers_logits")->shape[2];
    for (size_t i = 0; i < M; i++) memmove(logits + i * old, logits + i * V, old * sizeof *logits);
    expect_within("forward, relative", relative_l2(logits, expected, M * old), forward_limit,
                  "%s logits (%s)", c->path, c->be->name);
    free(logits);
    free(expected);
}

static void run_language(BackboneCase *c, const Safetensors *forward) {
    const SafetensorsEntry *ids = safetensors_find(forward, "input_ids");
    Batch b = {.B = ids->shape[0], .T = ids->shape[1], .input_ids = reference_i32(forward, "input_ids")};
    Error err;
    if (!vlm_forward(&c->model, &b, 0, &err)) fail_msg("%s", err.text);
    compare_output(c, forward, "transformers_hidden", c->model.decoder.out);
    const bool own_head = weights_find(c->backbone.weights, "lm_head.weight") != NULL;
    if (!own_head || !c->model.params.tied) compare_logits(c, forward);
    reference_batch_free(&b);
}

// ---- cases ----

// One variant: <folder>/expected/<stem>.json with <prefix>state.safetensors and <prefix>forward.safetensors.
static void run_variant(const char *folder, const char *expected, const char *report_name,
                        const char *prefix) {
    json_t *report = reference_json("backbones/%s/expected/%s.json", expected, report_name);
    const bool refused = strstr(report_name, "too_small") != NULL;
    const json_t *vocabulary = json_object_get(report, "lm_vocab_size");
    for (int i = 0; i < 2; i++) {
        char *path = golden_path("backbones/%s", folder);
        BackboneCase c;
        Error err = {""};
        const BackboneKind kind = vocabulary ? BACKBONE_LANGUAGE : BACKBONE_VISION;
        case_prepare(&c, backends[i], kind, path, vocabulary ? (size_t)json_integer_value(vocabulary) : 300,
                     !json_is_false(json_object_get(report, "lm_tie_weights")));
        const bool ok = case_open(&c, NULL, &err);
        if (ok == refused) fail_msg("%s %s: %s", folder, report_name, err.text);
        if (ok) {
            Safetensors *state =
                            reference_open("backbones/%s/expected/%sstate.safetensors", expected, prefix),
                        *forward =
                            reference_open("backbones/%s/expected/%sforward.safetensors", expected, prefix);
            compare_config(&c, json_object_get(report, "config_changed"));
            compare_state(&c, state);
            if (kind == BACKBONE_LANGUAGE) {
                compare_vocabulary(&c);
                run_language(&c, forward);
            } else {
                run_vision(&c, forward);
            }
            safetensors_close(state);
            safetensors_close(forward);
        } else {
            assert_non_null(strstr(err.text, "lm_vocab_size"));
        }
        case_close(&c);
        free(path);
    }
    json_decref(report);
}

// A vision model saved alone by transformers 5 has names that nanoVLM refuses; its values are those of the
// folder without _v5, where the same model stands under the older names.
static void run_vision_folder(const char *folder, const json_t *report) {
    char *expected = mem_strdup(folder), *end = strstr(expected, "_v5");
    assert_true(json_is_null(json_object_get(report, "error")) == !end);
    if (end) *end = '\0';
    run_variant(folder, expected, "report", "");
    free(expected);
}

static size_t run_language_folder(const char *folder) {
    char *path = golden_path("backbones/%s/expected", folder);
    StringList list;
    Error err;
    size_t n = 0;
    if (!file_list(&list, path, &err)) fail_msg("%s", err.text);
    for (size_t i = 0; i < list.count; i++) {
        char *dot = strstr(list.items[i], ".json");
        if (!dot || !strcmp(list.items[i], "files.json")) continue;
        *dot = '\0';
        char *prefix = mem_printf("%s.", list.items[i]);
        run_variant(folder, folder, list.items[i], prefix);
        free(prefix);
        n++;
    }
    string_list_free(&list);
    free(path);
    return n;
}

static void test_reference_folders(void **state) {
    (void)state;
    StringList cases = golden_cases("backbones", "config.json");
    size_t n = 0;
    for (size_t i = 0; i < cases.count; i++) {
        char *path = golden_path("backbones/%s/expected/report.json", cases.items[i]);
        json_t *report = json_load_file(path, 0, NULL);
        if (report) run_vision_folder(cases.items[i], report);
        n += report ? 1 : run_language_folder(cases.items[i]);
        json_decref(report);
        free(path);
    }
    printf("%zu folders, %zu variants\n", cases.count, n);
    assert_true(n >= cases.count);
    string_list_free(&cases);
}

static int open_backends(void **state) {
    (void)state;
    Error err;
    return backend_cpu_create(&backends[0], 1, &err) && backend_guard_create(&backends[1], &err) ? 0 : -1;
}

static int close_backends(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++) backend_destroy(backends[i]);
    print_worst_shares();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_reference_folders)};
    return cmocka_run_group_tests(tests, open_backends, close_backends);
}
