// What a step takes beside its tensors, found by going through it on a backend's twin (tensor/backend.h) that
// computes nothing.
#pragma once
#include "model/vlm.h"

// *scratch: bytes that operators take for themselves in a step forward and backward of the largest batch that
// was planned for. The library's code for its products is made on the way and stays. Takes no memory of the
// model's.
bool vlm_rehearse(size_t *scratch, Backend *be, const VLMConfig *config, const VlmPlan *plan, Error *err);
