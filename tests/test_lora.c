// LINK: train ops_cpu config
// RUNS: vlm
// Adapters: gradients, equality with merged weights, what training moves, PEFT's files, and freezing.
#include "support/folders.h"
#include "support/golden.h"
#include "support/guard_backend.h"
#include "support/program.h"

#include "base/memory.h"
#include "base/random.h"
#include "format/safetensors.h"
#include "model/checkpoint.h"
#include "model/lora.h"
#include "model/lora_file.h"
#include "ops/cpu/cpu.h"
#include "train/trainer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { B = 2, T = 40, TILES = 2, IMAGE_TOKEN = 5 };

// ---- a small model, and a packed batch with one tile a sequence ----

typedef struct Case {
    Config config;
    Backend *be;
    Vlm model;
    Batch batch;
} Case;

static Batch make_batch(const VLMConfig *c) {
    const size_t pixels = TILES * 3 * c->vit_img_size * c->vit_img_size;
    Random r = random_stream(7, RANDOM_TEST, 0);
    Batch b = {.B = B, .T = T, .n_tiles = TILES};
    b.input_ids = mem_zeroed(B * T, sizeof *b.input_ids);
    b.labels = mem_zeroed(B * T, sizeof *b.labels);
    b.starts = mem_zeroed(B * T, sizeof *b.starts);
    b.images = mem_zeroed(pixels, sizeof *b.images);
    for (size_t i = 0; i < B * T; i++) {
        const size_t at = i % T;
        const bool image = at >= 3 && at < 3 + c->mp_image_token_length;
        b.input_ids[i] = image ? IMAGE_TOKEN : (int32_t)(10 + random_below(&r, 300));
        b.labels[i] = at > 20 ? b.input_ids[i] : IGNORE_INDEX;
        b.starts[i] = at < 30 ? 0 : 30;
    }
    for (size_t i = 0; i < pixels; i++) b.images[i] = (float)random_uniform(&r);
    return b;
}

static void free_batch(Batch *b) {
    free(b->input_ids);
    free(b->labels);
    free(b->starts);
    free(b->images);
}

typedef struct Kind {
    size_t rank;
    bool guard;
    Dtype dtype;
    Recompute recompute;
    const char *targets, *freeze, *train_only, *base;
    size_t blocks; // of both parts; 0: one of the vision encoder, two of the decoder
} Kind;

static void set_config(Config *c, const Kind *k) {
    Error err;
    config_init(c);
    if (!config_apply_preset(c, "tiny", &err)) fail_msg("%s", err.text);
    c->vlm.vit_n_blocks = k->blocks ? k->blocks : 1, c->vlm.lm_n_blocks = k->blocks ? k->blocks : 2;
    c->train.gradient_accumulation_steps = 2;
    c->options.lora_rank = k->rank;
    c->options.lr_lora.value = 0.01;
    const struct {
        char **field;
        const char *text;
    } texts[] = {{&c->options.lora_targets, k->targets},
                 {&c->options.freeze, k->freeze},
                 {&c->options.train_only, k->train_only},
                 {&c->options.lora_base, k->base}};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        if (!texts[i].text) continue;
        free(*texts[i].field);
        *texts[i].field = mem_strdup(texts[i].text);
    }
}

static bool try_open(Case *c, const Kind *k, Error *err) {
    *c = (Case){0};
    set_config(&c->config, k);
    VlmPlan plan = {.max_batch = B,
                    .max_positions = T,
                    .max_tiles = TILES,
                    .training = true,
                    .image_token_id = IMAGE_TOKEN,
                    .documents = true,
                    .dtype = k->dtype,
                    .recompute = k->recompute};
    trainer_plan(&plan, &c->config);
    const bool ok = k->guard ? backend_guard_create(&c->be, err) : backend_cpu_create(&c->be, 1, err);
    if (!ok || !vlm_create(&c->model, c->be, &c->config.vlm, &plan, err)) return false;
    params_initialise(&c->model.params, c->be, &c->config.vlm, "scaled", 3);
    c->batch = make_batch(&c->config.vlm);
    return true;
}

static void open_case(Case *c, const Kind *k) {
    Error err;
    if (!try_open(c, k, &err)) fail_msg("%s", err.text);
}

static void close_case(Case *c) {
    free_batch(&c->batch);
    vlm_free(&c->model);
    backend_destroy(c->be);
    config_free(&c->config);
}

static float *values_of(Case *c, Tensor t) {
    float *x = mem_alloc(tensor_bytes(t));
    tensor_download(c->be, STREAM_COMPUTE, x, t);
    backend_sync(c->be);
    return x;
}

static void set_values(Case *c, const Param *p, const float *x) {
    tensor_upload(c->be, STREAM_COMPUTE, p->w, x);
    backend_sync(c->be);
    param_refresh(p, c->be);
}

// B begins at 0; this makes the adapters do something.
static void randomise(Case *c) {
    for (size_t i = 0; i < c->model.params.count; i++) {
        const Param *p = &c->model.params.items[i];
        if (!param_is_adapter(p)) continue;
        const size_t n = tensor_count(p->w);
        float *x = mem_alloc(n * sizeof *x);
        Random r = random_stream(11, RANDOM_TEST, i);
        for (size_t k = 0; k < n; k++) x[k] = (float)(0.05 * random_normal(&r));
        set_values(c, p, x);
        free(x);
    }
}

static float loss_of(Case *c, float dscale) {
    Error err;
    if (!vlm_forward(&c->model, &c->batch, dscale, &err)) fail_msg("%s", err.text);
    return vlm_loss(&c->model);
}

// ---- gradients ----

static double loss_at(Case *c, const Param *p, const float *from, const float *direction, double step) {
    const size_t n = tensor_count(p->w);
    float *x = mem_alloc(n * sizeof *x);
    for (size_t k = 0; k < n; k++) x[k] = (float)(from[k] + step * direction[k]);
    set_values(c, p, x);
    free(x);
    return loss_of(c, 0);
}

// Along its own gradient the loss rises by its norm. F32's loss is exact to some 1e-6, the differences are of
// 1e-2 and their error of the fourth order.
static void compare_with_differences(Case *c, const Param *p) {
    const size_t n = tensor_count(p->w);
    float *g = values_of(c, p->d), *w = values_of(c, p->w);
    double norm = 0;
    for (size_t k = 0; k < n; k++) norm += (double)g[k] * g[k];
    norm = sqrt(norm);
    if (!(norm > 1e-6)) fail_msg("%s: its gradient's norm is %g", p->name, norm);
    for (size_t k = 0; k < n; k++) g[k] = (float)(g[k] / norm);
    const double h = fmin(0.02 / norm, 0.1);
    const double near = (loss_at(c, p, w, g, h) - loss_at(c, p, w, g, -h)) / (2 * h);
    const double far = (loss_at(c, p, w, g, 2 * h) - loss_at(c, p, w, g, -2 * h)) / (4 * h);
    expect_within("gradient against differences, relative", fabs((4 * near - far) / 3 / norm - 1), 2e-3, "%s",
                  p->name);
    set_values(c, p, w);
    free(g);
    free(w);
}

static void gradients_are_those_of_the_loss(void **state) {
    (void)state;
    Case c;
    open_case(&c, &(Kind){.rank = 3});
    randomise(&c);
    loss_of(&c, 1.0f);
    vlm_backward(&c.model);
    size_t compared = 0;
    for (size_t i = 0; i < c.model.params.count; i++)
        if (param_is_adapter(&c.model.params.items[i])) {
            compare_with_differences(&c, &c.model.params.items[i]);
            compared++;
        }
    assert_int_equal(compared, 2 * (4 + 2 * 7));
    print_worst_shares();
    close_case(&c);
}

typedef struct Step {
    float loss;
    float *gradients;
    size_t bytes;
} Step;

static Step step_of(const Kind *k) {
    Case c;
    Step s = {0};
    open_case(&c, k);
    randomise(&c);
    for (int i = 0; i < 2; i++) {
        s.loss = loss_of(&c, 1.0f);
        vlm_backward(&c.model);
    }
    for (size_t i = 0; i < c.model.params.count; i++) {
        const Param *p = &c.model.params.items[i];
        if (!tensor_exists(p->d)) continue;
        float *x = values_of(&c, p->d);
        s.gradients = mem_resize(s.gradients, s.bytes + tensor_bytes(p->d));
        memcpy((char *)s.gradients + s.bytes, x, tensor_bytes(p->d));
        s.bytes += tensor_bytes(p->d);
        free(x);
    }
    close_case(&c);
    return s;
}

static void expect_same_step(const Kind *k, const Step *kept) {
    Step s = step_of(k);
    assert_memory_equal(&s.loss, &kept->loss, sizeof s.loss);
    assert_int_equal(s.bytes, kept->bytes);
    assert_memory_equal(s.gradients, kept->gradients, s.bytes);
    free(s.gradients);
}

// Of two blocks, backward makes the first again, whose memory the second has used.
static void recomputing_and_the_guard_change_no_bit(void **state) {
    (void)state;
    Kind kinds[] = {{.dtype = DTYPE_F32}, {.dtype = DTYPE_BF16}, {.dtype = DTYPE_BF16, .base = "trained"}};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        Kind *k = &kinds[i];
        k->rank = 3, k->blocks = 2;
        const Step kept = step_of(k);
        for (int how = RECOMPUTE_NONE; how <= RECOMPUTE_BLOCK; how++) {
            k->recompute = (Recompute)how;
            k->guard = how == RECOMPUTE_NONE;
            expect_same_step(k, &kept);
        }
        free(kept.gradients);
    }
}

// ---- what adapters add ----

static void fresh_adapters_leave_the_model_as_it_is(void **state) {
    (void)state;
    for (int dtype = 0; dtype < 2; dtype++) {
        Case plain, adapted;
        Kind k = {.dtype = dtype ? DTYPE_BF16 : DTYPE_F32};
        open_case(&plain, &k);
        k.rank = 5;
        open_case(&adapted, &k);
        const float a = loss_of(&plain, 0), b = loss_of(&adapted, 0);
        assert_memory_equal(&a, &b, sizeof a);
        for (size_t i = 0; i < adapted.model.params.count; i++) { // A as PEFT draws it, B zeros
            const Param *p = &adapted.model.params.items[i];
            if (!param_is_adapter(p)) continue;
            const float bound = strstr(p->name, "lora_B") ? 0 : 1 / sqrtf((float)p->shape[1]);
            float *x = values_of(&adapted, p->w), largest = 0;
            for (size_t n = 0; n < tensor_count(p->w); n++) largest = fmaxf(largest, fabsf(x[n]));
            assert_true(largest <= bound && largest >= 0.9f * bound);
            free(x);
        }
        close_case(&plain);
        close_case(&adapted);
    }
}

static void merged_weights_give_the_same_loss(void **state) {
    (void)state;
    Case adapted, plain;
    Error err;
    char *path = program_temporary("merged.safetensors");
    open_case(&adapted, &(Kind){.rank = 3});
    open_case(&plain, &(Kind){0});
    randomise(&adapted);
    const float before = loss_of(&plain, 0), want = loss_of(&adapted, 0);
    if (!params_save(&adapted.model.params, adapted.be, path, &err) ||
        !params_load(&plain.model.params, plain.be, path, &err))
        fail_msg("%s", err.text);
    const float got = loss_of(&plain, 0);
    assert_true(fabsf(before - want) > 1e-3f * want);
    expect_within("loss of merged weights, relative", fabs((double)got / want - 1), 2e-6, "merged");
    unlink(path);
    free(path);
    close_case(&adapted);
    close_case(&plain);
}

// ---- training ----

static void only_adapters_and_the_projector_move(void **state) {
    (void)state;
    Error err;
    for (int trained = 0; trained < 2; trained++) {
        Case c;
        Trainer t;
        float loss, **start, *now;
        open_case(&c, &(Kind){.rank = 2, .guard = true, .base = trained ? "trained" : "frozen"});
        if (!trainer_create(&t, &c.model, &c.config.train, (OptimizerForm){.moments = DTYPE_F32}, &err))
            fail_msg("%s", err.text);
        const Params *p = &c.model.params;
        start = mem_zeroed(p->count, sizeof *start);
        for (size_t i = 0; i < p->count; i++) start[i] = values_of(&c, p->items[i].w);
        for (int step = 0; step < 2; step++) { // in the first, A has no gradient yet, because B is 0
            for (int i = 0; i < 2; i++)
                if (!trainer_micro_step(&t, &c.batch, &loss, &err)) fail_msg("%s", err.text);
            trainer_update(&t);
        }
        for (size_t i = 0; i < p->count; i++) {
            const Param *q = &p->items[i];
            const bool wanted =
                q->group == GROUP_MP || param_is_adapter(q) || (trained && q->group != GROUP_BUFFER);
            now = values_of(&c, q->w);
            if (wanted == !memcmp(now, start[i], tensor_bytes(q->w)))
                fail_msg("%s moved: %d", q->name, !wanted);
            assert_int_equal(wanted, q->d.ndim > 0);
            assert_int_equal(wanted, tensor_exists(t.optimizer.m[i]));
            free(now);
            free(start[i]);
        }
        free(start);
        trainer_free(&t);
        close_case(&c);
    }
}

static void a_step_without_pictures_leaves_vision_adapters(void **state) {
    (void)state;
    Case c;
    Trainer t;
    Error err;
    float loss;
    open_case(&c, &(Kind){.rank = 2});
    randomise(&c);
    c.batch.n_tiles = 0;
    if (!trainer_create(&t, &c.model, &c.config.train, (OptimizerForm){.moments = DTYPE_F32}, &err))
        fail_msg("%s", err.text);
    for (int i = 0; i < 2; i++) assert_true(trainer_micro_step(&t, &c.batch, &loss, &err));
    trainer_update(&t);
    assert_int_equal(t.optimizer.steps[GROUP_LORA_LANGUAGE], 1);
    assert_int_equal(t.optimizer.steps[GROUP_LORA_VISION], 0);
    assert_true(fabs(t.lr[GROUP_LORA_LANGUAGE] - t.lr[GROUP_LORA_VISION]) == 0 &&
                t.lr[GROUP_LORA_VISION] > 0);
    trainer_free(&t);
    close_case(&c);
}

// ---- targets and freezing ----

static size_t count_adapters(const Case *c) {
    size_t n = 0;
    for (size_t i = 0; i < c->model.params.count; i++) n += c->model.params.items[i].lora_a != NULL;
    return n;
}

static void targets_are_pefts(void **state) {
    (void)state;
    const struct {
        const char *text;
        size_t adapters; // 0: the error names `said`
        const char *said;
    } cases[] = {
        {"all-linear", 18, NULL},
        {"q_proj,v_proj", 4, NULL},
        {" q_proj , qkv_proj ", 3, NULL},
        {"o_proj", 2, NULL}, // transformers' name
        {"out_proj", 3, NULL},
        {"self_attn.k_proj", 2, NULL},
        {"decoder.blocks.1.mlp.up_proj", 1, NULL},
        {".*blocks\\.1\\.attn\\.(q|k)_proj", 2, NULL},
        {"decoder\\..*", 14, NULL},
        {"q_porj", 0, "near is q_proj"},
        {"proj", 0, "no linear layer"},
        {"head", 0, "no linear layer"},
        {"norm1", 0, "no linear layer"},
        {"q_proj,", 2, NULL},
        {",", 0, "names no layer"},
        {"q_proj.*", 0, "matches no whole name"},
        {"(q_proj", 0, "no POSIX regular expression"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Case c;
        Error err = {""};
        const bool ok = try_open(&c, &(Kind){.rank = 2, .targets = cases[i].text}, &err);
        if (ok != (cases[i].adapters > 0)) fail_msg("%s: %s", cases[i].text, err.text);
        if (ok)
            assert_int_equal(count_adapters(&c), cases[i].adapters);
        else if (!strstr(err.text, cases[i].said) || !strstr(err.text, "--lora_targets"))
            fail_msg("%s: %s", cases[i].text, err.text);
        close_case(&c);
    }
}

static void patterns_freeze(void **state) {
    (void)state;
    const struct {
        const char *freeze, *train_only, *frozen, *trained, *said;
    } cases[] = {
        {"decoder.blocks.0.*", NULL, "decoder.blocks.0.attn.q_proj.weight",
         "decoder.blocks.1.attn.q_proj.weight", NULL},
        {"vision_encoder.*,MP.*", NULL, "MP.proj.weight", "decoder.norm.weight", NULL},
        {"*fc1.*, decoder.norm.weight", NULL, "decoder.norm.weight", "vision_encoder.blocks.0.mlp.fc2.bias",
         NULL},
        {"decoder.head.weight", NULL, "decoder.token_embedding.weight", "MP.proj.weight", NULL}, // tied
        {"vision_encoder.patch_embedding.*", NULL, "vision_encoder.patch_embedding.conv.bias",
         "vision_encoder.blocks.0.ln1.bias", NULL},
        {NULL, "*attn*", "MP.proj.weight", "decoder.blocks.0.attn.k_proj.weight", NULL},
        {"*blocks.0*", "*attn*", "vision_encoder.blocks.0.attn.qkv_proj.bias",
         "decoder.blocks.1.attn.k_proj.weight", NULL},
        {"decoder.nrom.*", NULL, NULL, NULL, "near is decoder.norm"},
        {NULL, "MP", NULL, NULL, "--train_only: no parameter matches MP"},
        {"*.bias", NULL, NULL, NULL, "conv.bias is frozen and vision_encoder.patch_embedding.conv.weight"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Case c;
        Error err = {""};
        const bool ok =
            try_open(&c, &(Kind){.freeze = cases[i].freeze, .train_only = cases[i].train_only}, &err);
        if (ok != !cases[i].said || (!ok && !strstr(err.text, cases[i].said)))
            fail_msg("%zu: %s", i, err.text);
        if (ok) {
            assert_false(tensor_exists(params_find(&c.model.params, cases[i].frozen)->d));
            assert_true(tensor_exists(params_find(&c.model.params, cases[i].trained)->d));
            loss_of(&c, 1.0f);
            vlm_backward(&c.model);
        }
        close_case(&c);
    }
}

// What is not frozen gets the gradients it would get without.
static void freezing_changes_no_other_gradient(void **state) {
    (void)state;
    Case all, some;
    open_case(&all, &(Kind){0});
    open_case(&some,
              &(Kind){.guard = true, .freeze = "decoder.blocks.0.mlp.*,*ln2.*,*patch_embedding.*,*head*"});
    loss_of(&all, 1.0f), loss_of(&some, 1.0f);
    vlm_backward(&all.model), vlm_backward(&some.model);
    size_t frozen = 0;
    for (size_t i = 0; i < all.model.params.count; i++) {
        const Param *p = &all.model.params.items[i], *q = &some.model.params.items[i];
        if (!q->trained) {
            frozen += p->trained;
            assert_int_equal(q->d.ndim, 0);
            continue;
        }
        float *x = values_of(&all, p->d), *y = values_of(&some, q->d);
        assert_memory_equal(x, y, tensor_bytes(p->d));
        free(x);
        free(y);
    }
    assert_int_equal(frozen, 3 + 2 + 3 + 1);
    close_case(&all);
    close_case(&some);
}

static void plans_hold_what_is_taken(void **state) {
    (void)state;
    Case c, plain;
    Trainer t;
    Error err;
    size_t bytes;
    VlmMemory memory;
    open_case(&c, &(Kind){.rank = 2, .freeze = "MP.*", .dtype = DTYPE_BF16});
    open_case(&plain, &(Kind){.dtype = DTYPE_BF16});
    if (!trainer_create(&t, &c.model, &c.config.train, (OptimizerForm){.moments = DTYPE_F32}, &err))
        fail_msg("%s", err.text);
    VlmPlan plan = c.model.plan;
    trainer_plan(&plan, &c.config);
    assert_true(vlm_measure(&memory, c.be, &c.config.vlm, &plan, &err));
    assert_true(
        optimizer_measure(&bytes, c.be, &c.config.vlm, &plan, (OptimizerForm){.moments = DTYPE_F32}, &err));
    assert_int_equal(memory.gradients, c.model.params.gradients.size);
    assert_int_equal(memory.copies, params_bf16_bytes(&c.model.params));
    assert_int_equal(memory.activations + memory.forgotten, vlm_activation_bytes(&c.model));
    assert_int_equal(bytes, t.optimizer.arena.size);
    assert_true(20 * memory.gradients < plain.model.params.gradients.size);
    trainer_free(&t);
    close_case(&c);
    close_case(&plain);
}

// ---- files ----

static bool fill_param(void *context, size_t i, void *dst) {
    Case *c = context;
    tensor_download(c->be, STREAM_COMPUTE, dst, c->model.params.items[i].w);
    backend_sync(c->be);
    return true;
}

static char *save_adapters(Case *c, const char *name) {
    Error err;
    char *folder = program_temporary(name);
    mkdir(folder, 0777);
    if (!lora_save(&c->model.params, &c->model.plan.adaptation, folder, fill_param, c, &err))
        fail_msg("%s", err.text);
    return folder;
}

static void remove_adapters(char *folder) {
    static const char *const names[] = {LORA_CONFIG_FILE, LORA_WEIGHTS_FILE};
    for (int i = 0; i < 2; i++) {
        char *path = path_join(folder, names[i]);
        unlink(path);
        free(path);
    }
    rmdir(folder);
    free(folder);
}

static void files_bring_the_same_bits_back(void **state) {
    (void)state;
    Case a, b, plain;
    Error err;
    open_case(&a, &(Kind){.rank = 3});
    open_case(&b, &(Kind){.rank = 3});
    open_case(&plain, &(Kind){0});
    randomise(&a);
    char *folder = save_adapters(&a, "adapters");
    if (!lora_load(&b.model.params, b.be, folder, &err)) fail_msg("%s", err.text);
    for (size_t i = 0; i < a.model.params.count; i++) {
        float *x = values_of(&a, a.model.params.items[i].w), *y = values_of(&b, b.model.params.items[i].w);
        assert_memory_equal(x, y, tensor_bytes(a.model.params.items[i].w));
        free(x);
        free(y);
    }
    if (!lora_merge_files(&plain.model.params, plain.be, folder, &err)) fail_msg("%s", err.text);
    expect_within("loss of merged files, relative", fabs((double)loss_of(&plain, 0) / loss_of(&a, 0) - 1),
                  2e-6, "merged");
    remove_adapters(folder);
    close_case(&a);
    close_case(&b);
    close_case(&plain);
}

static void write_bytes(const char *folder, const char *name, const char *bytes, size_t n) {
    Error err;
    char *path = path_join(folder, name);
    if (!file_write_text(path, bytes, n, &err)) fail_msg("%s", err.text);
    free(path);
}

static void expect_refused(Case *c, const char *folder, const char *said) {
    Error err = {""};
    for (int merging = 0; merging < 2; merging++) {
        const bool ok = merging ? lora_merge_files(&c->model.params, c->be, folder, &err)
                                : lora_load(&c->model.params, c->be, folder, &err);
        if (ok || !strstr(err.text, said) || !strstr(err.text, folder))
            fail_msg("expected \"%s\": %s", said, err.text);
    }
}

static void damaged_configurations_are_named(void **state) {
    (void)state;
    const struct {
        const char *text, *said;
    } cases[] = {
        {"", "no JSON object"},
        {"[]", "no JSON object"},
        {"{}", "peft_type is missing"},
        {"{\"peft_type\": \"IA3\"}", "peft_type is IA3"},
        {"{\"peft_type\": \"LORA\", \"lora_alpha\": 4}", "r is missing"},
        {"{\"peft_type\": \"LORA\", \"r\": 0, \"lora_alpha\": 4}", "r is missing"},
        {"{\"peft_type\": \"LORA\", \"r\": 3}", "lora_alpha is missing"},
        {"{\"peft_type\": \"LORA\", \"r\": 3, \"lora_alpha\": -1}", "lora_alpha is missing"},
        {"{\"peft_type\": \"LORA\", \"r\": 3, \"lora_alpha\": 16, \"use_dora\": true}", "use_dora is set"},
        {"{\"peft_type\": \"LORA\", \"r\": 3, \"lora_alpha\": 16, \"bias\": \"all\"}", "bias is all"},
        {"{\"peft_type\": \"LORA\", \"r\": 3, \"lora_alpha\": 16, \"rank_pattern\": {\"q_proj\": 4}}",
         "rank_pattern is set"},
        {"{\"peft_type\": \"LORA\", \"r\": 4, \"lora_alpha\": 16}", "has shape [3, "},
    };
    Case c;
    open_case(&c, &(Kind){.rank = 3});
    char *folder = save_adapters(&c, "config");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_bytes(folder, LORA_CONFIG_FILE, cases[i].text, strlen(cases[i].text));
        expect_refused(&c, folder, cases[i].said);
    }
    remove_adapters(folder);
    close_case(&c);
}

// Every truncation and many mutations: refused or read, never anything else, and refused files change
// nothing.
static void damaged_weights_are_refused(void **state) {
    (void)state;
    Case c;
    Error err;
    char *bytes;
    size_t size;
    open_case(&c, &(Kind){.rank = 1, .targets = "decoder.blocks.0.attn.k_proj", .freeze = "MP.*"});
    randomise(&c);
    char *folder = save_adapters(&c, "damaged"), *path = path_join(folder, LORA_WEIGHTS_FILE);
    assert_true(file_read(&bytes, &size, path, &err));
    const float before = loss_of(&c, 0);
    for (size_t n = 0; n < size; n += n < 400 ? 1 : 97) {
        write_bytes(folder, LORA_WEIGHTS_FILE, bytes, n);
        expect_refused(&c, folder, LORA_WEIGHTS_FILE);
    }
    const float after = loss_of(&c, 0);
    assert_memory_equal(&before, &after, sizeof after);
    Random r = random_stream(1, RANDOM_TEST, 5);
    for (int i = 0; i < 500; i++) {
        const size_t at = random_below(&r, size < 400 ? size : 400);
        const char old = bytes[at];
        bytes[at] = (char)random_below(&r, 256);
        write_bytes(folder, LORA_WEIGHTS_FILE, bytes, size);
        if (!lora_load(&c.model.params, c.be, folder, &err)) assert_true(strlen(err.text) > 0);
        bytes[at] = old;
    }
    free(bytes);
    free(path);
    remove_adapters(folder);
    close_case(&c);
}

// Adapters saved for other settings than those they are loaded into.
static void other_adapters_are_named(void **state) {
    (void)state;
    const struct {
        Kind saved, opened;
        double alpha;
        const char *said;
    } cases[] = {
        {{.rank = 3}, {.rank = 2}, 16, "use --lora_rank 3 --lora_alpha 16"},
        {{.rank = 3}, {.rank = 3}, 8, "use --lora_rank 3 --lora_alpha 16"},
        {{.rank = 3, .targets = "q_proj"},
         {.rank = 3, .targets = "q_proj,v_proj"},
         16,
         "no adapter of decoder.blocks.0.attn.v_proj"},
        {{.rank = 3, .targets = "q_proj,v_proj"}, {.rank = 3, .targets = "q_proj"}, 16, "v_proj"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Case a, b;
        Error err = {""};
        open_case(&a, &cases[i].saved);
        open_case(&b, &cases[i].opened);
        char *folder = save_adapters(&a, "other");
        b.model.params.lora_scale = (float)(cases[i].alpha / (double)b.model.params.lora_rank);
        if (lora_load(&b.model.params, b.be, folder, &err) || !strstr(err.text, cases[i].said))
            fail_msg("%zu: %s", i, err.text);
        remove_adapters(folder);
        close_case(&a);
        close_case(&b);
    }
}

// Names that belong nowhere, halves without the other, values that are no numbers.
typedef struct Odd {
    SafetensorsSpec specs[2];
    const float *values;
} Odd;

static bool fill_odd(void *context, size_t i, void *dst) {
    const Odd *o = context;
    for (size_t k = 0; k < o->specs[i].shape[0] * o->specs[i].shape[1]; k++) ((float *)dst)[k] = o->values[i];
    return true;
}

static void odd_tensors_are_named(void **state) {
    (void)state;
    Case c;
    Error err;
    open_case(&c, &(Kind){.rank = 1, .targets = "decoder.blocks.0.attn.k_proj"});
    const size_t C = c.config.vlm.lm_hidden_dim,
                 KD = c.config.vlm.lm_n_kv_heads * vlm_config_head_dim(&c.config.vlm);
    const char *a = "base_model.model.decoder.blocks.0.attn.k_proj.lora_A.weight",
               *b = "base_model.model.decoder.blocks.0.attn.k_proj.lora_B.weight",
               *odd = "base_model.model.decoder.blocks.7.attn.k_proj.lora_A.weight";
    const float fine[] = {1, 1}, bad[] = {1, NAN};
    const struct {
        const char *names[2];
        const float *values;
        size_t rank;
        const char *said;
    } cases[] = {{{odd, NULL}, fine, 1, "belongs to no matrix"},
                 {{a + 17, NULL}, fine, 1, "belongs to no matrix"},
                 {{a, NULL}, fine, 1, "lora_B.weight is missing"},
                 {{b, NULL}, fine, 1, "lora_A.weight is missing"},
                 {{a, b}, bad, 1, "NaN"},
                 {{a, b}, fine, 2, "has shape"}};
    char *folder = save_adapters(&c, "odd"), *path = path_join(folder, LORA_WEIGHTS_FILE);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Odd o = {.values = cases[i].values};
        const size_t n = cases[i].names[1] ? 2 : 1, r = cases[i].rank;
        for (size_t k = 0; k < n; k++) {
            const bool is_b = !strcmp(cases[i].names[k], b);
            o.specs[k] =
                (SafetensorsSpec){cases[i].names[k], DTYPE_F32, 2, {is_b ? KD : r, is_b ? 1 : C / r}};
        }
        assert_true(safetensors_write(path, o.specs, n, NULL, 0, fill_odd, &o, &err));
        expect_refused(&c, folder, cases[i].said);
    }
    free(path);
    remove_adapters(folder);
    close_case(&c);
}

// ---- the program ----

static char *read_bytes(const char *folder, const char *name, size_t *size) {
    Error err;
    char *bytes, *path = path_join(folder, name);
    if (!file_read(&bytes, size, path, &err)) fail_msg("%s", err.text);
    free(path);
    return bytes;
}

// What --dry_run says of a checkpoint, in bytes.
static double planned_bytes(const char *train) {
    char *line = mem_printf("%s --dry_run", train);
    ProgramResult r = program_run(line);
    const char *at = strstr(r.out, "a checkpoint ");
    double mib = 0;
    if (r.status || !at || sscanf(at, "a checkpoint %lf", &mib) != 1) fail_msg("%s\n%s", r.out, r.err);
    program_result_free(&r);
    free(line);
    return mib * 1048576;
}

// A run with adapters that lost its last checkpoint makes it again to the bit; and what reads checkpoints.
static void a_resumed_run_has_the_same_bits(void **state) {
    (void)state;
    static const char *const files[] = {"model.safetensors", LORA_WEIGHTS_FILE, LORA_CONFIG_FILE,
                                        "state-rank0.safetensors"};
    char *work = program_temporary("run"), *tokenizer = golden_path("model/tokenizer"), *bytes[4];
    size_t sizes[4];
    char *synth = mem_printf("synth --out %s/data --rows 60 --test_rows 0", work),
         *train =
             mem_printf("train --preset tiny --vit_n_blocks 1 --lm_n_blocks 1 --lm_max_length 128 "
                        "--max_sample_length 128 --val_size 0 --batch_size 2 --eval_interval 3 --threads 1 "
                        "--max_training_steps 6 --num_workers 1 --train_dataset_path %s/data/train "
                        "--vlm_checkpoint_path %s/runs --lm_tokenizer %s --run_name a --resume auto "
                        "--lora_rank 2 --lora_targets all-linear --lr_lora 0.01",
                        work, work, tokenizer),
         *last = mem_printf("%s/runs/a/step_5", work);
    program_expect(synth, 0, "", "");
    const double planned = planned_bytes(train);
    program_expect(train, 0, "", "LoRA language");
    double all = 0;
    for (int i = 0; i < 4; i++) {
        bytes[i] = read_bytes(last, files[i], &sizes[i]);
        all += (double)sizes[i];
    }
    assert_true(fabs(planned / all - 1) < 0.01);
    checkpoint_remove(last);
    program_expect(train, 0, "", "bit for bit");
    for (int i = 0; i < 4; i++) {
        size_t size;
        char *again = read_bytes(last, files[i], &size);
        if (size != sizes[i] || memcmp(again, bytes[i], size)) fail_msg("%s differs", files[i]);
        free(again);
        free(bytes[i]);
    }
    char *export =
        mem_printf("export --checkpoint %s --adapter %s --out %s/to --to nanovlm", last, last, work);
    program_expect(export, 1, "", "merged in it already");
    remove_folder_tree(work);
    free(export);
    free(last);
    free(train);
    free(synth);
    free(tokenizer);
    free(work);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gradients_are_those_of_the_loss),
        cmocka_unit_test(recomputing_and_the_guard_change_no_bit),
        cmocka_unit_test(fresh_adapters_leave_the_model_as_it_is),
        cmocka_unit_test(merged_weights_give_the_same_loss),
        cmocka_unit_test(only_adapters_and_the_projector_move),
        cmocka_unit_test(a_step_without_pictures_leaves_vision_adapters),
        cmocka_unit_test(targets_are_pefts),
        cmocka_unit_test(patterns_freeze),
        cmocka_unit_test(freezing_changes_no_other_gradient),
        cmocka_unit_test(plans_hold_what_is_taken),
        cmocka_unit_test(files_bring_the_same_bits_back),
        cmocka_unit_test(damaged_configurations_are_named),
        cmocka_unit_test(damaged_weights_are_refused),
        cmocka_unit_test(other_adapters_are_named),
        cmocka_unit_test(odd_tensors_are_named),
        cmocka_unit_test(a_resumed_run_has_the_same_bits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
