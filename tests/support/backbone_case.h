// A small whole model around one backbone, so that the backbone can be loaded and run.
#pragma once
#include "model/backbone.h"
#include "model/vlm.h"

typedef struct BackboneCase {
    BackboneKind kind;
    const char *path; // borrowed
    Backend *be;      // borrowed
    VLMConfig config;
    Backbone backbone;
    Vlm model;
} BackboneCase;

// The configuration around it: the other side small, token 0 the image token, one vector a tile of 16
// patches.
void case_prepare(BackboneCase *c, Backend *be, BackboneKind kind, const char *path, size_t vocab_size,
                  bool tied);
// Opens, configures, checks and loads; false with the error of the step that failed. rules NULL: more rows
// allowed, seed 1.
bool case_open(BackboneCase *c, const SourceRules *rules, Error *err);
void case_close(BackboneCase *c);
float *case_logits(const BackboneCase *c); // [B*T, V] of the last forward; caller frees
