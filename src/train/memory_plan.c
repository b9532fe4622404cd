#include "train/memory_plan.h"
#include "train/optimizer.h"

#include <stdio.h>
#include <unistd.h>

// Measured as the difference between what runs took and all the rest, from 2 million parameters to 460: 5 to
// 8 MiB in BF16, whose primitives share one buffer, 7 to 17 in F32.
enum { LIBRARY_BF16 = 6 << 20, LIBRARY_F32 = 11 << 20 };

static size_t resident_bytes(void) {
    size_t pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (!f) return 0;
    if (fscanf(f, "%*u %zu", &pages) != 1) pages = 0;
    fclose(f);
    return pages * (size_t)sysconf(_SC_PAGESIZE);
}

static size_t batch_bytes(const VLMConfig *c, const VlmPlan *plan, size_t tile_bytes) {
    const size_t positions = plan->max_batch * plan->max_positions,
                 values = plan->max_tiles * 3 * c->vit_img_size * c->vit_img_size;
    return 4 * positions * sizeof(int32_t) + values * sizeof(float) + plan->max_tiles * tile_bytes;
}

bool memory_plan(MemoryPlan *m, Backend *be, const VLMConfig *config, const VlmPlan *plan, HostMemory host,
                 Error *err) {
    VlmMemory model;
    size_t all_moments; // which a checkpoint holds, though this rank may not
    *m = (MemoryPlan){.program = resident_bytes()};
    if (!vlm_measure(&model, be, config, plan, err) ||
        !optimizer_measure(&m->moments, be, config, plan, host.optimizer, err) ||
        !optimizer_measure(&all_moments, be, config, plan, (OptimizerForm){host.optimizer.moments, 0, 1},
                           err))
        return false;
    m->parameters = model.parameters;
    m->copies = model.copies;
    m->gradients = model.gradients;
    m->activations = model.activations;
    m->batches = host.n_batches * batch_bytes(config, plan, host.tile_bytes);
    m->checkpoint = host.checkpoint_copy ? m->parameters + all_moments : 0;
    m->library = plan->dtype == DTYPE_BF16 && be->bf16 ? LIBRARY_BF16 : LIBRARY_F32;
    return true;
}

size_t memory_plan_total(const MemoryPlan *m) {
    return m->program + m->parameters + m->copies + m->gradients + m->moments + m->activations + m->batches +
           m->checkpoint + m->library;
}
