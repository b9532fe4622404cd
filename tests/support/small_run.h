// Runs of `vlm train` through the program, of a small model on rows of `vlm synth`; all in test_folder.
#pragma once
#include "support/folders.h"
#include "support/program.h"

// Set-up of a group in place of make_test_folder; remove_test_folder takes it down.
int make_small_run_data(size_t rows);
// The line of run <test_folder>/runs/<run>; of a flag given twice, the one in `more` counts. Caller frees.
char *small_run_line(const char *run, const char *more);
char *small_run_file(const char *run, const char *name); // a file of its folder; caller frees
