// LINK: text
// Damaged tokenizer.json and tokenizer_config.json files, damaged templates, random bytes as text and random
// ids: no crash, no leak (under the sanitizers), and what can be encoded comes back byte for byte.
// VLM_FUZZ_SECONDS sets how long each kind goes on.
#include "support/chatml.h"
#include "support/folders.h"
#include "support/fuzz.h"
#include "support/golden.h"
#include "base/clock.h"
#include "base/random.h"
#include "text/chat.h"
#include "text/normalizer.h"
#include "text/unicode.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

static char *folder;
static char *tokenizer_file, *config_file; // in the folder
static Tokenizer *bytes_tokenizer;         // has an entry for each byte
static double seconds;                     // of each loop

static int setup(void **state) {
    (void)state;
    seconds = fuzz_seconds(2);
    folder = make_folder();
    tokenizer_file = path_join(folder, "tokenizer.json");
    config_file = path_join(folder, "tokenizer_config.json");
    TokenPair pairs[] = {{"image_token", "<|image|>"}, {"global_image_token", "<|global_image|>"}};
    TokenMap extra = {2, pairs};
    char *path = golden_path("tokenizer/bytes");
    const bool ok = tokenizer_load(&bytes_tokenizer, path, &extra, NULL);
    free(path);
    return ok ? 0 : -1;
}

static int teardown(void **state) {
    (void)state;
    tokenizer_free(bytes_tokenizer);
    free(tokenizer_file);
    free(config_file);
    remove_folder(folder);
    return 0;
}

static void append(CharVec *out, const char *text) {
    vec_extend(out, text, strlen(text));
}

// Words, spaces, special tokens, characters of all planes and, if `damaged`, loose bytes.
static CharVec random_text(Random *r, size_t parts, bool damaged) {
    static const char *const words[] = {
        " the",      "user",     "'ll",     "  ",           "\n",           "12",        "<|im_start|>",
        "<|im_",     "é",        "中文",    "...",          "\r\n",         "<|image|>", "'",
        "assistant", "\xC2\x85", "e\u0301", "\u1112\u1161", "\u0323\u0307", "<w>",       "<r> "};
    CharVec text = {0};
    for (size_t i = 0; i < parts; i++) {
        const uint64_t choice = random_below(r, damaged ? 4 : 3);
        if (choice == 0) append(&text, words[random_below(r, sizeof words / sizeof *words)]);
        if (choice == 1) vec_push(&text, (char)random_below(r, 128));
        if (choice == 2) {
            const uint32_t c = (uint32_t)random_below(r, random_below(r, 2) ? 0x110000 : 0x3000);
            if (c < 0xD800 || c > 0xDFFF) utf8_append(&text, c);
        }
        if (choice == 3) vec_push(&text, (char)random_below(r, 256));
    }
    return text;
}

static void expect_round_trip(const Tokenizer *t, const CharVec *text) {
    Int32Vec ids = {0};
    CharVec back = {0};
    tokenizer_encode(t, text->items, text->count, &ids);
    for (size_t i = 0; i < ids.count; i++)
        assert_true(ids.items[i] >= 0 && (size_t)ids.items[i] < tokenizer_vocab_size(t));
    tokenizer_decode_bytes(t, ids.items, ids.count, false, &back);
    assert_int_equal(back.count, text->count);
    if (back.count) assert_memory_equal(back.items, text->items, back.count);
    vec_free(&ids);
    vec_free(&back);
}

static void round_trips(void **state) {
    (void)state;
    size_t count = 0;
    for (const double end = clock_seconds() + seconds; clock_seconds() < end; count++) {
        Random r = random_stream(1, RANDOM_TEST, count);
        CharVec text = random_text(&r, random_below(&r, 200), count % 2);
        expect_round_trip(bytes_tokenizer, &text);
        vec_free(&text);
    }
    print_message("%zu texts\n", count);
}

// Long pieces take the way through the heap, short ones search: both give the same ids. A long piece is put
// together from short ones at places that no merge reaches across: behind the Cherokee letter A, which is
// rare.
static void expect_long_as_short(const Tokenizer *t, uint64_t index) {
    Random r = random_stream(2, RANDOM_TEST, index);
    CharVec text = {0};
    Int32Vec whole = {0}, parts = {0};
    while (text.count < 2000) {
        const size_t from = text.count;
        for (size_t n = random_below(&r, 28); n-- > 0;)
            vec_push(&text, "assistanuergmeyolp"[random_below(&r, 18)]);
        append(&text, "\u13A0");
        tokenizer_encode(t, text.items + from, text.count - from, &parts);
    }
    tokenizer_encode(t, text.items, text.count, &whole);
    assert_int_equal(whole.count, parts.count);
    assert_memory_equal(whole.items, parts.items, whole.count * sizeof *whole.items);
    vec_free(&text);
    vec_free(&whole);
    vec_free(&parts);
}

static void long_pieces(void **state) {
    (void)state;
    char *path = golden_path("tokenizer/smollm2");
    Tokenizer *smollm2;
    Error err;
    if (!tokenizer_load(&smollm2, path, NULL, &err)) fail_msg("%s", err.text);
    for (uint64_t i = 0; i < 200; i++) {
        expect_long_as_short(bytes_tokenizer, i);
        expect_long_as_short(smollm2, i);
    }
    tokenizer_free(smollm2);
    free(path);
}

static void random_ids(void **state) {
    (void)state;
    for (uint64_t i = 0; i < 2000; i++) {
        Random r = random_stream(3, RANDOM_TEST, i);
        Int32Vec ids = {0};
        for (size_t n = random_below(&r, 50); n-- > 0;)
            vec_push(&ids, random_below(&r, 10) ? (int32_t)random_below(&r, 400) : (int32_t)random_u32(&r));
        char *text = tokenizer_decode(bytes_tokenizer, ids.items, ids.count, i % 2);
        assert_int_equal(utf8_valid_prefix(text, strlen(text)), strlen(text));
        free(text);
        vec_free(&ids);
    }
}

// Message by message and all at once: the same ids, and labels that are the next ids.
static void expect_same_chat(const ChatTemplate *c, const ChatMessage *messages, size_t n) {
    ChatTemplate at_once = *c;
    at_once.cuts_messages = false;
    Int32Vec ids = {0}, labels = {0}, ids2 = {0}, labels2 = {0};
    assert_true(c->cuts_messages);
    chat_encode_training(c, messages, n, &ids, &labels);
    chat_encode_training(&at_once, messages, n, &ids2, &labels2);
    assert_int_equal(ids.count, labels.count);
    assert_int_equal(ids.count, ids2.count);
    assert_int_equal(ids.count, labels2.count);
    for (size_t k = 0; k < ids.count; k++) {
        assert_int_equal(ids.items[k], ids2.items[k]);
        assert_int_equal(labels.items[k], labels2.items[k]);
        assert_true(labels.items[k] == -100 || (k + 1 < ids.count && labels.items[k] == ids.items[k + 1]));
    }
    vec_free(&ids);
    vec_free(&labels);
    vec_free(&ids2);
    vec_free(&labels2);
}

static void random_chats(void **state) {
    (void)state;
    ChatTemplate c;
    assert_true(chat_template_init(&c, bytes_tokenizer, CHATML, NULL));
    uint64_t i = 0;
    for (const double end = clock_seconds() + seconds; i < 500 || clock_seconds() < end; i++) {
        Random r = random_stream(4, RANDOM_TEST, i);
        CharVec texts[6] = {0};
        ChatMessage messages[6];
        const size_t n = random_below(&r, 7);
        for (size_t m = 0; m < n; m++) {
            texts[m] = random_text(&r, random_below(&r, 20), true);
            messages[m] = (ChatMessage){m % 2 ? "assistant" : "user", texts[m].items, texts[m].count};
        }
        expect_same_chat(&c, messages, n);
        for (size_t m = 0; m < n; m++) vec_free(&texts[m]);
    }
    print_message("%zu conversations\n", (size_t)i);
}

static void write_bytes(const char *path, const CharVec *bytes) {
    FILE *out = fopen(path, "wb");
    assert_non_null(out);
    assert_int_equal(fwrite(bytes->items, 1, bytes->count, out), bytes->count);
    fclose(out);
}

// Loads the folder with these bytes as tokenizer.json (NULL: as they are); what is accepted must also work.
static bool try_load(const CharVec *tokenizer, const CharVec *config, uint64_t index) {
    Tokenizer *t;
    ChatTemplate c;
    Error err = {0};
    if (tokenizer) write_bytes(tokenizer_file, tokenizer);
    if (config) write_bytes(config_file, config);
    if (!tokenizer_load(&t, folder, NULL, &err)) {
        assert_null(t);
        assert_true(err.text[0] != '\0');
        return false;
    }
    Random r = random_stream(5, RANDOM_TEST, index);
    CharVec text = random_text(&r, 60, true);
    Int32Vec ids = {0}, labels = {0};
    tokenizer_encode(t, text.items, text.count, &ids);
    free(tokenizer_decode(t, ids.items, ids.count, true));
    ChatMessage messages[] = {{"user", "Hi", 2}, {"assistant", text.items, text.count}};
    if (chat_template_init(&c, t, index % 2 ? CHATML : NULL, &err))
        chat_encode_training(&c, messages, 2, &ids, &labels);
    vec_free(&text);
    vec_free(&ids);
    vec_free(&labels);
    tokenizer_free(t);
    return true;
}

static CharVec read_sample(const char *path) {
    char *bytes;
    size_t size;
    Error err;
    if (!file_read(&bytes, &size, path, &err)) fail_msg("%s", err.text);
    CharVec text = {bytes, size, size};
    return text;
}

static void truncated_files(void **state) {
    (void)state;
    char *path = golden_path("tokenizer/bytes/tokenizer.json");
    CharVec json = read_sample(path);
    free(path);
    while (json.count > 0 && json.items[json.count - 1] != '}') json.count--;
    assert_true(try_load(&json, NULL, 0));
    const size_t whole = json.count;
    for (size_t size = 0; size < whole; size += 3) {
        json.count = size;
        assert_false(try_load(&json, NULL, size));
    }
    json.count = whole;
    vec_free(&json);
}

// Bytes changed, spans removed, doubled or swapped with others.
static void mutate(CharVec *text, Random *r) {
    for (size_t n = 1 + random_below(r, 3); n-- > 0 && text->count > 40;) {
        const size_t size = 1 + random_below(r, 20), at = random_below(r, text->count - size);
        char span[20];
        memcpy(span, text->items + at, size);
        switch (random_below(r, 4)) {
        case 0:
            text->items[at] = (char)random_below(r, 256);
            break;
        case 1:
            text->items[at] = "0123456789{}[]\",:"[random_below(r, 17)];
            break;
        case 2:
            memmove(text->items + at, text->items + at + size, text->count - at - size);
            text->count -= size;
            break;
        case 3:
            memcpy(text->items + random_below(r, text->count - size), span, size);
            break;
        }
    }
}

// What is mutated: whole files, and the tokenizers of variants.jsonl.
typedef struct Seeds {
    VEC(CharVec) texts;
} Seeds;

static void add_variants(Seeds *seeds) {
    CharVec lines = read_sample("tests/golden/text/variants.jsonl");
    vec_push(&lines, '\0');
    for (const char *line = lines.items; (line = strstr(line, "\"tokenizer\":"));) {
        line += strlen("\"tokenizer\":");
        const char *last = strstr(line, ",\"rows\":");
        assert_non_null(last);
        CharVec text = {0};
        vec_extend(&text, line, (size_t)(last - line));
        vec_push(&seeds->texts, text);
    }
    vec_free(&lines);
}

static void free_seeds(Seeds *seeds) {
    for (size_t i = 0; i < seeds->texts.count; i++) vec_free(&seeds->texts.items[i]);
    vec_free(&seeds->texts);
}

static CharVec mutant(const Seeds *seeds, uint64_t stream, uint64_t index) {
    Random r = random_stream(stream, RANDOM_TEST, index);
    const CharVec *seed = &seeds->texts.items[index % seeds->texts.count];
    CharVec text = {0};
    vec_extend(&text, seed->items, seed->count);
    mutate(&text, &r);
    return text;
}

static CharVec json_mutant(const Seeds *seeds, uint64_t stream, uint64_t index) {
    Random r = random_stream(stream, RANDOM_TEST, index);
    const CharVec *seed = &seeds->texts.items[index % seeds->texts.count];
    json_t *json = json_loadb(seed->items, seed->count, JSON_ALLOW_NUL, NULL);
    assert_non_null(json);
    for (size_t n = 1 + random_below(&r, 3); n-- > 0;) fuzz_json_value(json, &r);
    char *text = json_dumps(json, JSON_COMPACT);
    json_decref(json);
    const size_t size = strlen(text);
    return (CharVec){text, size, size};
}

static void mutated_files(void **state) {
    (void)state;
    static const char *const models[] = {"gpt2", "llama3", "qwen2", "added", "other_pattern"};
    Seeds seeds = {0};
    add_variants(&seeds);
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        char path[128];
        snprintf(path, sizeof path, "tests/golden/tokenizer_variants/%s/tokenizer.json", models[i]);
        vec_push(&seeds.texts, read_sample(path));
    }
    size_t count = 0, accepted = 0;
    for (const double end = clock_seconds() + 2 * seconds; clock_seconds() < end; count++) {
        CharVec text =
            count / seeds.texts.count % 2 ? json_mutant(&seeds, 6, count) : mutant(&seeds, 6, count);
        accepted += try_load(&text, NULL, count);
        vec_free(&text);
    }
    print_message("%zu files, %zu of them still tokenizers\n", count, accepted);
    assert_true(accepted > 0 && accepted < count);
    free_seeds(&seeds);
}

static void mutated_configs(void **state) {
    (void)state;
    static const char *const configs[] = {
        "{\"eos_token\": {\"content\": \"<|im_end|>\", \"special\": true}, \"chat_template\": \"{% for "
        "message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + "
        "'<|im_end|>' + "
        "'\\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}\", "
        "\"clean_up_tokenization_spaces\": true}",
        "{\"eos_token\": \"<|im_end|>\", \"chat_template\": [{\"name\": \"default\", \"template\": \"x\"}]}"};
    Seeds seeds = {0};
    for (size_t i = 0; i < 2; i++) {
        CharVec text = {0};
        append(&text, configs[i]);
        vec_push(&seeds.texts, text);
    }
    CharVec tokenizer = read_sample("tests/golden/tokenizer_variants/llama3/tokenizer.json");
    write_bytes(tokenizer_file, &tokenizer);
    vec_free(&tokenizer);
    size_t count = 0, accepted = 0;
    for (const double end = clock_seconds() + seconds; clock_seconds() < end; count++) {
        CharVec text = mutant(&seeds, 7, count);
        accepted += try_load(NULL, &text, count);
        vec_free(&text);
    }
    print_message("%zu configurations, %zu of them good\n", count, accepted);
    assert_true(accepted > 0 && accepted < count);
    free_seeds(&seeds);
}

// Templates in all spellings, damaged: recognised or not, without a crash.
static void mutated_templates(void **state) {
    (void)state;
    Seeds seeds = {0};
    FILE *in = fopen("tests/golden/tokenizer_variants/templates.jsonl", "r");
    assert_non_null(in);
    for (json_t *line; (line = json_loadf(in, JSON_DISABLE_EOF_CHECK, NULL));) {
        CharVec text = {0};
        append(&text, json_string_value(json_object_get(line, "template")));
        vec_push(&seeds.texts, text);
        json_decref(line);
    }
    fclose(in);
    size_t count = 0, known = 0;
    for (const double end = clock_seconds() + seconds; clock_seconds() < end; count++) {
        CharVec text = mutant(&seeds, 8, count);
        vec_push(&text, '\0');
        ChatTemplate c;
        Error err = {0};
        const bool ok = chat_template_init(&c, bytes_tokenizer, text.items, &err);
        if (!ok) assert_true(err.text[0] != '\0');
        known += ok;
        vec_free(&text);
    }
    print_message("%zu templates, %zu of them known\n", count, known);
    assert_true(known > 0 && known < count);
    free_seeds(&seeds);
}

// The normal form of a normal form is itself, and encoding stays within the vocabulary for every tokenizer.
static void normal_texts(void **state) {
    (void)state;
    static const Normalizer nfc = {true};
    Tokenizer *qwen;
    Error err;
    if (!tokenizer_load(&qwen, "tests/golden/tokenizer_variants/added", NULL, &err)) fail_msg("%s", err.text);
    size_t count = 0, changed = 0;
    for (const double end = clock_seconds() + seconds; clock_seconds() < end; count++) {
        Random r = random_stream(9, RANDOM_TEST, count);
        CharVec text = random_text(&r, random_below(&r, 60), false), once = {0}, twice = {0};
        if (normalizer_run(&nfc, text.items, text.count, &once)) {
            changed++;
            assert_int_equal(utf8_valid_prefix(once.items, once.count), once.count);
            if (!normalizer_run(&nfc, once.items, once.count, &twice))
                vec_extend(&twice, once.items, once.count);
            assert_int_equal(twice.count, once.count);
            assert_memory_equal(twice.items, once.items, once.count);
        }
        Int32Vec ids = {0};
        tokenizer_encode(qwen, text.items, text.count, &ids);
        for (size_t i = 0; i < ids.count; i++)
            assert_true(ids.items[i] >= 0 && (size_t)ids.items[i] < tokenizer_vocab_size(qwen));
        vec_free(&ids);
        vec_free(&text);
        vec_free(&once);
        vec_free(&twice);
    }
    print_message("%zu texts, %zu of them with something to normalise\n", count, changed);
    assert_true(changed > 0);
    tokenizer_free(qwen);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trips),     cmocka_unit_test(long_pieces),
        cmocka_unit_test(random_ids),      cmocka_unit_test(random_chats),
        cmocka_unit_test(truncated_files), cmocka_unit_test(mutated_files),
        cmocka_unit_test(mutated_configs), cmocka_unit_test(mutated_templates),
        cmocka_unit_test(normal_texts),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
