// LINK: text
// LABELS: parity
// Tokenizers of other kinds: what the tokenizers library makes of them (scripts/make_tokenizer_cases.py),
// what is refused with which message, where eos comes from, and the chat template's spellings.
#include "support/chatml.h"
#include "support/folders.h"
#include "support/golden.h"
#include "text/chat.h"
#include "text/unicode.h"

#include <jansson.h>
#include <stdio.h>
#include <unistd.h>

static char *folder, *tokenizer_file, *config_file; // the files lie in it
static json_t *bytes_tokenizer;                     // tests/golden/tokenizer/bytes/tokenizer.json

static int set_up(void **state) {
    (void)state;
    folder = make_folder();
    tokenizer_file = path_join(folder, "tokenizer.json");
    config_file = path_join(folder, "tokenizer_config.json");
    char *path = golden_path("tokenizer/bytes/tokenizer.json");
    bytes_tokenizer = json_load_file(path, JSON_ALLOW_NUL, NULL);
    free(path);
    return bytes_tokenizer ? 0 : -1;
}

static int tear_down(void **state) {
    (void)state;
    free(tokenizer_file);
    free(config_file);
    json_decref(bytes_tokenizer);
    remove_folder(folder);
    return 0;
}

static void write_json(const json_t *json, const char *path) {
    assert_int_equal(json_dump_file(json, path, JSON_COMPACT), 0);
}

static void check_row(const char *name, const Tokenizer *t, const json_t *row) {
    const json_t *text = json_array_get(row, 0), *expected = json_array_get(row, 1);
    Int32Vec ids = {0};
    tokenizer_encode(t, json_string_value(text), json_string_length(text), &ids);
    bool same = ids.count == json_array_size(expected);
    for (size_t i = 0; same && i < ids.count; i++)
        same = ids.items[i] == json_integer_value(json_array_get(expected, i));
    if (!same) fail_msg("%s: \"%s\"", name, json_string_value(text));
    char *decoded = tokenizer_decode(t, ids.items, ids.count, true);
    if (strcmp(decoded, json_string_value(json_array_get(row, 2))) != 0)
        fail_msg("%s: \"%s\" decoded as \"%s\"", name, json_string_value(text), decoded);
    free(decoded);
    vec_free(&ids);
}

static void check_variant(const json_t *variant) {
    const char *name = json_string_value(json_object_get(variant, "name"));
    const json_t *rows = json_object_get(variant, "rows");
    Tokenizer *t;
    Error err;
    write_json(json_object_get(variant, "tokenizer"), tokenizer_file);
    if (!tokenizer_load(&t, folder, NULL, &err)) fail_msg("%s: %s", name, err.text);
    assert_true(json_array_size(rows) > 0);
    for (size_t i = 0; i < json_array_size(rows); i++) check_row(name, t, json_array_get(rows, i));
    print_message("%s: %zu rows\n", name, json_array_size(rows));
    tokenizer_free(t);
}

static void variants(void **state) {
    (void)state;
    FILE *file = fopen("tests/golden/text/variants.jsonl", "r");
    assert_non_null(file);
    size_t count = 0;
    for (json_t *line; (line = json_loadf(file, JSON_ALLOW_NUL | JSON_DISABLE_EOF_CHECK, NULL)); count++) {
        check_variant(line);
        json_decref(line);
    }
    fclose(file);
    assert_true(count >= 18);
}

// One change to the tokenizer of single bytes, and a part of the message it must bring.
typedef struct Refusal {
    const char *field; // path in the object, separated by dots
    const char *value; // JSON, NULL removes the field
    const char *message;
} Refusal;

static const Refusal refusals[] = {
    {"normalizer", "{\"type\": \"NFKC\"}", "field normalizer: type \"NFKC\" is not supported, expected NFC"},
    {"normalizer", "{}", "field normalizer: field type: expected a string"},
    {"normalizer", "{\"type\": \"Sequence\"}", "field normalizer.normalizers: expected an array"},
    {"normalizer", "{\"type\": \"Sequence\", \"normalizers\": [{\"type\": \"NFC\"}, {\"type\": \"Strip\"}]}",
     "field normalizer.normalizers[1]: type \"Strip\" is not supported"},
    {"model.type", "\"WordPiece\"", "field model.type is WordPiece, expected BPE"},
    {"model", "3", "field model: expected an object"},
    {"model.dropout", "0.1", "model.dropout"},
    {"model.end_of_word_suffix", "\"</w>\"", "model.end_of_word_suffix"},
    {"model.vocab", "[]", "field model.vocab: expected an object"},
    {"model.vocab.a", "\"x\"", "the id of \"a\" is no integer"},
    {"model.vocab.a", "-1", "has the id -1"},
    {"model.vocab.a", "99999999999", "has the id 99999999999"},
    {"model.vocab.a", "7", "the id 7 has two tokens"},
    {"model.merges", "null", "field model.merges: expected an array"},
    {"model.merges", "[\"a b c\"]", "model.merges[0]: expected"},
    {"model.merges", "[[\"a\"]]", "model.merges[0]: expected"},
    {"model.merges", "[[\"a\", 1]]", "model.merges[0]: expected"},
    {"model.merges", "[\"a b\"]", "\"ab\" is not in model.vocab"},
    {"model.merges", "[\"a xyz\"]", "\"xyz\" is not in model.vocab"},
    {"model.unk_token", "\"<unk>\"", "field model.unk_token"},
    {"decoder", "{\"type\": \"Metaspace\"}", "field decoder is Metaspace, expected one of type ByteLevel"},
    {"pre_tokenizer", "null", "field pre_tokenizer: expected an object"},
    {"pre_tokenizer", "{}", "field pre_tokenizer: field type: expected a string"},
    {"pre_tokenizer", "{\"type\": \"Metaspace\"}", "\"Metaspace\" stands last, expected ByteLevel"},
    {"pre_tokenizer.pretokenizers", "[]", "pre_tokenizer.pretokenizers: expected an array"},
    {"pre_tokenizer.pretokenizers",
     "[{\"type\": \"Whitespace\"}, {\"type\": \"ByteLevel\", \"add_prefix_space\": false}]",
     "pre_tokenizer.pretokenizers[0]: type \"Whitespace\" is not supported"},
    {"pre_tokenizer.pretokenizers",
     "[{\"type\": \"ByteLevel\", \"add_prefix_space\": false}, {\"type\": \"ByteLevel\", "
     "\"add_prefix_space\": false}]",
     "is not the last step"},
    {"pre_tokenizer.pretokenizers", "[{\"type\": \"ByteLevel\"}]",
     "field add_prefix_space: expected true or false"},
    {"pre_tokenizer.pretokenizers",
     "[{\"type\": \"Split\", \"behavior\": \"MergedWithNext\"}, {\"type\": \"ByteLevel\", "
     "\"add_prefix_space\": false}]",
     "field behavior is \"MergedWithNext\""},
    {"pre_tokenizer.pretokenizers",
     "[{\"type\": \"Split\", \"behavior\": \"Isolated\", \"invert\": false, \"pattern\": {\"Regex\": \"(\"}},"
     "{\"type\": \"ByteLevel\", \"add_prefix_space\": false}]",
     "field pattern: \"(\": missing closing parenthesis"},
    {"added_tokens", "{}", "field added_tokens: expected an array"},
    {"added_tokens", "[{\"id\": 1}]", "added_tokens[0]: content: expected a string"},
    {"added_tokens", "[{\"content\": \"x\"}]", "added_tokens[0]: id: expected an integer"},
    {"added_tokens", "[{\"content\": \"\", \"id\": 400}]", "is empty"},
    {"added_tokens", "[{\"content\": \"<|im_end|>\", \"id\": 7}]", "has the id 7, but 2 in model.vocab"},
};

static void change_field(json_t *root, const char *field, const char *value) {
    char path[64];
    snprintf(path, sizeof path, "%s", field);
    char *key = path;
    for (char *dot; (dot = strchr(key, '.')); key = dot + 1) {
        *dot = '\0';
        root = json_object_get(root, key);
    }
    json_t *json = json_loads(value, JSON_DECODE_ANY, NULL);
    assert_non_null(json);
    assert_int_equal(json_object_set_new(root, key, json), 0);
}

static void expect_refused(const char *message) {
    Tokenizer *t;
    Error err = {0};
    if (tokenizer_load(&t, folder, NULL, &err)) fail_msg("accepted, expected: %s", message);
    assert_null(t);
    if (!strstr(err.text, message) || !strstr(err.text, folder))
        fail_msg("%s; expected: %s", err.text, message);
}

static void refused(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
        json_t *changed = json_deep_copy(bytes_tokenizer);
        change_field(changed, refusals[i].field, refusals[i].value);
        write_json(changed, tokenizer_file);
        expect_refused(refusals[i].message);
        json_decref(changed);
    }
    Error err;
    assert_true(file_write_text(tokenizer_file, "[1]", 3, &err));
    expect_refused("expected a JSON object");
    assert_true(file_write_text(tokenizer_file, "{\"a\":\n]", 7, &err));
    expect_refused("line 2");
    unlink(tokenizer_file);
    expect_refused("cannot open");
}

static void expect_eos(const char *config, int32_t id) {
    Tokenizer *t;
    Error err;
    unlink(config_file);
    if (config) assert_true(file_write_text(config_file, config, strlen(config), &err));
    const char *const paths[] = {folder, tokenizer_file};
    for (size_t i = 0; i < 2; i++) {
        if (!tokenizer_load(&t, paths[i], NULL, &err)) fail_msg("%s", err.text);
        assert_int_equal(tokenizer_eos_id(t), id);
        tokenizer_free(t);
    }
}

static void end_of_sequence(void **state) {
    (void)state;
    write_json(bytes_tokenizer, tokenizer_file);
    expect_eos(NULL, 2);
    expect_eos("{}", 2);
    expect_eos("{\"eos_token\": \"<|endoftext|>\"}", 0);
    expect_eos("{\"eos_token\": {\"content\": \"<|im_start|>\"}}", 1);
    Error err;
    assert_true(file_write_text(config_file, "{\"eos_token\": \"</s>\"}", 21, &err));
    expect_refused("field eos_token is \"</s>\"");
    assert_true(file_write_text(config_file, "{", 1, &err));
    expect_refused("tokenizer_config.json: line 1");
    json_t *changed = json_deep_copy(bytes_tokenizer);
    change_field(changed, "added_tokens", "[]");
    change_field(changed, "model.vocab", "{\"a\": 0}");
    change_field(changed, "model.merges", "[]");
    write_json(changed, tokenizer_file);
    json_decref(changed);
    unlink(config_file);
    expect_refused("field eos_token is missing");
}

static void extra_tokens(void **state) {
    (void)state;
    TokenPair pairs[] = {
        {"image_token", "<|image|>"}, {"end", "<|im_end|>"}, {"the", "he"}, {"r1c1", "<row_1_col_1>"}};
    TokenMap extra = {4, pairs};
    write_json(bytes_tokenizer, tokenizer_file);
    unlink(config_file);
    Tokenizer *t;
    Error err;
    if (!tokenizer_load(&t, folder, &extra, &err)) fail_msg("%s", err.text);
    const int32_t base =
        (int32_t)json_object_size(json_object_get(json_object_get(bytes_tokenizer, "model"), "vocab"));
    assert_int_equal(tokenizer_extra_id(t, "image_token"), base);
    assert_int_equal(tokenizer_extra_id(t, "end"), 2);
    assert_int_equal(tokenizer_extra_id(t, "the"), tokenizer_token_id(t, "he"));
    assert_int_equal(tokenizer_extra_id(t, "r1c1"), base + 1);
    assert_int_equal(tokenizer_vocab_size(t), base + 2);
    CharVec text = {0};
    assert_false(chat_image_string(&text, t, &(ImageGrid){1, 2}, 1, 3, &err));
    assert_non_null(strstr(err.text, "r1c2"));
    tokenizer_free(t);
    if (!tokenizer_load(&t, folder, NULL, &err)) fail_msg("%s", err.text);
    assert_false(chat_image_string(&text, t, &(ImageGrid){1, 1}, 1, 3, &err));
    assert_non_null(strstr(err.text, "image_token"));
    vec_free(&text);
    tokenizer_free(t);
    pairs[0].token = "";
    if (tokenizer_load(&t, folder, &extra, &err)) fail_msg("an empty token was accepted");
    assert_non_null(strstr(err.text, "extra token image_token"));
}

// The tokenizer of the demo: 3 special tokens, 256 bytes, merges up to 512; a turn's header costs three
// tokens.
static void demo_tokenizer(void **state) {
    (void)state;
    Tokenizer *t;
    ChatTemplate c;
    Error err;
    if (!tokenizer_load(&t, "assets/tokenizer", NULL, &err)) fail_msg("%s", err.text);
    assert_int_equal(tokenizer_vocab_size(t), 512);
    assert_int_equal(tokenizer_token_id(t, "<|endoftext|>"), 0);
    assert_int_equal(tokenizer_token_id(t, "<|im_start|>"), 1);
    assert_int_equal(tokenizer_eos_id(t), 2);
    assert_true(chat_template_init(&c, t, CHATML, &err));
    assert_int_equal(c.prefix_len, 3);
    for (int32_t byte = 0; byte < 256; byte++) {
        const int32_t id = 3 + byte;
        CharVec out = {0};
        tokenizer_decode_bytes(t, &id, 1, false, &out);
        assert_int_equal(out.count, 1);
        assert_int_equal((uint8_t)out.items[0], byte);
        vec_free(&out);
    }
    tokenizer_free(t);
}

#define FOR   "{% for message in messages %}"
#define ENDIF "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"

static void chat_templates(void **state) {
    (void)state;
    static const struct {
        bool accepted;
        const char *text;
    } templates[] = {
        {false, NULL}, // the tokenizer has none either
        {true,
         FOR "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}" ENDIF},
        {true, FOR "{{'<|im_start|>'+message[\"role\"]+'\\n'+message.content+\"<|im_end|>\\n\"}}" ENDIF},
        {true, FOR "\n{{'<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n'}}" ENDIF},
        {false, ""},
        {false, FOR "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>'}}" ENDIF},
        {false, FOR "{{'<|im_start|>' + message['role'] + ' ' + message['content'] + '<|im_end|>\n'}}" ENDIF},
        {false,
         FOR " {{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n'}}" ENDIF},
        {false,
         FOR "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n'}}\n" ENDIF},
        {false, "{{ bos_token }}{% for m in messages %}{{ m"},
        {false, "{{'"},
    };
    write_json(bytes_tokenizer, tokenizer_file);
    unlink(config_file);
    Tokenizer *t;
    Error err;
    if (!tokenizer_load(&t, folder, NULL, &err)) fail_msg("%s", err.text);
    for (size_t i = 0; i < sizeof templates / sizeof *templates; i++) {
        ChatTemplate c;
        if (chat_template_init(&c, t, templates[i].text, &err) != templates[i].accepted)
            fail_msg("template %zu: %s", i, templates[i].text);
        if (!templates[i].accepted) assert_non_null(strstr(err.text, "lm_chat_template"));
    }
    tokenizer_free(t);
}

static void utf8_repair(void **state) {
    (void)state;
    static const struct {
        const char *bytes, *text;
    } cases[] = {
        // Unicode 15, tables 3-8 to 3-11, and the ends of the ranges
        {"\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41", "\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFDA"},
        {"\xED\xA0\x80\xED\xBF\xBF\xED\xAF\x41", "\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFDA"},
        {"\xF4\x91\x92\x93\xFF\x41\x80\xBF\x42", "\uFFFD\uFFFD\uFFFD\uFFFD\uFFFDA\uFFFD\uFFFDB"},
        {"\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41", "\uFFFD\uFFFD\uFFFD\uFFFDA"},
        {"\xF0\x9F\x98", "\uFFFD"},
        {"\xF0\x9F\x98\x80\xF4\x8F\xBF\xBF", "\U0001F600\U0010FFFF"},
        {"\xDF\xBF\xE0\xA0\x80\xEF\xBF\xBF\xF0\x90\x80\x80", "\u07FF\u0800\uFFFF\U00010000"},
        {"\xED\x9F\xBF\xEE\x80\x80", "\xED\x9F\xBF\xEE\x80\x80"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        CharVec out = {0};
        utf8_append_lossy(&out, cases[i].bytes, strlen(cases[i].bytes));
        vec_push(&out, '\0');
        assert_string_equal(out.items, cases[i].text);
        vec_free(&out);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(variants),       cmocka_unit_test(refused),        cmocka_unit_test(end_of_sequence),
        cmocka_unit_test(extra_tokens),   cmocka_unit_test(chat_templates), cmocka_unit_test(utf8_repair),
        cmocka_unit_test(demo_tokenizer),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
