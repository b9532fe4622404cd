// LINK: format
// LABELS: parity
// GGUF: files of the gguf package are read, decoded and encoded to the same bits, and written again to the
// same bytes; what is damaged is refused with a message.
#include "support/golden.h"
#include "support/gguf_case.h"
#include "base/random.h"
#include "format/safetensors.h"

#include <math.h>

// ---- reference files ----

// Calls check for every NAME.gguf of the reference folder, with the values of NAME.safetensors.
static void for_each_file(void (*check)(const Gguf *g, const Safetensors *values)) {
    Error err;
    StringList list;
    const char *root = "tests/golden/gguf";
    size_t files = 0;
    if (!file_list(&list, root, &err)) fail_msg("%s", err.text);
    for (size_t i = 0; i < list.count; i++) {
        if (!gguf_is_file(list.items[i])) continue;
        char *file = path_join(root, list.items[i]);
        char *values_path = mem_printf("%.*s.safetensors", (int)(strlen(file) - strlen(".gguf")), file);
        Gguf *g = open_gguf(file);
        Safetensors *values;
        if (!safetensors_open(&values, values_path, &err)) fail_msg("%s", err.text);
        check(g, values);
        print_message("%s: %zu tensors, %zu pairs\n", file, gguf_tensor_count(g), gguf_pair_count(g));
        gguf_close(g);
        safetensors_close(values);
        free(file);
        free(values_path);
        files++;
    }
    string_list_free(&list);
    assert_true(files >= 2);
}

static void assert_same_bits(const float *x, const float *expected, size_t n, const char *name) {
    for (size_t i = 0; i < n; i++)
        if (memcmp(&x[i], &expected[i], sizeof *x) != 0)
            fail_msg("tensor %s, value %zu: %a, expected %a", name, i, (double)x[i], (double)expected[i]);
}

// All at once, and in pieces that begin and end inside blocks.
static void check_values(const GgufTensor *t, const SafetensorsEntry *e) {
    float *expected = mem_alloc(e->count * sizeof *expected), *x = mem_alloc(e->count * sizeof *x);
    Error err;
    assert_true(safetensors_to_f32(expected, e, &err));
    if (!gguf_read_f32(x, t, 0, t->count, &err)) fail_msg("%s", err.text);
    assert_same_bits(x, expected, e->count, t->name);
    for (uint64_t k = 0; k < 40; k++) {
        Random r = random_stream(7, RANDOM_TEST, k);
        const size_t first = random_below(&r, t->count + 1), n = random_below(&r, t->count - first + 1);
        memset(x, 0xFF, e->count * sizeof *x);
        assert_true(gguf_read_f32(x, t, first, n, &err));
        assert_same_bits(x, expected + first, n, t->name);
        if (n < e->count) assert_true(isnan(x[n])); // nothing behind what was asked for
    }
    free(expected);
    free(x);
}

static void check_file(const Gguf *g, const Safetensors *values) {
    assert_int_equal(gguf_tensor_count(g), safetensors_count(values));
    for (size_t i = 0; i < gguf_tensor_count(g); i++) {
        const GgufTensor *t = gguf_tensor(g, i);
        const SafetensorsEntry *e = safetensors_find(values, t->name);
        assert_non_null(e);
        assert_int_equal(t->ndim, e->ndim);
        for (int d = 0; d < t->ndim; d++) assert_int_equal(t->shape[d], e->shape[d]);
        assert_int_equal((uintptr_t)((const char *)t->data - (const char *)gguf_tensor(g, 0)->data) %
                             gguf_alignment(g),
                         0);
        assert_ptr_equal(gguf_find_tensor(g, t->name), t);
        check_values(t, e);
    }
}

static void decodes_as_the_package(void **state) {
    (void)state;
    for_each_file(check_file);
}

static size_t encoded;

// A tensor NAME.TYPE is the tensor NAME, encoded.
static void check_encoding(const Gguf *g, const Safetensors *values) {
    (void)values;
    for (size_t i = 0; i < gguf_tensor_count(g); i++) {
        const GgufTensor *t = gguf_tensor(g, i);
        char *dot = strrchr(t->name, '.'), *name = mem_strndup(t->name, dot ? (size_t)(dot - t->name) : 0);
        const GgufTensor *source = gguf_find_tensor(g, name);
        free(name);
        if (!source) continue;
        char *bytes = mem_alloc(t->bytes);
        gguf_encode(bytes, t->type, source->data, t->count);
        for (size_t k = 0; k < t->bytes; k++)
            if (bytes[k] != ((const char *)t->data)[k])
                fail_msg("tensor %s: byte %zu is %02x, expected %02x", t->name, k, (uint8_t)bytes[k],
                         ((const uint8_t *)t->data)[k]);
        free(bytes);
        encoded++;
    }
}

static void encodes_as_the_package(void **state) {
    (void)state;
    for_each_file(check_encoding);
    assert_true(encoded >= 6);
}

static bool fill_from_file(void *context, size_t i, void *dst) {
    const GgufTensor *t = gguf_tensor(context, i);
    memcpy(dst, t->data, t->bytes);
    return true;
}

// Writes everything that was read; the package lays files out the same way.
static void check_written_again(const Gguf *g, const Safetensors *values) {
    (void)values;
    GgufMetadata m = {0};
    for (size_t i = 0; i < gguf_pair_count(g); i++)
        gguf_put_value(&m, gguf_pair(g, i)->key, &gguf_pair(g, i)->value);
    const size_t n = gguf_tensor_count(g);
    GgufSpec *specs = mem_zeroed(n + 1, sizeof *specs);
    for (size_t i = 0; i < n; i++) {
        const GgufTensor *t = gguf_tensor(g, i);
        specs[i] = (GgufSpec){.name = t->name, .type = t->type, .ndim = t->ndim};
        memcpy(specs[i].shape, t->shape, sizeof t->shape);
    }
    Error err;
    if (!gguf_write(gguf_file, &m, specs, n, fill_from_file, (void *)g, &err)) fail_msg("%s", err.text);
    char *a, *b;
    size_t na, nb;
    if (!file_read(&a, &na, gguf_file, &err) || !file_read(&b, &nb, gguf_path(g), &err))
        fail_msg("%s", err.text);
    assert_int_equal(na, nb);
    assert_memory_equal(a, b, na);
    free(a);
    free(b);
    free(specs);
    gguf_metadata_free(&m);
}

// Q8_0 at the numbers where rounding is in doubt: halves, and the neighbours of halves.
static void quants_round_as_roundf(void **state) {
    (void)state;
    float x[32];
    unsigned char block[34];
    for (int first = -127; first < 127; first += 10)
        for (int step = -1; step <= 1; step++) {
            x[0] = 127; // the scale is 1
            for (int i = 1; i < 32; i++) {
                const float half = (float)(first + i / 3) + 0.5f;
                x[i] = step ? nextafterf(half, step * 1000.0f) : half;
                if (fabsf(x[i]) > 127) x[i] = 0;
            }
            gguf_encode(block, GGUF_TYPE_Q8_0, x, 32);
            for (int i = 0; i < 32; i++)
                if ((int8_t)block[2 + i] != (int)roundf(x[i]))
                    fail_msg("%.9g became %d", (double)x[i], (int8_t)block[2 + i]);
        }
    x[5] = NAN; // goes on through the scale
    gguf_encode(block, GGUF_TYPE_Q8_0, x, 32);
    gguf_decode(x, GGUF_TYPE_Q8_0, block, 32);
    assert_true(isnan(x[0]));
}

static void written_again_to_the_same_bytes(void **state) {
    (void)state;
    for_each_file(check_written_again);
}

// ---- metadata ----

static Gguf *open_types(void) {
    return open_gguf("tests/golden/gguf/types.gguf");
}

static void metadata_values(void **state) {
    (void)state;
    Error err;
    Gguf *g = open_types();
    uint64_t u;
    int64_t i;
    double f;
    bool b;
    GgufString s;
    static const struct {
        const char *key;
        int64_t value;
    } integers[] = {{"value.u8", 200},       {"value.i8", -100},        {"value.u16", 60000},
                    {"value.i16", -30000},   {"value.u32", 4000000000}, {"value.i32", -2000000000},
                    {"value.i64", INT64_MIN}};
    for (size_t k = 0; k < sizeof integers / sizeof *integers; k++) {
        const GgufValue *v = gguf_find_value(g, integers[k].key);
        assert_true(gguf_value_i64(v, &i) && i == integers[k].value);
        assert_int_equal(gguf_value_u64(v, &u), integers[k].value >= 0);
        assert_true(gguf_value_f64(v, &f) && f == (double)integers[k].value);
        assert_false(gguf_value_bool(v, &b) || gguf_value_string(v, &s));
    }
    assert_true(gguf_get_u64(g, "value.u64", &u, &err) && u == UINT64_MAX);
    assert_false(gguf_value_i64(gguf_find_value(g, "value.u64"), &i));
    assert_true(gguf_get_f64(g, "value.f64", &f, &err) && f == 0.1);
    assert_true(gguf_get_f64(g, "value.f32", &f, &err) && f == (double)0.1f);
    assert_false(gguf_value_u64(gguf_find_value(g, "value.f32"), &u));
    assert_true(gguf_get_bool(g, "value.true", &b, &err) && b);
    assert_true(gguf_get_bool(g, "value.false", &b, &err) && !b);
    assert_true(gguf_get_string(g, "value.string", &s, &err) && gguf_string_is(s, "zwölf Boxkämpfer"));
    gguf_close(g);
}

static void metadata_arrays(void **state) {
    (void)state;
    Error err;
    Gguf *g = open_types();
    GgufString *strings;
    int64_t *ints;
    double *floats;
    size_t n;
    assert_true(gguf_get_strings(g, "value.strings", &strings, &n, &err) && n == 4);
    assert_true(gguf_string_is(strings[0], "a") && gguf_string_is(strings[1], "") &&
                gguf_string_is(strings[3], "日本"));
    assert_true(gguf_get_i64s(g, "value.ints", &ints, &n, &err) && n == 3 && ints[1] == -2 && ints[2] == 3);
    assert_true(gguf_get_f64s(g, "value.floats", &floats, &n, &err) && n == 2 && floats[1] == -1.25);
    free(strings);
    free(ints);
    free(floats);
    // [[1, 2], [3], [4, 5, 6]]
    static const size_t counts[] = {2, 1, 3};
    GgufValue inner, item;
    int64_t sum = 0, value;
    size_t lists = 0, outer_place = 0;
    while (gguf_array_next(gguf_find_value(g, "value.nested"), &outer_place, &inner)) {
        assert_int_equal(inner.count, counts[lists++]);
        for (size_t place = 0; gguf_array_next(&inner, &place, &item); sum = 10 * sum + value)
            assert_true(gguf_value_i64(&item, &value));
    }
    assert_true(lists == 3 && sum == 123456);
    gguf_close(g);
}

static void expect_message(const Error *err, const char *part) {
    if (!strstr(err->text, part)) fail_msg("the message is \"%s\", expected \"%s\" in it", err->text, part);
}

static void metadata_of_the_wrong_type(void **state) {
    (void)state;
    Error err;
    Gguf *g = open_types();
    uint64_t u;
    bool b;
    GgufString s, *strings;
    int64_t *ints;
    size_t n;
    assert_false(gguf_get_u64(g, "absent", &u, &err));
    expect_message(&err, "types.gguf: field absent is missing");
    assert_false(gguf_get_u64(g, "value.i8", &u, &err));
    expect_message(&err, "field value.i8 is of type I8, expected an integer from 0 on");
    assert_false(gguf_get_bool(g, "value.u8", &b, &err));
    expect_message(&err, "expected a BOOL");
    assert_false(gguf_get_string(g, "value.strings", &s, &err));
    expect_message(&err, "is of type ARRAY of STRING, expected a STRING");
    assert_false(gguf_get_strings(g, "value.ints", &strings, &n, &err));
    expect_message(&err, "is of type ARRAY of I32, expected an ARRAY of STRING");
    assert_false(gguf_get_i64s(g, "value.nested", &ints, &n, &err));
    expect_message(&err, "is of type ARRAY of ARRAY, expected an ARRAY of integers");
    assert_false(gguf_get_i64s(g, "value.u8", &ints, &n, &err));
    assert_null(ints);
    gguf_close(g);
}

// ---- writing ----

static bool fill_bytes(void *context, size_t i, void *dst) {
    (void)i;
    memcpy(dst, context, 34);
    return true;
}

static bool fill_zeros(void *context, size_t i, void *dst) {
    memset(dst, 0, gguf_spec_bytes(&((const GgufSpec *)context)[i]));
    return true;
}

static bool fill_never(void *context, size_t i, void *dst) {
    (void)context, (void)i, (void)dst;
    return false;
}

static void what_is_put_is_found(void **state) {
    (void)state;
    Error err;
    GgufMetadata m = {0};
    const float floats[] = {0.5f, -1};
    const int32_t ints[] = {-7, 8};
    const GgufString strings[] = {{"a\0b", 3}, {"", 0}};
    gguf_put_string(&m, "general.architecture", "none");
    gguf_put_u32(&m, "general.alignment", 256);
    gguf_put_f32(&m, "f", 2.5f);
    gguf_put_bool(&m, "b", true);
    gguf_put_strings(&m, "strings", strings, 2);
    gguf_put_i32s(&m, "ints", ints, 2);
    gguf_put_f32s(&m, "floats", floats, 2);
    const GgufSpec spec = {"blocks", GGUF_TYPE_Q8_0, 2, {1, 32}};
    char bytes[34] = "two bytes of scale, then 32 values";
    assert_int_equal(gguf_spec_bytes(&spec), 34);
    if (!gguf_write(gguf_file, &m, &spec, 1, fill_bytes, bytes, &err)) fail_msg("%s", err.text);
    Gguf *g = open_gguf(gguf_file);
    GgufString *s;
    int64_t *i;
    double *f;
    size_t n;
    assert_int_equal(gguf_alignment(g), 256);
    assert_int_equal(gguf_version(g), 3);
    assert_true(gguf_get_strings(g, "strings", &s, &n, &err) && n == 2 && s[0].size == 3 && s[1].size == 0);
    assert_true(gguf_get_i64s(g, "ints", &i, &n, &err) && i[0] == -7 && i[1] == 8);
    assert_true(gguf_get_f64s(g, "floats", &f, &n, &err) && f[0] == 0.5 && f[1] == -1);
    assert_memory_equal(gguf_tensor(g, 0)->data, bytes, 34);
    free(s);
    free(i);
    free(f);
    gguf_close(g);
    gguf_metadata_free(&m);
}

static void failed_write_leaves_the_old_file(void **state) {
    (void)state;
    Error err;
    char *text, *temporary = mem_printf("%s.tmp", gguf_file);
    size_t size;
    const GgufMetadata none = {0};
    const GgufSpec spec = {"blocks", GGUF_TYPE_Q8_0, 1, {32}};
    assert_true(file_write_text(gguf_file, "old", 3, &err));
    assert_false(gguf_write(gguf_file, &none, &spec, 1, fill_never, NULL, &err));
    expect_message(&err, "tensor blocks: its values could not be read");
    assert_true(file_read(&text, &size, gguf_file, &err) && strcmp(text, "old") == 0);
    assert_false(file_exists(temporary));
    assert_false(gguf_write("/nowhere/file.gguf", &none, &spec, 1, fill_never, NULL, &err));
    free(text);
    free(temporary);
}

static void type_names(void **state) {
    (void)state;
    assert_int_equal(gguf_type_from_name("q8_0"), GGUF_TYPE_Q8_0);
    assert_int_equal(gguf_type_from_name("Q8_2"), -1);
    assert_string_equal(gguf_type_name(GGUF_TYPE_Q4_K), "Q4_K");
    assert_null(gguf_type_name(4)); // a type that ggml has taken out
    assert_null(gguf_type_name(UINT32_MAX));
    assert_true(gguf_type_can_encode(GGUF_TYPE_BF16) && !gguf_type_can_encode(GGUF_TYPE_Q4_K));
}

// A type with a size but no decoder can be opened, for a list, but not read.
static void types_without_decoder(void **state) {
    (void)state;
    Error err;
    float x;
    const GgufTensor t = {.name = "t", .type = (GgufType)20, .count = 32};
    assert_false(gguf_read_f32(&x, &t, 0, 32, &err));
    expect_message(&err, "tensor t: values of type IQ4_NL cannot be read");
}

// ---- damaged files ----

static void append(CharVec *out, const void *bytes, size_t size) {
    vec_extend(out, (const char *)bytes, size);
}

// Where the fields of the file below stand.
enum {
    AT_MAGIC = 0,
    AT_VERSION = 4,
    AT_TENSORS = 8,
    AT_PAIRS = 16,
    AT_VALUE_TYPE = 33,
    AT_ITEM_TYPE = 37,
    AT_COUNT = 41,
    AT_LENGTH = 49,
    AT_NAME_LENGTH = 59,
    AT_NAME = 67,
    AT_NDIM = 68,
    AT_INNER = 72,
    AT_OUTER = 80,
    AT_TYPE = 88,
    AT_OFFSET = 92
};

// One pair, k = ["ab"], and one tensor, t, of two rows of 32 values.
static CharVec whole_file(void) {
    CharVec out = {0};
    append(&out, "GGUF", 4);
    append(&out, &(uint32_t){3}, 4);
    append(&out, (uint64_t[]){1, 1, 1}, 24);
    append(&out, "k", 1);
    append(&out, (uint32_t[]){GGUF_ARRAY, GGUF_STRING}, 8);
    append(&out, (uint64_t[]){1, 2}, 16);
    append(&out, "ab", 2);
    append(&out, &(uint64_t){1}, 8);
    append(&out, "t", 1);
    append(&out, &(uint32_t){2}, 4);
    append(&out, (uint64_t[]){32, 2}, 16);
    append(&out, &(uint32_t){GGUF_TYPE_Q8_0}, 4);
    append(&out, &(uint64_t){0}, 8);
    while (out.count % 32) vec_push(&out, '\0');
    for (char i = 0; i < 68; i++) vec_push(&out, i);
    return out;
}

#define BOMB ((uint64_t)1 << 60)

// What is written over the file at up to two places, size bytes each.
static const struct {
    const char *message; // a part of the error; NULL: it opens
    struct {
        size_t at, size;
        uint64_t value;
    } patches[2];
    size_t cut; // bytes taken from the end
} spoilt[] = {
    {NULL, {{0}}, 0},
    {NULL, {{AT_VERSION, 4, 2}}, 0},
    {"does not begin with \"GGUF\"", {{AT_MAGIC, 1, 'g'}}, 0},
    {"version 1, expected 2 or 3", {{AT_VERSION, 4, 1}}, 0},
    {"version 4, expected 2 or 3", {{AT_VERSION, 4, 4}}, 0},
    {"big endian", {{AT_VERSION, 4, 3 << 24}}, 0},
    {"number of tensors: 1152921504606846976, but", {{AT_TENSORS, 8, BOMB}}, 0},
    {"number of metadata pairs: 1152921504606846976, but", {{AT_PAIRS, 8, BOMB}}, 0},
    {"name of tensor 2: ", {{AT_TENSORS, 8, 3}}, 0},
    {"k: value type 13 is unknown", {{AT_VALUE_TYPE, 4, GGUF_VALUE_TYPES}}, 0},
    {"k: value type 4294967295 is unknown", {{AT_ITEM_TYPE, 4, UINT32_MAX}}, 0},
    {"k: 1152921504606846976, but the", {{AT_COUNT, 8, BOMB}}, 0},
    {"k: 1152921504606846976, but the", {{AT_LENGTH, 8, BOMB}}, 0},
    {"k: 1152921504606846976, but the", {{AT_ITEM_TYPE, 4, GGUF_F64}, {AT_COUNT, 8, BOMB}}, 0},
    {"k: 2305843009213693952, but the", {{AT_ITEM_TYPE, 4, GGUF_U64}, {AT_COUNT, 8, 2 * BOMB}}, 0},
    {"k: 1152921504606846976, but the", {{AT_ITEM_TYPE, 4, GGUF_ARRAY}, {AT_COUNT, 8, BOMB}}, 0},
    {"k: 100, but the 147 bytes behind it hold at most 18",
     {{AT_ITEM_TYPE, 4, GGUF_F64}, {AT_COUNT, 8, 100}},
     0},
    {"k: a BOOL is 2, expected 0 or 1", {{AT_ITEM_TYPE, 4, GGUF_BOOL}}, 0},
    {"name of tensor 0: 1152921504606846976, but", {{AT_NAME_LENGTH, 8, BOMB}}, 0},
    {"name of tensor 0: 65 bytes long, expected at most 64", {{AT_NAME_LENGTH, 8, 65}}, 0},
    {"name of tensor 0: holds a zero byte", {{AT_NAME, 1, 0}}, 0},
    {"tensor t: 5 dimensions, at most 4", {{AT_NDIM, 4, 5}}, 0},
    {"tensor t: the product of its shape overflows", {{AT_OUTER, 8, BOMB}}, 0},
    {"tensor t: the product of its shape overflows", {{AT_INNER, 8, BOMB}, {AT_OUTER, 8, 16}}, 0},
    {"tensor t: the product of its shape overflows", {{AT_INNER, 8, BOMB << 2}, {AT_TYPE, 4, 28}}, 0},
    {"tensor t: dimension 0 is 18446744073709551615", {{AT_OUTER, 8, UINT64_MAX}}, 0},
    {"tensor t: rows of 33 values, expected a multiple of 32 for type Q8_0", {{AT_INNER, 8, 33}}, 0},
    {"tensor t: type 4 is unknown", {{AT_TYPE, 4, 4}}, 0},
    {"tensor t: type 4294967295 is unknown", {{AT_TYPE, 4, UINT32_MAX}}, 0},
    {"tensor t: offset 16, expected a multiple of 32", {{AT_OFFSET, 8, 16}}, 0},
    {"tensor t: 68 bytes at offset 32 lie outside the 68 bytes", {{AT_OFFSET, 8, 32}}, 0},
    {"tensor t: 68 bytes at offset 9223372036854775808 lie outside", {{AT_OFFSET, 8, BOMB << 3}}, 0},
    {"tensor t: 68 bytes at offset 0 lie outside the 67 bytes", {{0}}, 1},
    {"tensor t: 68 bytes at offset 0 lie outside the 0 bytes", {{0}}, 80}, // nor is the padding there
    {"tensor t: takes 8 bytes from byte 92 on, but the file has 99", {{0}}, 97},
};

static void spoilt_files(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof spoilt / sizeof *spoilt; i++) {
        Error err = {0};
        Gguf *g;
        CharVec bytes = whole_file();
        for (size_t k = 0; k < 2; k++)
            memcpy(bytes.items + spoilt[i].patches[k].at, &spoilt[i].patches[k].value,
                   spoilt[i].patches[k].size);
        assert_true(file_write_text(gguf_file, bytes.items, bytes.count - spoilt[i].cut, &err));
        const bool ok = gguf_open(&g, gguf_file, &err);
        if (ok != !spoilt[i].message) fail_msg("case %zu: %s", i, ok ? "accepted" : err.text);
        if (!ok) expect_message(&err, spoilt[i].message);
        if (!ok) expect_message(&err, gguf_file);
        gguf_close(g);
        vec_free(&bytes);
    }
    Error err;
    Gguf *g;
    assert_true(file_write_text(gguf_file, "", 0, &err));
    assert_false(gguf_open(&g, gguf_file, &err));
    assert_false(gguf_open(&g, "/nowhere/at/all", &err));
    assert_null(g);
}

// Two tensors that share a name, a place, or nothing; two keys of one name; arrays in arrays.
static void two_of_a_kind(void **state) {
    (void)state;
    static const char *const messages[] = {"tensor a stands there twice", "tensors a and b overlap", NULL};
    for (size_t i = 0; i < 3; i++) {
        Error err = {0};
        Gguf *g;
        GgufMetadata none = {0};
        const GgufSpec specs[] = {{"a", GGUF_TYPE_F32, 1, {8}}, {"b", GGUF_TYPE_F32, 1, {8}}};
        assert_true(gguf_write(gguf_file, &none, specs, 2, fill_zeros, (void *)specs, &err));
        char *bytes;
        size_t size;
        assert_true(file_read(&bytes, &size, gguf_file, &err));
        // 24 bytes of header, then per tensor 8 + 1 (name), 4 (dimensions), 8 (size), 4 (type), 8 (offset)
        if (i == 0) bytes[24 + 33 + 8] = 'a';
        if (i == 1) memset(bytes + 24 + 33 + 25, 0, 8);
        assert_true(file_write_text(gguf_file, bytes, size, &err));
        assert_int_equal(gguf_open(&g, gguf_file, &err), messages[i] == NULL);
        if (messages[i]) expect_message(&err, messages[i]);
        gguf_close(g);
        free(bytes);
    }
}

static void keys_and_depth(void **state) {
    (void)state;
    Error err = {0};
    Gguf *g;
    CharVec bytes = {0};
    append(&bytes, "GGUF\3\0\0", 8);
    append(&bytes, (uint64_t[]){0, 2}, 16);
    for (int i = 0; i < 2; i++) append(&bytes, "\1\0\0\0\0\0\0\0k\7\0\0\0\1", 14);
    assert_true(file_write_text(gguf_file, bytes.items, bytes.count, &err));
    assert_false(gguf_open(&g, gguf_file, &err));
    expect_message(&err, "metadata key k stands there twice");
    bytes.items[16] = 1; // one pair: k = [[[[[ … in the place of the second
    bytes.count = 8 + 16 + 9;
    append(&bytes, (uint32_t[]){GGUF_ARRAY}, 4);
    for (int i = 0; i < 1000; i++) append(&bytes, "\11\0\0\0\1\0\0\0\0\0\0\0", 12);
    assert_true(file_write_text(gguf_file, bytes.items, bytes.count, &err));
    assert_false(gguf_open(&g, gguf_file, &err));
    expect_message(&err, "k: arrays lie more than 4 deep");
    vec_free(&bytes);
}

static void alignment_of_other_kinds(void **state) {
    (void)state;
    static const struct {
        uint32_t value;
        const char *message;
    } cases[] = {{0, "general.alignment is 0"}, {48, "general.alignment is 48, expected a power of two"}};
    for (size_t i = 0; i < 2; i++) {
        Error err = {0};
        Gguf *g;
        GgufMetadata m = {0};
        gguf_put_u32(&m, "general.alignmenx", cases[i].value);
        assert_true(gguf_write(gguf_file, &m, NULL, 0, fill_never, NULL, &err));
        char *bytes, *x;
        size_t size;
        assert_true(file_read(&bytes, &size, gguf_file, &err));
        x = memchr(bytes, 'x', size);
        *x = 't';
        assert_true(file_write_text(gguf_file, bytes, size, &err));
        assert_false(gguf_open(&g, gguf_file, &err));
        expect_message(&err, cases[i].message);
        gguf_metadata_free(&m);
        free(bytes);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decodes_as_the_package),
        cmocka_unit_test(encodes_as_the_package),
        cmocka_unit_test(quants_round_as_roundf),
        cmocka_unit_test(written_again_to_the_same_bytes),
        cmocka_unit_test(metadata_values),
        cmocka_unit_test(metadata_arrays),
        cmocka_unit_test(metadata_of_the_wrong_type),
        cmocka_unit_test(what_is_put_is_found),
        cmocka_unit_test(failed_write_leaves_the_old_file),
        cmocka_unit_test(type_names),
        cmocka_unit_test(types_without_decoder),
        cmocka_unit_test(spoilt_files),
        cmocka_unit_test(two_of_a_kind),
        cmocka_unit_test(keys_and_depth),
        cmocka_unit_test(alignment_of_other_kinds),
    };
    return cmocka_run_group_tests(tests, make_gguf_file, remove_gguf_file);
}
