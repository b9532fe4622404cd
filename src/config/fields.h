// Configuration as tables: one line a field gives its flag, its JSON key, its help text, its default and its
// check. A struct whose fields a table describes can be set from defaults, JSON, presets and flags, and
// written back.
#pragma once
#include "base/error.h"
#include "base/string_list.h"

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

// A number that remembers whether it was written as an integer, because Python's repr (config.json, run
// names) prints 0 and 0.0 differently.
typedef struct Number {
    double value;
    bool is_int;
} Number;

typedef struct TokenPair {
    char *name, *token;
} TokenPair;

// Ordered {name: token}, e.g. vlm_extra_tokens.
typedef struct TokenMap {
    size_t count;
    TokenPair *items;
} TokenMap;

typedef enum FieldType {
    FIELD_SIZE,            // size_t
    FIELD_U64,             // uint64_t (seeds)
    FIELD_INT,             // int (ratings, may be negative)
    FIELD_NUMBER,          // Number
    FIELD_OPTIONAL_NUMBER, // OptionalNumber: null / none allowed
    FIELD_BOOL,            // bool; flags take true or false
    FIELD_STRING,          // char *, owned; null / none allowed only where the default is null
    FIELD_OPTIONAL_STRING, // char *, owned; null / none allowed whatever the default
    FIELD_STRING_LIST,     // StringList, owned; as a flag: values separated by commas
    FIELD_STRING_REPEATED, // StringList, owned; the flag may be given several times, each adds one value
    FIELD_TOKEN_MAP,       // TokenMap, owned; as a flag: a JSON object
} FieldType;

typedef struct OptionalNumber {
    bool is_set;
    Number number;
} OptionalNumber;

typedef struct Field {
    const char *name; // flag (also with dashes for underscores) and JSON key
    FieldType type;
    size_t offset;            // in the struct
    const char *default_text; // as a flag's value; NULL: null, none, or empty
    double min, max; // allowed range of numbers; both 0: any (sizes: ≥ 0); max 0 below min: no upper limit
    const char *choices; // of strings: "best|nanovlm"; NULL: any
    const char *help;    // one line
} Field;

typedef struct FieldTable {
    const char *title; // heading in help and docs, e.g. "Model (VLMConfig)"
    const Field *fields;
    size_t count;
} FieldTable;

// A struct together with its table: what the command line and files are read into.
typedef struct FieldSet {
    const FieldTable *table;
    void *base;
} FieldSet;

void fields_set_defaults(FieldSet set); // the struct is overwritten, not freed
void fields_free(FieldSet set);         // frees owned strings
const Field *fields_find(const FieldTable *table, const char *name,
                         size_t length); // NULL when unknown; - equals _
bool fields_set_text(FieldSet set, const Field *field, const char *value,
                     Error *err); // names flag, value, allowed
bool fields_set_json(FieldSet set, const Field *field, const json_t *value, Error *err);
json_t *fields_get_json(FieldSet set, const Field *field); // new reference
json_t *fields_to_json(FieldSet set);                      // object, keys in table order; new reference
// All keys of an object; an unknown key is an error that names the nearest one, a missing one keeps its
// value.
bool fields_from_json(FieldSet set, const json_t *object, const char *file, Error *err);
bool fields_copy(FieldSet to, const void *from_base); // deep copy of a struct with the same table

// Parses `--name value` and `--name=value` into the sets, whose structs hold their defaults already; argv[0]
// is the command's name and is passed over. Later flags win; of sets with a field of the same name the first
// one gets it. A bool's value may be left out (then true) and `--no_name` sets it to false. A value that
// begins with -- needs the form with =. Unknown flags name the nearest known one. Positional arguments are an
// error unless `positional` is given (they are appended; all that follows a bare `--` is positional). --help
// prints help and ends the program with 0.
bool flags_parse(const FieldSet *sets, size_t n_sets, int argc, char **argv, StringList *positional,
                 Error *err);
void flags_print_help(const FieldSet *sets, size_t n_sets); // to stdout, grouped by table, with defaults
void fields_print_markdown(const FieldTable *table); // to stdout: a heading and a table, for docs/config.md

// The nearest of `count` names by edit distance, or NULL when none is near.
const char *nearest_name(const char *name, const char *const *names, size_t count);
