// What the files of config/ share about single fields.
#pragma once
#include "config/fields.h"

static inline void *field_at(FieldSet set, const Field *field) {
    return (char *)set.base + field->offset;
}
size_t field_size(FieldType type);                 // of the member in the struct
void field_free(FieldSet set, const Field *field); // what it owns; the member is zero afterwards
bool field_store(FieldSet set, const Field *field,
                 const json_t *value); // false when the value is not allowed
// "a whole number from 1 to 8", "true or false", "best or nanovlm": what help, docs and errors say is
// allowed.
void field_allowed(char text[256], const Field *field);
