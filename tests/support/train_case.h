// A training run of the real nanoVLM on fixed micro-batches (train/<variant>), ready to be repeated.
#pragma once
#include "support/reference.h"
#include "train/trainer.h"

typedef struct TrainCase {
    const char *variant;
    Dtype dtype; // BF16: nanoVLM's autocast
    OptimizerForm form;
    Backend *be; // borrowed
    Config config;
    Vlm model;
    Trainer trainer;
    Batch *micro, *validation;
    size_t n_micro, n_validation;
    json_t *reference; // steps.json
} TrainCase;

void train_case_open(TrainCase *c, Backend *be, const char *variant); // moments in F32, all of them
void train_case_open_form(TrainCase *c, Backend *be, const char *variant, OptimizerForm form);
// The same with adapters of this rank on a frozen base (0: none), which nanoVLM's run did not have.
void train_case_open_lora(TrainCase *c, Backend *be, const char *variant, OptimizerForm form, size_t rank);
void train_case_close(TrainCase *c);

// Values in which two runs may be compared: all but the key third of a vision qkv_proj.bias, whose true
// gradient is 0 and which therefore moves by noise. Moves the kept values to the front of x and returns their
// number.
size_t train_keep_comparable(float *x, size_t n, const char *name);
// Every trained parameter of the model against `file` (train/<variant>/<file>), by how far training moved it.
void train_compare_weights(TrainCase *c, const char *file, const char *kind, double limit);
