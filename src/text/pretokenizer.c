#include "text/pretokenizer.h"

#include "base/check.h"
#include "text/unicode.h"

// A step of the work: the steps behind it are run on every piece it finds.
typedef struct Run {
    const PreTokenizer *steps;
    size_t step;
    PieceFn *emit;
    void *context;
} Run;

static void run_step(Run run, const char *text, size_t size);

static void pass_on(Run run, const char *piece, size_t size) {
    if (size == 0) return;
    run.step++;
    run_step(run, piece, size);
}

static inline unsigned classes_at(const char *text, size_t *length) {
    const Utf8Char c = utf8_decode_valid(text);
    *length = c.size;
    return char_classes(c.code_point);
}

static void run_digits(Run run, const char *text, size_t size, bool single) {
    size_t begin = 0, length;
    bool in_digits = false;
    for (size_t at = 0; at < size; at += length) {
        const bool digit = classes_at(text + at, &length) & CHAR_DIGIT;
        if (digit != in_digits || (digit && single)) {
            pass_on(run, text + begin, at - begin);
            begin = at;
        }
        in_digits = digit;
    }
    pass_on(run, text + begin, size - begin);
}

// Bytes of the contraction 's 't 're 've 'm 'll 'd at text, 0 when there is none. caseless: upper case as
// well, and U+017F, which folds to s.
static size_t contraction_size(const char *text, size_t size, bool caseless) {
    if (size < 2 || text[0] != '\'') return 0;
    if (caseless && size >= 3 && memcmp(text + 1, "\u017F", 2) == 0) return 3;
    const char fold = caseless ? 0x20 : 0;
    const char first = text[1] | fold;
    if (first == 's' || first == 't' || first == 'm' || first == 'd') return 2;
    if (size < 3) return 0;
    const char second = text[2] | fold;
    return (second == 'e' && (first == 'r' || first == 'v')) || (first == 'l' && second == 'l') ? 3 : 0;
}

#define WORD_CLASSES (CHAR_SPACE | CHAR_LETTER | CHAR_NUMBER)

// Where the run of characters of this class (0: of none of WORD_CLASSES) that goes on at `at` ends.
static size_t run_end(const char *text, size_t size, size_t at, unsigned class) {
    size_t length;
    while (at < size && (classes_at(text + at, &length) & WORD_CLASSES) == class) at += length;
    return at;
}

// Bytes of white space at text, without its last character when something follows and more than one is there:
// that one, if a plain space, belongs to the word behind.
static size_t space_size(const char *text, size_t size) {
    size_t at = 0, last = 0, length;
    while (at < size && classes_at(text + at, &length) & CHAR_SPACE) {
        last = at;
        at += length;
    }
    return at < size && last > 0 ? last : at;
}

// Length of the first match of GPT-2's pattern, which matches at every place:
// 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
static size_t gpt2_size(const PreTokenizerStep *step, const char *text, size_t size) {
    (void)step;
    const size_t contraction = contraction_size(text, size, false);
    if (contraction) return contraction;
    size_t at = text[0] == ' ' ? 1 : 0, length;
    if (at == size) return at;
    const unsigned class = classes_at(text + at, &length) & WORD_CLASSES;
    return class == CHAR_SPACE ? space_size(text, size) : run_end(text, size, at + length, class);
}

// Bytes of \s*[\r\n]+|\s+(?!\S)|\s+ at text, where white space begins.
static size_t lines_size(const char *text, size_t size) {
    const size_t end = run_end(text, size, 0, CHAR_SPACE);
    for (size_t at = end; at > 0; at--)
        if (text[at - 1] == '\n' || text[at - 1] == '\r') return at;
    return space_size(text, size);
}

// Length of the first match of Llama 3's pattern (Qwen 2's with max_numbers 1), which matches at every place:
// (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*
// |\s*[\r\n]+|\s+(?!\S)|\s+
static size_t llama3_size(const PreTokenizerStep *step, const char *text, size_t size) {
    const size_t contraction = contraction_size(text, size, true);
    if (contraction) return contraction;
    size_t length, second;
    const unsigned class = classes_at(text, &length) & WORD_CLASSES;
    if (class == CHAR_LETTER) return run_end(text, size, length, CHAR_LETTER);
    if (class == CHAR_NUMBER) {
        size_t at = length;
        for (size_t n = 1; n < step->max_numbers && at < size; n++, at += second)
            if (!(classes_at(text + at, &second) & CHAR_NUMBER)) break;
        return at;
    }
    const unsigned next = length < size ? classes_at(text + length, &second) & WORD_CLASSES : CHAR_SPACE;
    if (next == CHAR_LETTER && text[0] != '\r' && text[0] != '\n')
        return run_end(text, size, length + second, CHAR_LETTER);
    if (class == CHAR_SPACE && !(text[0] == ' ' && next == 0)) return lines_size(text, size);
    size_t at = run_end(text, size, length, 0);
    while (at < size && (text[at] == '\r' || text[at] == '\n')) at++;
    return at;
}

static void run_matches(Run run, const char *text, size_t size, const PreTokenizerStep *step,
                        size_t (*match)(const PreTokenizerStep *step, const char *text, size_t size)) {
    while (size > 0) {
        const size_t length = match(step, text, size);
        pass_on(run, text, length);
        text += length, size -= length;
    }
}

static void run_space(Run run, const char *text, size_t size) {
    if (text[0] == ' ') {
        pass_on(run, text, size);
        return;
    }
    char *spaced = mem_alloc(size + 1);
    spaced[0] = ' ';
    memcpy(spaced + 1, text, size);
    pass_on(run, spaced, size + 1);
    free(spaced);
}

// The next match that is not empty. The text has been checked as UTF-8, and no limit is set, so that only a
// bug or want of memory can make matching fail.
static bool find_match(const pcre2_code *pattern, pcre2_match_data *data, const char *text, size_t size,
                       size_t from, size_t *begin, size_t *end) {
    const uint32_t options = PCRE2_NO_UTF_CHECK | PCRE2_NOTEMPTY;
    int found = pcre2_match(pattern, (PCRE2_SPTR)text, size, from, options, data, NULL);
    if (found == PCRE2_ERROR_JIT_STACKLIMIT)
        found = pcre2_match(pattern, (PCRE2_SPTR)text, size, from, options | PCRE2_NO_JIT, data, NULL);
    CHECK(found >= 0 || found == PCRE2_ERROR_NOMATCH, "pcre2_match: %d", found);
    if (found < 0) return false;
    const PCRE2_SIZE *span = pcre2_get_ovector_pointer(data);
    *begin = span[0], *end = span[1];
    return true;
}

static void run_split(Run run, const char *text, size_t size, const PreTokenizerStep *step) {
    pcre2_match_data *data = pcre2_match_data_create_from_pattern(step->pattern, NULL);
    CHECK(data, "pcre2_match_data_create: out of memory");
    const bool keep_match = !step->remove || step->invert, keep_between = !step->remove || !step->invert;
    size_t at = 0, begin, end;
    while (at < size && find_match(step->pattern, data, text, size, at, &begin, &end)) {
        if (keep_between) pass_on(run, text + at, begin - at);
        if (keep_match) pass_on(run, text + begin, end - begin);
        at = end;
    }
    if (keep_between) pass_on(run, text + at, size - at);
    pcre2_match_data_free(data);
}

static void run_step(Run run, const char *text, size_t size) {
    if (run.step == run.steps->count) {
        run.emit(run.context, text, size);
        return;
    }
    const PreTokenizerStep *step = &run.steps->steps[run.step];
    switch (step->kind) {
    case PRETOKENIZER_DIGITS:
        run_digits(run, text, size, step->single);
        break;
    case PRETOKENIZER_SPLIT:
        run_split(run, text, size, step);
        break;
    case PRETOKENIZER_SPACE:
        run_space(run, text, size);
        break;
    case PRETOKENIZER_GPT2:
        run_matches(run, text, size, step, gpt2_size);
        break;
    case PRETOKENIZER_LLAMA3:
        run_matches(run, text, size, step, llama3_size);
        break;
    }
}

void pretokenizer_run(const PreTokenizer *p, const char *text, size_t size, PieceFn *emit, void *context) {
    if (size > 0) run_step((Run){p, 0, emit, context}, text, size);
}
