#include "train/batch_source.h"
#include "base/log.h"

#include <stdio.h>

static bool next_batch(void *state, const Batch **batch, Error *err) {
    return loader_next(state, batch, err);
}

static bool restart(void *state, uint64_t epoch, Error *err) {
    return loader_restart(state, epoch, err);
}

static void save(void *state, CharVec *place) {
    loader_save(state, place);
}

static bool restore(void *state, const void *place, size_t size, Error *err) {
    return loader_restore(state, place, size, err);
}

static void report(void *state, uint64_t epoch) {
    const LoaderCounts c = loader_counts(state);
    const struct {
        const char *kind;
        uint64_t count;
    } skipped[] = {
        {"rows unreadable", c.skipped_unreadable},
        {"rows without a turn after the rating filter", c.skipped_ratings},
        {"samples too long", c.skipped_too_long},
        {"samples with too many images", c.skipped_images},
        {"batches without an image", c.skipped_no_image},
    };
    char text[512] = "nothing skipped";
    int used = 0;
    for (size_t i = 0; i < sizeof skipped / sizeof skipped[0]; i++)
        if (skipped[i].count)
            used +=
                snprintf(text + used, sizeof text - (size_t)used, "%s%llu %s",
                         used ? ", " : "skipped: ", (unsigned long long)skipped[i].count, skipped[i].kind);
    log_info("data after epoch %llu: %llu rows, %llu samples, %llu sequences, %llu batches; %s",
             (unsigned long long)epoch, (unsigned long long)c.rows, (unsigned long long)c.samples,
             (unsigned long long)c.packs, (unsigned long long)c.batches, text);
    if (c.truncated)
        log_info("%llu of the samples were cut at their end to fit (long_samples truncate)",
                 (unsigned long long)c.truncated);
}

BatchSource batch_source_of_loader(Loader *loader) {
    if (!loader) return (BatchSource){0};
    return (BatchSource){.next = next_batch,
                         .restart = restart,
                         .report = report,
                         .state = loader,
                         .save = save,
                         .restore = restore};
}
