// Answers the questions of synthetic rows from what the pictures show, by reading the question: written apart
// from the code that asks them, so that the two can be compared.
#pragma once
#include "synth/synth.h"

// False when the question is of no known form or has no single clear answer.
bool oracle_answer(char answer[16], const SynthRow *row, const char *question);
const char *
oracle_form(const char *question); // the question with * for what varies; NULL when of no known form
