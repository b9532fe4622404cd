#include "eval/exact_match.h"
#include "base/log.h"
#include "data/prompt.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

static bool build(Prompt *p, const Question *item, const QuestionRow *row, const VLMConfig *config,
                  const ChatTemplate *chat, Error *err) {
    return prompt_build(p, config, chat, row->pictures, row->n_pictures, item->text, err);
}

bool exact_match_sizes(size_t *tokens, size_t *tiles, const QuestionSet *q, const VLMConfig *config,
                       const ChatTemplate *chat, Error *err) {
    *tokens = *tiles = 0;
    for (size_t i = 0; i < q->count; i++) {
        // the pictures of another row may be larger
        size_t rows[2] = {q->items[i].row, question_set_other_row(q, q->items[i].row)};
        for (int k = 0; k < 2; k++) {
            Prompt p;
            if (!build(&p, &q->items[i], &q->rows[rows[k]], config, chat, err)) return false;
            if (p.ids.count > *tokens) *tokens = p.ids.count;
            if (p.n_tiles > *tiles) *tiles = p.n_tiles;
            prompt_free(&p);
        }
    }
    return true;
}

// Left-pads n prompts to the longest and joins their tiles; the caller frees the three arrays.
static Batch join(const Prompt *prompts, size_t n, int32_t pad, size_t values_per_tile) {
    Batch b = {.B = n};
    for (size_t i = 0; i < n; i++) {
        if (prompts[i].ids.count > b.T) b.T = prompts[i].ids.count;
        b.n_tiles += prompts[i].n_tiles;
    }
    b.input_ids = mem_alloc(n * b.T * sizeof *b.input_ids);
    b.attention_mask = mem_alloc(n * b.T * sizeof *b.attention_mask);
    b.images = mem_alloc(b.n_tiles * values_per_tile * sizeof *b.images + 1);
    float *to = b.images;
    for (size_t i = 0; i < n; i++) {
        size_t length = prompts[i].ids.count, padding = b.T - length,
               tiles = prompts[i].n_tiles * values_per_tile;
        for (size_t t = 0; t < b.T; t++) {
            b.input_ids[i * b.T + t] = t < padding ? pad : prompts[i].ids.items[t - padding];
            b.attention_mask[i * b.T + t] = t >= padding;
        }
        if (tiles) memcpy(to, prompts[i].tiles, tiles * sizeof *to);
        to += tiles;
    }
    return b;
}

static char *decode_answer(const Tokenizer *t, const int32_t *tokens, size_t n, int32_t eos) {
    size_t length = 0;
    while (length < n && tokens[length] != eos) length++;
    return tokenizer_decode(t, tokens, length, true);
}

// Answers questions [first, first + n); a short last batch is filled up with its first question.
static bool answer_batch(char **answers, Generation *g, const Answerer *a, const QuestionSet *q,
                         PictureChoice pictures, size_t first, size_t n, Error *err) {
    const Tokenizer *t = a->chat->tokenizer;
    const VLMConfig *config = a->model->config;
    size_t B = a->batch_size, P = config->vit_img_size, built = 0, steps;
    Prompt *prompts = mem_zeroed(B, sizeof *prompts);
    int32_t *tokens = mem_alloc(B * a->max_new_tokens * sizeof *tokens), eos = tokenizer_eos_id(t);
    bool ok = true;
    for (; ok && built < B; built += ok) {
        const Question *item = &q->items[built < n ? first + built : first];
        size_t row = pictures == PICTURES_RIGHT ? item->row : question_set_other_row(q, item->row);
        ok = build(&prompts[built], item, &q->rows[row], config, a->chat, err);
    }
    if (ok) {
        Batch batch = join(prompts, B, eos, 3 * P * P);
        GenerateOptions options = {.max_new_tokens = a->max_new_tokens, .greedy = true};
        ok = generate(tokens, &steps, g, &batch, &options, eos, NULL, NULL, err);
        free(batch.input_ids);
        free(batch.attention_mask);
        free(batch.images);
    }
    for (size_t i = 0; ok && i < n; i++)
        answers[first + i] = decode_answer(t, tokens + i * a->max_new_tokens, a->max_new_tokens, eos);
    for (size_t i = 0; i < built; i++) prompt_free(&prompts[i]);
    free(prompts);
    free(tokens);
    return ok;
}

bool answer_questions(char **answers, const Answerer *a, const QuestionSet *q, PictureChoice pictures,
                      size_t capacity, Error *err) {
    Generation g;
    if (!generation_create(&g, a->model, a->batch_size, capacity, err)) return false;
    bool ok = true;
    for (size_t first = 0; ok && first < q->count; first += a->batch_size) {
        size_t left = q->count - first;
        ok = answer_batch(answers, &g, a, q, pictures, first, left < a->batch_size ? left : a->batch_size,
                          err);
        progress_update(5, "%s pictures: %zu of %zu questions",
                        pictures == PICTURES_RIGHT ? "right" : "wrong", first, q->count);
    }
    progress_end();
    generation_free(&g);
    return ok;
}

// ---- the guess without looking ----

static int by_question_then_answer(const void *a, const void *b) {
    const Question *x = *(const Question *const *)a, *y = *(const Question *const *)b;
    int order = strcmp(x->text, y->text);
    return order ? order : strcmp(x->answer, y->answer);
}

// The most frequent answer in sorted[0..n), all of one question; equal ones lie together.
static const char *most_frequent(const Question *const *sorted, size_t n) {
    size_t best = 0, best_run = 0, run = 0;
    for (size_t i = 0; i < n; i++) {
        run = i > 0 && !strcmp(sorted[i]->answer, sorted[i - 1]->answer) ? run + 1 : 1;
        if (run > best_run) best_run = run, best = i;
    }
    return sorted[best]->answer;
}

void commonest_answers(const char **answers, const QuestionSet *q) {
    const Question **sorted = mem_zeroed(q->count, sizeof *sorted);
    for (size_t i = 0; i < q->count; i++) sorted[i] = &q->items[i];
    qsort(sorted, q->count, sizeof *sorted, by_question_then_answer);
    for (size_t first = 0, end; first < q->count; first = end) {
        for (end = first; end < q->count && !strcmp(sorted[end]->text, sorted[first]->text);) end++;
        const char *answer = most_frequent(sorted + first, end - first);
        for (size_t i = first; i < end; i++) answers[sorted[i] - q->items] = answer;
    }
    free(sorted);
}

// ---- comparing ----

static void trim(const char **text, size_t *n) {
    while (*n && isspace((unsigned char)**text)) ++*text, --*n;
    while (*n && isspace((unsigned char)(*text)[*n - 1])) --*n;
    if (*n && (*text)[*n - 1] == '.') --*n;
}

bool answers_equal(const char *a, const char *b) {
    size_t n = strlen(a), m = strlen(b);
    trim(&a, &n);
    trim(&b, &m);
    return n == m && strncasecmp(a, b, n) == 0;
}

size_t count_matches(const QuestionSet *q, const char *const *answers) {
    size_t matches = 0;
    for (size_t i = 0; i < q->count; i++) matches += answers_equal(answers[i], q->items[i].answer);
    return matches;
}
