#include "support/synth_case.h"
#include "support/golden.h"

#include <string.h>

FieldSet options_set(SynthOptions *o) {
    return (FieldSet){&synth_table, o};
}

SynthOptions options_unchecked(const char *const *pairs) {
    SynthOptions o;
    Error err;
    fields_set_defaults(options_set(&o));
    for (; pairs[0]; pairs += 2) {
        const Field *field = fields_find(&synth_table, pairs[0], strlen(pairs[0]));
        assert_non_null(field);
        if (!fields_set_text(options_set(&o), field, pairs[1], &err)) fail_msg("%s", err.text);
    }
    return o;
}

SynthOptions options_with(const char *const *pairs) {
    SynthOptions o = options_unchecked(pairs);
    Error err;
    if (!synth_options_check(&o, &err)) fail_msg("%s", err.text);
    return o;
}

SynthRow row_of(const SynthOptions *o, SynthSplit split, uint64_t index) {
    SynthRow row;
    Error err;
    if (!synth_row(&row, o, split, index, &err)) fail_msg("%s", err.text);
    return row;
}
