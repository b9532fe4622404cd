// The peak of resident memory that training will take, worked out from the plans without getting any of it:
// tensors that a step touches count, addresses that are only reserved do not.
#pragma once
#include "data/loader.h"
#include "model/vlm.h"
#include "train/optimizer.h"

typedef struct MemoryPlan {
    size_t program;     // the program with its tokenizer, before it opens data and makes a model
    size_t parameters;  // F32
    size_t copies;      // of all weights in BF16, where they are kept
    size_t gradients;   // of trained groups
    size_t moments;     // AdamW's
    size_t activations; // of the batch
    size_t pages;       // what large pages at their end take beyond them, as they are laid out for more
    size_t scratch;     // what operators and the library's products take while they run
    size_t rows;        // of the data set that are open
    size_t files;       // open ones: Parquet's footers
    size_t samples;     // that wait to be packed
    size_t work;        // to read rows and to build samples
    size_t batches;     // on the host: token ids, labels, masks and pixels of batches in preparation
    size_t checkpoint;  // what checkpoints are written from in the background, and a tensor that is written
    size_t exchange;    // what several ranks send through
    size_t library;     // code that libraries make or that is used for the first time
} MemoryPlan;

// What the program and its libraries take: measured in the process that asks, by a rehearsal of a step.
typedef struct ProgramMemory {
    size_t program; // before it
    size_t step;    // what a step of one batch adds: the library's code for its products
    size_t run;     // and those of many batches, each with shapes of its own
    size_t code;    // mem_resident_code() behind it, before data is opened
} ProgramMemory;

// What a run takes beside the model.
typedef struct HostMemory {
    ProgramMemory program;
    OptimizerForm optimizer;
    bool checkpoint_copy; // only rank 0 has one
    bool writes_checkpoints;
    size_t exchange;                   // 0: one rank
    LoaderMemory training, validation; // zeros: none
    size_t n_loaders, n_threads;       // threads of each
    size_t data_code;                  // of libraries that read data
    size_t huge_page; // mem_huge_page(), if activations are laid out for larger batches; else 0
} HostMemory;

bool memory_plan(MemoryPlan *m, Backend *be, const VLMConfig *config, const VlmPlan *plan,
                 const HostMemory *host, Error *err);
size_t memory_plan_total(const MemoryPlan *m);

// What `vlm train` plans its model for, but for the image token.
VlmPlan memory_model_plan(const Config *config, const Backend *be);
// To be asked once in a process, before it opens data and before its first step: of a run, and of one plan.
bool memory_of_program(ProgramMemory *p, Backend *be, const Config *config, Error *err);
bool memory_of_step(ProgramMemory *p, Backend *be, const VLMConfig *config, const VlmPlan *plan, Error *err);
// The loaders as they are open in a run (NULL: not there), or would be.
HostMemory memory_of_host(const Config *config, ProgramMemory program, size_t rank, size_t ranks,
                          Loader *training, Loader *validation);
// memory_plan of a run whose largest batch has so many tiles and targets (0: all positions may be).
bool memory_plan_run(MemoryPlan *m, Backend *be, const Config *config, const HostMemory *host, size_t tiles,
                     size_t targets, Error *err);
