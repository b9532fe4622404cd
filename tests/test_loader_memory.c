// LINK: data
// What a loader says that it holds at most, beside what it holds while it works: its samples, and the tiles
// of its batches.
#include "support/loader_case.h"

#include "base/log.h"
#include "data/loader_stages.h"
#include "data/packer_strategy.h"

static size_t held_now(Loader *l) {
    size_t bytes = 0;
    for (size_t i = 0; i < l->ring_size; i++)
        if (l->ring[i].done && l->ring[i].sample) bytes += sample_bytes(l->ring[i].sample);
    for (size_t i = 0; i < l->packer->waiting.count; i++) bytes += l->packer->waiting.items[i].item.bytes;
    for (size_t i = packer_pack_first(l->packer, l->packer->taken); i < l->packer->ready.count; i++)
        bytes += l->packer->ready.items[i].bytes;
    for (size_t i = 0; i < l->n_slots; i++)
        bytes += l->slots[i].filled_tiles * loader_tile_bytes(&l->config->vlm);
    return bytes;
}

// Does all that can be done ahead, as threads would; *most: what is held at most meanwhile.
static void work_ahead(size_t *most, Loader *l) {
    pthread_mutex_lock(&l->lock);
    do {
        const size_t now = held_now(l);
        if (now > *most) *most = now;
    } while (loader_work(l));
    pthread_mutex_unlock(&l->lock);
}

// Of the second epoch, which finds the first one's last batches in the slots.
static void held_in_an_epoch(size_t *busy, size_t *ready, const Case *k) {
    Error err;
    Loader *l = open_split(k, LOADER_TRAIN);
    const Batch *b;
    *busy = *ready = 0;
    for (uint64_t epoch = 0; epoch < 2; epoch++) {
        *busy = *ready = 0;
        expect(loader_restart(l, epoch, &err), &err);
        work_ahead(busy, l);
        do {
            work_ahead(ready, l);
            expect(loader_next(l, &b, &err), &err);
        } while (b);
    }
    loader_close(l);
}

static void expect_near(size_t planned, size_t held, const char *what) {
    const double ratio = (double)planned / (double)held;
    if (ratio < 0.9 || ratio > 1.1) fail_msg("%s: %zu bytes, planned %zu", what, held, planned);
}

static void check_plan(Case *k, const char *packing, size_t length, bool is_whole) {
    size_t busy, ready;
    set_text(&k->config.options.packing, packing);
    k->config.vlm.lm_max_length = length;
    Loader *l = open_split(k, LOADER_TRAIN);
    const LoaderMemory m = loader_memory(l);
    loader_close(l);
    held_in_an_epoch(&busy, &ready, k);
    expect_near(m.given.samples + m.given.tiles, ready, packing);
    expect_near(m.busy.samples + m.busy.tiles, is_whole ? busy : ready, packing);
    assert_true(is_whole == (m.busy.samples > m.given.samples));
}

static void test_a_long_epoch(void **state) {
    (void)state;
    Case k;
    begin(&k);
    check_plan(&k, "best", 128, false);
    check_plan(&k, "nanovlm", 256, false);
    k.config.vlm.max_img_size = 32; // of few tiles, samples take most
    check_plan(&k, "best", 128, false);
    k.config.train.batch_size = 1; // of few samples in the packer, the ring has most
    check_plan(&k, "nanovlm", 256, false);
    end(&k);
}

static void test_an_epoch_that_waits_as_a_whole(void **state) {
    (void)state;
    Case k;
    begin(&k);
    check_plan(&k, "best", 1024, true);
    k.config.train.batch_size = 8;
    check_plan(&k, "best", 1024, true);
    end(&k);
}

int main(void) {
    log_set_level(LOG_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_long_epoch),
        cmocka_unit_test(test_an_epoch_that_waits_as_a_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
