// config.json of the folders that transformers loads, and the processors' files. New references.
#pragma once
#include "export/export.h"

#include <jansson.h>

// factors: of export_frequency_factors; all equal or NULL.
json_t *export_hf_config(const ExportSource *s, const float *factors);
json_t *export_hf_generation_config(const ExportSource *s);
json_t *export_hf_image_processor(const ExportSource *s);
json_t *export_hf_processor(const ExportSource *s);
// tokenizer.json with vlm_extra_tokens among its added tokens. NULL with an error when there is none (a
// tokenizer out of a GGUF file) or it cannot be read.
json_t *export_hf_tokenizer(const ExportSource *s, Error *err);
json_t *export_hf_tokenizer_config(const ExportSource *s, Error *err);
// The chat template in Jinja for messages whose content is a text or a list of parts; caller frees.
char *export_hf_chat_template(const ExportSource *s);
