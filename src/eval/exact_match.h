// Exact match on a test set, three ways: the model, the model shown the pictures of other rows, and the
// commonest answer to each literal question. What the first is ahead of the other two, it has seen.
#pragma once
#include "eval/questions.h"
#include "model/generate.h"

typedef enum PictureChoice { PICTURES_RIGHT, PICTURES_WRONG } PictureChoice;

typedef struct Answerer {
    Vlm *model;
    const ChatTemplate *chat;
    size_t batch_size, max_new_tokens;
} Answerer;

// Longest prompt of the set in tokens and the most tiles of one, for the model's plan.
bool exact_match_sizes(size_t *tokens, size_t *tiles, const QuestionSet *q, const VLMConfig *config,
                       const ChatTemplate *chat, Error *err);
// Greedy answers to all questions, in order; each string caller-freed. The model is planned for batch_size
// prompts.
bool answer_questions(char **answers, const Answerer *a, const QuestionSet *q, PictureChoice pictures,
                      size_t capacity, Error *err);
// The commonest answer of the set to each literal question, in the order of the questions; borrowed from q.
void commonest_answers(const char **answers, const QuestionSet *q);
bool answers_equal(const char *a,
                   const char *b); // but for case, outer white space and one full stop at the end
size_t count_matches(const QuestionSet *q, const char *const *answers);
