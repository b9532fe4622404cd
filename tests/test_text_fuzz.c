// LINK: text
// Damaged tokenizer.json files, random bytes as text and random ids: no crash, no leak (under the
// sanitizers), and what can be encoded comes back byte for byte.
#include "support/chatml.h"
#include "support/golden.h"
#include "base/clock.h"
#include "base/random.h"
#include "text/chat.h"
#include "text/unicode.h"

#include <stdio.h>
#include <unistd.h>

static char file[] = "/tmp/test_text_fuzz.XXXXXX";
static Tokenizer *bytes_tokenizer; // has an entry for each byte
static const double seconds = 2;   // of each loop

static int setup(void **state) {
    (void)state;
    const int fd = mkstemp(file);
    if (fd < 0) return -1;
    close(fd);
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
    return unlink(file);
}

static void append(CharVec *out, const char *text) {
    vec_extend(out, text, strlen(text));
}

// Words, spaces, special tokens, characters of all planes and, if `damaged`, loose bytes.
static CharVec random_text(Random *r, size_t parts, bool damaged) {
    static const char *const words[] = {" the",         "user",  "'ll",       "  ",      "\n",  "12",
                                        "<|im_start|>", "<|im_", "é",         "中文",    "...", "\r\n",
                                        "<|image|>",    "'",     "assistant", "\xC2\x85"};
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

static void random_chats(void **state) {
    (void)state;
    ChatTemplate c;
    assert_true(chat_template_init(&c, bytes_tokenizer, CHATML, NULL));
    for (uint64_t i = 0; i < 500; i++) {
        Random r = random_stream(4, RANDOM_TEST, i);
        CharVec texts[6] = {0};
        ChatMessage messages[6];
        const size_t n = random_below(&r, 7);
        for (size_t m = 0; m < n; m++) {
            texts[m] = random_text(&r, random_below(&r, 20), true);
            messages[m] = (ChatMessage){m % 2 ? "assistant" : "user", texts[m].items, texts[m].count};
        }
        Int32Vec ids = {0}, labels = {0};
        chat_encode_training(&c, messages, n, &ids, &labels);
        assert_int_equal(ids.count, labels.count);
        for (size_t k = 0; k < ids.count; k++)
            assert_true(labels.items[k] == -100 ||
                        (k + 1 < ids.count && labels.items[k] == ids.items[k + 1]));
        for (size_t m = 0; m < n; m++) vec_free(&texts[m]);
        vec_free(&ids);
        vec_free(&labels);
    }
}

// Loads the bytes as tokenizer.json; what is accepted must also work.
static bool try_load(const char *bytes, size_t size, uint64_t index) {
    Tokenizer *t;
    Error err = {0};
    FILE *out = fopen(file, "wb");
    assert_non_null(out);
    assert_int_equal(fwrite(bytes, 1, size, out), size);
    fclose(out);
    if (!tokenizer_load(&t, file, NULL, &err)) {
        assert_null(t);
        assert_true(err.text[0] != '\0');
        return false;
    }
    Random r = random_stream(5, RANDOM_TEST, index);
    CharVec text = random_text(&r, 60, true);
    Int32Vec ids = {0};
    tokenizer_encode(t, text.items, text.count, &ids);
    free(tokenizer_decode(t, ids.items, ids.count, true));
    vec_free(&text);
    vec_free(&ids);
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
    assert_true(try_load(json.items, json.count, 0));
    for (size_t size = 0; size < json.count; size += 3) assert_false(try_load(json.items, size, size));
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

static void mutated_files(void **state) {
    (void)state;
    CharVec lines = read_sample("tests/golden/text/variants.jsonl");
    vec_push(&lines, '\0');
    size_t count = 0, accepted = 0;
    for (const double end = clock_seconds() + 2 * seconds; clock_seconds() < end;) {
        const char *line = lines.items;
        while ((line = strstr(line, "\"tokenizer\":"))) {
            line += strlen("\"tokenizer\":");
            const char *last = strstr(line, ",\"rows\":");
            assert_non_null(last);
            CharVec text = {0};
            vec_extend(&text, line, (size_t)(last - line));
            Random r = random_stream(6, RANDOM_TEST, count);
            mutate(&text, &r);
            accepted += try_load(text.items, text.count, count);
            count++;
            vec_free(&text);
        }
    }
    print_message("%zu files, %zu of them still tokenizers\n", count, accepted);
    assert_true(accepted > 0 && accepted < count);
    vec_free(&lines);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trips),  cmocka_unit_test(long_pieces),     cmocka_unit_test(random_ids),
        cmocka_unit_test(random_chats), cmocka_unit_test(truncated_files), cmocka_unit_test(mutated_files),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
