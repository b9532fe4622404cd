// LINK: format
// Damaged safetensors files and folders of shards: no crash, no read outside of the map (under the
// sanitizers), and all that is accepted can be used. VLM_FUZZ_SECONDS sets how long each goes on.
#include "support/folders.h"
#include "support/fuzz.h"

#include "base/clock.h"
#include "format/safetensors.h"
#include "format/weights.h"

#include <string.h>

#define INDEX "model.safetensors.index.json"
static char *folder;
static const char *const names[] = {"one.safetensors", "two.safetensors", "config.json", INDEX};
enum { FILES = sizeof names / sizeof *names };
static CharVec seeds[FILES];

static char *path_of(size_t i) {
    return path_join(folder, names[i]);
}

static void write_whole(size_t i) {
    char *path = path_of(i);
    fuzz_write(path, seeds[i].items, seeds[i].count);
    free(path);
}

static bool fill(void *context, size_t i, void *dst) {
    memset(dst, (int)i + 1, ((const size_t *)context)[i]);
    return true;
}

static void make_shard(size_t file, const SafetensorsSpec *specs, size_t n, const size_t *bytes) {
    static const char *const metadata[][2] = {{"format", "pt"}};
    char *path = path_of(file), *text;
    size_t size;
    Error err;
    if (!safetensors_write(path, specs, n, metadata, 1, fill, (void *)bytes, &err) ||
        !file_read(&text, &size, path, &err))
        fail_msg("%s", err.text);
    vec_extend(&seeds[file], text, size);
    free(text);
    free(path);
}

static void make_text(size_t file, const char *text) {
    vec_extend(&seeds[file], text, strlen(text));
    write_whole(file);
}

static int make_seeds(void **state) {
    (void)state;
    static const SafetensorsSpec one[] = {{"a.weight", DTYPE_F32, 2, {3, 5}}, {"b", DTYPE_BF16, 1, {7}}},
                                 two[] = {{"c.é", DTYPE_F16, 3, {2, 1, 4}},
                                          {"empty", DTYPE_F32, 2, {0, 9}},
                                          {"d", DTYPE_F64, 0, {0}},
                                          {"mask", DTYPE_BOOL, 1, {3}}};
    folder = make_folder();
    make_shard(0, one, 2, (size_t[]){60, 14});
    make_shard(1, two, 4, (size_t[]){16, 0, 8, 3});
    make_text(2, "{\"model_type\": \"llama\", \"hidden_size\": 48, \"rope_scaling\": {\"factor\": 4.0}}");
    make_text(3, "{\"metadata\": {\"total_size\": 101}, \"weight_map\": {\"a.weight\": \"one.safetensors\", "
                 "\"b\": \"one.safetensors\", \"c.é\": \"two.safetensors\", \"d\": \"two.safetensors\"}}");
    return 0;
}

static int remove_seeds(void **state) {
    (void)state;
    for (size_t i = 0; i < FILES; i++) vec_free(&seeds[i]);
    remove_folder(folder);
    return 0;
}

// ---- what is done with them ----

static volatile unsigned char seen; // of all bytes touched, so that they are

static bool use_file(void) {
    char *path = path_of(0);
    Error err = {0};
    Safetensors *st;
    const bool ok = safetensors_open(&st, path, &err);
    assert_true(ok ? st != NULL : err.text[0] && !st);
    for (size_t i = 0; ok && i < safetensors_count(st); i++) {
        const SafetensorsEntry *e = safetensors_entry(st, i);
        for (size_t k = 0; k < e->bytes; k++) seen ^= ((const unsigned char *)e->data)[k];
        assert_ptr_equal(safetensors_find(st, e->name), e);
    }
    if (ok) safetensors_metadata(st, "format");
    safetensors_close(st);
    free(path);
    return ok;
}

static bool use_folder(void) {
    Error err = {0};
    Weights *w;
    const bool ok = weights_open(&w, folder, &err);
    assert_true(ok ? w != NULL : err.text[0] && !w);
    for (size_t i = 0; ok && i < weights_count(w); i++) {
        const WeightsEntry *e = weights_entry(w, i);
        float *x = mem_alloc((e->count + 1) * sizeof *x);
        if (weights_read_f32(x, e, 0, e->count, &err))
            for (size_t k = 0; k < e->count * sizeof *x; k++) seen ^= ((unsigned char *)x)[k];
        assert_ptr_equal(weights_find(w, e->name), e);
        free(x);
    }
    if (ok) {
        err = (Error){0};
        json_t *config = weights_config(w, &err);
        assert_true(config || err.text[0]);
        json_decref(config);
    }
    weights_close(w);
    return ok;
}

// ---- damage ----

// JSON with bytes changed, or with values, so that it stays JSON and comes further.
static void mutate_text(CharVec *text, Random *r) {
    json_t *json = random_below(r, 2) ? json_loadb(text->items, text->count, 0, NULL) : NULL;
    if (!json) {
        fuzz_json(text, r);
        return;
    }
    for (uint64_t n = 1 + random_below(r, 2); n > 0; n--) fuzz_json_value(json, r);
    char *changed = json_dumps(json, JSON_ENCODE_ANY);
    vec_clear(text);
    vec_extend(text, changed, strlen(changed));
    free(changed);
    json_decref(json);
}

static uint64_t odd_length(size_t length, Random *r) {
    const uint64_t lengths[] = {0,         length + 1,        length + 70000, 100000000,
                                100000001, (uint64_t)1 << 60, UINT64_MAX};
    return lengths[random_below(r, sizeof lengths / sizeof *lengths)];
}

// A safetensors file with its header mutated; the length in front mostly goes along, or nothing else is seen.
static void mutate_shard(CharVec *bytes, Random *r) {
    uint64_t length;
    CharVec header = {0}, out = {0};
    memcpy(&length, bytes->items, sizeof length);
    vec_extend(&header, bytes->items + 8, length);
    mutate_text(&header, r);
    if (random_below(r, 4)) length = header.count;
    if (random_below(r, 20) == 0) length = odd_length(header.count, r);
    vec_extend(&out, (const char *)&length, sizeof length);
    vec_extend(&out, header.items, header.count);
    memcpy(&length, bytes->items, sizeof length);
    vec_extend(&out, bytes->items + 8 + length, bytes->count - 8 - length);
    if (random_below(r, 20) == 0) out.count = random_below(r, out.count);
    vec_free(&header);
    vec_free(bytes);
    *bytes = out;
}

static void write_mutant(size_t file, Random *r) {
    char *path = path_of(file);
    CharVec bytes = {0};
    vec_extend(&bytes, seeds[file].items, seeds[file].count);
    if (file < 2)
        mutate_shard(&bytes, r);
    else
        mutate_text(&bytes, r);
    fuzz_write(path, bytes.items, bytes.count);
    vec_free(&bytes);
    free(path);
}

static void fuzz(bool (*use)(void), size_t first, size_t files, uint64_t key, double seconds) {
    size_t count = 0, accepted = 0;
    for (const double end = clock_seconds() + seconds; clock_seconds() < end; count++) {
        Random r = random_stream(key, RANDOM_TEST, count);
        const size_t file = first + random_below(&r, files);
        write_mutant(file, &r);
        accepted += use();
        write_whole(file);
    }
    print_message("%zu mutants, %zu of them accepted\n", count, accepted);
    assert_true(count > 0 && accepted > 0 && accepted < count);
}

static void truncate_all(size_t file, bool (*use)(void)) {
    char *path = path_of(file);
    assert_true(use());
    for (size_t n = 0; n < seeds[file].count; n++) {
        fuzz_write(path, seeds[file].items, n);
        assert_false(use());
    }
    write_whole(file);
    free(path);
}

static void one_file(void **state) {
    (void)state;
    truncate_all(0, use_file);
    fuzz(use_file, 0, 1, 1, fuzz_seconds(1));
}

static void folder_of_shards(void **state) {
    (void)state;
    truncate_all(3, use_folder);
    truncate_all(1, use_folder);
    fuzz(use_folder, 0, FILES, 2, fuzz_seconds(1));
    fuzz(use_folder, 3, 1, 3, fuzz_seconds(1)); // the index alone
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_file),
        cmocka_unit_test(folder_of_shards),
    };
    return cmocka_run_group_tests(tests, make_seeds, remove_seeds);
}
