// LINK: text image
// LABELS: parity
// Tokenizer and chat against the reference rows: every row found is compared, id by id.
#include "support/chatml.h"
#include "support/golden.h"
#include "image/image.h"
#include "text/chat.h"
#include "text/unicode.h"

#include <jansson.h>
#include <stdio.h>

enum { SMOLLM2, BYTES, N_TOKENIZERS };
static const char *const names[N_TOKENIZERS] = {"smollm2", "bytes"};
static Tokenizer *tokenizers[N_TOKENIZERS];
static Tokenizer *without_global[N_TOKENIZERS]; // the same, the extra tokens without global_image_token

static json_t *load_json(const char *name) {
    char *path = golden_path("text/%s", name);
    json_error_t where;
    json_t *json = json_load_file(path, JSON_ALLOW_NUL, &where);
    if (!json) fail_msg("%s: %s", path, where.text);
    free(path);
    return json;
}

// Calls check for every line of text/<name>; no line at all is a failure.
static void for_each_row(const char *name, void (*check)(const json_t *row)) {
    char *path = golden_path("text/%s", name), *bytes;
    size_t size, rows = 0;
    Error err;
    if (!file_read(&bytes, &size, path, &err)) fail_msg("%s", err.text);
    for (char *line = bytes, *end; line < bytes + size; line = end + 1) {
        end = memchr(line, '\n', (size_t)(bytes + size - line));
        if (!end) end = bytes + size;
        json_error_t where;
        json_t *row = json_loadb(line, (size_t)(end - line), JSON_ALLOW_NUL, &where);
        if (!row) fail_msg("%s row %zu: %s", path, rows, where.text);
        check(row);
        json_decref(row);
        rows++;
    }
    assert_true(rows > 0);
    print_message("%s: %zu rows\n", path, rows);
    free(bytes);
    free(path);
}

// Borrows the texts of [[name, text, id], …].
static TokenMap token_map(const json_t *tokens, bool with_global) {
    TokenMap map = {0, mem_zeroed(json_array_size(tokens) + 1, sizeof *map.items)};
    for (size_t i = 0; i < json_array_size(tokens); i++) {
        const json_t *entry = json_array_get(tokens, i);
        TokenPair pair = {(char *)json_string_value(json_array_get(entry, 0)),
                          (char *)json_string_value(json_array_get(entry, 1))};
        if (with_global || strcmp(pair.name, "global_image_token") != 0) map.items[map.count++] = pair;
    }
    return map;
}

static bool load_one(Tokenizer **t, const char *name, const json_t *extra_tokens, bool with_global) {
    TokenMap extra = token_map(extra_tokens, with_global);
    char *path = golden_path("tokenizer/%s", name);
    Error err = {0};
    const bool ok = tokenizer_load(t, path, &extra, &err);
    if (!ok) print_error("%s\n", err.text);
    free(path);
    free(extra.items);
    return ok;
}

static int load_tokenizers(void **state) {
    (void)state;
    json_t *table = load_json("token_table.json");
    bool ok = true;
    for (size_t i = 0; i < N_TOKENIZERS; i++) {
        const json_t *extra = json_object_get(json_object_get(table, names[i]), "extra_tokens");
        ok = ok && load_one(&tokenizers[i], names[i], extra, true) &&
             load_one(&without_global[i], names[i], extra, false);
    }
    json_decref(table);
    return ok ? 0 : -1;
}

static int free_tokenizers(void **state) {
    (void)state;
    for (size_t i = 0; i < N_TOKENIZERS; i++) {
        tokenizer_free(tokenizers[i]);
        tokenizer_free(without_global[i]);
    }
    return 0;
}

static void expect_ids(const json_t *expected, const Int32Vec *ids, const char *what, const char *text) {
    bool same = json_array_size(expected) == ids->count;
    for (size_t i = 0; same && i < ids->count; i++)
        same = json_integer_value(json_array_get(expected, i)) == ids->items[i];
    if (!same)
        fail_msg("%s: %zu ids, expected %zu; \"%s\"", what, ids->count, json_array_size(expected), text);
}

static void check_encode(const json_t *row) {
    const json_t *text = json_object_get(row, "text");
    for (size_t i = 0; i < N_TOKENIZERS; i++) {
        Int32Vec ids = {0};
        tokenizer_encode(tokenizers[i], json_string_value(text), json_string_length(text), &ids);
        expect_ids(json_object_get(row, names[i]), &ids, names[i], json_string_value(text));
        vec_free(&ids);
    }
}

static void encode_rows(void **state) {
    (void)state;
    for_each_row("encode.jsonl", check_encode);
}

static const Tokenizer *tokenizer_of(const json_t *row) {
    const char *name = json_string_value(json_object_get(row, "tokenizer"));
    return tokenizers[strcmp(name, names[BYTES]) == 0 ? BYTES : SMOLLM2];
}

static void expect_text(const json_t *expected, const CharVec *bytes) {
    CharVec text = {0};
    utf8_append_lossy(&text, bytes->items, bytes->count);
    if (text.count != json_string_length(expected) ||
        (text.count && memcmp(text.items, json_string_value(expected), text.count) != 0))
        fail_msg("decoded %zu bytes, expected %zu: \"%s\"", text.count, json_string_length(expected),
                 json_string_value(expected));
    vec_free(&text);
}

static Int32Vec ids_of(const json_t *array) {
    Int32Vec ids = {0};
    for (size_t i = 0; i < json_array_size(array); i++)
        vec_push(&ids, (int32_t)json_integer_value(json_array_get(array, i)));
    return ids;
}

static void check_decode(const json_t *row) {
    Int32Vec ids = ids_of(json_object_get(row, "ids"));
    CharVec bytes = {0};
    for (int skip = 0; skip < 2; skip++) {
        const json_t *expected = json_object_get(row, skip ? "text_skip_special" : "text");
        vec_clear(&bytes);
        tokenizer_decode_bytes(tokenizer_of(row), ids.items, ids.count, skip, &bytes);
        expect_text(expected, &bytes);
        char *text = tokenizer_decode(tokenizer_of(row), ids.items, ids.count, skip);
        assert_string_equal(text, json_string_value(expected));
        free(text);
    }
    vec_free(&bytes);
    vec_free(&ids);
}

static void decode_rows(void **state) {
    (void)state;
    for_each_row("decode.jsonl", check_decode);
}

// nanoVLM's filter of turns: ratings present and below their minimum drop the turn; a list too short ends the
// checks.
static bool turn_is_kept(const json_t *row, const json_t *settings, size_t turn) {
    static const char *const kinds[] = {"relevance", "image_correspondence", "visual_dependency",
                                        "formatting"};
    for (size_t i = 0; i < 4; i++) {
        char key[64];
        snprintf(key, sizeof key, "%s_ratings", kinds[i]);
        const json_t *ratings = json_object_get(row, key);
        if (!json_is_array(ratings)) continue;
        if (turn >= json_array_size(ratings)) return true;
        const json_t *rating = json_array_get(ratings, turn);
        snprintf(key, sizeof key, "%s_min_rating", kinds[i]);
        const json_int_t least = json_integer_value(json_object_get(settings, key));
        if (json_is_integer(rating) && json_integer_value(rating) < least) return false;
    }
    return true;
}

// The messages of a row: text without image tokens, the image string in front of the first one.
typedef struct Messages {
    CharVec texts[64];
    ChatMessage items[64];
    size_t count;
} Messages;

static void add_message(Messages *m, const char *role, const json_t *text, const char *image_token) {
    CharVec *out = &m->texts[m->count];
    const char *p = json_string_value(text), *end = p + json_string_length(text);
    const size_t n = strlen(image_token);
    while (p < end) {
        if ((size_t)(end - p) >= n && memcmp(p, image_token, n) == 0)
            p += n;
        else
            vec_push(out, *p++);
    }
    m->items[m->count++] = (ChatMessage){.role = role};
}

static void collect_messages(Messages *m, const json_t *row, const json_t *settings, const Tokenizer *t,
                             const CharVec *image_string) {
    const json_t *texts = json_object_get(row, "texts");
    *m = (Messages){0};
    vec_extend(&m->texts[0], image_string->items, image_string->count);
    for (size_t i = 0; i < json_array_size(texts); i++) {
        if (!turn_is_kept(row, settings, i)) continue;
        assert_true(m->count + 2 <= 64);
        const json_t *turn = json_array_get(texts, i);
        add_message(m, "user", json_object_get(turn, "user"), tokenizer_extra_text(t, "image_token"));
        add_message(m, "assistant", json_object_get(turn, "assistant"),
                    tokenizer_extra_text(t, "image_token"));
    }
    for (size_t i = 0; i < m->count; i++) {
        m->items[i].content = m->texts[i].items;
        m->items[i].size = m->texts[i].count;
    }
}

static size_t size_at(const json_t *object, const char *key) {
    return (size_t)json_integer_value(json_object_get(object, key));
}

// The grid of a picture [width, height], from the settings as nanoVLM's image processor has it.
static ImageGrid grid_of(const json_t *image, const json_t *settings) {
    size_t width, height;
    Error err;
    const ResizeRule rule = {size_at(settings, "max_img_size"), size_at(settings, "vit_img_size"),
                             json_is_true(json_object_get(settings, "resize_to_max_side_len"))};
    if (!image_target_size(&width, &height, (size_t)json_integer_value(json_array_get(image, 0)),
                           (size_t)json_integer_value(json_array_get(image, 1)), &rule, &err))
        fail_msg("%s", err.text);
    return (ImageGrid){height / rule.tile, width / rule.tile};
}

static CharVec image_string_of(const json_t *row, const json_t *sample, const json_t *settings,
                               const Tokenizer *t) {
    ImageGrid grids[64];
    const json_t *images = json_object_get(row, "images"), *array = json_object_get(sample, "grids"),
                 *tiles = json_object_get(sample, "tiles");
    const size_t n = json_array_size(array);
    assert_true(n <= 64 && n == json_array_size(images) && n == json_array_size(tiles));
    const bool global = json_is_true(json_object_get(settings, "global_token"));
    for (size_t i = 0; i < n; i++) {
        const json_t *grid = json_array_get(array, i);
        grids[i] = grid_of(json_array_get(images, i), settings);
        assert_int_equal(grids[i].rows, json_integer_value(json_array_get(grid, 0)));
        assert_int_equal(grids[i].cols, json_integer_value(json_array_get(grid, 1)));
        const size_t cells = grids[i].rows * grids[i].cols;
        assert_int_equal(json_integer_value(json_array_get(tiles, i)), cells + (global && cells > 1));
    }
    const size_t tokens = (size_t)json_integer_value(json_object_get(settings, "mp_image_token_length"));
    CharVec out = {0};
    Error err;
    if (!chat_image_string(&out, t, grids, n, tokens, &err)) fail_msg("%s", err.text);
    expect_text(json_object_get(sample, "image_string"), &out);
    return out;
}

static void expect_training(const ChatTemplate *c, const Messages *m, const json_t *sample) {
    Int32Vec ids = {0}, labels = {0};
    chat_encode_training(c, m->items, m->count, &ids, &labels);
    expect_ids(json_object_get(sample, "input_ids"), &ids, "input_ids",
               json_string_value(json_object_get(sample, "prompt")));
    assert_int_equal(ids.count, size_at(sample, "length"));
    Int32Vec whole = {0};
    const json_t *prompt = json_object_get(sample, "prompt");
    tokenizer_encode(c->tokenizer, json_string_value(prompt), json_string_length(prompt), &whole);
    expect_ids(json_object_get(sample, "input_ids"), &whole, "prompt", json_string_value(prompt));
    vec_free(&whole);
    expect_ids(json_object_get(sample, "labels"), &labels, "labels",
               json_string_value(json_object_get(sample, "prompt")));
    vec_free(&ids);
    vec_free(&labels);
}

static void expect_prompt(const ChatTemplate *c, const Messages *m, const json_t *sample) {
    const json_t *text = json_object_get(sample, "prompt_for_generation");
    Int32Vec ids = {0}, expected = {0};
    chat_encode_prompt(c, m->items, m->count - 1, &ids);
    tokenizer_encode(c->tokenizer, json_string_value(text), json_string_length(text), &expected);
    assert_int_equal(ids.count, expected.count);
    assert_memory_equal(ids.items, expected.items, ids.count * sizeof *ids.items);
    vec_free(&ids);
    vec_free(&expected);
}

static const char *const paths[] = {"map", "stream"};
static size_t n_of_path[2];

static void check_chat(const json_t *line) {
    const json_t *settings = json_object_get(line, "settings"), *sample = json_object_get(line, "sample");
    const char *path = json_string_value(json_object_get(settings, "path"));
    size_t which_path = 0;
    while (which_path < 2 && strcmp(path, paths[which_path]) != 0) which_path++;
    assert_true(which_path < 2);
    n_of_path[which_path]++;
    const size_t which = tokenizer_of(settings) == tokenizers[BYTES] ? BYTES : SMOLLM2;
    const bool global = json_is_true(json_object_get(settings, "global_token"));
    ChatTemplate c;
    Error err;
    if (!chat_template_init(&c, (global ? tokenizers : without_global)[which], CHATML, &err))
        fail_msg("%s", err.text);
    assert_int_equal(c.prefix_len, json_integer_value(json_object_get(line, "prefix_len")));
    CharVec image_string = {0};
    if (!json_is_null(sample))
        image_string = image_string_of(json_object_get(line, "row"), sample, settings, c.tokenizer);
    Messages m;
    collect_messages(&m, json_object_get(line, "row"), settings, c.tokenizer, &image_string);
    assert_int_equal(json_is_null(sample), m.count == 0);
    if (m.count > 0) {
        expect_training(&c, &m, sample);
        expect_prompt(&c, &m, sample);
    }
    for (size_t i = 0; i < 64; i++) vec_free(&m.texts[i]);
    vec_free(&image_string);
}

static void chat_rows(void **state) {
    (void)state;
    for_each_row("chat.jsonl", check_chat);
    for (size_t i = 0; i < 2; i++) { // rows of nanoVLM's map-style and of its streaming data set
        print_message("%zu rows of path %s\n", n_of_path[i], paths[i]);
        assert_true(n_of_path[i] > 0);
    }
}

static json_int_t number_at(const json_t *object, const char *key) {
    return json_integer_value(json_object_get(object, key));
}

// n_special: added tokens of tokenizer.json and extra ones; transformers' all_special_ids may name fewer of
// them.
static void check_table(const Tokenizer *t, const json_t *table, size_t n_special) {
    const json_t *extra = json_object_get(table, "extra_tokens"),
                 *special = json_object_get(table, "all_special_ids");
    assert_int_equal(tokenizer_vocab_size(t), number_at(table, "size"));
    assert_int_equal(tokenizer_eos_id(t), number_at(table, "eos_token_id"));
    for (size_t i = 0; i < json_array_size(extra); i++) {
        const json_t *entry = json_array_get(extra, i);
        const char *name = json_string_value(json_array_get(entry, 0));
        const char *text = json_string_value(json_array_get(entry, 1));
        const json_int_t id = json_integer_value(json_array_get(entry, 2));
        assert_int_equal(tokenizer_extra_id(t, name), id);
        assert_int_equal(tokenizer_token_id(t, text), id);
        assert_string_equal(tokenizer_extra_text(t, name), text);
    }
    size_t n_skipped = 0;
    for (int32_t id = 0; (size_t)id < tokenizer_vocab_size(t); id++) {
        CharVec all = {0}, kept = {0};
        tokenizer_decode_bytes(t, &id, 1, false, &all);
        tokenizer_decode_bytes(t, &id, 1, true, &kept);
        assert_true(all.count > 0);
        n_skipped += kept.count == 0;
        vec_free(&all);
        vec_free(&kept);
    }
    assert_int_equal(n_skipped, n_special);
    for (size_t i = 0; i < json_array_size(special); i++) {
        const int32_t id = (int32_t)json_integer_value(json_array_get(special, i));
        char *text = tokenizer_decode(t, &id, 1, true);
        assert_string_equal(text, "");
        free(text);
    }
}

static void token_table(void **state) {
    (void)state;
    json_t *table = load_json("token_table.json");
    check_table(tokenizers[SMOLLM2], json_object_get(table, "smollm2"), 17 + 66);
    check_table(tokenizers[BYTES], json_object_get(table, "bytes"), 3 + 66);
    assert_int_equal(tokenizer_extra_id(tokenizers[SMOLLM2], "r9c9"), -1);
    assert_null(tokenizer_extra_text(tokenizers[SMOLLM2], "r9c9"));
    assert_int_equal(tokenizer_token_id(tokenizers[SMOLLM2], "no such token"), -1);
    json_decref(table);
}

static void character_classes(void **state) {
    (void)state;
    static const struct {
        const char *name;
        unsigned bit;
    } classes[] = {
        {"space", CHAR_SPACE}, {"letter", CHAR_LETTER}, {"number", CHAR_NUMBER}, {"digit", CHAR_DIGIT}};
    json_t *all = load_json("charclass.json");
    for (size_t i = 0; i < 4; i++) {
        const json_t *ranges = json_object_get(all, classes[i].name);
        uint32_t point = 0;
        for (size_t r = 0; r <= json_array_size(ranges); r++) {
            const json_t *range = json_array_get(ranges, r);
            const json_int_t first = range ? json_integer_value(json_array_get(range, 0)) : 0x110000;
            const json_int_t last = range ? json_integer_value(json_array_get(range, 1)) : 0x10FFFF;
            for (; point < first; point++) assert_false(char_classes(point) & classes[i].bit);
            for (; point <= last; point++) assert_true(char_classes(point) & classes[i].bit);
        }
        assert_int_equal(point, 0x110000);
    }
    json_decref(all);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(character_classes), cmocka_unit_test(token_table), cmocka_unit_test(encode_rows),
        cmocka_unit_test(decode_rows),       cmocka_unit_test(chat_rows),
    };
    return cmocka_run_group_tests(tests, load_tokenizers, free_tokenizers);
}
