// What no single field can tell: whether the fields fit one another.
#include "config/config.h"

#include <stdio.h>
#include <string.h>

#define RULE(holds, ...)                                                                                     \
    do {                                                                                                     \
        if (!(holds)) return error_set(err, __VA_ARGS__);                                                    \
    } while (0)

static bool check_dropout(const char *name, Number rate, Error *err) {
    RULE(rate.value >= 0 && rate.value < 1, "%s is %g: it must be at least 0 and below 1", name, rate.value);
    return true;
}

static bool check_vision(const VLMConfig *c, Error *err) {
    RULE(!c->vit_cls_flag,
         "vit_cls_flag is true: the vision encoder then gives one vector a tile, but the modality "
         "projector needs one a patch; set vit_cls_flag to false");
    RULE(c->vit_hidden_dim % c->vit_n_heads == 0,
         "vit_hidden_dim %zu is no multiple of vit_n_heads %zu: change one of them", c->vit_hidden_dim,
         c->vit_n_heads);
    RULE(c->vit_patch_size <= c->vit_img_size,
         "vit_patch_size %zu is larger than vit_img_size %zu: a tile holds no patch", c->vit_patch_size,
         c->vit_img_size);
    RULE(c->vit_ln_eps.value > 0, "vit_ln_eps is %g: it must be above 0, e.g. 1e-06", c->vit_ln_eps.value);
    return check_dropout("vit_dropout", c->vit_dropout, err);
}

static bool check_projector(const VLMConfig *c, Error *err) {
    size_t grid = c->vit_img_size / c->vit_patch_size, factor = c->mp_pixel_shuffle_factor;
    RULE(grid % factor == 0,
         "mp_pixel_shuffle_factor %zu does not divide the grid of %zu x %zu patches (vit_img_size %zu / "
         "vit_patch_size %zu): change one of the three",
         factor, grid, grid, c->vit_img_size, c->vit_patch_size);
    size_t vectors = grid / factor * (grid / factor);
    RULE(vectors == c->mp_image_token_length,
         "mp_image_token_length is %zu, but a tile gives %zu vectors ((vit_img_size %zu / vit_patch_size %zu "
         "/ mp_pixel_shuffle_factor %zu) squared): set it to %zu",
         c->mp_image_token_length, vectors, c->vit_img_size, c->vit_patch_size, factor, vectors);
    return true;
}

static bool check_language(const VLMConfig *c, Error *err) {
    RULE(c->lm_hidden_dim % c->lm_n_heads == 0,
         "lm_hidden_dim %zu is no multiple of lm_n_heads %zu: change one of them", c->lm_hidden_dim,
         c->lm_n_heads);
    RULE(c->lm_n_heads % c->lm_n_kv_heads == 0,
         "lm_n_heads %zu is no multiple of lm_n_kv_heads %zu: each key and value head serves equally many "
         "query heads",
         c->lm_n_heads, c->lm_n_kv_heads);
    RULE(vlm_config_head_dim(c) % 2 == 0,
         "lm_hidden_dim %zu / lm_n_heads %zu is %zu: rotary positions need an even head size",
         c->lm_hidden_dim, c->lm_n_heads, vlm_config_head_dim(c));
    RULE(!c->lm_use_tokens,
         "lm_use_tokens is true: within the whole model the decoder takes embeddings; set it to false");
    RULE(c->lm_rms_eps.value > 0, "lm_rms_eps is %g: it must be above 0, e.g. 1e-05", c->lm_rms_eps.value);
    return check_dropout("lm_dropout", c->lm_dropout, err);
}

static const TokenPair *find_token(const TokenMap *map, const char *name) {
    for (size_t i = 0; i < map->count; i++) {
        if (!strcmp(map->items[i].name, name)) return &map->items[i];
    }
    return NULL;
}

static bool check_vocabulary(const VLMConfig *c, Error *err) {
    const TokenMap *map = &c->vlm_extra_tokens;
    RULE(map->count == c->extra_token_amount,
         "extra_token_amount is %zu, but vlm_extra_tokens holds %zu tokens: set it to %zu",
         c->extra_token_amount, map->count, map->count);
    RULE(c->lm_vocab_size >= c->lm_base_vocab_size + c->extra_token_amount,
         "lm_vocab_size %zu is less than lm_base_vocab_size %zu + extra_token_amount %zu: set it to %zu",
         c->lm_vocab_size, c->lm_base_vocab_size, c->extra_token_amount,
         c->lm_base_vocab_size + c->extra_token_amount);
    RULE(find_token(map, "image_token"),
         "vlm_extra_tokens has no image_token: add it, as in {\"image_token\": \"<|image|>\"}");
    for (size_t i = 0; i < map->count; i++) {
        RULE(*map->items[i].token, "vlm_extra_tokens: %.100s is empty", map->items[i].name);
        for (size_t j = 0; j < i; j++)
            RULE(strcmp(map->items[i].token, map->items[j].token),
                 "vlm_extra_tokens: %.100s and %.100s are both %.100s", map->items[j].name,
                 map->items[i].name, map->items[i].token);
    }
    return true;
}

bool decoder_config_check(const VLMConfig *c, Error *err) {
    return check_language(c, err);
}

bool vlm_config_check(const VLMConfig *c, Error *err) {
    return check_vision(c, err) && check_projector(c, err) && check_language(c, err) &&
           check_vocabulary(c, err);
}

// Whether the pictures that the data set brings can be split into tiles and written as tokens.
static bool check_pictures(const VLMConfig *c, const TrainConfig *t, Error *err) {
    RULE(c->max_img_size % c->vit_img_size == 0,
         "max_img_size %zu is no multiple of vit_img_size %zu: pictures could not be split into tiles",
         c->max_img_size, c->vit_img_size);
    size_t grid = c->max_img_size / c->vit_img_size;
    char last[48];
    snprintf(last, sizeof last, "r%zuc%zu", grid, grid);
    RULE(grid == 1 || find_token(&c->vlm_extra_tokens, last),
         "max_img_size %zu / vit_img_size %zu gives up to %zu x %zu tiles, but vlm_extra_tokens has no %s: "
         "lower max_img_size or add the tokens",
         c->max_img_size, c->vit_img_size, grid, grid, last);
    size_t length = c->lm_max_length < t->max_sample_length ? c->lm_max_length : t->max_sample_length;
    RULE(c->mp_image_token_length + 2 < length,
         "mp_image_token_length %zu leaves no room in lm_max_length %zu and max_sample_length %zu: every "
         "sample with a picture would be left out",
         c->mp_image_token_length, c->lm_max_length, t->max_sample_length);
    RULE(
        t->max_images_per_example <= t->max_images_per_knapsack,
        "max_images_per_example %zu is more than max_images_per_knapsack %zu: a sample could fit no sequence",
        t->max_images_per_example, t->max_images_per_knapsack);
    return true;
}

static bool check_lora(const TrainOptions *o, Error *err) {
    RULE(o->lora_rank > 0 || !o->lora_adapter,
         "lora_adapter is %.200s, but lora_rank is 0: give the rank, alpha and targets of its "
         "adapter_config.json",
         o->lora_adapter);
    RULE(o->lora_rank == 0 || o->lora_alpha.value > 0,
         "lora_alpha is %g: adapters would add nothing; set it above 0", o->lora_alpha.value);
    RULE(o->lora_rank == 0 || o->lr_lora.value > 0,
         "lr_lora is %g: adapters would not be trained; set it "
         "above 0, or lora_rank to 0",
         o->lr_lora.value);
    return true;
}

bool train_config_check(const Config *c, Error *err) {
    const TrainConfig *t = &c->train;
    if (!check_lora(&c->options, err)) return false;
    if (!vlm_config_check(&c->vlm, err) || !check_pictures(&c->vlm, t, err)) return false;
    RULE(c->options.lora_rank > 0 || t->lr_mp.value > 0 || t->lr_vision_backbone.value > 0 ||
             t->lr_language_backbone.value > 0,
         "lr_mp, lr_vision_backbone and lr_language_backbone are all 0: nothing would be trained");
    RULE(t->max_grad_norm.value > 0, "max_grad_norm is %g: every gradient would become 0; set it above 0",
         t->max_grad_norm.value);
    RULE(!(c->options.profile && c->options.detect_anomaly),
         "profile and detect_anomaly cannot both watch the operators: leave one out");
    RULE(*t->train_dataset_path, "train_dataset_path is empty: name a data set");
    RULE(t->train_dataset_name.count > 0,
         "train_dataset_name is empty: name a configuration, such as default");
    return true;
}
