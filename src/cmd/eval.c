// `vlm eval`: exact match of a checkpoint's greedy answers on a test set, beside the same model shown wrong
// pictures and beside the commonest answer to each question.
#include "base/file.h"
#include "base/pyjson.h"
#include "cmd/cmd.h"
#include "cmd/session.h"
#include "eval/exact_match.h"

#include <jansson.h>
#include <stdio.h>

typedef struct EvalFlags {
    char *checkpoint, *dataset, *lm_tokenizer, *details, *adapter;
    size_t questions, batch_size, max_new_tokens, threads;
} EvalFlags;

#define AT(field) offsetof(EvalFlags, field)
static const Field eval_fields[] = {
    {"checkpoint", FIELD_STRING, AT(checkpoint), NULL, 0, 0, NULL,
     "folder with config.json and model.safetensors"},
    {"dataset", FIELD_STRING, AT(dataset), NULL, 0, 0, NULL,
     "Parquet file or folder with questions and answers"},
    {"questions", FIELD_SIZE, AT(questions), "1000", 1, 1e9, NULL, "at most so many questions"},
    {"batch_size", FIELD_SIZE, AT(batch_size), "32", 1, 4096, NULL, "questions answered at a time"},
    {"max_new_tokens", FIELD_SIZE, AT(max_new_tokens), "16", 1, 4096, NULL, "most tokens of one answer"},
    {"details", FIELD_STRING, AT(details), NULL, 0, 0, NULL,
     "file for one JSON object a question with all three answers"},
    {"adapter", FIELD_STRING, AT(adapter), NULL, 0, 0, NULL,
     "folder with PEFT's adapter_config.json and adapter_model.safetensors, merged into the weights"},
    {"lm_tokenizer", FIELD_STRING, AT(lm_tokenizer), NULL, 0, 0, NULL,
     "tokenizer folder instead of the checkpoint's"},
    {"threads", FIELD_SIZE, AT(threads), "0", 0, 4096, NULL,
     "threads of the model; 0: one per physical core"},
};
static const FieldTable eval_table = {"Evaluation", eval_fields, sizeof eval_fields / sizeof *eval_fields};

enum { WAY_MODEL, WAY_WRONG_PICTURES, WAY_COMMONEST, N_WAYS };
static const char *const way_names[N_WAYS] = {"the model", "the model shown wrong pictures",
                                              "the commonest answer"};
static const char *const way_keys[N_WAYS] = {"model", "wrong_pictures", "commonest"};

typedef struct Scores {
    char **owned[2];              // the model's answers, right and wrong pictures
    const char **answers[N_WAYS]; // the same and the commonest
} Scores;

static void scores_init(Scores *s, size_t n) {
    for (int w = 0; w < N_WAYS; w++) s->answers[w] = mem_zeroed(n, sizeof **s->answers);
    for (int w = 0; w < 2; w++) s->owned[w] = mem_zeroed(n, sizeof **s->owned);
}

static void scores_free(Scores *s, size_t n) {
    for (int w = 0; w < 2; w++) {
        for (size_t i = 0; s->owned[w] && i < n; i++) free(s->owned[w][i]);
        free(s->owned[w]);
    }
    for (int w = 0; w < N_WAYS; w++) free(s->answers[w]);
}

static void print_table(const Scores *s, const QuestionSet *q) {
    printf("exact match on %zu questions about %zu rows\n", q->count, q->n_rows);
    for (int w = 0; w < N_WAYS; w++) {
        size_t matches = count_matches(q, s->answers[w]);
        printf("  %-32s %5.1f%%\n", way_names[w], 100.0 * (double)matches / (double)q->count);
    }
}

static bool write_details(const char *path, const Scores *s, const QuestionSet *q, Error *err) {
    FileWriter w;
    if (!file_create(&w, path, err)) return false;
    for (size_t i = 0; i < q->count; i++) {
        json_t *line = json_object();
        json_object_set_new(line, "row", json_integer((json_int_t)q->items[i].row));
        json_object_set_new(line, "question", json_string(q->items[i].text));
        json_object_set_new(line, "answer", json_string(q->items[i].answer));
        for (int k = 0; k < N_WAYS; k++)
            json_object_set_new(line, way_keys[k], json_string(s->answers[k][i]));
        pyjson_print(w.stream, line, -1);
    }
    return file_commit(&w, err);
}

static bool answer_both_ways(Scores *scores, const EvalFlags *f, Session *s, const QuestionSet *q,
                             Error *err) {
    size_t tokens, tiles;
    if (!exact_match_sizes(&tokens, &tiles, q, &s->config, &s->chat, err) ||
        !session_load(s,
                      &(SessionPlan){.batch = f->batch_size,
                                     .positions = tokens,
                                     .tiles = f->batch_size * tiles,
                                     .threads = f->threads,
                                     .adapter = f->adapter},
                      err))
        return false;
    Answerer a = {&s->model, &s->chat, f->batch_size, f->max_new_tokens};
    for (int w = 0; w < 2; w++) {
        PictureChoice choice = w == WAY_MODEL ? PICTURES_RIGHT : PICTURES_WRONG;
        if (!answer_questions(scores->owned[w], &a, q, choice, tokens + f->max_new_tokens, err)) return false;
        for (size_t i = 0; i < q->count; i++) scores->answers[w][i] = scores->owned[w][i];
    }
    commonest_answers(scores->answers[WAY_COMMONEST], q);
    return true;
}

static bool evaluate(const void *flags, Error *err) {
    const EvalFlags *f = flags;
    Session s;
    QuestionSet q;
    if (!session_open(&s, f->checkpoint, f->lm_tokenizer, err)) return false;
    if (!question_set_load(&q, f->dataset, &s.config, f->questions, err)) {
        session_close(&s);
        return false;
    }
    Scores scores;
    scores_init(&scores, q.count);
    bool ok = answer_both_ways(&scores, f, &s, &q, err);
    if (ok) print_table(&scores, &q);
    if (ok && f->details) ok = write_details(f->details, &scores, &q, err);
    scores_free(&scores, q.count);
    question_set_free(&q);
    session_close(&s);
    return ok;
}

static bool check_flags(const void *flags, Error *err) {
    const EvalFlags *f = flags;
    if (f->checkpoint && f->dataset) return true;
    return error_set(err, "--%s: not given; eval needs --checkpoint and --dataset",
                     f->checkpoint ? "dataset" : "checkpoint");
}

int cmd_eval(int argc, char **argv) {
    EvalFlags f;
    return command_run((FieldSet){&eval_table, &f}, argc, argv, check_flags, evaluate);
}
