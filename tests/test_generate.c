// LINK: model
// LABELS: parity
// Generation against the real nanoVLM: tokens equal, logits close, and the sampling filter.
#include "model/checkpoint.h"
#include "model/generate.h"
#include "ops/cpu/cpu.h"
#include "support/guard_backend.h"
#include "support/reference.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const double logits_limit = 2e-4, probability_limit = 1e-6;

typedef struct Case {
    const char *name;
    VLMConfig config;
    Vlm m;
    Batch prompt;
    json_t *outputs;
    size_t steps;
} Case;

static FieldSet config_set(VLMConfig *c) {
    return (FieldSet){&vlm_config_table, c};
}

static void case_open(Case *c, Backend *be, const char *name) {
    *c = (Case){.name = name, .outputs = reference_json("generate/%s/outputs.json", name)};
    Safetensors *inputs = reference_open("generate/%s/inputs.safetensors", name);
    c->prompt = reference_batch(inputs, "");
    safetensors_close(inputs);
    c->steps = (size_t)json_integer_value(json_object_get(c->outputs, "max_new_tokens"));
    char *folder = golden_path("%s", json_string_value(json_object_get(c->outputs, "weights")));
    Error err;
    fields_set_defaults(config_set(&c->config));
    if (!checkpoint_load_config(&c->config, folder, &err)) fail_msg("%s", err.text);
    VlmPlan plan = {.max_batch = c->prompt.B,
                    .max_positions = c->prompt.T,
                    .max_tiles = c->prompt.n_tiles,
                    .image_token_id =
                        (int32_t)json_integer_value(json_object_get(c->outputs, "image_token_id"))};
    if (!vlm_create(&c->m, be, &c->config, &plan, &err)) fail_msg("%s", err.text);
    if (!checkpoint_load_weights(&c->m, folder, &err)) fail_msg("%s", err.text);
    free(folder);
}

static void case_close(Case *c) {
    vlm_free(&c->m);
    reference_batch_free(&c->prompt);
    json_decref(c->outputs);
    fields_free(config_set(&c->config));
}

static int32_t expected_token(const Case *c, const char *key, size_t row, size_t step) {
    return (int32_t)json_integer_value(
        json_array_get(json_array_get(json_object_get(c->outputs, key), row), step));
}

// Every step's logits, fed with the reference's own greedy choice.
static void check_logits(Case *c) {
    Generation g;
    Error err;
    if (!generation_create(&g, &c->m, c->prompt.B, c->prompt.T + c->steps, &err)) fail_msg("%s", err.text);
    Safetensors *file = reference_open("generate/%s/logits.safetensors", c->name);
    float *logits = reference_f32(file, "logits");
    size_t V = c->config.lm_vocab_size, B = c->prompt.B;
    int32_t *next = calloc(B, sizeof *next);
    if (!generation_prefill(&g, &c->prompt, &err)) fail_msg("%s", err.text);
    for (size_t step = 0;; step++) {
        double error = largest_difference(generation_logits(&g), logits + step * B * V, B * V);
        expect_within("generated logits, absolute", error, logits_limit, "%s step %zu (%s)", c->name, step,
                      c->m.be->name);
        if (step == c->steps) break;
        for (size_t b = 0; b < B; b++) {
            next[b] = argmax(generation_logits(&g) + b * V, V);
            assert_int_equal(next[b], expected_token(c, "raw_argmax", b, step));
        }
        if (!generation_step(&g, next, &err)) fail_msg("%s", err.text);
    }
    assert_false(generation_step(&g, next, &err)); // the cache is full: an error, not an overrun
    free(next);
    free(logits);
    safetensors_close(file);
    generation_free(&g);
}

static void check_tokens(Case *c) {
    Generation g;
    Error err;
    size_t B = c->prompt.B, done;
    if (!generation_create(&g, &c->m, B, c->prompt.T + c->steps, &err)) fail_msg("%s", err.text);
    int32_t *tokens = malloc(B * c->steps * sizeof *tokens);
    GenerateOptions o = {.max_new_tokens = c->steps, .greedy = true};
    int32_t eos = (int32_t)json_integer_value(json_object_get(c->outputs, "eos_token_id"));
    for (int again = 0; again < 2; again++) { // the second run reuses the cache
        if (!generate(tokens, &done, &g, &c->prompt, &o, eos, NULL, NULL, &err)) fail_msg("%s", err.text);
        for (size_t b = 0; b < B; b++)
            for (size_t i = 0; i < c->steps; i++)
                assert_int_equal(tokens[b * c->steps + i], expected_token(c, "tokens", b, i));
    }
    free(tokens);
    generation_free(&g);
}

static void run_cases(Backend *be) {
    StringList cases = golden_cases("generate", "outputs.json");
    for (size_t i = 0; i < cases.count; i++) {
        Case c;
        case_open(&c, be, cases.items[i]);
        check_logits(&c);
        check_tokens(&c);
        case_close(&c);
    }
    printf("%zu cases on the %s backend\n", cases.count, be->name);
    string_list_free(&cases);
    backend_destroy(be);
}

static void test_cpu(void **state) {
    (void)state;
    Backend *be;
    Error err;
    if (!backend_cpu_create(&be, 0, &err)) fail_msg("%s", err.text);
    run_cases(be);
}

static void test_guard(void **state) {
    (void)state;
    Backend *be;
    Error err;
    if (!backend_guard_create(&be, &err)) fail_msg("%s", err.text);
    run_cases(be);
}

// Rows marked tie_cut_in_two may choose another of several equal logits; then the sorted probabilities must
// agree.
static int by_value(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return x < y ? -1 : x > y;
}

static void test_filter(void **state) {
    (void)state;
    json_t *cases = reference_json("generate/filter.json");
    Safetensors *file = reference_open("generate/filter.safetensors");
    assert_true(json_array_size(cases) > 0);
    size_t k;
    json_t *c;
    json_array_foreach(cases, k, c) {
        char name[2][32];
        int index = (int)json_integer_value(json_object_get(c, "index"));
        snprintf(name[0], sizeof name[0], "%d.logits", index);
        snprintf(name[1], sizeof name[1], "%d.probs", index);
        const SafetensorsEntry *e = safetensors_find(file, name[0]);
        float *logits = reference_f32(file, name[0]), *probs = reference_f32(file, name[1]);
        size_t V = e->shape[e->ndim - 1], rows = e->count / V;
        int64_t top_k = json_integer_value(json_object_get(c, "top_k"));
        Sampler s;
        sampler_init(&s, V);
        for (size_t r = 0; r < rows; r++) {
            sampler_filter(&s, logits + r * V, top_k > 0 ? (size_t)top_k : 0,
                           json_number_value(json_object_get(c, "top_p")),
                           json_number_value(json_object_get(c, "temperature")));
            float *expected = probs + r * V;
            if (json_is_true(json_array_get(json_object_get(c, "tie_cut_in_two"), r))) {
                qsort(s.probs, V, sizeof *s.probs, by_value);
                qsort(expected, V, sizeof *expected, by_value);
            }
            expect_within("probabilities, absolute", largest_difference(s.probs, expected, V),
                          probability_limit, "filter %d row %zu", index, r);
        }
        sampler_free(&s);
        free(logits);
        free(probs);
    }
    json_decref(cases);
    safetensors_close(file);
}

static const float *sorted_by; // the logits that by_falling_logit compares

static int by_falling_logit(const void *a, const void *b) {
    const uint32_t i = *(const uint32_t *)a, j = *(const uint32_t *)b;
    if (sorted_by[i] != sorted_by[j]) return sorted_by[i] > sorted_by[j] ? -1 : 1;
    return i < j ? -1 : 1;
}

// A vocabulary of a real size with many ties: the sampler selects, this sorts all of it.
static void check_selection(const float *logits, const uint32_t *order, size_t V, size_t top_k,
                            double top_p) {
    size_t kept = V, n = 0;
    double total = 0, cumulative = 0, sum = 0;
    if (top_k > 0 && top_k < V)
        for (kept = top_k; kept < V && logits[order[kept]] >= logits[order[top_k - 1]];) kept++;
    for (size_t i = 0; i < kept; i++) total += exp(logits[order[i]] - logits[order[0]]);
    while (n < kept && (cumulative += exp(logits[order[n]] - logits[order[0]]) / total) <= top_p) n++;
    if (top_p < 1) kept = n ? n : 1;
    for (size_t i = 0; i < kept; i++) sum += exp((logits[order[i]] - logits[order[0]]) / 0.7);
    Sampler s;
    sampler_init(&s, V);
    sampler_filter(&s, logits, top_k, top_p, 0.7);
    for (size_t i = 0; i < V; i++) {
        const double expected = i < kept ? exp((logits[order[i]] - logits[order[0]]) / 0.7) / sum : 0;
        assert_true(fabs(s.probs[order[i]] - expected) <= probability_limit * expected);
    }
    sampler_free(&s);
}

static void test_selection(void **state) {
    (void)state;
    enum { V = 49153 };
    static const size_t top_k[] = {0, 1, 2, 50, 1000, V - 1, V, V + 5};
    static const double top_p[] = {1.0, 0.9, 0.3, 0.0};
    float *logits = malloc(V * sizeof *logits);
    uint32_t *order = malloc(V * sizeof *order);
    Random r = random_stream(3, RANDOM_TEST, 0);
    for (uint32_t i = 0; i < V; i++) logits[i] = (float)(int)(40 * random_normal(&r)) / 8, order[i] = i;
    sorted_by = logits;
    qsort(order, V, sizeof *order, by_falling_logit);
    for (size_t i = 0; i < sizeof top_k / sizeof *top_k; i++)
        for (size_t j = 0; j < sizeof top_p / sizeof *top_p; j++)
            check_selection(logits, order, V, top_k[i], top_p[j]);
    free(order);
    free(logits);
}

// ---- going on in the cache ----

// A prompt in two parts gives the logits of the prompt as a whole, also where the pictures stand in the
// second.
static void test_extend(void **state) {
    (void)state;
    Backend *be;
    Error err;
    if (!backend_cpu_create(&be, 1, &err)) fail_msg("%s", err.text);
    StringList cases = golden_cases("generate", "outputs.json");
    size_t checked = 0;
    for (size_t i = 0; i < cases.count; i++) {
        Case c;
        case_open(&c, be, cases.items[i]);
        const size_t V = c.config.lm_vocab_size, cut = 1; // in front of every picture
        if (c.prompt.B == 1 && !c.prompt.attention_mask && c.prompt.T > cut) {
            Generation g;
            const Batch head = {.B = 1, .T = cut, .input_ids = c.prompt.input_ids};
            Batch rest = c.prompt;
            rest.input_ids += cut, rest.T -= cut;
            if (!generation_create(&g, &c.m, 1, c.prompt.T, &err) || !generation_prefill(&g, &c.prompt, &err))
                fail_msg("%s", err.text);
            float *whole = malloc(V * sizeof *whole);
            memcpy(whole, generation_logits(&g), V * sizeof *whole);
            if (!generation_prefill(&g, &head, &err) || !generation_extend(&g, &rest, &err))
                fail_msg("%s", err.text);
            expect_within("logits of a prompt in two parts",
                          largest_difference(generation_logits(&g), whole, V), logits_limit, "%s", c.name);
            assert_false(generation_extend(&g, &head, &err)); // no room is left
            free(whole);
            generation_free(&g);
            checked++;
        }
        case_close(&c);
    }
    assert_true(checked > 0);
    string_list_free(&cases);
    backend_destroy(be);
}

typedef struct Ending {
    size_t row, step;
    size_t calls;
} Ending;

static bool end_a_row(void *context, size_t step, const int32_t *tokens, bool *ended) {
    Ending *e = context;
    (void)tokens;
    if (step == e->step) ended[e->row] = true;
    e->calls++;
    return true;
}

// A stop token and a callback end one row alone; it gives eos from then on, and the others go on as they
// were.
static void test_ends(void **state) {
    (void)state;
    enum { EOS = 1 };
    Backend *be;
    Error err;
    Case c;
    Generation g;
    if (!backend_cpu_create(&be, 1, &err)) fail_msg("%s", err.text);
    case_open(&c, be, "batch_left_padded");
    const size_t B = c.prompt.B, n = c.steps;
    int32_t *plain = malloc(B * n * sizeof *plain), *ended = malloc(B * n * sizeof *ended);
    size_t steps;
    if (!generation_create(&g, &c.m, B, c.prompt.T + n, &err)) fail_msg("%s", err.text);
    GenerateOptions o = {.max_new_tokens = n, .greedy = true};
    Ending e = {1, 2, 0};
    if (!generate(plain, &steps, &g, &c.prompt, &o, -1, NULL, NULL, &err) ||
        !generate(ended, &steps, &g, &c.prompt, &o, EOS, end_a_row, &e, &err))
        fail_msg("%s", err.text);
    for (size_t b = 0; b < B; b++)
        for (size_t i = 0; i < n; i++)
            assert_int_equal(ended[b * n + i], b == e.row && i > e.step ? EOS : plain[b * n + i]);
    assert_int_equal(e.calls, n);
    o.stops = &plain[n + 1], o.n_stops = 1; // row 1's second token
    if (!generate(ended, &steps, &g, &c.prompt, &o, EOS, NULL, NULL, &err)) fail_msg("%s", err.text);
    for (size_t i = 1; i < n; i++) assert_int_equal(ended[n + i], EOS);
    free(plain);
    free(ended);
    generation_free(&g);
    case_close(&c);
    backend_destroy(be);
}

// Draws follow the probabilities: 20000 draws, each frequency within five standard deviations.
static void test_draw(void **state) {
    (void)state;
    enum { V = 7, N = 20000 };
    float logits[V] = {0.3f, -1, 2, 0.5f, -3, 1, 0};
    size_t counts[V] = {0};
    Sampler s;
    sampler_init(&s, V);
    sampler_filter(&s, logits, 5, 1.0, 0.8);
    Random r = random_stream(1, RANDOM_GENERATE, 0);
    for (int i = 0; i < N; i++) counts[sampler_draw(&s, &r)]++;
    for (int i = 0; i < V; i++) {
        double p = s.probs[i], d = (double)counts[i] - N * p;
        assert_true(p > 0 ? d * d <= 25 * N * p : counts[i] == 0);
    }
    sampler_free(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cpu),  cmocka_unit_test(test_guard),     cmocka_unit_test(test_filter),
        cmocka_unit_test(test_draw), cmocka_unit_test(test_selection), cmocka_unit_test(test_extend),
        cmocka_unit_test(test_ends),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    print_worst_shares();
    return failed;
}
