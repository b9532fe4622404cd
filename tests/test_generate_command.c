// LINK: cmd
// RUNS: vlm
// COST: 10
// `vlm generate` as a user meets it: ways to give a prompt, pictures of all formats, JSON, stops, packed
// weights, a chat through a pipe, batches that go on where they ended, a decoder alone, and wrong flags. The
// model is the reference's random one, so that answers are nonsense but always the same.
#include "support/chatml.h"
#include "support/folders.h"
#include "support/golden.h"
#include "support/program.h"
#include "support/weights_case.h"

#include "base/memory.h"
#include "cmd/answer.h"
#include "format/safetensors.h"
#include "model/checkpoint.h"
#include "ops/cpu/cpu.h"

#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define COUNT(array) (sizeof(array) / sizeof(array)[0])
#define PICTURES     "tests/golden/images/inputs/"
#define TOKENIZER    "tests/golden/model/tokenizer"

static char *folder;

static char *in_folder(const char *name) { // caller frees
    return path_join(folder, name);
}

static void write_file(const char *name, const char *text) {
    char *path = in_folder(name);
    Error err;
    if (!file_write_text(path, text, strlen(text), &err)) fail_msg("%s", err.text);
    free(path);
}

// ---- running ----

// The line with every @ replaced by the folder.
static char *expand(const char *line) {
    CharVec out = {0};
    for (; *line; line++)
        if (*line == '@')
            vec_extend(&out, folder, strlen(folder));
        else
            vec_push(&out, *line);
    vec_push(&out, '\0');
    return out.items;
}

// Runs `vlm generate` on the model with this as its standard input.
static ProgramResult run_with(const char *words, const char *input) {
    write_file("input", input);
    char *path = in_folder("input"), *rest = expand(words),
         *line = mem_printf("generate --threads 1 --lm_tokenizer " TOKENIZER " %s", rest);
    const int saved = dup(STDIN_FILENO), file = open(path, O_RDONLY);
    assert_true(saved >= 0 && file >= 0 && dup2(file, STDIN_FILENO) == STDIN_FILENO);
    ProgramResult r = program_run(line);
    dup2(saved, STDIN_FILENO);
    close(saved);
    close(file);
    free(line);
    free(rest);
    free(path);
    return r;
}

static json_t *lines_of(const char *text) { // every line as JSON, in an array
    json_t *all = json_array();
    for (const char *end; *text; text = end + 1) {
        end = strchr(text, '\n');
        if (!end) fail_msg("half a line: %s", text);
        json_error_t where;
        json_t *o = json_loadb(text, (size_t)(end - text), 0, &where);
        if (!o) fail_msg("%s in %s", where.text, text);
        json_array_append_new(all, o);
    }
    return all;
}

static json_t *answers(const char *words, const char *input) {
    char *line = mem_printf("--json --max_new_tokens 8 %s", words);
    ProgramResult r = run_with(line, input);
    if (r.status) fail_msg("vlm generate %s: status %d, %s", line, r.status, r.err);
    json_t *all = lines_of(r.out);
    program_result_free(&r);
    free(line);
    return all;
}

static json_t *field(const json_t *all, size_t i, const char *key) {
    json_t *value = json_object_get(json_array_get(all, i), key);
    if (!value) fail_msg("answer %zu has no %s", i, key);
    return value;
}

static void expect_same_ids(const json_t *a, size_t i, const json_t *b, size_t j, const char *what) {
    if (!json_equal(field(a, i, "ids"), field(b, j, "ids"))) fail_msg("%s: other tokens", what);
}

#define MODEL "--checkpoint @/model --greedy "
#define LLAMA "--checkpoint @/llama --lm_tokenizer @/llama --greedy "

// ---- one prompt ----

static void ways_to_give_a_prompt(void **state) {
    (void)state;
    write_file("prompt.txt", "abc\n");
    json_t *plain = answers(MODEL "--prompt abc", ""),
           *file = answers(MODEL "--prompt_file @/prompt.txt", ""),
           *input = answers(MODEL "--prompt -", "abc\n"), *other = answers(MODEL "--prompt abd", ""),
           *system = answers(MODEL "--prompt abc --system xyz", ""),
           *raw = answers(MODEL "--prompt abc --plain", "");
    expect_same_ids(plain, 0, file, 0, "--prompt_file");
    expect_same_ids(plain, 0, input, 0, "--prompt -");
    assert_false(json_equal(field(plain, 0, "ids"), field(other, 0, "ids")));
    const json_int_t n = json_integer_value(field(plain, 0, "prompt_tokens"));
    assert_true(json_integer_value(field(system, 0, "prompt_tokens")) > n + 3);
    assert_int_equal(json_integer_value(field(raw, 0, "prompt_tokens")), 3);
    assert_int_equal(json_array_size(field(plain, 0, "ids")), 8);
    assert_int_equal(json_integer_value(field(plain, 0, "new_tokens")), 8);
    assert_string_equal(json_string_value(field(plain, 0, "finish")), "length");
    json_decref(plain), json_decref(file), json_decref(input), json_decref(other), json_decref(system),
        json_decref(raw);
}

static void text_and_json_agree(void **state) {
    (void)state;
    json_t *all = answers(MODEL "--prompt abc --generations 2", "");
    ProgramResult r = run_with(MODEL "--prompt abc --max_new_tokens 8 --verbose", "");
    assert_int_equal(json_array_size(all), 2);
    expect_same_ids(all, 0, all, 1, "the second greedy answer");
    assert_int_equal(r.status, 0);
    r.out[strlen(r.out) - 1] = '\0';
    assert_string_equal(r.out, json_string_value(field(all, 0, "text")));
    if (!strstr(r.err, "tokens/s") || !strstr(r.err, "resident")) fail_msg("--verbose says: %s", r.err);
    program_result_free(&r);
    json_decref(all);
}

static void seeds(void **state) {
    (void)state;
    static const char sampled[] = "--checkpoint @/model --prompt abc --temperature 9 --top_k 0 --top_p 1 ";
    char *first = mem_printf("%s--generations 2 --seed 4", sampled),
         *second = mem_printf("%s--seed 5", sampled);
    json_t *a = answers(first, ""), *b = answers(second, "");
    expect_same_ids(a, 1, b, 0, "generation 1 draws with the next seed");
    assert_false(json_equal(field(a, 0, "ids"), field(a, 1, "ids")));
    json_decref(a), json_decref(b);
    free(first), free(second);
}

static void stop_texts(void **state) {
    (void)state;
    json_t *whole = answers(MODEL "--prompt abc", "");
    const char *text = json_string_value(field(whole, 0, "text"));
    size_t at = 1; // a visible character that is not the first one
    while (text[at] && (text[at] <= ' ' || text[at] > '~' || text[at] == '@')) at++;
    if (!text[at]) skip();
    const size_t first = (size_t)(strchr(text, text[at]) - text);
    char *line = mem_printf(MODEL "--prompt abc --stop %c", text[at]);
    json_t *cut = answers(line, "");
    assert_string_equal(json_string_value(field(cut, 0, "finish")), "stop_text");
    assert_int_equal(strlen(json_string_value(field(cut, 0, "text"))), first);
    json_decref(whole), json_decref(cut);
    free(line);
}

static void pictures(void **state) {
    (void)state;
    static const char *const files[] = {"png_rgb_64.png", "jpeg_420.jpg", "webp_lossy.webp", "gif_plain.gif",
                                        "bmp_24.bmp"};
    json_t *none = answers(MODEL "--prompt abc", "");
    for (size_t i = 0; i < COUNT(files); i++) {
        char *line = mem_printf(MODEL "--prompt abc --image " PICTURES "%s", files[i]);
        json_t *one = answers(line, "");
        if (json_equal(field(one, 0, "ids"), field(none, 0, "ids")))
            fail_msg("%s is not looked at", files[i]);
        json_decref(one);
        free(line);
    }
    json_t *two = answers(
        MODEL "--prompt abc --image " PICTURES "png_rgb_64.png --image " PICTURES "gif_plain.gif", "");
    assert_true(json_integer_value(field(two, 0, "prompt_tokens")) >
                json_integer_value(field(none, 0, "prompt_tokens")) + 8);
    json_decref(two), json_decref(none);
}

static float *read_logits(size_t *V) { // of --logits_out @/logits.safetensors; caller frees
    char *path = in_folder("logits.safetensors");
    Safetensors *file;
    Error err;
    if (!safetensors_open(&file, path, &err)) fail_msg("%s", err.text);
    const SafetensorsEntry *e = safetensors_find(file, "logits");
    float *logits = malloc(e->count * sizeof *logits);
    assert_int_equal(e->shape[0], 8);
    assert_true(safetensors_to_f32(logits, e, &err));
    *V = e->shape[1];
    safetensors_close(file);
    free(path);
    return logits;
}

static void packed_weights(void **state) {
    (void)state;
    static const char *const kinds[] = {"f32", "bf16", "q8_0"};
    float *exact = NULL;
    for (size_t i = 0; i < COUNT(kinds); i++) {
        char *line =
            mem_printf(MODEL "--prompt abc --image " PICTURES "png_rgb_64.png --weights %s --logits_out "
                             "@/logits.safetensors",
                       kinds[i]);
        size_t V;
        json_decref(answers(line, ""));
        float *logits = read_logits(&V);
        if (i > 0) // of the first token
            expect_within("logits of packed weights, relative", relative_l2(logits, exact, V), 0.03, "%s",
                          kinds[i]);
        if (i > 0) assert_memory_not_equal(logits, exact, V * sizeof *logits);
        free(i > 0 ? logits : NULL);
        exact = i > 0 ? exact : logits;
        free(line);
    }
    free(exact);
}

static void logits_of_each_token(void **state) {
    (void)state;
    json_t *all = answers(MODEL "--prompt abc --logits_out @/logits.safetensors", "");
    size_t V;
    float *logits = read_logits(&V);
    for (size_t i = 0; i < 8; i++)
        assert_int_equal(argmax(logits + i * V, V),
                         json_integer_value(json_array_get(field(all, 0, "ids"), i)));
    free(logits);
    json_decref(all);
}

// ---- what streams ----

static bool append(CharVec *text, const Tokenizer *t, const char *word, const StringList *stops) {
    Int32Vec ids = {0};
    bool found = false;
    tokenizer_encode(t, word, strlen(word), &ids);
    for (size_t i = 0; i < ids.count && !found; i++) found = answer_append(text, t, ids.items[i], stops);
    vec_free(&ids);
    return found;
}

static void nothing_is_shown_too_early(void **state) {
    (void)state;
    Tokenizer *t;
    Error err;
    if (!tokenizer_load(&t, TOKENIZER, NULL, &err)) fail_msg("%s", err.text);
    char *texts[] = {"END", "zz"};
    const StringList none = {0}, stops = {2, texts};
    CharVec text = {0};
    vec_extend(&text, "a\xe2\x82", 3); // two bytes of three
    assert_int_equal(answer_settled(&text, &none), 1);
    vec_push(&text, '\xac');
    assert_int_equal(answer_settled(&text, &none), 4);
    vec_clear(&text);
    assert_false(append(&text, t, "some EN", &stops));
    assert_int_equal(answer_settled(&text, &stops), 5); // "EN" may become END
    assert_false(append(&text, t, "Ez", &stops));
    assert_int_equal(answer_settled(&text, &stops), 8); // and "z" zz
    assert_true(append(&text, t, "z!", &stops));
    assert_int_equal(text.count, 8);
    assert_memory_equal(text.items, "some ENE", 8);
    vec_free(&text);
    tokenizer_free(t);
}

// ---- a chat ----

static void chat_keeps_what_was_said(void **state) {
    (void)state;
    json_t *alone = answers(MODEL "--prompt abc", "");
    json_t *chat = answers(MODEL "--interactive", "abc\nabc\n/clear\n\nabc\nabc\n");
    assert_int_equal(json_array_size(chat), 4);
    expect_same_ids(chat, 0, alone, 0, "the first turn");
    expect_same_ids(chat, 2, chat, 0, "the first turn after /clear");
    expect_same_ids(chat, 3, chat, 1, "the second turn after /clear");
    assert_false(json_equal(field(chat, 1, "ids"), field(chat, 0, "ids")));
    // a turn's own tokens, the end of the answer before it, and the one token of that not yet run
    const json_int_t first = json_integer_value(field(chat, 0, "prompt_tokens"));
    assert_int_equal(json_integer_value(field(chat, 1, "prompt_tokens")), first + 3);
    json_decref(alone), json_decref(chat);
}

static void chat_with_pictures(void **state) {
    (void)state;
    json_t *alone = answers(MODEL "--prompt abc --image " PICTURES "png_rgb_64.png", "");
    ProgramResult r = run_with(MODEL "--interactive --json --max_new_tokens 8",
                               "/image nowhere.png\n/image\n/imag x\n/image " PICTURES
                               "png_rgb_64.png\nabc\nabc\n/help\n/exit\nabc\n");
    assert_int_equal(r.status, 0);
    json_t *chat = lines_of(r.out);
    assert_int_equal(json_array_size(chat), 2); // nothing behind /exit
    expect_same_ids(chat, 0, alone, 0, "a picture added in the chat");
    static const char *const said[] = {"nowhere.png", "/image: name a file", "/imag is no command",
                                       "/clear "};
    for (size_t i = 0; i < COUNT(said); i++)
        if (!strstr(r.err, said[i])) fail_msg("not said: %s in %s", said[i], r.err);
    json_decref(alone), json_decref(chat);
    program_result_free(&r);
}

static void chat_that_is_full(void **state) {
    (void)state;
    ProgramResult r =
        run_with(MODEL "--interactive --json --max_new_tokens 300 --context 40", "abc\nabc\n/clear\nabc\n");
    assert_int_equal(r.status, 0);
    json_t *chat = lines_of(r.out);
    assert_int_equal(json_array_size(chat), 2);
    expect_same_ids(chat, 0, chat, 1, "after /clear");
    assert_string_equal(json_string_value(field(chat, 0, "finish")), "length");
    if (!strstr(r.err, "--context is 40; /clear")) fail_msg("%s", r.err);
    json_decref(chat);
    program_result_free(&r);
}

// A chat in a process of its own, whose answer is so long that it is still coming when the signal is there.
static pid_t start_chat(int *in, int *out) {
    int to[2], from[2];
    char *model = in_folder("model"), *log = in_folder("chat.log");
    assert_true(pipe(to) == 0 && pipe(from) == 0);
    fflush(NULL);
    const pid_t child = fork();
    if (child == 0) {
        const int file = open(log, O_WRONLY | O_CREAT | O_TRUNC, 0600);
        dup2(to[0], 0), dup2(from[1], 1), dup2(file, 2);
        close(to[1]), close(from[0]);
        char *const words[] = {"generate", "--checkpoint",  model,       "--lm_tokenizer", TOKENIZER,
                               "--greedy", "--interactive", "--context", "100000",         "--max_new_tokens",
                               "90000",    "--threads",     "1",         "--verbose",      NULL};
        program_exec(words);
    }
    assert_true(child > 0);
    close(to[0]), close(from[1]);
    *in = to[1], *out = from[0];
    free(model), free(log);
    return child;
}

static void wait_for_text(int in, int out) {
    char byte;
    assert_int_equal(write(in, "abc\n", 4), 4);
    assert_int_equal(read(out, &byte, 1), 1);
}

static void ctrl_c_stops_the_answer(void **state) {
    (void)state;
    int in, out, status;
    const pid_t child = start_chat(&in, &out);
    char piece[4096], *path = in_folder("chat.log");
    wait_for_text(in, out);
    assert_int_equal(kill(child, SIGINT), 0);
    assert_int_equal(write(in, "/exit\n", 6), 6);
    while (read(out, piece, sizeof piece) > 0) {
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    char *log = program_read_text(path);
    if (!strstr(log, "ended by interrupted")) fail_msg("%s", log);
    close(in), close(out);
    free(log), free(path);
}

static void ctrl_c_again_leaves(void **state) {
    (void)state;
    int in, out, status;
    const pid_t child = start_chat(&in, &out);
    wait_for_text(in, out);
    close(out);
    while (waitpid(child, &status, WNOHANG) == 0) {
        kill(child, SIGINT);
        usleep(1000);
    }
    assert_true(WIFEXITED(status) ? WEXITSTATUS(status) == 130 : WTERMSIG(status) == SIGPIPE);
    close(in);
}

// ---- batches ----

static const char *const batch_lines[] = {
    "{\"id\": \"a\", \"prompt\": \"abc\"}",
    "{\"id\": 2, \"prompt\": \"a much longer prompt than the one before\"}",
    "{\"id\": \"broken\", \"prompt\": ",
    "{\"id\": \"b\", \"prompt\": \"abc\", \"images\": [\"" PICTURES "png_rgb_64.png\"]}",
    "{\"id\": \"c\", \"prompt\": \"x\", \"images\": [\"nowhere.png\"]}",
    "{\"id\": \"d\", \"prompt\": \"q\", \"images\": [\"" PICTURES "gif_plain.gif\", \"" PICTURES
    "bmp_24.bmp\"]}",
    "{\"prompt\": 7}",
    "[]",
    "{\"id\": \"e\", \"prompt\": \"the last\"}",
};

static char *batch_text(void) {
    CharVec text = {0};
    for (size_t i = 0; i < COUNT(batch_lines); i++) {
        vec_extend(&text, batch_lines[i], strlen(batch_lines[i]));
        vec_extend(&text, i == 3 ? "\n\n" : "\n", i == 3 ? 2u : 1u); // an empty line is none
    }
    vec_push(&text, '\0');
    return text.items;
}

static char *run_batch(const char *more) { // what --out holds then; caller frees
    char *line = mem_printf(MODEL "--batch @/batch.jsonl --out @/out.jsonl --max_new_tokens 8 %s", more),
         *path = in_folder("out.jsonl");
    ProgramResult r = run_with(line, "");
    if (r.status) fail_msg("vlm generate %s: status %d, %s", line, r.status, r.err);
    program_result_free(&r);
    char *text = program_read_text(path);
    free(path);
    free(line);
    return text;
}

static void check_batch_line(const json_t *all, size_t i, const char *words) {
    json_t *alone = answers(words, "");
    expect_same_ids(all, i, alone, 0, words);
    assert_true(json_equal(field(all, i, "text"), field(alone, 0, "text")));
    assert_true(json_equal(field(all, i, "prompt_tokens"), field(alone, 0, "prompt_tokens")));
    json_decref(alone);
}

static void batches_answer_as_alone(void **state) {
    (void)state;
    char *input = batch_text(), *out;
    write_file("batch.jsonl", input);
    static const char *const sizes[] = {"--batch_size 1", "--batch_size 3", "--batch_size 20"};
    static const struct {
        size_t line;
        const char *part;
    } errors[] = {{2, "line 3: column"},
                  {4, "nowhere.png"},
                  {6, "line 8: prompt is missing"},
                  {7, "not a JSON object"}};
    for (size_t k = 0; k < COUNT(sizes); k++) {
        write_file("out.jsonl", "");
        out = run_batch(sizes[k]);
        json_t *all = lines_of(out);
        assert_int_equal(json_array_size(all), COUNT(batch_lines));
        check_batch_line(all, 0, MODEL "--prompt abc");
        check_batch_line(all, 3, MODEL "--prompt abc --image " PICTURES "png_rgb_64.png");
        check_batch_line(all, 5,
                         MODEL "--prompt q --image " PICTURES "gif_plain.gif --image " PICTURES "bmp_24.bmp");
        assert_string_equal(json_string_value(field(all, 8, "id")), "e");
        assert_int_equal(json_integer_value(field(all, 1, "id")), 2);
        for (size_t i = 0; i < COUNT(errors); i++)
            if (!strstr(json_string_value(field(all, errors[i].line, "error")), errors[i].part))
                fail_msg("%s", json_string_value(field(all, errors[i].line, "error")));
        assert_true(json_is_null(field(all, 2, "id")));
        json_decref(all);
        free(out);
    }
    free(input);
}

static void batches_go_on(void **state) {
    (void)state;
    char *input = batch_text(), *path = in_folder("out.jsonl");
    write_file("batch.jsonl", input);
    write_file("out.jsonl", "");
    char *whole = run_batch("--batch_size 2");
    const size_t size = strlen(whole);
    for (size_t kept = 0; kept <= size; kept += size / 7) {
        char *half = mem_strndup(whole, kept), *again;
        write_file("out.jsonl", half);
        again = run_batch("--batch_size 2");
        assert_string_equal(again, whole);
        free(half);
        free(again);
    }
    char *more = mem_printf("%s%s", whole, "{}\n");
    write_file("out.jsonl", more);
    ProgramResult r = run_with(MODEL "--batch @/batch.jsonl --out @/out.jsonl", "");
    assert_int_equal(r.status, 1);
    if (!strstr(r.err, "10 answers, but")) fail_msg("%s", r.err);
    program_result_free(&r);
    free(more), free(whole), free(input), free(path);
}

// ---- a decoder alone ----

static void decoder_alone_answers_as_the_whole(void **state) {
    (void)state;
    json_t *whole = answers(MODEL "--prompt abc", ""), *alone = answers(LLAMA "--prompt abc", ""),
           *chat = answers(LLAMA "--interactive", "abc\nabc\n"),
           *both = answers(MODEL "--interactive", "abc\nabc\n");
    expect_same_ids(alone, 0, whole, 0, "the decoder alone");
    expect_same_ids(chat, 1, both, 1, "its second turn");
    json_decref(whole), json_decref(alone), json_decref(chat), json_decref(both);
    char *line = expand("export --checkpoint @/llama --lm_tokenizer @/llama --out @/exported --to hf");
    ProgramResult r = program_run(line);
    assert_int_equal(r.status, 1);
    assert_non_null(strstr(r.err, "llama is a decoder alone; whole checkpoints can be exported"));
    program_result_free(&r);
    free(line);
}

// A template that is not known to the letter is written as the format its tokens tell, and that is said.
static void template_told_by_its_tokens(void **state) {
    (void)state;
    json_t *known = answers(LLAMA "--prompt abc", ""),
           *told = answers("--greedy --checkpoint @/marked --lm_tokenizer @/marked --prompt abc", "");
    expect_same_ids(told, 0, known, 0, "ChatML by its tokens");
    json_decref(known), json_decref(told);
    ProgramResult r = run_with("--checkpoint @/marked --lm_tokenizer @/marked --max_new_tokens 1", "");
    assert_int_equal(r.status, 0);
    assert_non_null(
        strstr(r.err, "marked: the chat template is not known to the letter; it contains <|im_start|>"));
    program_result_free(&r);
    r = run_with(LLAMA "--max_new_tokens 1", "");
    assert_string_equal(r.err, "");
    program_result_free(&r);
}

// A name of the Hub stands for its folder in the cache, by either flag, and shards for one file.
static void hub_names_and_shards(void **state) {
    (void)state;
    char *cache = in_folder("hub"), *model = in_folder("model");
    shard_into_cache(cache, "org--m", model);
    setenv("HF_HUB_CACHE", cache, 1);
    json_t *whole = answers(MODEL "--prompt abc", ""),
           *name = answers("--greedy --checkpoint org/m --prompt abc", ""),
           *flag = answers("--greedy --hf_model org/m --prompt abc", "");
    unsetenv("HF_HUB_CACHE");
    expect_same_ids(whole, 0, name, 0, "--checkpoint org/m");
    expect_same_ids(whole, 0, flag, 0, "--hf_model org/m");
    json_decref(whole), json_decref(name), json_decref(flag);
    free(cache), free(model);
}

static void expect_refused(const char *words, int status, const char *part) {
    ProgramResult r = run_with(words, "");
    if (r.status != status || !strstr(r.err, part))
        fail_msg("vlm generate %s: status %d, expected %d with \"%s\": %s", words, r.status, status, part,
                 r.err);
    program_result_free(&r);
}

static void wrong_flags(void **state) {
    (void)state;
    static const struct {
        const char *words, *part;
    } cases[] = {
        {"", "--checkpoint: not given"},
        {"--checkpoint a --hf_model b", "given together"},
        {MODEL "--weights q4", "--weights"},
        {MODEL "--batch x", "--out"},
        {MODEL "--batch x --out y --interactive", "give one of them"},
        {MODEL "--interactive --logits_out x", "--logits_out"},
        {MODEL "--interactive --plain", "--plain"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) expect_refused(cases[i].words, 2, cases[i].part);
}

static void wrong_files(void **state) {
    (void)state;
    static const struct {
        const char *words, *part;
    } cases[] = {
        {"--checkpoint /nowhere/x", "/nowhere/x: no such file or folder"},
        {"--checkpoint no/such_model_here", "hf download no/such_model_here"},
        {"--hf_model no/such_model_here", "--hf_model"},
        {MODEL "--batch /nowhere.jsonl --out @/none.jsonl", "/nowhere.jsonl"},
        {MODEL "--batch @/batch.jsonl --out /nowhere/out.jsonl", "/nowhere/out.jsonl"},
        {MODEL "--prompt_file /nowhere.txt", "--prompt_file"},
        {MODEL "--plain --prompt_file @/empty", "the prompt is empty"},
        {MODEL "--image " PICTURES "bad_truncated.png", "bad_truncated.png"},
        {MODEL "--image " PICTURES "bad_text.jpg", "bad_text.jpg"},
        {LLAMA "--image " PICTURES "png_rgb_64.png", "a decoder alone and sees no pictures"},
        {"--checkpoint @/untemplated --lm_tokenizer @/untemplated --prompt a",
         "untemplated: has no chat template; use --plain"},
        {"--checkpoint @/llama3 --lm_tokenizer @/llama3 --prompt a",
         "in the format Llama 3, but the tokenizer has no token <|eot_id|>; use --plain"},
        {"--checkpoint @/whole --prompt a",
         "whole: not a decoder but a whole model of transformers; of SmolVLM"},
        {"--checkpoint @/half.gguf --prompt a", "half.gguf"},
        {"--checkpoint tests/golden/backbones/llama_tied", "lm_vocab_size is 100"},
    };
    write_file("empty", "");
    write_file("half.gguf", "GGUF\3");
    for (size_t i = 0; i < COUNT(cases); i++) expect_refused(cases[i].words, 1, cases[i].part);
}

// ---- the models ----

static void link_file(const char *from, const char *to, const char *name) {
    char *source = realpath(from, NULL), *path = path_join(to, name);
    assert_int_equal(symlink(source, path), 0);
    free(source);
    free(path);
}

// The reference model with pictures cut into at most 2 x 2 tiles, for which it has tokens.
static void make_model(const char *path) {
    VLMConfig c;
    Error err;
    const FieldSet set = {&vlm_config_table, &c};
    char *config = path_join(path, "config.json");
    fields_set_defaults(set);
    if (!checkpoint_load_config(&c, "tests/golden/model/a_base", &err)) fail_msg("%s", err.text);
    c.max_img_size = 2 * c.vit_img_size;
    if (!file_make_folders(path, &err) || !vlm_config_save(&c, config, &err)) fail_msg("%s", err.text);
    link_file("tests/golden/model/a_base/model.safetensors", path, "model.safetensors");
    fields_free(set);
    free(config);
}

typedef struct Decoder {
    Vlm m;
    const Param *items[64];
} Decoder;

static bool fill_tensor(void *context, size_t i, void *dst) {
    const Decoder *d = context;
    tensor_download(d->m.be, STREAM_COMPUTE, dst, d->items[i]->w);
    return true;
}

// The tensors of the decoder under transformers' names.
static void write_llama_weights(const VLMConfig *c, const char *path) {
    Decoder d = {0};
    Error err;
    Backend *be;
    SafetensorsSpec specs[64];
    size_t n = 0;
    const VlmPlan plan = {.max_batch = 1, .max_positions = 1, .max_tiles = 1};
    if (!backend_cpu_create(&be, 1, &err) || !vlm_create(&d.m, be, c, &plan, &err) ||
        !checkpoint_load_weights(&d.m, "tests/golden/model/a_base", &err))
        fail_msg("%s", err.text);
    for (size_t i = 0; i < d.m.params.count; i++) {
        const Param *p = &d.m.params.items[i];
        if (p->group != GROUP_LANGUAGE || !p->backbone_name[0]) continue;
        d.items[n] = p;
        specs[n] = (SafetensorsSpec){.name = p->backbone_name, .dtype = DTYPE_F32, .ndim = p->ndim};
        memcpy(specs[n++].shape, p->shape, (size_t)p->ndim * sizeof *p->shape);
    }
    if (!safetensors_write(path, specs, n, NULL, 0, fill_tensor, &d, &err)) fail_msg("%s", err.text);
    vlm_free(&d.m);
    backend_destroy(be);
}

static char *llama_config(const VLMConfig *c) {
    return mem_printf("{\"model_type\": \"llama\", \"hidden_size\": %zu, \"intermediate_size\": %zu, "
                      "\"num_hidden_layers\": %zu, \"num_attention_heads\": %zu, "
                      "\"num_key_value_heads\": %zu, \"rms_norm_eps\": %g, \"rope_theta\": %g, "
                      "\"max_position_embeddings\": %zu, \"vocab_size\": %zu, "
                      "\"tie_word_embeddings\": true}",
                      c->lm_hidden_dim, c->lm_inter_dim, c->lm_n_blocks, c->lm_n_heads, c->lm_n_kv_heads,
                      c->lm_rms_eps.value, c->lm_re_base.value, c->lm_max_position_embeddings,
                      c->lm_vocab_size);
}

// Its decoder as transformers would save it; template: its chat template, NULL: none.
static void make_llama(const char *name, const char *template) {
    VLMConfig c;
    Error err;
    const FieldSet set = {&vlm_config_table, &c};
    char *path = in_folder(name), *weights = path_join(path, "model.safetensors"),
         *config = path_join(path, "config.json"), *jinja = path_join(path, "chat_template.jinja");
    fields_set_defaults(set);
    if (!checkpoint_load_config(&c, "tests/golden/model/a_base", &err) || !file_make_folders(path, &err))
        fail_msg("%s", err.text);
    write_llama_weights(&c, weights);
    char *json = llama_config(&c);
    if (!file_write_text(config, json, strlen(json), &err) ||
        (template && !file_write_text(jinja, template, strlen(template), &err)))
        fail_msg("%s", err.text);
    link_file(TOKENIZER "/tokenizer.json", path, "tokenizer.json");
    link_file(TOKENIZER "/tokenizer_config.json", path, "tokenizer_config.json");
    free(weights), free(config), free(jinja), free(json), free(path);
    fields_free(set);
}

static int make_models(void **state) {
    (void)state;
    folder = make_folder();
    char *model = in_folder("model");
    make_model(model);
    make_llama("llama", CHATML);
    make_llama("marked", "{% if tools %}{{ tools }}{% endif %}" CHATML);
    make_llama("llama3", "{{ '<|start_header_id|>' + messages[0]['role'] }}");
    make_llama("untemplated", NULL);
    make_llama("whole", NULL);
    write_file("whole/config.json", "{\"model_type\": \"idefics3\", \"text_config\": {}}");
    free(model);
    return 0;
}

static int remove_models(void **state) {
    (void)state;
    remove_folder(folder);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ways_to_give_a_prompt),
        cmocka_unit_test(text_and_json_agree),
        cmocka_unit_test(seeds),
        cmocka_unit_test(stop_texts),
        cmocka_unit_test(pictures),
        cmocka_unit_test(packed_weights),
        cmocka_unit_test(logits_of_each_token),
        cmocka_unit_test(nothing_is_shown_too_early),
        cmocka_unit_test(chat_keeps_what_was_said),
        cmocka_unit_test(chat_with_pictures),
        cmocka_unit_test(chat_that_is_full),
        cmocka_unit_test(ctrl_c_stops_the_answer),
        cmocka_unit_test(ctrl_c_again_leaves),
        cmocka_unit_test(batches_answer_as_alone),
        cmocka_unit_test(batches_go_on),
        cmocka_unit_test(decoder_alone_answers_as_the_whole),
        cmocka_unit_test(template_told_by_its_tokens),
        cmocka_unit_test(hub_names_and_shards),
        cmocka_unit_test(wrong_flags),
        cmocka_unit_test(wrong_files),
    };
    const int failed = cmocka_run_group_tests(tests, make_models, remove_models);
    print_worst_shares();
    return failed;
}
