// LINK: model
// LABELS: parity
// Checkpoints: the bytes nanoVLM writes, what loading accepts and refuses, and what a failed save leaves
// behind.
#include "base/memory.h"
#include "model/checkpoint.h"
#include "ops/cpu/cpu.h"
#include "support/folders.h"
#include "support/guard_backend.h"
#include "support/reference.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static FieldSet config_set(VLMConfig *c) {
    return (FieldSet){&vlm_config_table, c};
}

typedef struct Loaded {
    Backend *be;
    VLMConfig config;
    Vlm m;
} Loaded;

// A model of a reference case; weights only when asked for.
static void load_case(Loaded *l, const char *name, bool guard, bool weights) {
    Error err;
    char *path = golden_path("model/%s", name);
    if (!(guard ? backend_guard_create(&l->be, &err) : backend_cpu_create(&l->be, 1, &err)))
        fail_msg("%s", err.text);
    fields_set_defaults(config_set(&l->config));
    if (!checkpoint_load_config(&l->config, path, &err)) fail_msg("%s", err.text);
    VlmPlan plan = {.max_batch = 1, .max_positions = 8, .max_tiles = 1};
    if (!vlm_create(&l->m, l->be, &l->config, &plan, &err)) fail_msg("%s", err.text);
    if (weights && !checkpoint_load_weights(&l->m, path, &err)) fail_msg("%s", err.text);
    free(path);
}

static void unload(Loaded *l) {
    vlm_free(&l->m);
    backend_destroy(l->be);
    fields_free(config_set(&l->config));
}

static void assert_same_bytes(const char *a, const char *b) {
    char *x, *y;
    size_t n, m;
    Error err;
    if (!file_read(&x, &n, a, &err) || !file_read(&y, &m, b, &err)) fail_msg("%s", err.text);
    assert_int_equal(n, m);
    assert_memory_equal(x, y, n);
    free(x);
    free(y);
}

static void expect_nothing_left_over(const char *saved) {
    char *fresh = mem_printf("%s.tmp", saved);
    assert_false(file_exists(fresh));
    free(fresh);
}

static void assert_same_checkpoint(const char *a, const char *b) {
    static const char *const files[] = {"config.json", "model.safetensors"};
    for (int i = 0; i < 2; i++) {
        char *x = path_join(a, files[i]), *y = path_join(b, files[i]);
        assert_same_bytes(x, y);
        free(x);
        free(y);
    }
}

// Every reference checkpoint of a whole model, loaded and saved twice (the second time over the first).
static void test_same_bytes(void **state) {
    (void)state;
    StringList cases = golden_cases("model", "forward.safetensors");
    size_t compared = 0;
    for (size_t i = 0; i < cases.count; i++) {
        json_t *meta = reference_json("model/%s/meta.json", cases.items[i]);
        bool whole = !json_is_true(json_object_get(meta, "vision_only"));
        json_decref(meta);
        if (!whole) continue;
        Loaded l;
        Error err;
        load_case(&l, cases.items[i], i % 2 == 0, true);
        char *saved = mem_printf("%s/%s", test_folder, cases.items[i]),
             *reference = golden_path("model/%s", cases.items[i]);
        for (int again = 0; again < 2; again++) {
            if (!checkpoint_save(&l.m, saved, &err)) fail_msg("%s", err.text);
            assert_same_checkpoint(saved, reference);
        }
        expect_nothing_left_over(saved);
        free(saved);
        free(reference);
        unload(&l);
        compared++;
    }
    assert_true(compared > 0);
    string_list_free(&cases);
}

// A save that runs out of space returns an error, and the checkpoint that stood there is untouched.
static void test_full_disk(void **state) {
    (void)state;
    Loaded l;
    Error err;
    load_case(&l, "a_base", false, true);
    char *saved = mem_printf("%s/full", test_folder), *reference = golden_path("model/a_base");
    if (!checkpoint_save(&l.m, saved, &err)) fail_msg("%s", err.text);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        signal(SIGXFSZ, SIG_IGN);
        struct rlimit limit = {20000, 20000}; // the weights take more
        setrlimit(RLIMIT_FSIZE, &limit);
        params_initialise(&l.m.params, l.be, &l.config, "scaled", 1);
        Error why;
        _exit(!checkpoint_save(&l.m, saved, &why) && strstr(why.text, "model.safetensors") ? 0 : 1);
    }
    int status;
    waitpid(child, &status, 0);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_same_checkpoint(saved, reference);
    expect_nothing_left_over(saved);
    free(saved);
    free(reference);
    unload(&l);
}

// Killed at a random moment of a save, a folder holds the old or the new checkpoint, whole.
static void test_kill(void **state) {
    (void)state;
    Loaded l;
    Error err;
    load_case(&l, "a_base", false, true);
    char *saved = mem_printf("%s/kill", test_folder), *old = mem_printf("%s/old", test_folder),
         *fresh = mem_printf("%s/new", test_folder);
    assert_true(checkpoint_save(&l.m, old, &err) && checkpoint_save(&l.m, saved, &err));
    params_initialise(&l.m.params, l.be, &l.config, "scaled", 7);
    assert_true(checkpoint_save(&l.m, fresh, &err));
    size_t kept_old = 0, rounds = 40;
    for (size_t i = 0; i < rounds; i++) {
        fflush(NULL);
        pid_t child = fork();
        if (child == 0) {
            for (;;) checkpoint_save(&l.m, saved, &err);
        }
        usleep((useconds_t)(i * 1200));
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
        char *weights = mem_printf("%s/model.safetensors", saved),
             *want = mem_printf("%s/model.safetensors", old);
        char *x, *y;
        size_t n, m;
        assert_true(file_read(&x, &n, weights, &err) && file_read(&y, &m, want, &err));
        bool is_old = n == m && memcmp(x, y, n) == 0;
        kept_old += is_old;
        assert_same_checkpoint(saved, is_old ? old : fresh);
        free(x);
        free(y);
        free(weights);
        free(want);
    }
    printf("killed %zu times: %zu left the old checkpoint\n", rounds, kept_old);
    free(saved);
    free(old);
    free(fresh);
    unload(&l);
}

typedef struct Change {
    const char *about, *drop, *rename_from, *rename_to, *expected; // expected: part of the error; NULL: loads
    bool bf16, short_shape;
} Change;

typedef struct Rewrite {
    const Safetensors *from;
    const SafetensorsEntry *entries[256];
    bool bf16;
} Rewrite;

static bool fill_entry(void *context, size_t i, void *dst) {
    const Rewrite *r = context;
    const SafetensorsEntry *e = r->entries[i];
    for (size_t k = 0; k < e->count; k++) {
        const char *value = (const char *)e->data + 4 * k;
        if (r->bf16)
            memcpy((char *)dst + 2 * k, value + 2, 2); // the upper half of a float is a bfloat16
        else
            memcpy((char *)dst + 4 * k, value, 4);
    }
    return true;
}

// Writes the reference's weights with one change.
static void write_changed(const char *path, const Change *c) {
    Rewrite r = {.from = reference_open("model/a_base/model.safetensors"), .bf16 = c->bf16};
    SafetensorsSpec specs[256];
    size_t n = 0;
    for (size_t i = 0; i < safetensors_count(r.from); i++) {
        const SafetensorsEntry *e = safetensors_entry(r.from, i);
        if (c->drop && !strcmp(c->drop, e->name)) continue;
        specs[n] =
            (SafetensorsSpec){.name = e->name, .dtype = c->bf16 ? DTYPE_BF16 : DTYPE_F32, .ndim = e->ndim};
        memcpy(specs[n].shape, e->shape, sizeof specs[n].shape);
        if (c->rename_from && !strcmp(c->rename_from, e->name)) specs[n].name = c->rename_to;
        if (c->short_shape && e->ndim == 1) specs[n].shape[0] /= 2;
        r.entries[n++] = e;
        if (c->rename_from && !strcmp(c->rename_from, e->name) && c->about[0] == '2') { // under both names
            specs[n] = specs[n - 1];
            specs[n].name = e->name;
            r.entries[n++] = e;
        }
    }
    Error err;
    Rewrite shortened = r;
    SafetensorsEntry halves[256];
    for (size_t i = 0; i < n; i++)
        if (c->short_shape && r.entries[i]->ndim == 1) {
            halves[i] = *r.entries[i];
            halves[i].count /= 2;
            shortened.entries[i] = &halves[i];
        }
    if (!safetensors_write(path, specs, n, NULL, 0, fill_entry, &shortened, &err)) fail_msg("%s", err.text);
    safetensors_close((Safetensors *)r.from);
}

// behaviours.json of the reference says what nanoVLM accepts here; we accept and refuse the same.
static void test_loading(void **state) {
    (void)state;
    static const char *const head = "decoder.head.weight", *const embedding =
                                                               "decoder.token_embedding.weight";
    const Change changes[] = {
        {"without metadata", NULL, NULL, NULL, NULL, false, false},
        {"the tied weight under its other name", NULL, head, embedding, NULL, false, false},
        {"2 names of the tied weight", NULL, head, embedding, "holds both", false, false},
        {"bf16", NULL, NULL, NULL, NULL, true, false},
        {"no inv_freq", "decoder.rotary_embd.inv_freq", NULL, NULL, "is missing", false, false},
        {"no projector", "MP.proj.weight", NULL, NULL, "MP.proj.weight", false, false},
        {"an unknown tensor", NULL, "MP.proj.weight", "MP.proj.bias", "unknown", false, false},
        {"other shapes", NULL, NULL, NULL, "has shape", false, true},
    };
    Loaded l;
    load_case(&l, "a_base", false, false);
    char *path = mem_printf("%s/changed.safetensors", test_folder);
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        write_changed(path, &changes[i]);
        Error err = {""};
        bool ok = params_load(&l.m.params, l.be, path, &err);
        if (ok != (changes[i].expected == NULL)) fail_msg("%s: %s", changes[i].about, err.text);
        if (!ok && (!strstr(err.text, changes[i].expected) || !strstr(err.text, path)))
            fail_msg("%s", err.text);
    }
    free(path);
    unload(&l);
}

static void test_missing_files(void **state) {
    (void)state;
    Loaded l;
    Error err;
    load_case(&l, "a_base", false, false);
    assert_false(checkpoint_load_weights(&l.m, "/nonexistent", &err));
    assert_non_null(strstr(err.text, "/nonexistent/model.safetensors"));
    assert_false(checkpoint_load_config(&l.config, "/nonexistent", &err));
    assert_non_null(strstr(err.text, "/nonexistent/config.json"));
    unload(&l);
}

static double spread(Loaded *l, const char *name, double *mean) {
    Param *p = params_find(&l->m.params, name);
    float *x = tensor_values(l->be, p->w);
    size_t n = tensor_count(p->w);
    double sum = 0, squares = 0;
    for (size_t i = 0; i < n; i++) sum += x[i], squares += (double)x[i] * x[i];
    free(x);
    *mean = sum / (double)n;
    return sqrt(squares / (double)n - *mean * *mean);
}

// nanoVLM's initialisation has these means and spreads (1000 and more values a tensor); the seed decides the
// bits.
static void test_initialise(void **state) {
    (void)state;
    Loaded l;
    double mean;
    load_case(&l, "a_base", false, false);
    params_initialise(&l.m.params, l.be, &l.config, "nanovlm", 3);
    assert_true(fabs(spread(&l, "decoder.token_embedding.weight", &mean) - 0.02) < 0.001 &&
                fabs(mean) < 0.001);
    assert_true(fabs(spread(&l, "decoder.blocks.1.mlp.down_proj.weight", &mean) - 0.02) < 0.001);
    assert_true(fabs(spread(&l, "vision_encoder.patch_embedding.position_embedding", &mean) - 0.289) < 0.03);
    assert_true(fabs(mean - 0.5) < 0.05);
    assert_true(spread(&l, "decoder.norm.weight", &mean) == 0 && mean == 1);
    assert_true(spread(&l, "vision_encoder.blocks.0.ln1.bias", &mean) == 0 && mean == 0);
    params_initialise(&l.m.params, l.be, &l.config, "scaled", 3);
    assert_true(fabs(spread(&l, "decoder.blocks.0.mlp.gate_proj.weight", &mean) * sqrt(48) - 1) < 0.05);
    assert_true(fabs(spread(&l, "decoder.blocks.0.mlp.down_proj.weight", &mean) * sqrt(92 * 4) - 1) < 0.05);
    float *first = tensor_values(l.be, l.m.params.items[0].w);
    params_initialise(&l.m.params, l.be, &l.config, "scaled", 4);
    float *other = tensor_values(l.be, l.m.params.items[0].w);
    params_initialise(&l.m.params, l.be, &l.config, "scaled", 3);
    float *again = tensor_values(l.be, l.m.params.items[0].w);
    size_t bytes = tensor_bytes(l.m.params.items[0].w);
    assert_memory_equal(first, again, bytes);
    assert_memory_not_equal(first, other, bytes);
    free(first);
    free(other);
    free(again);
    unload(&l);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_bytes),    cmocka_unit_test(test_full_disk),
        cmocka_unit_test(test_kill),          cmocka_unit_test(test_loading),
        cmocka_unit_test(test_missing_files), cmocka_unit_test(test_initialise),
    };
    return cmocka_run_group_tests(tests, make_test_folder, remove_test_folder);
}
