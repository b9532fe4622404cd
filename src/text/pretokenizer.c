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

static unsigned classes_at(const char *text, size_t size, size_t *length) {
    const Utf8Char c = utf8_decode(text, size);
    *length = c.size;
    return char_classes(c.code_point);
}

static void run_digits(Run run, const char *text, size_t size, bool single) {
    size_t begin = 0, length;
    bool in_digits = false;
    for (size_t at = 0; at < size; at += length) {
        const bool digit = classes_at(text + at, size - at, &length) & CHAR_DIGIT;
        if (digit != in_digits || (digit && single)) {
            pass_on(run, text + begin, at - begin);
            begin = at;
        }
        in_digits = digit;
    }
    pass_on(run, text + begin, size - begin);
}

// Bytes of the lower-case contraction 's 't 're 've 'm 'll 'd at text, 0 when there is none.
static size_t contraction_size(const char *text, size_t size) {
    if (size < 2 || text[0] != '\'') return 0;
    if (memchr("stmd", text[1], 4)) return 2;
    static const char pairs[3][2] = {"re", "ve", "ll"};
    for (size_t i = 0; i < 3; i++)
        if (size >= 3 && memcmp(text + 1, pairs[i], 2) == 0) return 3;
    return 0;
}

#define WORD_CLASSES (CHAR_SPACE | CHAR_LETTER | CHAR_NUMBER)

// Bytes of white space at text, without its last character when something follows and more than one is there:
// that one, if a plain space, belongs to the word behind.
static size_t space_size(const char *text, size_t size) {
    size_t at = 0, last = 0, length;
    while (at < size && classes_at(text + at, size - at, &length) & CHAR_SPACE) {
        last = at;
        at += length;
    }
    return at < size && last > 0 ? last : at;
}

// Length of the first match of GPT-2's pattern, which matches at every place:
// 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
static size_t gpt2_size(const char *text, size_t size) {
    const size_t contraction = contraction_size(text, size);
    if (contraction) return contraction;
    size_t at = text[0] == ' ' ? 1 : 0, length;
    if (at == size) return at;
    const unsigned class = classes_at(text + at, size - at, &length) & WORD_CLASSES;
    if (class == CHAR_SPACE) return space_size(text, size);
    do {
        at += length;
    } while (at < size && (classes_at(text + at, size - at, &length) & WORD_CLASSES) == class);
    return at;
}

static void run_gpt2(Run run, const char *text, size_t size) {
    while (size > 0) {
        const size_t length = gpt2_size(text, size);
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
        run_gpt2(run, text, size);
        break;
    }
}

void pretokenizer_run(const PreTokenizer *p, const char *text, size_t size, PieceFn *emit, void *context) {
    if (size > 0) run_step((Run){p, 0, emit, context}, text, size);
}
