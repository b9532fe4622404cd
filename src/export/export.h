// A model in the layouts of other programs: transformers' folders and llama.cpp's GGUF files; and back again.
// Each exporter fills a fresh folder. What the other side cannot express is an error before anything is
// written; what its users get differently is a warning.
#pragma once
#include "format/gguf.h"
#include "model/params.h"
#include "text/chat.h"

typedef enum ExportPart { EXPORT_ALL, EXPORT_DECODER, EXPORT_VISION } ExportPart;

typedef struct ExportSource { // all borrowed
    const VLMConfig *config;
    const Params *params;
    Backend *be;
    const Tokenizer *tokenizer;
    const char *tokenizer_path; // its folder or file
    const ChatTemplate *chat;
    ExportPart part;
    GgufType type; // of the matrices: F32, F16, BF16, and in GGUF files Q8_0
} ExportSource;

// Idefics3ForConditionalGeneration (SmolVLM), or a part alone: LlamaForCausalLM, SiglipVisionModel.
bool export_hf(const ExportSource *s, const char *folder, Error *err);
// NAME-TYPE.gguf, a file of the architecture llama, and mmproj-NAME-TYPE.gguf with the projector idefics3.
bool export_gguf(const ExportSource *s, const char *folder, const char *name, Error *err);
// config.json and model.safetensors as nanoVLM writes them.
bool export_nanovlm(const ExportSource *s, const char *folder, Error *err);
