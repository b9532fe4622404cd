// LINK: eval
// The parts of exact match: comparing answers, the guess without looking, other pictures, and reading a test
// set.
#include "base/memory.h"
#include "eval/exact_match.h"
#include "support/data_case.h"

#include <stdlib.h>

static void test_answers_equal(void **state) {
    (void)state;
    static const struct {
        const char *a, *b;
        bool equal;
    } cases[] = {
        {"red", "red", true},   {" Red.", "red", true}, {"red\n", "RED", true}, {"red", "green", false},
        {"red", "redd", false}, {"", "", true},         {"", "red", false},     {"red..", "red", false},
        {".", "", true},        {"a b", "a b", true},   {"a b", "ab", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(answers_equal(cases[i].a, cases[i].b), cases[i].equal);
}

// A set of questions without pictures, by hand.
static QuestionSet by_hand(const char *const (*pairs)[2], size_t n) {
    QuestionSet q = {.count = n, .n_rows = n};
    q.items = mem_zeroed(n, sizeof *q.items);
    q.rows = mem_zeroed(n, sizeof *q.rows);
    for (size_t i = 0; i < n; i++)
        q.items[i] = (Question){mem_strdup(pairs[i][0]), mem_strdup(pairs[i][1]), i};
    return q;
}

static void test_commonest(void **state) {
    (void)state;
    static const char *const pairs[][2] = {
        {"colour?", "red"}, {"how many?", "2"}, {"colour?", "blue"}, {"colour?", "red"},
        {"how many?", "3"}, {"how many?", "3"}, {"where?", "left"},
    };
    QuestionSet q = by_hand(pairs, 7);
    const char *answers[7];
    commonest_answers(answers, &q);
    assert_string_equal(answers[0], "red");
    assert_string_equal(answers[1], "3");
    assert_string_equal(answers[2], "red");
    assert_string_equal(answers[6], "left");
    assert_int_equal(count_matches(&q, answers), 5);
    question_set_free(&q);
}

static void test_other_row(void **state) {
    (void)state;
    static const char *const pairs[][2] = {{"a", "a"}, {"b", "b"}, {"c", "c"}, {"d", "d"}};
    QuestionSet q = by_hand(pairs, 4);
    assert_int_equal(question_set_other_row(&q, 0), 2);
    assert_int_equal(question_set_other_row(&q, 3), 1);
    q.n_rows = 1;
    assert_int_equal(question_set_other_row(&q, 0), 0); // nothing else to show
    q.n_rows = 4;
    question_set_free(&q);
}

// A data set with broken rows among good ones: every turn of a good row is a question, the others are
// counted.
static void test_load(void **state) {
    (void)state;
    VLMConfig config;
    FieldSet set = {&vlm_config_table, &config};
    fields_set_defaults(set);
    config.vit_img_size = 32, config.max_img_size = 64;
    Error err;
    char *path = golden_path("data/parquet");
    QuestionSet q;
    if (!question_set_load(&q, path, &config, 1000, &err)) fail_msg("%s", err.text);
    assert_true(q.count >= q.n_rows && q.n_rows > 20 && q.skipped > 0);
    assert_int_equal(q.n_rows + q.skipped, 60);
    for (size_t i = 0; i < q.count; i++) {
        const QuestionRow *r = &q.rows[q.items[i].row],
                          *other = &q.rows[question_set_other_row(&q, q.items[i].row)];
        for (size_t k = 0; k < r->n_pictures; k++) assert_int_equal(r->pictures[k].width % 32, 0);
        assert_int_equal(other->n_pictures, r->n_pictures);
    }
    question_set_free(&q);
    if (!question_set_load(&q, path, &config, 5, &err)) fail_msg("%s", err.text);
    assert_int_equal(q.count, 5);
    question_set_free(&q);
    assert_false(question_set_load(&q, "/nonexistent", &config, 5, &err));
    free(path);
    fields_free(set);
}

// A turn without a question is none, and files of other kinds beside the Parquet files are not looked at.
static void test_nulls_and_other_files(void **state) {
    (void)state;
    Config c;
    Error err;
    QuestionSet q;
    char *folder = make_folder(), *from = golden_path("samples/rows.parquet"),
         *rows = path_join(folder, "rows.parquet"), *notes = path_join(folder, "notes.txt");
    data_config(&c, folder, "default");
    copy_file(rows, from, SIZE_MAX);
    expect(file_write_text(notes, "none", 4, &err), &err);
    expect(question_set_load(&q, folder, &c.vlm, 1000, &err), &err);
    size_t empty = 0;
    for (size_t i = 0; i < q.count; i++) empty += !*q.items[i].text;
    assert_true(q.count > 10 && empty == 1); // one asks nothing, three are null
    question_set_free(&q);
    config_free(&c);
    free(notes), free(rows), free(from);
    remove_folder(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answers_equal),
        cmocka_unit_test(test_commonest),
        cmocka_unit_test(test_other_row),
        cmocka_unit_test(test_load),
        cmocka_unit_test(test_nulls_and_other_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
