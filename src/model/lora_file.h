// Adapters in the files of PEFT (Hugging Face): a folder with adapter_config.json and
// adapter_model.safetensors, whose tensors are called base_model.model.<module>.lora_A.weight [r, in] and
// lora_B.weight [out, r]. The module's name is nanoVLM's or, for a decoder, transformers'. A projector that
// is trained along (PEFT's modules_to_save) is base_model.model.MP.proj.weight.
#pragma once
#include "model/params.h"

#define LORA_CONFIG_FILE  "adapter_config.json"
#define LORA_WEIGHTS_FILE "adapter_model.safetensors"

// Writes both files into the folder. fill copies the values of parameter i to dst, as in params_save_from.
bool lora_save(const Params *p, const Adaptation *a, const char *folder,
               bool (*fill)(void *context, size_t i, void *dst), void *context, Error *err);
// Into the adapters of p (and its projector), which must be those of the files: the same modules, rank and
// scale. Nothing is changed after an error.
bool lora_load(Params *p, Backend *be, const char *folder, Error *err);
// Adds the adapters of the files to the matrices of p, which are kept in F32 and have none. Several may be
// merged one after the other.
bool lora_merge_files(Params *p, Backend *be, const char *folder, Error *err);
