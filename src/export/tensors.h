// Which tensors a file of another program holds, under which names, and how their values come from our
// parameters.
#pragma once
#include "base/vec.h"
#include "export/export.h"

typedef enum ExportChange {
    EXPORT_AS_IS,
    EXPORT_ROTATED,    // rows of q and k in llama.cpp's order (format/gguf_llama.h)
    EXPORT_WIDER_GRID, // positions of a grid with one row and one column more, zeros (docs/export.md)
    EXPORT_MORE_ROWS,  // rows of tokens behind the model's own; see more_rows
} ExportChange;

#define EXPORT_MAX_NAME 96

typedef struct ExportTensor {
    char name[EXPORT_MAX_NAME];
    const Param *param;  // NULL: values that are no parameter, `made`
    const float *made;   // borrowed
    size_t first, count; // values of the parameter
    int ndim;
    size_t shape[GGUF_MAX_DIMS]; // of what is written
    ExportChange change;
    GgufType type;
} ExportTensor;

typedef struct ExportTensors {
    const ExportSource *source;
    VEC(ExportTensor) list;
    Int32Vec more_rows; // of EXPORT_MORE_ROWS: which row each new one is a copy of; -1: zeros
} ExportTensors;

// Names of transformers' Idefics3ForConditionalGeneration, or of the part alone.
void export_list_hf(ExportTensors *t, const ExportSource *s);
// llama.cpp's: of the text model, whose vocabulary gets t->more_rows behind it; of the vision side.
void export_list_llama(ExportTensors *t, const ExportSource *s);
void export_list_clip(ExportTensors *t, const ExportSource *s);
void export_tensors_free(ExportTensors *t);

// Names and types fit the format: rows of Q8_0 are multiples of 32 values.
bool export_check_types(const ExportTensors *t, Error *err);
bool export_write_safetensors(ExportTensors *t, const char *path, Error *err);
bool export_write_gguf(ExportTensors *t, const GgufMetadata *metadata, const char *path, Error *err);

// What divides the rotary frequencies of lm_re_base, one a pair of values; NULL when all are 1, or would be
// had the checkpoint not been cast to BF16 or F16.
// Caller frees.
float *export_frequency_factors(const ExportSource *s);
