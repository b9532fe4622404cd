// The configurations of nanoVLM (models/config.py: VLMConfig, TrainConfig) under their own names, and beside
// them TrainOptions: what vlm.c adds to training. config/tables.c holds their field tables.
#pragma once
#include "config/fields.h"

typedef struct VLMConfig {
    size_t vit_hidden_dim, vit_inter_dim, vit_patch_size, vit_img_size, vit_n_heads;
    Number vit_dropout;
    size_t vit_n_blocks;
    Number vit_ln_eps;
    bool vit_cls_flag;
    char *vit_model_type;
    size_t lm_hidden_dim, lm_inter_dim;
    Number lm_rms_eps, lm_re_base;
    size_t lm_max_position_embeddings, lm_base_vocab_size, extra_token_amount, lm_vocab_size, lm_n_heads,
        lm_n_kv_heads;
    Number lm_dropout;
    size_t lm_n_blocks;
    Number lm_attn_scaling;
    size_t lm_max_length;
    bool lm_use_tokens, lm_tie_weights;
    char *lm_model_type, *lm_tokenizer, *lm_chat_template;
    size_t mp_pixel_shuffle_factor, mp_image_token_length, max_img_size;
    bool resize_to_max_side_len;
    TokenMap vlm_extra_tokens;
    bool vlm_load_backbone_weights;
    char *vlm_checkpoint_path;
    char *hf_repo_name; // may be NULL (None)
} VLMConfig;

typedef struct TrainConfig {
    Number lr_mp, lr_vision_backbone, lr_language_backbone;
    size_t val_size, batch_size, gradient_accumulation_steps;
    Number max_grad_norm;
    bool eval_in_epochs;
    size_t eval_interval, stats_log_interval, max_training_steps, max_images_per_example,
        max_images_per_knapsack, max_sample_length;
    bool compile, resume_from_vlm_checkpoint;
    char *train_dataset_path;
    StringList train_dataset_name;
    bool stream_dataset;
    int relevance_min_rating, image_correspondence_min_rating, visual_dependency_min_rating,
        formatting_min_rating;
    char *wandb_entity;
    bool log_wandb, use_lmms_eval;
    char *lmms_eval_tasks;
    OptionalNumber lmms_eval_limit;
    size_t lmms_eval_batch_size;
} TrainConfig;

typedef struct TrainOptions {
    // JPEGs that get smaller are decoded smaller: faster, other pixels
    bool jpeg_reduced_scale;
    uint64_t seed;          // of initial weights, order of rows and packs
    char *device;           // cpu
    size_t threads;         // of the backend; 0: one per physical core
    size_t num_workers;     // loader threads
    size_t prefetch_factor; // batches prepared ahead, by all loader threads together
    size_t shuffle_window;  // MiB within which rows are shuffled, unless streaming
    size_t shuffle_buffer;  // rows of a block that is shuffled when streaming; 0: in order
    char *val_dataset_path; // NULL: validation rows are held out of the training data set
    char *packing;          // best | nanovlm
    char *attention;        // document | full
    char *long_samples;     // skip | truncate
    char *init;             // nanovlm | scaled
    char *dtype;            // auto | bf16 | f32
    char *moments;          // f32 | bf16 | int8: how AdamW keeps them
    size_t zero;            // 1: the moments are shared out over the ranks
    char *recompute;        // none | norms | attention | block
    char *run_name;         // NULL: made as nanoVLM does
    size_t log_interval;    // update steps between plain progress lines
    char *cache_vision;     // folder for features of tiles while the vision encoder is frozen; NULL: none
    size_t max_tiles;       // tiles a batch may hold; 0: as many as its tokens allow
    Number max_minutes;     // stop (and save) after this many minutes; 0: no limit
    Number comm_timeout;    // minutes without a word from another rank that are an error
    char *resume;           // none | auto
    bool resume_weights_only;
    size_t keep_checkpoints; // newest ones; 0: all
    bool save_in_background;
    size_t max_skipped_steps; // in a row
    Number skip_spikes;       // z-score; 0: never
    bool detect_anomaly;
    bool profile;
    size_t dump_batch;   // pages of skipped batches a run writes at most
    int dump_batch_step; // the update whose batches are written as pages; below 0: none
    bool dry_run;
    // none | bicubic | bilinear: how positions of weights made for another vit_img_size are carried over
    char *interpolate_positions;
    size_t lora_rank; // 0: no adapters
    Number lora_alpha;
    bool lora_rslora;
    char *lora_targets;
    Number lr_lora;
    char *lora_base;    // frozen | trained: vision encoder and decoder beneath adapters
    char *lora_adapter; // folder of adapters to begin with
    char *freeze, *train_only;
} TrainOptions;

extern const FieldTable vlm_config_table, train_config_table, train_options_table;

// Everything a training run is told.
typedef struct Config {
    VLMConfig vlm;
    TrainConfig train;
    TrainOptions options;
} Config;

void config_init(Config *c); // the defaults (preset nanovlm-460m)
void config_free(Config *c);
// The three field sets of c, in the order vlm, train, options.
void config_sets(Config *c, FieldSet sets[3]);
// `tiny`, `small`, `nanovlm-222m`, `nanovlm-460m`: sets the fields in which the preset differs from the
// defaults.
bool config_apply_preset(Config *c, const char *name, Error *err);
// A file with VLMConfig's keys at the top (nanoVLM's config.json), or an object {"VLMConfig": …,
// "TrainConfig": …, "TrainOptions": …}; or a folder with config.json in it. What the file does not name keeps
// its value.
bool config_load(Config *c, const char *path, Error *err);
json_t *
config_to_json(const Config *c); // {"VLMConfig": …, "TrainConfig": …, "TrainOptions": …}; new reference
// nanoVLM's config.json over the defaults. c must be initialised, and stays so on failure.
bool vlm_config_load(VLMConfig *c, const char *path, Error *err);
bool vlm_config_save(const VLMConfig *c, const char *path,
                     Error *err); // atomic; bytes as json.dumps(indent=4)
// Fits within itself: heads divide widths, the grid divides by the shuffle factor, token counts agree, …;
// names fields.
bool vlm_config_check(const VLMConfig *c, Error *err);
bool decoder_config_check(const VLMConfig *c, Error *err); // the part that a decoder alone needs
bool train_config_check(const Config *c, Error *err);
// --preset NAME, --config FILE and flags, in that order of precedence whatever their order in argv, over the
// defaults; extra holds a command's own flags (table NULL when it has none). c and extra hold their defaults
// already; the caller frees them, also after a failure. argv[0] is the command's name. --help prints help and
// ends the program with 0.
bool config_parse(Config *c, FieldSet extra, int argc, char **argv, Error *err);

size_t vlm_config_head_dim(const VLMConfig *c);      // lm_hidden_dim / lm_n_heads
size_t vlm_config_patches(const VLMConfig *c);       // patches of a tile, without cls
bool train_options_documents(const TrainOptions *o); // attention is `document`
// nanoVLM's get_run_name (train.py); date is "%m%d-%H%M%S". Caller frees.
char *run_name(const Config *c, size_t world_size, const char *date);
