// The three field tables. VLMConfig's and TrainConfig's order is nanoVLM's (models/config.py), because
// config.json keeps it.
#include "config/config.h"

#include <math.h>

// Upper limits that keep every product of sizes within 64 bits; no known model comes near them.
#define MAX_WIDTH  65536
#define MAX_BLOCKS 1024
#define MAX_TOKENS 1048576    // positions of a sequence
#define MAX_VOCAB  2147483647 // token ids are 32-bit
#define MAX_PIXELS 65536      // a side of a picture
#define MAX_COUNT  9007199254740992.0

#define CHAT_TEMPLATE                                                                                        \
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + "         \
    "'<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% "      \
    "endif %}"

#define CELL(r, c) ", \"r" #r "c" #c "\": \"<row_" #r "_col_" #c ">\""
#define ROW(r)     CELL(r, 1) CELL(r, 2) CELL(r, 3) CELL(r, 4) CELL(r, 5) CELL(r, 6) CELL(r, 7) CELL(r, 8)
#define EXTRA_TOKENS                                                                                         \
    "{\"image_token\": \"<|image|>\", \"global_image_token\": \"<|global_image|>\"" ROW(1) ROW(2) ROW(3)     \
        ROW(4) ROW(5) ROW(6) ROW(7) ROW(8) "}"

#define ANY 0, 0 // range

// clang-format off
#define F(name, type, text, range, help) \
    {#name, FIELD_##type, offsetof(STRUCT, name), text, range, NULL, help}
#define F_CHOICE(name, text, choices, help) \
    {#name, FIELD_STRING, offsetof(STRUCT, name), text, ANY, choices, help}
#define RANGE(low, high) low, high

#define STRUCT VLMConfig
static const Field vlm_fields[] = {
    F(vit_hidden_dim, SIZE, "768", RANGE(1, MAX_WIDTH), "width of the vision encoder"),
    F(vit_inter_dim, SIZE, "3072", RANGE(1, MAX_WIDTH), "width of its feed-forward layers"),
    F(vit_patch_size, SIZE, "16", RANGE(1, MAX_PIXELS), "side of a patch in pixels"),
    F(vit_img_size, SIZE, "512", RANGE(1, MAX_PIXELS), "side of a tile in pixels"),
    F(vit_n_heads, SIZE, "12", RANGE(1, MAX_WIDTH), "attention heads of the vision encoder"),
    F(vit_dropout, NUMBER, "0.0", RANGE(0, 1), "dropout of the vision encoder"),
    F(vit_n_blocks, SIZE, "12", RANGE(1, MAX_BLOCKS), "transformer blocks of the vision encoder"),
    F(vit_ln_eps, NUMBER, "1e-06", RANGE(0, 1), "added to the variance in its layer norms"),
    F(vit_cls_flag, BOOL, "false", ANY, "class token in the vision encoder; a whole model needs false"),
    F(vit_model_type, STRING, "google/siglip2-base-patch16-512", ANY, "SigLIP weights: hub name or folder"),
    F(lm_hidden_dim, SIZE, "960", RANGE(1, MAX_WIDTH), "width of the language model"),
    F(lm_inter_dim, SIZE, "2560", RANGE(1, MAX_WIDTH), "width of its feed-forward layers"),
    F(lm_rms_eps, NUMBER, "1e-05", RANGE(0, 1), "added to the mean square in its RMS norms"),
    F(lm_re_base, NUMBER, "100000", RANGE(1, INFINITY), "base of the rotary position angles"),
    F(lm_max_position_embeddings, SIZE, "8192", RANGE(1, MAX_TOKENS),
      "positions beyond which rotary angles shrink"),
    F(lm_base_vocab_size, SIZE, "49152", RANGE(1, MAX_VOCAB),
      "tokens of the language model's own vocabulary"),
    F(extra_token_amount, SIZE, "66", RANGE(0, MAX_VOCAB), "how many tokens vlm_extra_tokens holds"),
    F(lm_vocab_size, SIZE, "49218", RANGE(1, MAX_VOCAB), "rows of the embedding: base and extra tokens"),
    F(lm_n_heads, SIZE, "15", RANGE(1, MAX_WIDTH), "query heads of the language model"),
    F(lm_n_kv_heads, SIZE, "5", RANGE(1, MAX_WIDTH),
      "key and value heads, each shared by equally many query heads"),
    F(lm_dropout, NUMBER, "0.0", RANGE(0, 1), "dropout of the language model's attention"),
    F(lm_n_blocks, SIZE, "32", RANGE(1, MAX_BLOCKS), "transformer blocks of the language model"),
    F(lm_attn_scaling, NUMBER, "1.0", ANY, "factor on the rotary cosines and sines"),
    F(lm_max_length, SIZE, "4096", RANGE(1, MAX_TOKENS), "positions of a training sequence"),
    F(lm_use_tokens, BOOL, "false", ANY, "language model that takes tokens; a whole model needs false"),
    F(lm_tie_weights, BOOL, "true", ANY, "head and token embedding are one matrix"),
    F(lm_model_type, STRING, "HuggingFaceTB/SmolLM2-360M-Instruct", ANY, "Llama weights: hub name or folder"),
    F(lm_tokenizer, STRING, "HuggingFaceTB/SmolLM2-360M-Instruct", ANY, "tokenizer: hub name or folder"),
    F(lm_chat_template, OPTIONAL_STRING, CHAT_TEMPLATE, ANY, "Jinja text of the chat format; none: the tokenizer's"),
    F(mp_pixel_shuffle_factor, SIZE, "4", RANGE(1, MAX_PIXELS),
      "a square of this many patches a side becomes a vector"),
    F(mp_image_token_length, SIZE, "64", RANGE(1, MAX_TOKENS), "vectors, and so image tokens, of a tile"),
    F(max_img_size, SIZE, "2048", RANGE(1, MAX_PIXELS), "longest side a picture is resized to"),
    F(resize_to_max_side_len, BOOL, "true", ANY, "enlarge smaller pictures to max_img_size too"),
    F(vlm_extra_tokens, TOKEN_MAP, EXTRA_TOKENS, ANY, "names and texts of the tokens added to the tokenizer"),
    F(vlm_load_backbone_weights, BOOL, "true", ANY,
      "start from the weights of vit_model_type and lm_model_type"),
    F(vlm_checkpoint_path, STRING, "checkpoints", ANY,
      "folder of the runs' checkpoints; what a resume loads"),
    F(hf_repo_name, OPTIONAL_STRING, "nanoVLM", ANY, "hub repository of the best checkpoint"),
};
#undef STRUCT

#define STRUCT TrainConfig
static const Field train_fields[] = {
    F(lr_mp, NUMBER, "0.00512", RANGE(0, INFINITY), "learning rate of the projector; 0 freezes it"),
    F(lr_vision_backbone, NUMBER, "5e-05", RANGE(0, INFINITY),
      "learning rate of the vision encoder; 0 freezes it"),
    F(lr_language_backbone, NUMBER, "5e-05", RANGE(0, INFINITY),
      "learning rate of the language model; 0 freezes it"),
    F(val_size, SIZE, "50000", RANGE(0, MAX_COUNT), "rows kept for validation, from the start of the data"),
    F(batch_size, SIZE, "2", RANGE(1, 4096), "sequences of a batch"),
    F(gradient_accumulation_steps, SIZE, "8", RANGE(1, 1048576), "batches of an update"),
    F(max_grad_norm, NUMBER, "1.0", RANGE(0, INFINITY), "gradients are scaled down to this norm"),
    F(eval_in_epochs, BOOL, "true", ANY, "validate and save within epochs"),
    F(eval_interval, SIZE, "500", RANGE(1, MAX_COUNT), "updates between validations and checkpoints"),
    F(stats_log_interval, SIZE, "100", RANGE(1, MAX_COUNT), "updates between logs of the statistics"),
    F(max_training_steps, SIZE, "40000", RANGE(1, MAX_COUNT), "updates of the whole run"),
    F(max_images_per_example, SIZE, "4", RANGE(0, MAX_TOKENS), "rows with more pictures are left out"),
    F(max_images_per_knapsack, SIZE, "18", RANGE(0, MAX_TOKENS), "pictures of a packed sequence"),
    F(max_sample_length, SIZE, "4096", RANGE(1, MAX_TOKENS), "rows of so many tokens or more are left out"),
    F(compile, BOOL, "false", ANY, "torch.compile in nanoVLM; nothing to do here"),
    F(resume_from_vlm_checkpoint, BOOL, "false", ANY, "go on from vlm_checkpoint_path, a folder or the name of a model in the local Hub cache"),
    F(train_dataset_path, STRING, "HuggingFaceM4/FineVision_concat_shuffled_2", ANY,
      "data set: hub name, folder or file"),
    F(train_dataset_name, STRING_LIST, "default", ANY, "its configurations; all, or shards"),
    F(stream_dataset, BOOL, "true", ANY, "read the rows in their order; false shuffles them"),
    F(relevance_min_rating, INT, "1", ANY, "turns rated lower are left out"),
    F(image_correspondence_min_rating, INT, "1", ANY, "turns rated lower are left out"),
    F(visual_dependency_min_rating, INT, "1", ANY, "turns rated lower are left out"),
    F(formatting_min_rating, INT, "1", ANY, "turns rated lower are left out"),
    F(wandb_entity, OPTIONAL_STRING, "HuggingFace", ANY, "W&B entity of the run"),
    F(log_wandb, BOOL, "true", ANY, "log the run to W&B"),
    F(use_lmms_eval, BOOL, "true", ANY, "evaluate checkpoints on lmms_eval_tasks"),
    F(lmms_eval_tasks, STRING,
      "mmstar,mmmu_val,ocrbench,textvqa_val,docvqa_val,scienceqa,mme,infovqa_val,chartqa", ANY,
      "tasks, separated by commas"),
    F(lmms_eval_limit, OPTIONAL_NUMBER, NULL, RANGE(0, INFINITY), "examples of a task; none: all"),
    F(lmms_eval_batch_size, SIZE, "64", RANGE(1, MAX_TOKENS), "examples of a batch in the evaluation"),
};
#undef STRUCT

#define STRUCT TrainOptions
static const Field option_fields[] = {
    F(seed, U64, "0", ANY, "of initial weights and of the order of rows and packs"),
    F_CHOICE(device, "cpu", "cpu", "where the model runs"),
    F(threads, SIZE, "0", RANGE(0, 4096), "threads of the operators; 0: one per physical core, as the quota and other ranks on the host allow"),
    F_CHOICE(dtype, "auto", "auto|bf16|f32",
      "of products and activations: bf16 (mixed precision), f32, or bf16 where the processor has it"),
    F(num_workers, SIZE, "3", RANGE(0, 1024), "threads that prepare batches"),
    F(prefetch_factor, SIZE, "2", RANGE(1, 1024), "batches prepared ahead of training, all loader threads together"),
    F(shuffle_window, SIZE, "256", RANGE(1, 1048576),
      "MiB of the files within which rows are shuffled when stream_dataset is false; two are in memory"),
    F(shuffle_buffer, SIZE, "0", RANGE(0, MAX_COUNT),
      "rows among which each is shuffled when stream_dataset is true; 0: none"),
    F(val_dataset_path, STRING, NULL, ANY,
      "data set for validation (a file, or a folder's default configuration); none: val_size rows of the other"),
    F(jpeg_reduced_scale, BOOL, "false", ANY,
      "decode large JPEGs at reduced scale: faster, but not nanoVLM's pixels"),
    F_CHOICE(packing, "best", "best|nanovlm", "how samples are put together into sequences"),
    F_CHOICE(attention, "document", "document|full",
      "what a packed sample sees: itself, or all before it in its sequence"),
    F_CHOICE(long_samples, "skip", "skip|truncate",
      "samples over max_sample_length or lm_max_length: left out, or cut at their end"),
    F_CHOICE(init, "nanovlm", "nanovlm|scaled",
      "initial weights: N(0, 0.02), or scaled for training from scratch"),
    F_CHOICE(moments, "f32", "f32|bf16|int8",
      "AdamW's moments: exact, or in half or a quarter of the memory, rounded by chance"),
    F(zero, SIZE, "0", RANGE(0, 1),
      "several ranks: 1 shares AdamW's moments out over them, to the same bits"),
    F_CHOICE(interpolate_positions, "none", "none|bicubic|bilinear",
      "how positions of weights made for another vit_img_size are carried over; none: an error"),
    F_CHOICE(recompute, "norms", "none|norms|attention|block",
      "what backward makes again instead of keeping it: less memory, more time, the same bits"),
    F(run_name, STRING, NULL, ANY, "name of the run; none: made from the configuration"),
    F(log_interval, SIZE, "10", RANGE(1, MAX_COUNT), "updates between progress lines"),
    F(max_tiles, SIZE, "0", RANGE(0, MAX_TOKENS), "tiles of a batch; 0: as many as its tokens allow"),
    F(cache_vision, STRING, NULL, ANY,
      "folder in which the features of tiles are kept while the vision encoder is frozen; none: encoded each time"),
    F(max_minutes, NUMBER, "0", RANGE(0, INFINITY), "save and stop after so many minutes; 0: no limit"),
    F(comm_timeout, NUMBER, "30", RANGE(0.001, 100000),
      "several ranks: minutes without a word from one after which the others give up"),
    F_CHOICE(resume, "none", "none|auto",
      "auto: go on from the newest complete checkpoint of the run if there is one, else begin"),
    F(resume_weights_only, BOOL, "false", ANY,
      "a resume takes only the weights; step, moments and place in the data begin anew"),
    F(keep_checkpoints, SIZE, "0", RANGE(0, MAX_COUNT),
      "newest checkpoints of the run that are kept, and the best; 0: all"),
    F(save_in_background, BOOL, "true", ANY,
      "checkpoints are written from a copy in memory while training goes on"),
    F(max_skipped_steps, SIZE, "10", RANGE(0, MAX_COUNT),
      "updates in a row that may be skipped because loss or gradient are not finite"),
    F(skip_spikes, NUMBER, "0", RANGE(0, INFINITY),
      "skip updates whose loss or gradient norm lies so many standard deviations above the last ones; 0: never"),
    F(dry_run, BOOL, "false", ANY, "everything but training: prints parameters, memory, disk and expected time"),
    F(lora_rank, SIZE, "0", RANGE(0, 4096), "rank of the LoRA adapters that are trained; 0: none"),
    F(lora_alpha, NUMBER, "16", RANGE(0, INFINITY), "what adapters add is scaled by lora_alpha / lora_rank"),
    F(lora_rslora, BOOL, "false", ANY, "by lora_alpha / sqrt(lora_rank) instead"),
    F(lora_targets, STRING, "all-linear", ANY,
      "layers with adapters: all-linear, names or ends of names parted by commas, or a regular expression"),
    F(lr_lora, NUMBER, "0.0002", RANGE(0, INFINITY), "learning rate of the adapters"),
    F_CHOICE(lora_base, "frozen", "frozen|trained",
      "vision encoder and language model beneath adapters: frozen, or trained at their learning rates"),
    F(lora_adapter, STRING, NULL, ANY, "folder with PEFT's adapter files to begin with"),
    F(freeze, STRING, NULL, ANY, "parameters that are not trained: patterns of names, parted by commas"),
    F(train_only, STRING, NULL, ANY, "the only parameters (adapters aside) that are trained: patterns of names"),
    F(detect_anomaly, BOOL, "false", ANY, "name the first operator that makes a NaN; slow"),
    F(profile, BOOL, "false", ANY,
      "where the time went, by part and operator, is printed at the end and written to profile.json"),
    F(dump_batch, SIZE, "4", RANGE(0, MAX_COUNT),
      "batches because of which updates were skipped that are written as pages, at most; 0: none"),
    F(dump_batch_step, INT, "-1", ANY, "write the batches of this step, counted from 0, as pages; -1: none"),
};
#undef STRUCT
// clang-format on

#define COUNT(fields) (sizeof(fields) / sizeof(fields)[0])

const FieldTable vlm_config_table = {"Model (VLMConfig)", vlm_fields, COUNT(vlm_fields)};
const FieldTable train_config_table = {"Training (TrainConfig)", train_fields, COUNT(train_fields)};
const FieldTable train_options_table = {"Running (TrainOptions)", option_fields, COUNT(option_fields)};
