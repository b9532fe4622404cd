// A test set in memory: the pictures of its rows and every turn as a question of its own.
#pragma once
#include "data/picture.h"

typedef struct QuestionRow {
    Picture *pictures;
    size_t n_pictures;
} QuestionRow;

typedef struct Question {
    char *text, *answer;
    size_t row;
} Question;

typedef struct QuestionSet {
    QuestionRow *rows;
    size_t n_rows;
    Question *items;
    size_t count;
    size_t skipped; // rows that could not be read; the first one's reason was logged
} QuestionSet;

// Reads up to max_questions questions of a Parquet file or folder of them (FineVision's schema). No question
// is an error.
bool question_set_load(QuestionSet *q, const char *path, const VLMConfig *config, size_t max_questions,
                       Error *err);
void question_set_free(QuestionSet *q);
// Another row with as many pictures, about half the set away, so that its pictures have nothing to do with
// `row`; row itself when there is none.
size_t question_set_other_row(const QuestionSet *q, size_t row);
