// LINK: text
// LABELS: parity
// Chat templates and messages against transformers and nanoVLM (scripts/make_chat_cases.py), and where a
// template comes from when the configuration has none.
#include "support/chatml.h"
#include "support/folders.h"
#include "support/golden.h"
#include "base/file.h"
#include "text/chat.h"

#include <jansson.h>
#include <stdio.h>
#include <unistd.h>

#define FOLDER "tests/golden/tokenizer_variants/"

static Tokenizer *load(const char *path) {
    Tokenizer *t;
    Error err;
    if (!tokenizer_load(&t, path, NULL, &err)) fail_msg("%s", err.text);
    return t;
}

static size_t for_each_line(const char *path, void (*check)(const json_t *line)) {
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    size_t count = 0;
    for (json_t *line; (line = json_loadf(file, JSON_ALLOW_NUL | JSON_DISABLE_EOF_CHECK, NULL)); count++) {
        check(line);
        json_decref(line);
    }
    fclose(file);
    return count;
}

#define MOST_MESSAGES 8
static size_t read_messages(ChatMessage *messages, const json_t *list) {
    const size_t n = json_array_size(list);
    assert_true(n > 0 && n <= MOST_MESSAGES);
    for (size_t i = 0; i < n; i++) {
        const json_t *message = json_array_get(list, i), *content = json_array_get(message, 1);
        messages[i] = (ChatMessage){json_string_value(json_array_get(message, 0)), json_string_value(content),
                                    json_string_length(content)};
    }
    return n;
}

static void expect_text(const ChatTemplate *c, const Int32Vec *ids, const json_t *text) {
    Int32Vec want = {0};
    tokenizer_encode(c->tokenizer, json_string_value(text), json_string_length(text), &want);
    if (ids->count != want.count || memcmp(ids->items, want.items, want.count * sizeof *want.items) != 0)
        fail_msg("%zu ids, expected %zu: %s", ids->count, want.count, json_string_value(text));
    vec_free(&want);
}

// The labels of a template with a system message: what is trained on is each answer with its <|im_end|>\n.
static void expect_answers(const ChatTemplate *c, const ChatMessage *messages, size_t n,
                           const Int32Vec *labels) {
    Int32Vec want = {0}, got = {0};
    for (size_t i = 0; i < n; i++) {
        if (strcmp(messages[i].role, "assistant") != 0) continue;
        CharVec text = {0};
        vec_extend(&text, messages[i].content, messages[i].size);
        vec_extend(&text, "<|im_end|>\n", 11);
        tokenizer_encode(c->tokenizer, text.items, text.count, &want);
        vec_free(&text);
    }
    for (size_t i = 0; i < labels->count; i++)
        if (labels->items[i] >= 0) vec_push(&got, labels->items[i]);
    assert_int_equal(got.count, want.count);
    assert_memory_equal(got.items, want.items, got.count * sizeof *got.items);
    vec_free(&want);
    vec_free(&got);
}

static Tokenizer *gpt2; // <|im_start|> and <|im_end|> are its special tokens

static void check_rendering(const ChatTemplate *c, const json_t *row, bool plain_answers) {
    ChatMessage messages[MOST_MESSAGES];
    const size_t n = read_messages(messages, json_array_get(row, 0));
    Int32Vec ids = {0}, labels = {0};
    chat_encode_training(c, messages, n, &ids, &labels);
    assert_int_equal(ids.count, labels.count);
    expect_text(c, &ids, json_array_get(row, 1));
    if (plain_answers) expect_answers(c, messages, n, &labels);
    vec_clear(&ids);
    chat_encode_prompt(c, messages, n, &ids);
    expect_text(c, &ids, json_array_get(row, 2));
    vec_free(&ids);
    vec_free(&labels);
}

static size_t n_known;

static void check_template(const json_t *line) {
    const char *text = json_string_value(json_object_get(line, "template"));
    const json_t *rows = json_object_get(line, "rows");
    ChatTemplate c;
    Error err;
    const bool known = json_is_true(json_object_get(line, "known"));
    if (chat_template_init(&c, gpt2, text, &err) != known) fail_msg("known %d: %s", known, text);
    if (!known) assert_non_null(strstr(err.text, "lm_chat_template is \""));
    n_known += known;
    for (size_t i = 0; i < json_array_size(rows); i++)
        for (size_t k = 0; k < 2; k++) { // message by message, and all at once; in others white space merges
            c.cuts_messages = k == 0;
            check_rendering(&c, json_array_get(rows, i), i == 0 || i == 4);
        }
}

static void templates(void **state) {
    (void)state;
    gpt2 = load(FOLDER "gpt2");
    const size_t n = for_each_line(FOLDER "templates.jsonl", check_template);
    print_message("%zu templates, %zu of them known\n", n, n_known);
    assert_true(n_known >= 16 && n >= n_known + 16);
    tokenizer_free(gpt2);
}

static void expect_ids(const json_t *want, const Int32Vec *got, const char *what) {
    if (got->count != json_array_size(want)) fail_msg("%zu %s", got->count, what);
    for (size_t i = 0; i < got->count; i++)
        if (got->items[i] != json_integer_value(json_array_get(want, i))) fail_msg("%s[%zu]", what, i);
}

static void check_conversation(const json_t *line) {
    char path[256];
    snprintf(path, sizeof path, FOLDER "%s", json_string_value(json_object_get(line, "tokenizer")));
    Tokenizer *t = load(path);
    ChatTemplate c;
    ChatMessage messages[MOST_MESSAGES];
    const size_t n = read_messages(messages, json_object_get(line, "messages"));
    assert_true(chat_template_init(&c, t, CHATML, NULL));
    assert_int_equal(c.prefix_len, json_integer_value(json_object_get(line, "prefix_len")));
    for (size_t i = 0; i < 2; i++, c.cuts_messages = false) { // message by message, and all at once
        Int32Vec ids = {0}, labels = {0};
        chat_encode_training(&c, messages, n, &ids, &labels);
        expect_ids(json_object_get(line, "input_ids"), &ids, "ids");
        expect_ids(json_object_get(line, "labels"), &labels, "labels");
        vec_free(&ids);
        vec_free(&labels);
    }
    tokenizer_free(t);
}

static void conversations(void **state) {
    (void)state;
    assert_true(for_each_line(FOLDER "chat.jsonl", check_conversation) >= 16);
}

// Messages may be encoded one by one only if no token reaches over their border.
static void borders(void **state) {
    (void)state;
    Tokenizer *t = load(FOLDER "gpt2");
    assert_true(tokenizer_cuts_before(t, "<|im_start|>", '\n'));
    assert_false(tokenizer_cuts_before(t, "<|im_start|>", 'i')); // inside other tokens
    assert_false(tokenizer_cuts_before(t, "<|im_", '\n'));
    assert_false(tokenizer_cuts_before(t, "the", '\n'));
    tokenizer_free(t);
    t = load(FOLDER "added");
    assert_true(tokenizer_cuts_before(t, "<|im_start|>", '\n'));
    assert_false(tokenizer_cuts_before(t, "user", '\n')); // single_word
    tokenizer_free(t);
}

// ---- where the template comes from ----

static char *folder;

static void write_file(const char *name, const char *text) {
    Error err;
    char *path = path_join(folder, name);
    if (text && !file_write_text(path, text, strlen(text), &err)) fail_msg("%s", err.text);
    if (!text) unlink(path);
    free(path);
}

// Loads the folder with this tokenizer_config.json and chat_template.jinja (NULL: none) and initialises with
// an empty template. Returns the message, "" when all went well.
static const char *own_template(const char *config, const char *jinja, const char *passed, char *system) {
    static Error err;
    Tokenizer *t;
    ChatTemplate c;
    write_file("tokenizer_config.json", config);
    write_file("chat_template.jinja", jinja);
    err.text[0] = '\0';
    if (!tokenizer_load(&t, folder, NULL, &err)) return err.text;
    if (chat_template_init(&c, t, passed, &err)) {
        assert_true(c.system_size < CHAT_MAX_SYSTEM);
        memcpy(system, c.system, c.system_size + 1);
        err.text[0] = '\0';
    }
    tokenizer_free(t);
    return err.text;
}

#define SYSTEM(text) "{% if messages[0].role != 'system' %}" text "{% endif %}"
#define EOS          "{\"eos_token\": \"<|im_end|>\", "

static void sources(void **state) {
    (void)state;
    char system[CHAT_MAX_SYSTEM] = "", *long_one = mem_zeroed(4096, 1);
    json_t *config = json_pack("{s:s, s:s}", "eos_token", "<|im_end|>", "chat_template", SYSTEM("A") CHATML);
    char *text = json_dumps(config, 0);
    assert_string_equal(own_template(text, NULL, NULL, system), "");
    assert_string_equal(system, "A");
    assert_string_equal(own_template(text, SYSTEM("B") CHATML, "", system), ""); // the file goes first
    assert_string_equal(system, "B");
    assert_string_equal(own_template(text, NULL, CHATML, system), ""); // the configuration's goes before both
    assert_string_equal(system, "");
    free(text);
    json_object_set_new(config, "chat_template",
                        json_pack("[{s:s, s:s}, {s:s, s:s}]", "name", "tool_use", "template", "x", "name",
                                  "default", "template", SYSTEM("C") CHATML));
    text = json_dumps(config, 0);
    assert_string_equal(own_template(text, NULL, NULL, system), "");
    assert_string_equal(system, "C");
    free(text);
    json_decref(config);
    memset(long_one, 'x', CHAT_MAX_SYSTEM);
    snprintf(long_one + CHAT_MAX_SYSTEM, 4096 - CHAT_MAX_SYSTEM, "%s", "{% endif %}" CHATML);
    char *jinja = mem_zeroed(8192, 1);
    snprintf(jinja, 8192, "%s%s", "{% if messages[0].role != 'system' %}", long_one);
    assert_non_null(strstr(own_template(NULL, jinja, NULL, system), "a system message of 1024 bytes"));
    free(jinja);
    free(long_one);
}

static void sources_refused(void **state) {
    (void)state;
    char system[CHAT_MAX_SYSTEM];
    static const struct {
        const char *config, *jinja, *message;
    } cases[] = {
        {NULL, NULL, "lm_chat_template is empty and the tokenizer has no chat_template"},
        {EOS "\"chat_template\": null}", NULL, "lm_chat_template is empty"},
        {EOS "\"chat_template\": [{\"name\": \"rag\", \"template\": \"x\"}]}", NULL,
         "lm_chat_template is empty"},
        {EOS "\"chat_template\": 7}", NULL, "tokenizer_config.json: field chat_template: expected a text"},
        {EOS "\"chat_template\": \"[INST]\"}", NULL, "the tokenizer's chat_template is \"[INST]\", expected"},
        {NULL, "{{ bos_token }}", "the tokenizer's chat_template is \"{{ bos_token }}\", expected"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *message = own_template(cases[i].config, cases[i].jinja, NULL, system);
        if (!strstr(message, cases[i].message)) fail_msg("%zu: %s", i, message);
    }
}

// ---- formats that are told by their tokens ----

// The tokenizer, which puts <|endoftext|> in front of a text, with a template and the tokens of the formats.
static Tokenizer *load_with(const char *template_text) {
    static TokenPair pairs[] = {
        {"1", "<|start_header_id|>"}, {"2", "<|end_header_id|>"}, {"3", "<|eot_id|>"}, {"4", "<|im_sep|>"}};
    char *bytes;
    size_t size;
    Error err;
    Tokenizer *t;
    if (!file_read(&bytes, &size, FOLDER "llama3/tokenizer.json", &err)) fail_msg("%s", err.text);
    write_file("tokenizer.json", bytes);
    write_file("tokenizer_config.json", NULL);
    write_file("chat_template.jinja", template_text);
    free(bytes);
    if (!tokenizer_load(&t, folder, &(TokenMap){4, pairs}, &err)) fail_msg("%s", err.text);
    return t;
}

// What a chat would have in its cache: the first question, the answer, and the turn that follows it.
static void expect_turn(const ChatTemplate *c, const ChatMessage *messages, const json_t *text) {
    Int32Vec ids = {0};
    chat_encode_prompt(c, messages, 1, &ids);
    tokenizer_encode(c->tokenizer, messages[1].content, messages[1].size, &ids);
    chat_encode_turn(c, &messages[2], &ids);
    expect_text(c, &ids, text);
    vec_free(&ids);
}

static void check_format(const json_t *line) {
    ChatTemplate c;
    Error err = {0};
    const json_t *rows = json_object_get(line, "rows");
    Tokenizer *t = load_with(json_string_value(json_object_get(line, "template")));
    assert_false(chat_template_init(&c, t, NULL, &err)); // none to train with
    if (!chat_template_init_alone(&c, t, &err)) fail_msg("%s", err.text);
    assert_true(c.by_mark);
    assert_string_equal(c.format->name, json_string_value(json_object_get(line, "format")));
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *row = json_array_get(rows, i), *text = json_array_get(row, 1);
        ChatMessage messages[MOST_MESSAGES];
        const size_t n = read_messages(messages, json_array_get(row, 0));
        Int32Vec ids = {0};
        chat_encode_prompt(&c, messages, n, &ids);
        expect_text(&c, &ids, text);
        if (n == 3) expect_turn(&c, messages, text);
        vec_free(&ids);
    }
    tokenizer_free(t);
}

static void formats(void **state) {
    (void)state;
    assert_true(for_each_line(FOLDER "formats.jsonl", check_format) >= 4);
}

static void formats_refused(void **state) {
    (void)state;
    static const struct {
        const char *template_text, *message;
    } cases[] = {
        {NULL, "has no chat template"},
        {"[INST]{{ messages[0].content }}[/INST]", "the chat template \"[INST]{{ messages[0].content "
                                                   "}}[/INST]\" is in no format that is known: ChatML (with "
                                                   "<|im_start|>), Llama 3"},
    };
    ChatTemplate c;
    Error err;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Tokenizer *t = load_with(cases[i].template_text);
        assert_false(chat_template_init_alone(&c, t, &err));
        if (!strstr(err.text, cases[i].message)) fail_msg("%zu: %s", i, err.text);
        assert_int_equal(c.first_plain_id, tokenizer_token_id(t, "<|endoftext|>")); // --plain goes on without
        tokenizer_free(t);
    }
    Tokenizer *gpt = load(FOLDER "gpt2"), *t = load_with("<|start_header_id|>");
    assert_int_equal(tokenizer_first_id(gpt), -1);
    tokenizer_free(t);
    if (!tokenizer_load(&t, folder, NULL, &err)) fail_msg("%s", err.text);
    assert_false(chat_template_init_alone(&c, t, &err));
    assert_non_null(strstr(err.text, "in the format Llama 3, but the tokenizer has no token <|eot_id|>"));
    tokenizer_free(t);
    tokenizer_free(gpt);
}

static int set_up(void **state) {
    (void)state;
    char *bytes;
    size_t size;
    folder = make_folder();
    if (!file_read(&bytes, &size, FOLDER "gpt2/tokenizer.json", NULL)) return -1;
    write_file("tokenizer.json", bytes);
    free(bytes);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    remove_folder(folder);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(templates),       cmocka_unit_test(conversations),   cmocka_unit_test(borders),
        cmocka_unit_test(sources),         cmocka_unit_test(sources_refused), cmocka_unit_test(formats),
        cmocka_unit_test(formats_refused),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
