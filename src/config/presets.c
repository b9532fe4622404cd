// Presets: the fields in which each differs from the defaults.
#include "base/check.h"
#include "config/config.h"

#include <string.h>

typedef struct Setting {
    const char *field, *value;
} Setting;

// A model of 3 million weights that learns a small synthetic data set from scratch within minutes on a
// laptop.
static const Setting tiny[] = {
    {"vit_hidden_dim", "128"},
    {"vit_inter_dim", "512"},
    {"vit_patch_size", "8"},
    {"vit_img_size", "64"},
    {"vit_n_heads", "4"},
    {"vit_n_blocks", "4"},
    {"vit_model_type", "vlm.c/siglip-tiny"},
    {"lm_hidden_dim", "192"},
    {"lm_inter_dim", "512"},
    {"lm_n_heads", "6"},
    {"lm_n_kv_heads", "2"},
    {"lm_n_blocks", "6"},
    {"lm_base_vocab_size", "512"},
    {"lm_vocab_size", "578"},
    {"lm_max_length", "512"},
    {"lm_model_type", "vlm.c/llama-tiny"},
    {"lm_tokenizer", "assets/tokenizer"},
    {"mp_pixel_shuffle_factor", "2"},
    {"mp_image_token_length", "16"},
    {"max_img_size", "64"},
    {"vlm_load_backbone_weights", "false"},
    {"hf_repo_name", "none"},
    {"lr_mp", "0.001"},
    {"lr_vision_backbone", "0.001"},
    {"lr_language_backbone", "0.001"},
    {"val_size", "256"},
    {"batch_size", "4"},
    {"gradient_accumulation_steps", "1"},
    {"eval_interval", "200"},
    {"stats_log_interval", "50"},
    {"max_training_steps", "1000"},
    {"max_sample_length", "512"},
    {"stream_dataset", "false"},
    {"log_wandb", "false"},
    {"use_lmms_eval", "false"},
    {"init", "scaled"},
};

// 40 million weights, from scratch, with SmolLM2's tokenizer.
static const Setting small[] = {
    {"vit_hidden_dim", "384"},
    {"vit_inter_dim", "1536"},
    {"vit_img_size", "256"},
    {"vit_n_heads", "6"},
    {"vit_n_blocks", "8"},
    {"vit_model_type", "vlm.c/siglip-small"},
    {"lm_hidden_dim", "384"},
    {"lm_inter_dim", "1024"},
    {"lm_n_heads", "6"},
    {"lm_n_kv_heads", "2"},
    {"lm_n_blocks", "8"},
    {"lm_max_length", "1024"},
    {"lm_model_type", "vlm.c/llama-small"},
    {"mp_image_token_length", "16"},
    {"max_img_size", "512"},
    {"vlm_load_backbone_weights", "false"},
    {"hf_repo_name", "none"},
    {"lr_mp", "0.001"},
    {"lr_vision_backbone", "0.001"},
    {"lr_language_backbone", "0.001"},
    {"val_size", "1000"},
    {"max_sample_length", "1024"},
    {"log_wandb", "false"},
    {"use_lmms_eval", "false"},
    {"init", "scaled"},
};

// SigLIP2 base at 256 pixels and SmolLM2-135M.
static const Setting nanovlm_222m[] = {
    {"vit_img_size", "256"},
    {"vit_model_type", "google/siglip2-base-patch16-256"},
    {"lm_hidden_dim", "576"},
    {"lm_inter_dim", "1536"},
    {"lm_n_heads", "9"},
    {"lm_n_kv_heads", "3"},
    {"lm_n_blocks", "30"},
    {"lm_max_length", "1024"},
    {"lm_model_type", "HuggingFaceTB/SmolLM2-135M-Instruct"},
    {"lm_tokenizer", "HuggingFaceTB/SmolLM2-135M-Instruct"},
    {"mp_image_token_length", "16"},
    {"max_img_size", "512"},
    {"max_sample_length", "1024"},
};

static const struct Preset {
    const char *name;
    const Setting *settings;
    size_t count;
} presets[] = {
    {"tiny", tiny, sizeof tiny / sizeof tiny[0]},
    {"small", small, sizeof small / sizeof small[0]},
    {"nanovlm-222m", nanovlm_222m, sizeof nanovlm_222m / sizeof nanovlm_222m[0]},
    {"nanovlm-460m", NULL, 0}, // the defaults
};

static void apply(FieldSet sets[3], const Setting *s) {
    for (size_t i = 0; i < 3; i++) {
        const Field *f = fields_find(sets[i].table, s->field, strlen(s->field));
        if (!f) continue;
        Error err;
        bool fits = fields_set_text(sets[i], f, s->value, &err);
        CHECK(fits, "preset: %s", err.text);
        return;
    }
    CHECK(false, "preset: no field %s", s->field);
}

bool config_apply_preset(Config *c, const char *name, Error *err) {
    FieldSet sets[3];
    config_sets(c, sets);
    for (size_t i = 0; i < sizeof presets / sizeof presets[0]; i++) {
        if (strcmp(presets[i].name, name)) continue;
        for (size_t j = 0; j < presets[i].count; j++) apply(sets, &presets[i].settings[j]);
        return true;
    }
    return error_set(
        err, "preset \"%.100s\" is unknown; there are tiny, small, nanovlm-222m and nanovlm-460m", name);
}
