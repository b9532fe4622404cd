// A profile's rows beside what the machine gives: as a table, and as JSON.
#pragma once
#include "tensor/profile.h"

#include <jansson.h>

// What the rows are seen against.
typedef struct ProfileScale {
    size_t steps;       // that were watched; a row's time and calls are those of one
    double seconds;     // they took, all together
    double gflops, gbs; // what products and memory reach (cmd/bench_ceiling.h)
    bool by_wall;       // rows are judged by elapsed time, else by processor time
} ProfileScale;

// The rows, most time first, on stdout: time a step, share of the whole, rate and its share of its bound.
void profile_print(Profile *p, ProfileScale s);
json_t *profile_json(Profile *p, ProfileScale s); // the same as an array of objects; new reference
