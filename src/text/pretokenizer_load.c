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

// What classes mean to the tokenizers library (Oniguruma, Unicode 16), as insides of []: an older PCRE2 has
// not all letters and numbers, its \s has U+180E as well, its \w has no marks, no circled letters and no
// numbers of Latin-1.
#define LETTERS                                                                                              \
    "\\p{L}\\x{1C89}-\\x{1C8A}\\x{A7CB}-\\x{A7CD}\\x{A7DA}-\\x{A7DC}\\x{105C0}-\\x{105F3}"                   \
    "\\x{10D4A}-\\x{10D65}\\x{10D6F}-\\x{10D85}\\x{10EC2}-\\x{10EC4}\\x{1123F}-\\x{11240}"                   \
    "\\x{11380}-\\x{11389}\\x{1138B}\\x{1138E}\\x{11390}-\\x{113B5}\\x{113B7}\\x{113D1}\\x{113D3}"           \
    "\\x{11BC0}-\\x{11BE0}\\x{11F02}\\x{11F04}-\\x{11F10}\\x{11F12}-\\x{11F33}\\x{1342F}"                    \
    "\\x{13441}-\\x{13446}\\x{13460}-\\x{143FA}\\x{16100}-\\x{1611D}\\x{16D40}-\\x{16D6C}\\x{18CFF}"         \
    "\\x{1B132}\\x{1B155}\\x{1DF25}-\\x{1DF2A}\\x{1E030}-\\x{1E06D}\\x{1E4D0}-\\x{1E4EB}"                    \
    "\\x{1E5D0}-\\x{1E5ED}\\x{1E5F0}\\x{2B739}\\x{2EBF0}-\\x{2EE5D}\\x{31350}-\\x{323AF}"
#define NUMBERS                                                                                              \
    "\\p{N}\\x{10D40}-\\x{10D49}\\x{116D0}-\\x{116E3}\\x{11BF0}-\\x{11BF9}\\x{11F50}-\\x{11F59}"             \
    "\\x{16130}-\\x{16139}\\x{16D70}-\\x{16D79}\\x{1CCF0}-\\x{1CCF9}\\x{1D2C0}-\\x{1D2D3}"                   \
    "\\x{1E4F0}-\\x{1E4F9}\\x{1E5F1}-\\x{1E5FA}"
#define SPACES                                                                                               \
    "\\x{9}-\\x{D}\\x{20}\\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}\\x{205F}"     \
    "\\x{3000}"
#define WORDS                                                                                                \
    LETTERS "\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}\\x{B2}\\x{B3}\\x{B9}\\x{BC}-\\x{BE}\\x{24B6}-\\x{24E9}"             \
            "\\x{1F130}-\\x{1F149}\\x{1F150}-\\x{1F169}\\x{1F170}-\\x{1F189}"

typedef struct PatternClass {
    const char *spelling, *inside;
    bool negated;
} PatternClass;
static const PatternClass pattern_classes[] = {
    {"\\s", SPACES, false},     {"\\S", SPACES, true},      {"\\w", WORDS, false},
    {"\\W", WORDS, true},       {"\\p{L}", LETTERS, false}, {"\\P{L}", LETTERS, true},
    {"\\p{N}", NUMBERS, false}, {"\\P{N}", NUMBERS, true},
};

static const PatternClass *find_class(const char *pattern) {
    for (size_t i = 0; i < sizeof pattern_classes / sizeof *pattern_classes; i++)
        if (strncmp(pattern, pattern_classes[i].spelling, strlen(pattern_classes[i].spelling)) == 0)
            return &pattern_classes[i];
    return NULL;
}

// The pattern with these classes spelled out; negated ones inside [] are left to PCRE2.
static char *spell_out_classes(const char *pattern) {
    CharVec out = {0};
    bool in_class = false;
    for (const char *p = pattern; *p;) {
        const PatternClass *class = find_class(p);
        if (class && !(class->negated && in_class)) {
            if (!in_class) vec_extend(&out, "[^", class->negated ? 2u : 1u);
            vec_extend(&out, class->inside, strlen(class->inside));
            if (!in_class) vec_push(&out, ']');
            p += strlen(class->spelling);
            continue;
        }
        const size_t size = *p == '\\' && p[1] ? 2 : 1;
        if (size == 1) in_class = *p == '[' || (in_class && *p != ']');
        vec_extend(&out, p, size);
        p += size;
    }
    vec_push(&out, '\0');
    return out.items;
}

// Patterns of well-known models that are matched without PCRE2, faster and by the library's own classes.
#define GPT2_PATTERN "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
#define LLAMA3_PATTERN(numbers)                                                                              \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" numbers                                    \
    "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
typedef struct KnownPattern {
    const char *regex;
    PreTokenizerStep step;
} KnownPattern;
static const KnownPattern known_patterns[] = {
    {GPT2_PATTERN, {.kind = PRETOKENIZER_GPT2}},
    {LLAMA3_PATTERN("\\p{N}{1,3}"), {.kind = PRETOKENIZER_LLAMA3, .max_numbers = 3}}, // Llama 3
    {LLAMA3_PATTERN("\\p{N}"), {.kind = PRETOKENIZER_LLAMA3, .max_numbers = 1}},      // Qwen 2 and 3
};

// The step of a pattern that is known and cuts its matches out, NULL for any other.
static const PreTokenizerStep *find_known(const json_t *pattern, const PreTokenizerStep *split) {
    const char *regex = json_string_value(json_object_get(pattern, "Regex"));
    for (size_t i = 0; regex && !split->remove && i < sizeof known_patterns / sizeof *known_patterns; i++)
        if (strcmp(regex, known_patterns[i].regex) == 0) return &known_patterns[i].step;
    return NULL;
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
    const json_t *pattern = json_object_get(json, "pattern");
    if (!get_bool(json, "invert", &step.invert, err)) return false;
    const PreTokenizerStep *known = find_known(pattern, &step);
    if (known)
        return add_step(p, *known, err); // its matches leave nothing between, so invert changes nothing
    if (!compile_pattern(&step, pattern, err)) return false;
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
