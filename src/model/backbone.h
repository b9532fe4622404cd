// Backbones: SigLIP and Llama-family weights with the config.json that came with them, as the start of a
// model (nanoVLM, ViT.from_pretrained and LanguageModel.from_pretrained).
#pragma once
#include "format/weights.h"
#include "model/params_source.h"

typedef enum BackboneKind { BACKBONE_VISION, BACKBONE_LANGUAGE, BACKBONE_COUNT } BackboneKind;

typedef struct Backbone {
    BackboneKind kind;
    Weights *weights;
    json_t *config;   // config.json; of a whole SigLIP model its vision_config
    const char *flag; // what named it, for messages: "--lm_model_type"; borrowed
} Backbone;

// path: a file or folder (format/weights.h). Maps the files and reads headers and config.json, nothing more.
bool backbone_open(Backbone *b, BackboneKind kind, const char *path, Error *err);
bool backbone_open_flag(Backbone *b, BackboneKind kind, const char *path, const char *flag, Error *err);
void backbone_close(Backbone *b); // a zeroed one is fine
// Sets the fields of config that the backbone decides (widths, heads, blocks, eps, rotary base, dropout, …).
// What this model cannot express is refused, all of it in one error, with the names of the fields; so is a
// vocabulary larger than lm_vocab_size. config is changed only on success.
bool backbone_configure(const Backbone *b, VLMConfig *config, Error *err);
// The name of field i that backbone_configure sets; NULL behind the last one.
const char *backbone_field(BackboneKind kind, size_t i);
// Whether the tensors fit a model of this configuration, found out without memory for it. rules: what may
// differ.
bool backbone_check(const Backbone *b, Backend *be, const VLMConfig *config, const SourceRules *rules,
                    Error *err);
// Fills the backbone's parameters; params have their memory. What the files do not hold (new rows of
// vocabulary, the rotary frequencies) is made. A head of its own is read if there is one, else it is a copy
// of the embedding.
bool backbone_load(const Backbone *b, Params *p, Backend *be, const VLMConfig *config,
                   const SourceRules *rules, Error *err);
