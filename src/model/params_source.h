// From where the values of the parameters come: a list of tensors of files, each with its place in a
// parameter, checked as it is made and then read in parallel. Checkpoints and backbones both load through it.
#pragma once
#include "base/vec.h"
#include "format/weights.h"
#include "model/misfits.h"
#include "model/params.h"

// May a file's tensor differ from the parameter it goes to?
typedef struct SourceRules {
    bool more_rows; // fewer rows of vocabulary in the file: the rest is drawn, N(0, 0.02), from the seed
    const char *interpolate; // positions of another grid: "bicubic", "bilinear"; "none" or NULL: refused
    uint64_t seed;
} SourceRules;

typedef struct SourceCopy {
    const Param *param;
    size_t first; // the value of the parameter where the entry's values begin
    const WeightsEntry *entry;
} SourceCopy;

typedef struct SourceRows {
    const Param *param;
    size_t first, stream; // first new row; the random stream
} SourceRows;

typedef struct ParamSources {
    Params *params;
    Backend *be;
    SourceRules rules;
    Misfits misfits;
    VEC(SourceCopy) copies;
    VEC(SourceRows) rows;
    const WeightsEntry *positions; // a table of another grid, to be interpolated
} ParamSources;

// An empty list; params is borrowed, and rules are copied.
ParamSources sources_begin(Params *params, Backend *be, const SourceRules *rules);
void sources_free(ParamSources *s);
// The entry's values become part `part` of the `parts` equal parts of p's rows (0 of 1: all of p). What does
// not fit goes to s->misfits. stream: of rows to be drawn.
void sources_add(ParamSources *s, const Param *p, const WeightsEntry *e, size_t part, size_t parts,
                 size_t stream);
// Reads everything; parameters have their memory. A value that is not finite is an error that names the
// tensor.
bool sources_load(const ParamSources *s, Error *err);
size_t sources_bytes(const ParamSources *s); // of the files' tensors
