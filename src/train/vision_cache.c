#include "train/vision_cache.h"
#include "base/check.h"
#include "base/memory.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

// A change of how features are computed or laid out that changes a bit of them must change this number.
enum { ARITHMETIC = 1 };

static Digest digest_of_param(Digest d, const Param *p, Backend *be) {
    const size_t bytes = tensor_bytes(p->w);
    char *values = mem_alloc(bytes);
    tensor_download(be, STREAM_COMPUTE, values, p->w);
    backend_sync(be);
    d = digest_of(digest_of(d, p->name, strlen(p->name)), values, bytes);
    free(values);
    return d;
}

static Digest digest_of_vision(const Vlm *m) {
    Digest d = digest_of((Digest){{0}}, &m->params.lora_scale, sizeof m->params.lora_scale);
    for (size_t i = 0; i < m->params.count; i++) {
        const Param *p = &m->params.items[i];
        if (p->group == GROUP_VISION || p->group == GROUP_LORA_VISION) d = digest_of_param(d, p, m->be);
    }
    return d;
}

// Everything besides a tile's pixels that its features depend on, to the bit.
static char *made_by(const Vlm *m) {
    const VLMConfig *c = m->config;
    char weights[DIGEST_TEXT];
    digest_text(weights, digest_of_vision(m));
    json_t *o = json_pack("{s:s, s:s, s:s, s:i}", "weights", weights, "dtype", dtype_name(m->params.act),
                          "arithmetic", m->be->arithmetic, "version", ARITHMETIC);
    const struct {
        const char *name;
        size_t value;
    } sizes[] = {
        {"vit_hidden_dim", c->vit_hidden_dim},
        {"vit_inter_dim", c->vit_inter_dim},
        {"vit_patch_size", c->vit_patch_size},
        {"vit_img_size", c->vit_img_size},
        {"vit_n_heads", c->vit_n_heads},
        {"vit_n_blocks", c->vit_n_blocks},
        {"mp_pixel_shuffle_factor", c->mp_pixel_shuffle_factor},
    };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        json_object_set_new(o, sizes[i].name, json_integer((json_int_t)sizes[i].value));
    json_object_set_new(o, "vit_ln_eps", json_real(c->vit_ln_eps.value));
    char *text = json_dumps(o, JSON_INDENT(2) | JSON_SORT_KEYS);
    CHECK(text, "no text of a JSON object");
    json_decref(o);
    return text;
}

void vision_cache_open(TileCache *cache, Vlm *m) {
    char *text = made_by(m);
    tile_cache_open(cache, text);
    free(text);
}

void vision_cache_keep(TileCache *cache, const Vlm *m, const Batch *batch) {
    const TileFeatures *f = batch->features;
    for (size_t i = 0; f && i < batch->n_tiles; i++) {
        unsigned char *bytes = f->bytes + i * f->tile_bytes;
        if (f->known[i]) continue;
        vlm_tile_features(m, i, bytes);
        tile_cache_write(cache, f->keys[i], bytes);
    }
}
