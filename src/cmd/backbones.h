// What the flags --vit_model_type, --lm_model_type and --lm_tokenizer name, found on this machine
// (hub/hub.h).
#pragma once
#include "config/config.h"
#include "model/backbone.h"
#include "model/vlm.h"
#include "text/tokenizer.h"

typedef struct Backbones {
    Backbone of[BACKBONE_COUNT]; // zeroed: none is loaded
} Backbones;

// Opens both and lets them decide their fields of c->vlm. A flag of the command line that says otherwise is
// an error that names both; vit_img_size may differ when positions are interpolated. The tokenizer is the one
// beside the language model unless a flag or a file of settings chose another.
bool backbones_open(Backbones *b, Config *c, int argc, char **argv, Error *err);
void backbones_close(Backbones *b);
// Whether all tensors fit, before there is memory for the model. Nothing to do for zeroed ones.
bool backbones_check(const Backbones *b, Backend *be, const Config *c, Error *err);
// Fills the model: both backbones, and the rest as --init says.
bool backbones_load(const Backbones *b, Vlm *m, const Config *c, Error *err);

// tokenizer_load of what --lm_tokenizer names.
bool tokenizer_open(Tokenizer **t, const char *name, const TokenMap *extra_tokens, Error *err);
