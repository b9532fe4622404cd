// Flags between argv and fields: read first, applied later, so that presets and files can go in between.
#pragma once
#include "base/vec.h"
#include "config/fields.h"

typedef struct Flag {
    FieldSet set;
    const Field *field;
    const char *value; // borrowed from argv or constant
} Flag;

typedef VEC(Flag) FlagVec;

// Takes argv apart as flags_parse describes, without touching the structs. Caller frees flags with vec_free,
// also after a failure.
bool flags_read(FlagVec *flags, const FieldSet *sets, size_t n_sets, int argc, char **argv,
                StringList *positional, Error *err);
bool flag_apply(const Flag *flag, Error *err);
