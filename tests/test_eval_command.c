// LINK: cmd
// RUNS: vlm
// `vlm eval` on the reference's random model: an answer does not depend on the questions that are answered
// beside it, and the wrong pictures are those of another row.
#include "support/data_case.h"
#include "support/folders.h"
#include "support/program.h"

#include "model/checkpoint.h"

enum { ROWS = 3, TURNS = 3, QUESTIONS = ROWS * TURNS };

// The reference model with pictures cut into at most 2 x 2 tiles, for which it has tokens.
static void make_model(void) {
    VLMConfig c;
    Error err;
    const FieldSet set = {&vlm_config_table, &c};
    char *model = path_join(test_folder, "model"), *config = path_join(model, "config.json"),
         *weights = path_join(model, "model.safetensors"), *reference = golden_path("model/a_base"),
         *from = path_join(reference, "model.safetensors");
    fields_set_defaults(set);
    expect(checkpoint_load_config(&c, reference, &err), &err);
    c.max_img_size = 2 * c.vit_img_size;
    expect(file_make_folders(model, &err) && vlm_config_save(&c, config, &err), &err);
    copy_file(weights, from, SIZE_MAX);
    fields_free(set);
    free(from), free(reference), free(weights), free(config), free(model);
}

// Rows with the same questions, of three lengths; row i shows picture (i + shift) % ROWS.
static void write_questions(const char *name, size_t shift) {
    static const FineVisionTurn turns[TURNS] = {{"which?", "a", 5, 5, 5, 5},
                                                {"how many of them are there?", "b", 5, 5, 5, 5},
                                                {"?", "c", 5, 5, 5, 5}};
    Error err;
    ParquetWriter *w;
    char *path = path_join(test_folder, name);
    expect(parquet_create(&w, path, ROWS, &err), &err);
    for (size_t i = 0; i < ROWS; i++) {
        const size_t shown = (i + shift) % ROWS;
        size_t size;
        unsigned char *png = make_png(&size, 20 + 30 * shown, 40, shown);
        const FineVisionImage image = {png, size, NULL};
        expect(parquet_write_row(w, &(FineVisionRow){&image, 1, turns, TURNS, NULL}, &err), &err);
        free(png);
    }
    expect(parquet_finish(w, &err), &err);
    free(path);
}

static int set_up(void **state) {
    make_test_folder(state);
    make_model();
    write_questions("rows.parquet", 0);
    write_questions("shifted.parquet", 1);
    return 0;
}

// The lines of --details as an array; caller releases.
static json_t *details(const char *rows, size_t batch_size) {
    char *tokenizer = golden_path("model/tokenizer"), *out = path_join(test_folder, "details.jsonl"),
         *line = mem_printf("eval --checkpoint %s/model --dataset %s/%s --lm_tokenizer %s --batch_size %zu "
                            "--max_new_tokens 6 --threads 1 --details %s",
                            test_folder, test_folder, rows, tokenizer, batch_size, out);
    program_expect(line, 0, "exact match on 9 questions about 3 rows", "");
    char *text = program_read_text(out), *rest = text;
    json_t *lines = json_array();
    for (char *l = strtok_r(rest, "\n", &rest); l; l = strtok_r(rest, "\n", &rest))
        json_array_append_new(lines, json_loads(l, 0, NULL));
    assert_int_equal(json_array_size(lines), QUESTIONS);
    free(text), free(line), free(out), free(tokenizer);
    return lines;
}

static const char *answer(const json_t *lines, size_t i, const char *way) {
    const char *text = json_string_value(json_object_get(json_array_get(lines, i), way));
    assert_non_null(text);
    return text;
}

static void the_batch_does_not_matter(void **state) {
    (void)state;
    static const size_t sizes[] = {2, 4, 9, 12}; // the last batch is full, short, and larger than the set
    json_t *alone = details("rows.parquet", 1);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        json_t *together = details("rows.parquet", sizes[i]);
        if (!json_equal(alone, together)) fail_msg("batches of %zu give other answers", sizes[i]);
        json_decref(together);
    }
    json_decref(alone);
}

// Of three rows, each is shown the picture of the next one.
static void wrong_pictures_are_those_of_another_row(void **state) {
    (void)state;
    json_t *rows = details("rows.parquet", 4), *shifted = details("shifted.parquet", 4);
    size_t differ = 0;
    for (size_t i = 0; i < QUESTIONS; i++) {
        assert_string_equal(answer(rows, i, "wrong_pictures"), answer(shifted, i, "model"));
        differ += strcmp(answer(rows, i, "model"), answer(rows, i, "wrong_pictures")) != 0;
    }
    assert_true(differ > 0);
    json_decref(rows);
    json_decref(shifted);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_batch_does_not_matter),
        cmocka_unit_test(wrong_pictures_are_those_of_another_row),
    };
    return cmocka_run_group_tests(tests, set_up, remove_test_folder);
}
