// LINK: text
// Damaged GGUF files through the reader, as weights and as tokenizers: no crash, no read outside of the map
// (under the sanitizers), and all that is accepted can be used. VLM_FUZZ_SECONDS sets how long; by default a
// few seconds.
#include "support/fuzz.h"
#include "support/gguf_case.h"
#include "base/clock.h"
#include "format/weights.h"
#include "text/tokenizer.h"

// ---- what is done with a file ----

static volatile unsigned char seen; // of all bytes touched, so that they are

static void touch_value(const GgufValue *v) {
    GgufValue item;
    GgufString text;
    uint64_t u;
    int64_t i;
    double f;
    bool b;
    gguf_value_u64(v, &u);
    gguf_value_i64(v, &i);
    gguf_value_f64(v, &f);
    gguf_value_bool(v, &b);
    if (gguf_value_string(v, &text))
        for (size_t k = 0; k < text.size; k++) seen ^= (unsigned char)text.text[k];
    size_t items = 0;
    for (size_t place = 0; gguf_array_next(v, &place, &item); items++) touch_value(&item);
    assert_true(items == (v->type == GGUF_ARRAY ? v->count : 0));
}

static bool use_reader(void) {
    Gguf *g;
    Error err = {0};
    if (!gguf_open(&g, gguf_file, &err)) {
        assert_true(err.text[0] && !g);
        return false;
    }
    for (size_t i = 0; i < gguf_pair_count(g); i++) touch_value(&gguf_pair(g, i)->value);
    for (size_t i = 0; i < gguf_tensor_count(g); i++) {
        const GgufTensor *t = gguf_tensor(g, i);
        for (size_t k = 0; k < t->bytes; k++) seen ^= ((const unsigned char *)t->data)[k];
        float x[300];
        const size_t n = t->count < 300 ? t->count : 300;
        gguf_read_f32(x, t, t->count - n, n, NULL);
        assert_ptr_equal(gguf_find_tensor(g, t->name), t);
    }
    gguf_close(g);
    return true;
}

static bool use_weights(void) {
    Weights *w;
    Error err = {0};
    if (!weights_open(&w, gguf_file, &err)) {
        assert_true(err.text[0] && !w);
        return false;
    }
    for (size_t i = 0; i < weights_count(w); i++) {
        const WeightsEntry *e = weights_entry(w, i);
        float *x = mem_alloc((e->count + 1) * sizeof *x);
        weights_read_f32(x, e, 0, e->count, NULL);
        free(x);
    }
    json_t *config = weights_config(w, &err);
    const bool ok = config;
    json_decref(config);
    weights_close(w);
    return ok;
}

static bool use_tokenizer(void) {
    Tokenizer *t;
    Error err = {0};
    if (!tokenizer_load(&t, gguf_file, NULL, &err)) {
        assert_true(err.text[0] && !t);
        return false;
    }
    const char *text = "the user's 12 <|im_start|> assistant \n\xC3\xA9\xFF";
    Int32Vec ids = {0};
    tokenizer_encode(t, text, strlen(text), &ids);
    free(tokenizer_decode(t, ids.items, ids.count, true));
    vec_free(&ids);
    tokenizer_free(t);
    return true;
}

// ---- damage ----

// Numbers that lengths, types and offsets are often wrong by.
static uint64_t odd_number(Random *r) {
    static const uint64_t numbers[] = {
        0, 1, 2, 8, 9, 12, 31, 32, 255, 1u << 16, UINT32_MAX, (uint64_t)1 << 60, UINT64_MAX};
    const uint64_t number = numbers[random_below(r, sizeof numbers / sizeof *numbers)];
    return random_below(r, 4) ? number : number - 1;
}

// Bytes changed, numbers written over, spans removed or doubled, somewhere in the first `head` bytes.
static void mutate(CharVec *bytes, size_t head, Random *r) {
    for (uint64_t n = 1 + random_below(r, 3); n > 0; n--) {
        const size_t size = 1 + random_below(r, 16), end = head < bytes->count ? head : bytes->count;
        const size_t at = random_below(r, end - 40);
        const uint64_t number = odd_number(r);
        switch (random_below(r, 4)) {
        case 0:
            bytes->items[at] = (char)random_below(r, 256);
            break;
        case 1:
            memcpy(bytes->items + at, &number, random_below(r, 2) ? 4 : 8);
            break;
        case 2:
            memmove(bytes->items + at, bytes->items + at + size, bytes->count - at - size);
            bytes->count -= size;
            break;
        default:
            memmove(bytes->items + random_below(r, end - 20), bytes->items + at, size);
        }
    }
}

static size_t fuzz(const char *bytes, size_t size, size_t head, bool (*use)(void), uint64_t key,
                   double seconds) {
    size_t count = 0, accepted = 0;
    for (const double end = clock_seconds() + seconds; clock_seconds() < end; count++) {
        Random r = random_stream(key, RANDOM_TEST, count);
        CharVec mutant = {0};
        vec_extend(&mutant, bytes, size);
        mutate(&mutant, head, &r);
        fuzz_write(gguf_file, mutant.items, mutant.count);
        accepted += use();
        vec_free(&mutant);
    }
    print_message("%zu mutants, %zu of them accepted\n", count, accepted);
    assert_true(count > 0 && accepted < count);
    return accepted;
}

static void read_sample(char **bytes, size_t *size, const char *file) {
    Error err;
    if (!file_read(bytes, size, file, &err)) fail_msg("%s", err.text);
}

// Of a file cut short nothing is accepted: the tensors fill it up to the padding of the last one.
static void truncate_all(const char *bytes, size_t size, size_t step, bool (*use)(void)) {
    fuzz_write(gguf_file, bytes, size);
    assert_true(use());
    for (size_t n = 0; n + 32 < size; n += step) {
        fuzz_write(gguf_file, bytes, n);
        assert_false(use());
    }
}

static void reader(void **state) {
    (void)state;
    char *bytes;
    size_t size;
    read_sample(&bytes, &size, "tests/golden/gguf/types.gguf");
    truncate_all(bytes, size, 7, use_reader);
    fuzz(bytes, size, 2048, use_reader, 1, fuzz_seconds(4));
    free(bytes);
}

static void weights(void **state) {
    (void)state;
    char *bytes;
    size_t size;
    read_sample(&bytes, &size, "tests/golden/gguf_llama/untied_q8_0/model.gguf");
    truncate_all(bytes, size, 11, use_weights);
    fuzz(bytes, size, 1700, use_weights, 2, fuzz_seconds(4) / 2);
    free(bytes);
}

// Half the mutants among the first keys and tokens, half anywhere.
static void tokenizers(void **state) {
    (void)state;
    char *json_path = golden_path("tokenizer/bytes/tokenizer.json"), *bytes;
    size_t size;
    json_t *json = json_load_file(json_path, JSON_ALLOW_NUL, NULL);
    assert_non_null(json);
    GgufMetadata m = {0};
    put_tokenizer(&m, json, "smollm", 2);
    write_metadata(gguf_file, &m);
    read_sample(&bytes, &size, gguf_file);
    truncate_all(bytes, size, 5, use_tokenizer);
    const size_t accepted = fuzz(bytes, size, 300, use_tokenizer, 3, fuzz_seconds(4) / 2) +
                            fuzz(bytes, size, size, use_tokenizer, 4, fuzz_seconds(4) / 2);
    assert_true(accepted > 0);
    json_decref(json);
    free(json_path);
    free(bytes);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reader),
        cmocka_unit_test(weights),
        cmocka_unit_test(tokenizers),
    };
    return cmocka_run_group_tests(tests, make_gguf_file, remove_gguf_file);
}
