#include "model/rehearse.h"
#include "base/memory.h"

#include <stdlib.h>

enum { IMAGE_TOKEN = 0, TEXT_TOKEN = 1 };

static void set_all(int32_t *values, size_t n, int32_t value) {
    for (size_t i = 0; i < n; i++) values[i] = value;
}

// The largest batch of the plan; its pixels are never looked at.
static void make_batch(Batch *b, const Vlm *m, float *pixels) {
    const VlmPlan *p = &m->plan;
    const size_t n = p->max_batch * p->max_positions, targets = p->max_targets ? p->max_targets : n,
                 pictures = p->max_tiles * m->config->mp_image_token_length;
    *b = (Batch){.B = p->max_batch, .T = p->max_positions, .n_tiles = p->max_tiles, .images = pixels};
    b->input_ids = mem_alloc(n * sizeof(int32_t));
    b->labels = mem_alloc(n * sizeof(int32_t));
    b->attention_mask = mem_alloc(n * sizeof(int32_t));
    b->starts = p->documents ? mem_zeroed(n, sizeof(int32_t)) : NULL;
    set_all(b->input_ids, n, TEXT_TOKEN);
    set_all(b->input_ids, pictures, IMAGE_TOKEN);
    set_all(b->labels, n, IGNORE_INDEX);
    set_all(b->labels, targets, TEXT_TOKEN);
    set_all(b->attention_mask, n, 1);
}

static bool run(Vlm *m, Backend *twin, Error *err) {
    const size_t side = m->config->vit_img_size, bytes = m->plan.max_tiles * 3 * side * side * sizeof(float);
    float *pixels = twin->device->alloc(twin, bytes);
    Batch batch;
    make_batch(&batch, m, pixels);
    const bool ok = vlm_forward(m, &batch, 1.0f, err);
    if (ok && m->plan.training) vlm_backward(m);
    free(batch.input_ids);
    free(batch.labels);
    free(batch.attention_mask);
    free(batch.starts);
    twin->device->release(twin, pixels, bytes);
    return ok;
}

bool vlm_rehearse(size_t *scratch, Backend *be, const VLMConfig *config, const VlmPlan *plan, Error *err) {
    *scratch = 0;
    if (!be->device->rehearsal) return true;
    Backend *twin = be->device->rehearsal(be);
    VlmPlan p = *plan;
    Vlm m;
    p.image_token_id = IMAGE_TOKEN;
    const size_t most = p.max_batch * p.max_positions / config->mp_image_token_length;
    if (p.max_tiles > most) p.max_tiles = most;
    bool ok = vlm_create(&m, twin, config, &p, err);
    if (ok) {
        ok = run(&m, twin, err);
        *scratch = twin->device->workspace(twin);
        vlm_free(&m);
    }
    backend_destroy(twin);
    return ok;
}
