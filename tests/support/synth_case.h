// Options and rows of the synthetic data set for tests; whatever fails ends the test.
#pragma once
#include "synth/synth.h"

FieldSet options_set(SynthOptions *o);
// The defaults with pairs of names and values over them, ending with NULL; free with
// fields_free(options_set(&o)).
SynthOptions options_unchecked(const char *const *pairs);
SynthOptions options_with(const char *const *pairs); // and synth_options_check has passed
#define OPTIONS(...) options_with((const char *const[]){__VA_ARGS__, NULL})

SynthRow row_of(const SynthOptions *o, SynthSplit split, uint64_t index);
