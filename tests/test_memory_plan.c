// LINK: train ops_cpu config
// What of two loaders and of a checkpoint comes together at the peak.
#include "support/golden.h"

#include "ops/cpu/cpu.h"
#include "train/memory_plan.h"

enum { MIB = 1 << 20 };

typedef struct Case {
    Config config;
    Backend *be;
    HostMemory host;
} Case;

// Training's batches wait with fewer samples than were there before the first of them; validation's are those
// of a small part of each group.
static void begin(Case *k) {
    Error err;
    config_init(&k->config);
    if (!config_apply_preset(&k->config, "tiny", &err)) fail_msg("%s", err.text);
    if (!backend_cpu_create(&k->be, 1, &err)) fail_msg("%s", err.text);
    k->host = (HostMemory){.training = {.rows = 60 * MIB,
                                        .busy = {.samples = 50 * MIB, .tiles = 7 * MIB},
                                        .given = {.samples = 30 * MIB, .tiles = 8 * MIB},
                                        .building = MIB,
                                        .reading = 28 * MIB,
                                        .kept = 10 * MIB,
                                        .to_come = 5 * MIB,
                                        .most_tiles = 20,
                                        .slots = 3},
                           .validation = {.busy = {.samples = 4 * MIB, .tiles = 2 * MIB},
                                          .ready = {.samples = 3 * MIB, .tiles = MIB},
                                          .given = {.samples = MIB, .tiles = 6 * MIB},
                                          .building = MIB,
                                          .reading = 28 * MIB,
                                          .kept = MIB,
                                          .to_come = 4 * MIB,
                                          .most_tiles = 20,
                                          .slots = 2}};
}

static void end(Case *k) {
    backend_destroy(k->be);
    config_free(&k->config);
}

static MemoryPlan plan(Case *k, size_t tiles) {
    Error err;
    MemoryPlan m;
    if (!memory_plan_run(&m, k->be, &k->config, &k->host, tiles, 100, &err)) fail_msg("%s", err.text);
    return m;
}

// Busy training holds 50 + 7, takes 28 - 10 - 5, beside 3 + 1: 74. Beside the 30 + 8 of training that goes
// on, validation holds 4 + 2 when it begins and takes 28 - 1 - 4: 67; and later 1 + 6.
static void one_loader_is_busy(void **state) {
    (void)state;
    Case k;
    begin(&k);
    MemoryPlan m = plan(&k, 20);
    assert_int_equal(m.samples, 53 * MIB);
    assert_int_equal(m.work, 13 * MIB);
    assert_int_equal(m.batches, 8 * MIB);
    k.host.training.given.samples = 38 * MIB; // now 75
    m = plan(&k, 20);
    assert_int_equal(m.samples, 42 * MIB);
    assert_int_equal(m.work, 23 * MIB);
    assert_int_equal(m.batches, 10 * MIB);
    k.host.validation.given.tiles = 30 * MIB;
    m = plan(&k, 20);
    assert_int_equal(m.samples, 39 * MIB);
    assert_int_equal(m.work, 0);
    assert_int_equal(m.batches, 38 * MIB);
    end(&k);
}

// Where all of a group is kept, building samples takes more than reading.
static void samples_are_built_when_nothing_is_read(void **state) {
    (void)state;
    Case k;
    begin(&k);
    k.host.training.kept = k.host.validation.kept = 28 * MIB;
    assert_int_equal(plan(&k, 20).work, MIB);
    end(&k);
}

static void a_larger_batch_than_any_seen(void **state) {
    (void)state;
    Case k;
    begin(&k);
    const size_t before = plan(&k, 20).batches;
    assert_int_equal(plan(&k, 19).batches, before);
    assert_int_equal(plan(&k, 25).batches, before + 5 * loader_tile_bytes(&k.config.vlm));
    end(&k);
}

// Who writes has the largest tensor once more, with or without a copy of all.
static void the_tensor_that_is_written(void **state) {
    (void)state;
    Case k;
    begin(&k);
    const VLMConfig *c = &k.config.vlm;
    const size_t embedding = c->lm_vocab_size * c->lm_hidden_dim * sizeof(float),
                 projector = c->vit_hidden_dim * c->mp_pixel_shuffle_factor * c->mp_pixel_shuffle_factor *
                             c->lm_hidden_dim * sizeof(float),
                 largest = embedding > projector ? embedding : projector;
    const size_t without = plan(&k, 20).checkpoint;
    assert_int_equal(without, 0);
    k.host.writes_checkpoints = true;
    assert_int_equal(plan(&k, 20).checkpoint, largest);
    k.host.checkpoint_copy = true;
    const MemoryPlan m = plan(&k, 20);
    assert_int_equal(m.checkpoint, m.parameters + m.moments + largest);
    end(&k);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_loader_is_busy),
        cmocka_unit_test(samples_are_built_when_nothing_is_read),
        cmocka_unit_test(a_larger_batch_than_any_seen),
        cmocka_unit_test(the_tensor_that_is_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
