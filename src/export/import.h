// A SmolVLM or Idefics3 folder of transformers as a nanoVLM checkpoint; the inverse of export_hf.
#pragma once
#include "format/weights.h"
#include "model/params.h"
#include "text/tokenizer.h"

typedef struct ImportSource {
    const char *path; // borrowed
    Weights *weights;
    json_t *config, *pixels; // config.json; preprocessor_config.json, an empty object when there is none
} ImportSource;

// Maps the files and reads their headers and the two JSON files.
bool import_open(ImportSource *s, const char *path, Error *err);
void import_close(ImportSource *s); // a zeroed one is fine
// Sets the fields of config, vlm_extra_tokens by the folder's tokenizer included. All that nanoVLM cannot
// express is named in one error; config must be initialised, and may be changed in part then.
bool import_configure(const ImportSource *s, VLMConfig *config, const Tokenizer *tokenizer, Error *err);
// Whether the folder's tensors fit a model of this configuration, found out without memory for it.
bool import_check(const ImportSource *s, Backend *be, const VLMConfig *config, Error *err);
// Fills the parameters, which have their memory. The image processor's mean and deviation are folded into the
// convolution of the patches, since nanoVLM feeds pixels in [0, 1].
bool import_load(const ImportSource *s, Params *p, Backend *be, const VLMConfig *config, Error *err);
