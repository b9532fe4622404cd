// `vlm memory`: what training with a configuration takes, worked out from the plans without allocating
// anything.
#include "cmd/cmd.h"
#include "base/log.h"
#include "data/loader.h"
#include "model/vlm.h"
#include "ops/cpu/cpu.h"
#include "train/optimizer.h"

#include <stdio.h>

static void print_row(const char *what, size_t bytes) {
    printf("%-24s %12.1f MiB\n", what, (double)bytes / 1048576.0);
}

static bool print_memory(Backend *be, const Config *c, Error *err) {
    VlmPlan plan = {.max_batch = c->train.batch_size,
                    .max_positions = c->vlm.lm_max_length,
                    .max_tiles = loader_max_tiles(c),
                    .training = true,
                    .documents = train_options_documents(&c->options),
                    .dtype = vlm_dtype(c->options.dtype, be)};
    const Number *rates[GROUP_TRAINED] = {&c->train.lr_mp, &c->train.lr_vision_backbone,
                                          &c->train.lr_language_backbone};
    for (int g = 0; g < GROUP_TRAINED; g++) plan.trained[g] = rates[g]->value > 0;
    VlmMemory m;
    size_t moments;
    if (!vlm_measure(&m, be, &c->vlm, &plan, err) ||
        !optimizer_measure(&moments, be, &c->vlm, plan.trained, err))
        return false;
    printf("batch of %zu x %zu tokens, at most %zu tiles of %zu pixels\n", plan.max_batch, plan.max_positions,
           plan.max_tiles, c->vlm.vit_img_size);
    print_row("parameters", m.parameters);
    print_row("gradients", m.gradients);
    print_row("optimizer moments", moments);
    print_row("activations, at most", m.activations);
    print_row("total", m.parameters + m.gradients + moments + m.activations);
    return true;
}

int cmd_memory(int argc, char **argv) {
    Error err;
    Config c;
    Backend *be = NULL;
    config_init(&c);
    int status = EXIT_USAGE;
    if (config_parse(&c, (FieldSet){0}, argc, argv, &err)) {
        bool ok = backend_cpu_create(&be, c.options.threads, &err) && print_memory(be, &c, &err);
        status = ok ? EXIT_DONE : EXIT_FAILED;
        backend_destroy(be);
    }
    if (status != EXIT_DONE) log_error("%s", err.text);
    config_free(&c);
    return status;
}
