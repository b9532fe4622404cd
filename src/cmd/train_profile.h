// What `vlm train --profile` tells at the end of a run.
#pragma once
#include "config/config.h"
#include "dist/comm.h"
#include "model/vlm.h"
#include "train/run_profile.h"

// Measures what products and memory reach here, prints the parts of the run and its operators on stdout, and
// writes the same as <folder>/profile.json.
bool train_profile_report(RunProfile *p, const Config *config, const Vlm *model, const Comm *comm,
                          const char *folder, Error *err);
