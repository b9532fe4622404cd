// A chat on standard input: `vlm generate --interactive`.
#pragma once
#include "cmd/generate_flags.h"

// The session is open, the weights are not loaded yet.
bool generate_chat(Session *s, const GenerateFlags *f, Error *err);
// Before the first thread is made: Ctrl-C then stops an answer, and ends the program where there is none.
void chat_catch_interrupts(void);
