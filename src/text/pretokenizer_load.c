#include "base/vec.h"
#include "text/pretokenizer.h"

static bool get_bool(const json_t *json, const char *field, bool *value, Error *err) {
    const json_t *found = json_object_get(json, field);
    if (!json_is_boolean(found)) return error_set(err, "field %s: expected true or false", field);
    *value = json_is_true(found);
    return true;
}

static bool add_step(PreTokenizer *p, PreTokenizerStep step, Error *err) {
    if (p->count == PRETOKENIZER_MAX_STEPS)
        return error_set(err, "more than %d steps, expected at most that many", PRETOKENIZER_MAX_STEPS);
    p->steps[p->count++] = step;
    return true;
}

static bool load_digits(PreTokenizer *p, const json_t *json, Error *err) {
    PreTokenizerStep step = {.kind = PRETOKENIZER_DIGITS};
    return get_bool(json, "individual_digits", &step.single, err) && add_step(p, step, err);
}

static bool load_byte_level(PreTokenizer *p, const json_t *json, Error *err) {
    bool space = false, regex = true;
    if (!get_bool(json, "add_prefix_space", &space, err)) return false;
    if (json_object_get(json, "use_regex") && !get_bool(json, "use_regex", &regex, err)) return false;
    return (!space || add_step(p, (PreTokenizerStep){.kind = PRETOKENIZER_SPACE}, err)) &&
           (!regex || add_step(p, (PreTokenizerStep){.kind = PRETOKENIZER_GPT2}, err));
}

// What \s and \w mean to the tokenizers library (Oniguruma), as insides of a class: PCRE2's \s has U+180E as
// well, its \w has no marks, no circled letters and no numbers of Latin-1.
static const char *class_of(char escape) {
    if (escape == 's' || escape == 'S')
        return "\\x{9}-\\x{D}\\x{20}\\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}"
               "\\x{202F}\\x{205F}\\x{3000}";
    if (escape == 'w' || escape == 'W')
        return "\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}\\x{B2}\\x{B3}\\x{B9}\\x{BC}-\\x{BE}\\x{24B6}-\\x{24E9}"
               "\\x{1F130}-\\x{1F149}\\x{1F150}-\\x{1F169}\\x{1F170}-\\x{1F189}";
    return NULL;
}

// The pattern with these classes spelled out; \S and \W inside [] are left to PCRE2.
static char *spell_out_classes(const char *pattern) {
    CharVec out = {0};
    bool in_class = false;
    for (const char *p = pattern; *p; p++) {
        const bool escape = *p == '\\' && p[1];
        const bool negated = escape && (p[1] == 'S' || p[1] == 'W');
        const char *class = escape && !(negated && in_class) ? class_of(p[1]) : NULL;
        if (class) {
            if (!in_class) vec_extend(&out, "[^", negated ? 2u : 1u);
            vec_extend(&out, class, strlen(class));
            if (!in_class) vec_push(&out, ']');
        } else {
            if (!escape) in_class = *p == '[' || (in_class && *p != ']');
            vec_extend(&out, p, escape ? 2u : 1u);
        }
        if (escape) p++;
    }
    vec_push(&out, '\0');
    return out.items;
}

static bool compile_pattern(PreTokenizerStep *step, const json_t *json, Error *err) {
    const char *regex = json_string_value(json_object_get(json, "Regex"));
    const char *literal = json_string_value(json_object_get(json, "String"));
    if (!regex && !literal)
        return error_set(err, "field pattern: expected {\"Regex\": …} or {\"String\": …}");
    char *text = regex ? spell_out_classes(regex) : mem_strdup(literal);
    int code;
    PCRE2_SIZE offset;
    step->pattern = pcre2_compile((PCRE2_SPTR)text, PCRE2_ZERO_TERMINATED,
                                  PCRE2_UTF | (regex ? PCRE2_UCP : PCRE2_LITERAL), &code, &offset, NULL);
    free(text);
    if (!step->pattern) {
        char message[128] = "";
        pcre2_get_error_message(code, (PCRE2_UCHAR *)message, sizeof message);
        return error_set(err, "field pattern: \"%.200s\": %s", regex ? regex : literal, message);
    }
    pcre2_jit_compile(step->pattern, PCRE2_JIT_COMPLETE); // without JIT it is slower, not wrong
    return true;
}

static bool load_split(PreTokenizer *p, const json_t *json, Error *err) {
    PreTokenizerStep step = {.kind = PRETOKENIZER_SPLIT};
    const char *behavior = json_string_value(json_object_get(json, "behavior"));
    step.remove = behavior && strcmp(behavior, "Removed") == 0;
    if (!step.remove && !(behavior && strcmp(behavior, "Isolated") == 0))
        return error_set(err, "field behavior is \"%s\", expected \"Isolated\" or \"Removed\"",
                         behavior ? behavior : "");
    if (!get_bool(json, "invert", &step.invert, err) ||
        !compile_pattern(&step, json_object_get(json, "pattern"), err))
        return false;
    if (add_step(p, step, err)) return true;
    pcre2_code_free(step.pattern);
    return false;
}

typedef struct StepType {
    const char *name;
    bool (*load)(PreTokenizer *p, const json_t *json, Error *err);
} StepType;
static const StepType types[] = {
    {"Digits", load_digits}, {"Split", load_split}, {"ByteLevel", load_byte_level}};

static bool load_step(PreTokenizer *p, const json_t *json, bool last, Error *err) {
    const char *name = json_string_value(json_object_get(json, "type"));
    if (!name) return error_set(err, "field type: expected a string");
    const bool byte_level = strcmp(name, "ByteLevel") == 0;
    if (last && !byte_level)
        return error_set(
            err, "type \"%s\" stands last, expected ByteLevel: only byte-level tokenizers are supported",
            name);
    if (!last && byte_level)
        return error_set(err, "type \"ByteLevel\" is not the last step, expected it there");
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (strcmp(name, types[i].name) == 0)
            return types[i].load(p, json, err) || error_prefix(err, "type %s", name);
    return error_set(err, "type \"%s\" is not supported, expected Sequence, Digits, Split or ByteLevel",
                     name);
}

bool pretokenizer_load(PreTokenizer *p, const json_t *json, Error *err) {
    *p = (PreTokenizer){0};
    const char *name = json_string_value(json_object_get(json, "type"));
    if (!name || strcmp(name, "Sequence") != 0)
        return load_step(p, json, true, err) || error_prefix(err, "field pre_tokenizer");
    const json_t *steps = json_object_get(json, "pretokenizers");
    const size_t n = json_array_size(steps);
    if (n == 0) return error_set(err, "field pre_tokenizer.pretokenizers: expected an array of steps");
    for (size_t i = 0; i < n; i++)
        if (!load_step(p, json_array_get(steps, i), i + 1 == n, err)) {
            pretokenizer_free(p);
            return error_prefix(err, "field pre_tokenizer.pretokenizers[%zu]", i);
        }
    return true;
}

void pretokenizer_free(PreTokenizer *p) {
    for (size_t i = 0; i < p->count; i++) pcre2_code_free(p->steps[i].pattern);
    *p = (PreTokenizer){0};
}
