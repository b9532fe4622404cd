// LINK: train
// LABELS: parity
// COST: 30
// Data parallel training: several ranks against one process that takes all their micro-batches, on nanoVLM's
// own small run; the same bits on every rank and in every run.
#include "base/memory.h"
#include "dist/comm.h"
#include "dist/launch.h"
#include "ops/cpu/cpu.h"
#include "support/ranks.h"
#include "support/train_case.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { UPDATES = 4 };

// ---- ranks ----

typedef struct Scene {
    const char *name, *variant;
    size_t accumulation, bucket_bytes;
    bool other_weights; // the last rank begins with one other value
    bool no_pictures;   // the last rank's batches have none
    bool shared;        // each rank has the moments of its share alone
    Dtype moments;
    size_t lora_rank;
} Scene;

static const Scene scenes[] = {
    {"buckets", "three_groups", 1, 1 << 12, false, false, false, DTYPE_F32, 0},
    {"one_bucket", "three_groups", 1, 1 << 30, false, false, false, DTYPE_F32, 0},
    {"accumulation", "three_groups", 2, 1 << 12, false, false, false, DTYPE_F32, 0},
    {"other_weights", "three_groups", 1, 1 << 12, true, false, false, DTYPE_F32, 0},
    {"no_pictures", "three_groups", 1, 1 << 12, false, true, false, DTYPE_F32, 0},
    {"adapters", "three_groups", 1, 1 << 12, false, false, false, DTYPE_F32, 3},
    {"adapters_shared", "three_groups", 1, 1 << 12, false, false, true, DTYPE_F32, 3},
    {"shared", "three_groups", 1, 1 << 12, false, false, true, DTYPE_F32, 0},
    {"frozen", "vision_frozen", 1, 1 << 12, false, false, false, DTYPE_F32, 0},
    {"frozen_shared", "vision_frozen", 1, 1 << 12, false, false, true, DTYPE_F32, 0},
    {"rounded", "three_groups", 1, 1 << 12, false, false, false, DTYPE_BF16, 0},
    {"rounded_shared", "three_groups", 1, 1 << 12, false, false, true, DTYPE_BF16, 0},
    {"codes", "three_groups", 1, 1 << 12, false, false, false, DTYPE_U8, 0},
    {"codes_shared", "three_groups", 1, 1 << 12, false, false, true, DTYPE_U8, 0},
};

static const Scene *find_scene(const char *name) {
    size_t s = 0;
    while (strcmp(scenes[s].name, name) != 0) s++;
    return &scenes[s];
}

static Batch without_pictures(const Batch *b, int32_t image_token_id) {
    Batch plain = *b;
    plain.n_tiles = 0;
    plain.input_ids = mem_alloc(b->B * b->T * sizeof *plain.input_ids);
    for (size_t i = 0; i < b->B * b->T; i++)
        plain.input_ids[i] = b->input_ids[i] == image_token_id ? 1 : b->input_ids[i];
    return plain;
}

static bool micro_step(TrainCase *c, const Scene *scene, size_t world, size_t number, Error *err) {
    const Batch *b = &c->micro[number % c->n_micro];
    const bool bare = scene->no_pictures && number % world + 1 == world;
    const Batch plain = bare ? without_pictures(b, c->model.plan.image_token_id) : *b;
    float loss;
    const bool ok = trainer_micro_step(&c->trainer, &plain, &loss, err);
    if (bare) free((void *)plain.input_ids);
    return ok;
}

// Rank r of a world takes the micro-batches r, r + world, …; one process alone takes all (stride 1).
static bool train(TrainCase *c, const Scene *scene, size_t world, size_t first, size_t stride, Error *err) {
    for (size_t u = 0, next = first; u < UPDATES; u++) {
        for (size_t a = 0; a < c->config.train.gradient_accumulation_steps; a++, next += stride)
            if (!micro_step(c, scene, world, next, err)) return false;
        trainer_update(&c->trainer);
    }
    return true;
}

// All weights behind one another; caller frees.
static float *all_weights(const TrainCase *c, size_t *n) {
    float *all = NULL;
    *n = 0;
    for (size_t i = 0; i < c->model.params.count; i++) {
        const Tensor w = c->model.params.items[i].w;
        float *x = tensor_values(c->be, w);
        all = mem_resize(all, (*n + tensor_count(w)) * sizeof *all);
        memcpy(all + *n, x, tensor_bytes(w));
        *n += tensor_count(w);
        free(x);
    }
    return all;
}

static void write_weights(const TrainCase *c, const char *folder, size_t rank) {
    char path[256];
    size_t n;
    float *x = all_weights(c, &n);
    snprintf(path, sizeof path, "%s/weights%zu", folder, rank);
    FILE *f = fopen(path, "w");
    x = mem_resize(x, (n + 1) * sizeof *x);
    x[n++] = c->trainer.grad_norm; // which unlike AdamW's step knows the gradients' scale
    if (!f || fwrite(x, sizeof *x, n, f) != n || fclose(f) != 0) _exit(9);
    free(x);
}

static void open_case(TrainCase *c, Backend **be, const Scene *scene, size_t accumulation, Launch launch) {
    Error err;
    if (!backend_cpu_create(be, 1, &err)) fail_msg("%s", err.text);
    const OptimizerForm form = {scene->moments, scene->shared ? launch.rank : 0,
                                scene->shared ? launch.world_size : 1};
    train_case_open_lora(c, *be, scene->variant, form, scene->lora_rank);
    c->config.train.gradient_accumulation_steps = accumulation;
    c->config.train.max_training_steps = UPDATES;
}

static int be_a_rank(const char *name, const char *folder) {
    const Scene *scene = find_scene(name);
    Backend *be;
    TrainCase c;
    Comm *comm;
    Launch launch = {0};
    Error err = {""};
    if (!launch_read(&launch, &err)) return 2;
    open_case(&c, &be, scene, scene->accumulation, launch);
    bool ok = comm_open(&comm, 60, &err);
    if (!ok) {
        ranks_report(folder, launch.rank, err.text);
        _exit(2);
    }
    if (scene->other_weights && launch.rank + 1 == launch.world_size) {
        float *x = tensor_values(be, c.model.params.projector->w);
        x[3] += 1;
        tensor_upload(be, STREAM_COMPUTE, c.model.params.projector->w, x);
        free(x);
    }
    ok = trainer_join(&c.trainer, comm, scene->bucket_bytes, &err) &&
         train(&c, scene, launch.world_size, launch.rank, launch.world_size, &err);
    if (ok) write_weights(&c, folder, launch.rank);
    ranks_report(folder, launch.rank, ok ? "fine" : err.text);
    if (ok)
        ok = comm_close(comm, &err);
    else
        comm_give_up(comm, err.text);
    train_case_close(&c);
    backend_destroy(be);
    return ok ? 0 : 1;
}

// ---- tests ----

typedef struct Weights {
    float *x;
    size_t n;
} Weights;

static Weights read_weights(const char *folder, size_t rank) {
    char path[256];
    snprintf(path, sizeof path, "%s/weights%zu", folder, rank);
    FILE *f = fopen(path, "r");
    if (!f) fail_msg("no weights of rank %zu", rank);
    fseek(f, 0, SEEK_END);
    Weights w = {.n = (size_t)ftell(f) / sizeof(float)};
    w.x = mem_alloc(w.n * sizeof *w.x);
    rewind(f);
    assert_int_equal(fread(w.x, sizeof *w.x, w.n, f), w.n);
    fclose(f);
    unlink(path);
    return w;
}

// The weights after a run: those of rank 0, after a look at the others'.
static Weights run_ranks(const char *scene, size_t world) {
    World w = run_sockets(scene, world);
    expect_fine(&w);
    Weights first = read_weights(w.folder, 0);
    for (size_t r = 1; r < world; r++) {
        Weights other = read_weights(w.folder, r);
        assert_int_equal(first.n, other.n);
        assert_memory_equal(first.x, other.x, first.n * sizeof *first.x);
        free(other.x);
    }
    rmdir(w.folder);
    return first;
}

// One process with world · accumulation micro-batches an update, by how far training moved the weights.
static void compare_with_one(const char *scene_name, Weights ranks, size_t world) {
    const Scene *scene = find_scene(scene_name);
    Backend *be;
    TrainCase c;
    Error err;
    size_t n;
    open_case(&c, &be, scene, world * scene->accumulation, (Launch){.world_size = 1});
    float *start = all_weights(&c, &n);
    if (!train(&c, scene, world, 0, 1, &err)) fail_msg("%s", err.text);
    float *one = all_weights(&c, &n);
    assert_int_equal(n + 1, ranks.n);
    expect_within("norm of the gradient, relative", fabs(ranks.x[n] / c.trainer.grad_norm - 1), 5e-4,
                  "%s, %zu ranks", scene_name, world);
    for (size_t i = 0; i < n; i++) one[i] -= start[i], ranks.x[i] -= start[i];
    expect_within("weights of ranks against one process, of the movement", relative_l2(ranks.x, one, n), 1e-2,
                  "%s, %zu ranks", scene_name, world);
    free(start);
    free(one);
    train_case_close(&c);
    backend_destroy(be);
}

static void test_ranks_are_one(void **state) {
    (void)state;
    static const struct {
        const char *scene;
        size_t world;
    } cases[] = {{"buckets", 2},    {"buckets", 4},     {"accumulation", 2},
                 {"one_bucket", 2}, {"no_pictures", 2}, {"adapters", 2}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Weights ranks = run_ranks(cases[i].scene, cases[i].world);
        compare_with_one(cases[i].scene, ranks, cases[i].world);
        free(ranks.x);
    }
}

static void test_same_bits(void **state) {
    (void)state;
    Weights a = run_ranks("buckets", 3), b = run_ranks("buckets", 3);
    assert_memory_equal(a.x, b.x, a.n * sizeof *a.x);
    free(a.x);
    free(b.x);
}

// Shared or not, moments give the same weights and norm.
static void test_shares_change_no_bit(void **state) {
    (void)state;
    static const struct {
        const char *whole, *shared;
        size_t world;
    } cases[] = {{"buckets", "shared", 2},         {"buckets", "shared", 4},
                 {"frozen", "frozen_shared", 3},   {"adapters", "adapters_shared", 3},
                 {"rounded", "rounded_shared", 3}, {"codes", "codes_shared", 3}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Weights a = run_ranks(cases[i].whole, cases[i].world), b = run_ranks(cases[i].shared, cases[i].world);
        assert_int_equal(a.n, b.n);
        assert_memory_equal(a.x, b.x, a.n * sizeof *a.x);
        free(a.x);
        free(b.x);
    }
}

static void expect_slices(const Optimizer *o, size_t ranks) {
    for (size_t i = 0; i < o->params->count; i++) {
        const Param *p = &o->params->items[i];
        size_t at = 0;
        for (size_t r = 0; r < ranks; r++) {
            const Slice s = optimizer_slice(o, r, i);
            assert_int_equal(s.first, at);
            assert_true(s.n == 0 || s.first % 64 == 0);
            at += s.n;
        }
        assert_int_equal(at, tensor_exists(p->d) ? tensor_count(p->w) : 0);
    }
}

// The shares are all of the moments, each value once, and in F32 none is larger than it should be.
static void test_shares(void **state) {
    (void)state;
    static const Dtype moments[] = {DTYPE_F32, DTYPE_BF16, DTYPE_U8};
    for (size_t ranks = 1; ranks <= 7; ranks++) {
        for (int k = 0; k < 3; k++) {
            Backend *be;
            TrainCase c;
            const Scene scene = {"", "three_groups", 1, 0, .shared = true, .moments = moments[k]};
            open_case(&c, &be, &scene, 1, (Launch){.rank = ranks - 1, .world_size = ranks});
            const Optimizer *o = &c.trainer.optimizer;
            const size_t total = o->offsets[o->params->count], padding = 128 * (o->params->count + 1);
            expect_slices(o, ranks);
            if (k == 0) assert_true(o->arena.size <= 2 * sizeof(float) * (total / ranks + 64) + padding);
            train_case_close(&c);
            backend_destroy(be);
        }
    }
}

static void test_other_weights(void **state) {
    (void)state;
    World w = run_sockets("other_weights", 3);
    expect_failed(&w, "rank 2 does not begin with the weights of rank 0", "seed");
    rmdir(w.folder);
}

int main(int argc, char **argv) {
    if (argc == 4 && !strcmp(argv[1], "--rank")) return be_a_rank(argv[2], argv[3]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ranks_are_one), cmocka_unit_test(test_same_bits),
        cmocka_unit_test(test_shares),        cmocka_unit_test(test_shares_change_no_bit),
        cmocka_unit_test(test_other_weights),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
