// Whether the ranks of a run were told the same.
#pragma once
#include "config/config.h"
#include "dist/comm.h"

// Compares an object of facts with rank 0's. On every rank the error names the first rank that differs, the
// fact and both values.
bool agreement_check(Comm *comm, const json_t *facts, Error *err);
// The fields of a configuration in which ranks may not differ, and the version of this program; not where
// files lie on a host and how fast it works. New reference.
json_t *agreement_of_config(const Config *config, const char *version);
