// A file of prompts: `vlm generate --batch`.
#pragma once
#include "cmd/generate_flags.h"

// The session is open, the weights are not loaded yet.
bool generate_batch(Session *s, const GenerateFlags *f, Error *err);
