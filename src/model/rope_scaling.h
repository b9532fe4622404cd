// Rotary frequencies that a decoder was trained with beyond 1 / base^(2i/D): the rope_scaling
// (rope_parameters) of its config.json. They end in the stored buffer rotary_embd.inv_freq, so nothing else
// has to know.
#pragma once
#include "model/backbone.h"

// llama.cpp's tensor of divisors of the frequencies, [D/2], in files that carry it instead.
extern const char *const rope_factors_name;

// The kinds this model can express are default, linear and llama3; others and bad values are misfits.
void rope_scaling_check(Misfits *m, const json_t *config);
// rope_theta: at the top of config or inside rope_parameters; NULL when config has none.
const json_t *rope_theta(const json_t *config);
// Writes the frequencies of config->lm_re_base, scaled as the backbone says, into the parameter's buffer.
bool rope_scaling_apply(Params *p, Backend *be, const VLMConfig *config, const Backbone *b, Error *err);
