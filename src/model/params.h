// The parameters of the model as one table: name, shape, group, initialiser and the slot in the structs below
// through which the model reaches it. Allocation, initialisation, loading, saving, optimizer, clipping and
// the printed summary all walk the table; it stands in PyTorch's order of named_parameters (groups MP,
// vision, language).
#pragma once
#include "config/config.h"
#include "tensor/ops.h"

typedef enum ParamGroup {
    GROUP_MP,
    GROUP_VISION,
    GROUP_LANGUAGE,
    GROUP_LORA_VISION, // adapters (model/lora.h)
    GROUP_LORA_LANGUAGE,
    GROUP_TRAINED,
    GROUP_BUFFER = GROUP_TRAINED,
    GROUP_COUNT
} ParamGroup; // the trained groups first; a buffer is stored but never trained

typedef enum ParamInit {
    INIT_WEIGHT,
    INIT_RESIDUAL, // a weight whose product is added to the residual stream
    INIT_ZERO,
    INIT_ONE,
    INIT_POSITION,
    INIT_INV_FREQ,
    INIT_LORA // uniform in ±1/sqrt(fan_in), as torch's Kaiming with a = √5
} ParamInit;

typedef struct Param {
    char name[80];      // PyTorch's name: "decoder.token_embedding.weight"
    char file_name[80]; // in checkpoints: the same but for the tied weight, "decoder.head.weight"
    // In SigLIP's and Llama's files: "model.layers.0.self_attn.q_proj.weight"; a ? stands for q, k and v,
    // whose tensors follow one another in this one. Empty: a backbone has no such tensor.
    char backbone_name[80];
    ParamGroup group;
    ParamInit init;
    size_t fan_in; // of weights: values summed into one output
    int ndim;
    size_t shape[TENSOR_MAX_DIMS];
    bool trained;  // a gradient is wanted
    bool is_named; // by a pattern of what is trained
    // Of a matrix [O, C] with an adapter: A [r, C] and B, which lies as [r, O]. They stand behind all other
    // parameters, and model.safetensors does not hold them (model/lora_file.h does).
    struct Param *lora_a, *lora_b;
    Tensor w;       // value: F32; matrices may be kept as Params.weights says
    Tensor d;       // gradient; absent for frozen groups and buffers
    Tensor product; // what linear layers multiply by: w itself, or a copy of it in BF16
} Param;

typedef struct VisionBlockParams {
    Param *ln1_w, *ln1_b, *qkv_w, *qkv_b, *out_w, *out_b, *ln2_w, *ln2_b, *fc1_w, *fc1_b, *fc2_w, *fc2_b;
} VisionBlockParams;

typedef struct DecoderBlockParams {
    Param *gate, *up, *down, *q, *k, *v, *out, *norm1, *norm2;
} DecoderBlockParams;

typedef struct Params {
    Param *items;
    size_t count;
    bool tied;
    bool decoder_alone; // no projector and no vision encoder
    Dtype weights;      // what matrices are kept in: F32, BF16 or Q8_0
    Dtype act;          // of the factors of products and of the activations between operators: F32 or BF16
    bool keeps_copies;  // in BF16, of the weights of linear layers
    Arena values, gradients, products;
    size_t lora_rank; // of the adapters; 0: there are none
    float lora_scale; // of what they add
    // the slots
    Param *projector;
    struct {
        Param *cls, *position, *patch_w, *patch_b, *ln_w, *ln_b; // cls: NULL without vit_cls_flag
        VisionBlockParams *blocks;
    } vision;
    struct {
        Param *embedding, *norm, *head, *inv_freq; // head is embedding when tied
        DecoderBlockParams *blocks;
    } decoder;
    // Who wants to know, during the backward, that the gradients of `lowest` and of all that stands behind it
    // in its part of the model are final for this batch; NULL: nobody.
    void (*gradients_final)(void *state, const Param *lowest);
    void *final_state;
} Params;

// For the backward, between its blocks.
static inline void params_gradients_final(const Params *p, const Param *lowest) {
    if (p->gradients_final) p->gradients_final(p->final_state, lowest);
}

extern const char *const param_group_names[GROUP_COUNT]; // "MP", "vision", "language", "buffer"

// Lays out the table for a configuration (vlm_config_check has passed) over arenas that only measure.
// trained[g]: gradients of group g are wanted.
void params_plan(Params *p, Backend *be, const VLMConfig *config, const bool trained[GROUP_TRAINED]);
// What of a model is kept, and how, when it only generates. Zeroed: all of it, in F32.
typedef struct ParamsForm {
    bool decoder_alone; // no projector and no vision encoder
    Dtype weights;      // of matrices: F32, BF16, or Q8_0 where their rows are whole blocks
} ParamsForm;
void params_plan_form(Params *p, Backend *be, const VLMConfig *config, const ParamsForm *form,
                      const bool trained[GROUP_TRAINED]);
// Between params_plan and params_allocate: products in BF16. keep: with copies of the weights they use;
// without, each product rounds its weight anew.
void params_plan_bf16(Params *p, bool keep);
// Bytes that weights in BF16 take: of their copies, or of one rounded at a time.
size_t params_bf16_bytes(const Params *p);
size_t params_largest_bytes(const Params *p); // of the largest one, in F32
// What is trained of a model, and what is added to it for that. Texts are borrowed, NULL or "" when not
// given.
typedef struct Adaptation {
    size_t lora_rank; // 0: no adapters
    double lora_alpha;
    bool lora_rslora; // scaled by alpha/sqrt(rank) instead of alpha/rank
    const char
        *lora_targets; // all-linear, a list of names or ends of names of modules, or a regular expression
    double lora_learning_rate;
    const char *freeze, *train_only; // lists of patterns (fnmatch) of parameters' names
} Adaptation;
// Between params_plan and params_plan_bf16: freezes parameters and adds adapters, which are trained. Fails
// for names and patterns that match nothing and for patterns that part a layer's weight from its bias.
bool params_adapt(Params *p, Backend *be, const Adaptation *a, Error *err);
bool param_is_adapter(const Param *p);
// Lays values and gradients out anew over arenas that only measure, after a change of what is trained.
void params_measure(Params *p, Backend *be);
bool params_allocate(Params *p, Error *err); // zeroed; the second run of the plan
void params_free(Params *p);

Param *params_find(Params *p, const char *name);          // by PyTorch's name or the file's; NULL when absent
size_t params_total(const Params *p, ParamGroup group);   // number of values
size_t params_trained(const Params *p, ParamGroup group); // of them with a gradient
void params_print_summary(const Params *p);               // one line a group, through log_info

// nanoVLM's initialisation (meant for backbones to be loaded over it), or "scaled", for training from
// nothing: weights N(0, 1/fan_in), those that write to the residual stream also divided by sqrt(2 blocks)
// (Radford et al. 2019), position embeddings N(0, 0.5²), and the patch convolution as if pixels lay in [-1,
// 1]. Same seed, same bits.
void params_initialise(Params *p, Backend *be, const VLMConfig *config, const char *init, uint64_t seed);

// As params_initialise, of parameter i alone.
void param_initialise(Params *p, size_t i, Backend *be, const VLMConfig *config, const char *init,
                      uint64_t seed);

// Whether linear layers use a copy of the parameter, which each change of w makes stale.
bool param_has_copy(const Param *p);
// Makes the copy anew. Initialising and loading do it themselves, and adamw writes it along with w.
void param_refresh(const Param *p, Backend *be);
// Of a parameter kept in Q8_0 whose values are all there: puts it into the order of products (Q8_TILES).
void param_arrange(Param *p, Backend *be);

void params_zero_gradients(Params *p, Backend *be);

// First values of the adapters alone: B is 0, so the model is what it was.
void params_initialise_adapters(Params *p, Backend *be, const VLMConfig *config, uint64_t seed);

// model.safetensors as nanoVLM loads and saves it (spec 8): strict, tied weight under either name,
// F32/F16/BF16 read, F32 written, matrices with what their adapters add merged in. path may also be a folder
// with shards. A value that is not finite is an error.
bool params_load(Params *p, Backend *be, const char *path, Error *err);
// The same into a model that was given more rows of vocabulary (the new ones are drawn, N(0, 0.02), from the
// seed) or another grid of patches (interpolate: how positions are carried over, "bicubic" or "bilinear";
// "none" makes another grid an error).
bool params_load_changed(Params *p, Backend *be, const char *path, const char *interpolate, uint64_t seed,
                         Error *err);
bool params_save(const Params *p, Backend *be, const char *path, Error *err);
// The same with values from elsewhere: fill copies those of parameter i to dst.
bool params_save_from(const Params *p, const char *path, bool (*fill)(void *context, size_t i, void *dst),
                      void *context, Error *err);
