// LINK: image
// LABELS: parity
// Pictures: decoding, size, bicubic resize and tiles against nanoVLM with Pillow, bit for bit; damaged files.
#include "support/golden.h"
#include "support/sha256.h"
#include "base/memory.h"
#include "base/random.h"
#include "image/decode.h"
#include "image/image.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define GLOBAL_LIMIT 1e-6 // the global tile is float arithmetic in an order of its own

static const char *text_at(const json_t *o, const char *key) {
    return json_string_value(json_object_get(o, key));
}

static size_t size_at(const json_t *o, const char *key) {
    const json_t *value = json_object_get(o, key);
    assert_true(json_is_integer(value) || json_is_boolean(value));
    return json_is_boolean(value) ? json_is_true(value) : (size_t)json_integer_value(value);
}

// Calls each with every line of a .jsonl file.
static void for_each_line(const char *path, void (*each)(const json_t *line)) {
    Error err;
    char *text, *next;
    size_t size, lines = 0;
    if (!file_read(&text, &size, path, &err)) fail_msg("%s", err.text);
    for (char *line = text; line && *line; line = next) {
        next = strchr(line, '\n');
        json_t *value = json_loadb(line, next ? (size_t)(next - line) : strlen(line), 0, NULL);
        if (next) next++;
        if (!value) fail_msg("%s: line %zu is not JSON", path, lines + 1);
        each(value);
        json_decref(value);
        lines++;
    }
    assert_true(lines > 0);
    free(text);
}

static void expect_hash(const void *bytes, size_t size, const char *expected, const char *file,
                        const char *what) {
    char hex[65];
    sha256_hex(hex, bytes, size);
    if (!expected || strcmp(hex, expected)) fail_msg("%s: %s is not the reference's", file, what);
}

static struct { size_t files, damaged, settings, globals; } counts;

// ---- the target size ----

static size_t size_cases, size_errors;

static ResizeRule rule_of(const json_t *setting) {
    return (ResizeRule){size_at(setting, "max_img_size"), size_at(setting, "vit_img_size"),
                        size_at(setting, "resize_to_max_side_len")};
}

static void check_size(const json_t *c) {
    Error err;
    size_t width, height, in_width = size_at(c, "w"), in_height = size_at(c, "h");
    const ResizeRule rule = rule_of(c);
    bool ok = image_target_size(&width, &height, in_width, in_height, &rule, &err);
    if (width != size_at(c, "new_w") || height != size_at(c, "new_h") || ok != size_at(c, "splits"))
        fail_msg("%zu x %zu becomes %zu x %zu, %s", in_width, in_height, width, height,
                 ok ? "splits" : "does not split");
    size_cases++, size_errors += !ok;
}

static void test_target_size(void **state) {
    (void)state;
    char *path = golden_path("images/sizes.jsonl");
    for_each_line(path, check_size);
    printf("%zu sizes, %zu of them errors\n", size_cases, size_errors);
    assert_true(size_errors > 0 && size_errors < size_cases);
    free(path);
}

// ---- decoding, resizing, tiles ----

// The floats of an .npy file (version 1.0, little endian, C order).
static void expect_npy(const float *x, size_t n, const char *name, const char *file) {
    Error err;
    char *path = golden_path("images/%s", name), *bytes;
    size_t size;
    if (!file_read(&bytes, &size, path, &err)) fail_msg("%s", err.text);
    size_t header = 10 + (size_t)(unsigned char)bytes[8] + 256 * (size_t)(unsigned char)bytes[9];
    assert_int_equal(size - header, n * sizeof *x);
    float *expected = mem_alloc(n * sizeof *x);
    memcpy(expected, bytes + header, n * sizeof *x);
    expect_within("global tile, absolute", largest_difference(x, expected, n), GLOBAL_LIMIT, "%s", file);
    free(expected);
    free(bytes);
    free(path);
}

static void check_global(const float *x, size_t p, const json_t *global, const char *file) {
    size_t i;
    json_t *sample;
    json_array_foreach(json_object_get(global, "samples_cyx"), i, sample) {
        size_t at[3];
        for (size_t k = 0; k < 3; k++) at[k] = (size_t)json_integer_value(json_array_get(sample, k));
        double expected = json_number_value(json_array_get(sample, 3));
        expect_within("global tile, absolute", fabs((double)x[(at[0] * p + at[1]) * p + at[2]] - expected),
                      GLOBAL_LIMIT, "%s at %zu, %zu, %zu", file, at[0], at[1], at[2]);
    }
    for (size_t c = 0; c < 3; c++) {
        double mean = 0, expected = json_number_value(json_array_get(json_object_get(global, "mean"), c));
        for (size_t k = 0; k < p * p; k++) mean += (double)x[c * p * p + k] / (double)(p * p);
        expect_within("mean of the global tile", fabs(mean - expected), GLOBAL_LIMIT, "%s channel %zu", file,
                      c);
    }
    if (text_at(global, "npy")) expect_npy(x, 3 * p * p, text_at(global, "npy"), file);
    counts.globals++;
}

static void check_tiles(const Image *resized, size_t p, const json_t *setting, const char *file) {
    const json_t *grid = json_object_get(setting, "grid"), *global = json_object_get(setting, "global");
    assert_int_equal(resized->height / p, json_integer_value(json_array_get(grid, 0)));
    assert_int_equal(resized->width / p, json_integer_value(json_array_get(grid, 1)));
    size_t split = resized->height / p * (resized->width / p), values = 3 * p * p;
    assert_int_equal(split + (global != NULL), size_at(setting, "n_tiles"));
    float *tiles = mem_alloc((split + 1) * values * sizeof *tiles);
    assert_true(image_to_tiles(tiles, resized, resized->width, resized->height, p, global != NULL, NULL));
    const float *cut = tiles + (global ? values : 0);
    expect_hash(cut, split * values * sizeof *tiles, text_at(setting, "split_tiles_sha256"), file, "a tile");
    if (global) check_global(tiles, p, global, file);
    free(tiles);
}

static void check_setting(const Image *image, const json_t *setting, const char *file) {
    Error err;
    size_t width, height, p = size_at(setting, "vit_img_size");
    const ResizeRule rule = rule_of(setting);
    if (!image_target_size(&width, &height, image->width, image->height, &rule, &err))
        fail_msg("%s: %s", file, err.text);
    Image resized;
    if (!image_resize_bicubic(&resized, image, width, height, &err)) fail_msg("%s: %s", file, err.text);
    expect_hash(resized.rgb, width * height * 3, text_at(json_object_get(setting, "resized"), "sha256"), file,
                "the resized picture");
    check_tiles(&resized, p, setting, file);
    image_free(&resized);
    counts.settings++;
}

static void check_file(const json_t *line) {
    Error err;
    Image image;
    const char *file = text_at(line, "file");
    char *path = golden_path("images/%s", file);
    bool opens = image_load(&image, path, false, &err);
    if (text_at(line, "open_error")) {
        if (opens) fail_msg("%s: a damaged file was accepted", file);
        if (strncmp(err.text, path, strlen(path)))
            fail_msg("the message does not name the file: %s", err.text);
        assert_null(image.rgb);
        counts.damaged++;
    } else {
        if (!opens) fail_msg("%s", err.text);
        expect_hash(image.rgb, image.width * image.height * 3, text_at(line, "rgb_open"), file,
                    "the picture");
        image_free(&image);
        if (!image_load(&image, path, true, &err)) fail_msg("%s", err.text);
        expect_hash(image.rgb, image.width * image.height * 3,
                    text_at(json_object_get(line, "rgb"), "sha256"), file, "the picture turned by EXIF");
        const char *name;
        json_t *setting;
        json_object_foreach(json_object_get(line, "tiles"), name, setting)
            check_setting(&image, setting, file);
        image_free(&image);
        counts.files++;
    }
    free(path);
}

static void test_reference_pictures(void **state) {
    (void)state;
    char *path = golden_path("images/index.jsonl");
    for_each_line(path, check_file);
    printf("%zu files with %zu settings and %zu global tiles as the reference, %zu damaged ones refused\n",
           counts.files, counts.settings, counts.globals, counts.damaged);
    assert_true(counts.files > 0 && counts.damaged > 0 && counts.settings > 0 && counts.globals > 0);
    free(path);
}

// ---- odd files ----

// Where tests/interop/odd_pictures.py wrote files, and what Pillow makes of them, to odd.jsonl.
static const char *odd_folder(void) {
    const char *folder = getenv("VLM_ODD_PICTURES");
    return folder ? folder : "tests/golden/images";
}

static size_t odd_right, odd_refused, odd_wrong;

static void check_odd(const json_t *line) {
    Error err;
    Image image;
    char hex[65] = "";
    const char *expected = text_at(line, "rgb");
    char *path = mem_printf("%s/%s", odd_folder(), text_at(line, "file"));
    bool ok = image_load(&image, path, true, &err);
    if (ok) sha256_hex(hex, image.rgb, image.width * image.height * 3);
    if (expected ? ok && strcmp(hex, expected) == 0 : !ok) {
        odd_right += ok, odd_refused += !ok;
    } else {
        odd_wrong++;
        print_error("%s: Pillow %s it, here %s\n", path, expected ? "accepts" : "refuses",
                    !ok        ? err.text
                    : expected ? "other pixels"
                               : "it is accepted");
    }
    image_free(&image);
    free(path);
}

static void test_odd_pictures(void **state) {
    (void)state;
    char *path = mem_printf("%s/odd.jsonl", odd_folder());
    for_each_line(path, check_odd);
    printf("%zu odd files as Pillow reads them, %zu refused by both\n", odd_right, odd_refused);
    if (odd_wrong) fail_msg("%zu odd files are not as Pillow reads them", odd_wrong);
    free(path);
}

// ---- what no reference file covers ----

static void test_sha256(void **state) { // FIPS 180-4's own examples
    (void)state;
    char hex[65];
    sha256_hex(hex, "abc", 3);
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    sha256_hex(hex, "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 56);
    assert_string_equal(hex, "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
}

// A picture of noise, whose pixels are all different as far as possible.
static Image noise(size_t width, size_t height, uint64_t seed) {
    Error err;
    Image image;
    assert_true(image_alloc(&image, width, height, "test", &err));
    Random random = random_stream(seed, RANDOM_TEST, 0);
    for (size_t i = 0; i < width * height * 3; i++) image.rgb[i] = (uint8_t)random_u32(&random);
    return image;
}

static void test_png_written_and_read(void **state) {
    (void)state;
    Error err;
    char path[] = "/tmp/test_image.XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    static const size_t sizes[][2] = {{1, 1}, {7, 3}, {64, 33}, {1, 500}};
    for (size_t i = 0; i < 4; i++) {
        Image image = noise(sizes[i][0], sizes[i][1], i), again;
        assert_true(image_write_png(&image, path, &err));
        if (!image_load(&again, path, true, &err)) fail_msg("%s", err.text);
        assert_int_equal(again.width, image.width);
        assert_int_equal(again.height, image.height);
        assert_memory_equal(again.rgb, image.rgb, image.width * image.height * 3);
        image_free(&image);
        image_free(&again);
    }
    Image image = noise(2, 2, 9);
    assert_false(image_write_png(&image, "/nowhere/picture.png", &err));
    assert_non_null(strstr(err.text, "/nowhere/picture.png"));
    image_free(&image);
    unlink(path);
}

// Orientations 2 to 8 of the picture "1 2 3 / 4 5 6", row by row.
static void test_orientations(void **state) {
    (void)state;
    static const struct {
        size_t width;
        const char *pixels;
    } expected[9] = {[1] = {3, "123456"}, [2] = {3, "321654"}, [3] = {3, "654321"},
                     [4] = {3, "456123"}, [5] = {2, "142536"}, [6] = {2, "415263"},
                     [7] = {2, "635241"}, [8] = {2, "362514"}, [0] = {3, "123456"}};
    Error err;
    for (int o = 0; o <= 8; o++) {
        Image image;
        assert_true(image_alloc(&image, 3, 2, "test", &err));
        for (size_t i = 0; i < 18; i++) image.rgb[i] = (uint8_t)('1' + i / 3);
        assert_true(image_orient(&image, o, &err));
        assert_int_equal(image.width, expected[o].width);
        for (size_t i = 0; i < 18; i++) assert_int_equal(image.rgb[i], expected[o].pixels[i / 3]);
        image_free(&image);
    }
}

static int orientation(const void *exif, size_t exif_size, const char *xmp) {
    return orientation_of(&(Metadata){exif, xmp, exif_size, xmp ? strlen(xmp) : 0});
}

static void test_orientation_in_metadata(void **state) {
    (void)state;
    static const char little[] =
        "II*\0\x08\0\0\0\x02\0\x0f\x01\x02\0\x01\0\0\0A\0\0\0\x12\x01\x03\0\x01\0\0\0\x06\0\0";
    static const char big[] = "Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x04\0\0\0\x01\0\0\0\x03";
    static const char far[] = "II*\0\xff\xff\xff\xff\xff\xff";
    assert_int_equal(orientation(little, sizeof little, NULL), 6);
    assert_int_equal(orientation(little, sizeof little, "tiff:Orientation=\"8\""), 6);
    assert_int_equal(orientation(big, sizeof big - 1, NULL), 3);
    assert_int_equal(orientation(far, sizeof far, NULL), 0);
    assert_int_equal(orientation(far, sizeof far, "<a tiff:Orientation=\"8\"/>"), 8);
    assert_int_equal(orientation(NULL, 0, "<tiff:Orientation>5</tiff:Orientation>"), 5);
    assert_int_equal(orientation(NULL, 0, "tiff:Orientation=x tiff:Orientation=\"2\""), 2);
    static const char *without[] = {"", "tiff:Orientation", "tiff:Orientation>", "tiff:Orientation=\"",
                                    "Orientation>3"};
    for (size_t i = 0; i < 5; i++) assert_int_equal(orientation(NULL, 0, without[i]), 0);
    for (size_t n = 0; n < 33; n++) { // cut short: nothing or the value, never a read outside
        char *copy = mem_alloc(n + 1);
        memcpy(copy, little, n);
        int o = orientation(copy, n, NULL);
        assert_true(o <= 1 || o == 6);
        free(copy);
    }
}

static void test_bombs(void **state) {
    (void)state;
    Error err;
    Image image;
    assert_false(image_alloc(&image, 100000, 100000, "PNG", &err));
    assert_non_null(strstr(err.text, "100000 x 100000 pixels, at most"));
    assert_false(image_alloc(&image, 178956971, 1, "PNG", &err));
    assert_false(image_alloc(&image, 0, 1, "PNG", &err));
    Image small = noise(3, 3, 4);
    assert_false(image_resize_bicubic(&image, &small, 0, 5, &err));
    assert_false(image_resize_bicubic(&image, &small, 3, 100000000, &err));
    image_free(&small);
    assert_false(image_decode(&image, "RIFF\0\0\0\0WAVE", 12, true, &err));
    assert_non_null(strstr(err.text, "known format"));
    static const char *named[] = {"GIF89a", "BM", "II*", "MM"};
    static const size_t sizes[] = {6, 2, 4, 2};
    for (size_t i = 0; i < 4; i++) assert_false(image_decode(&image, named[i], sizes[i], true, &err));
}

static size_t mutants, mutants_accepted;

static void damage(const json_t *line) {
    Error err;
    Image image;
    const char *file = text_at(line, "file");
    if (text_at(line, "open_error") || strstr(file, "big")) return;
    char *path = golden_path("images/%s", file), *bytes;
    size_t size;
    if (!file_read(&bytes, &size, path, &err)) fail_msg("%s", err.text);
    Random random = random_stream(3, RANDOM_TEST, mutants);
    for (int k = 0; k < 60; k++) {
        bool cut = k < 20;
        size_t n = cut ? size * (size_t)k / 20 : size;
        char *copy =
            mem_alloc(n + 1); // as large as the data, so that the sanitizers see a read behind its end
        memcpy(copy, bytes, n);
        for (uint64_t m = cut ? 0 : 1 + random_below(&random, 5); m > 0; m--)
            copy[random_below(&random, random_below(&random, 2) ? n
                                       : n < 64                 ? n
                                                                : 64)] = (char)random_u32(&random);
        bool ok = image_decode(&image, copy, n, true, &err);
        if (ok && cut && !strstr(file, "trailing"))
            fail_msg("%s: accepted with %zu of %zu bytes", file, n, size);
        mutants_accepted += ok && !cut;
        mutants += !cut;
        image_free(&image);
        free(copy);
    }
    free(bytes);
    free(path);
}

static void test_damaged_pictures(void **state) {
    (void)state;
    char *path = golden_path("images/index.jsonl");
    for_each_line(path, damage);
    printf("%zu mutants: %zu decoded, the rest refused; every truncation refused\n", mutants,
           mutants_accepted);
    assert_true(mutants > 0);
    free(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sha256),
        cmocka_unit_test(test_target_size),
        cmocka_unit_test(test_orientation_in_metadata),
        cmocka_unit_test(test_orientations),
        cmocka_unit_test(test_bombs),
        cmocka_unit_test(test_reference_pictures),
        cmocka_unit_test(test_odd_pictures),
        cmocka_unit_test(test_png_written_and_read),
        cmocka_unit_test(test_damaged_pictures),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    print_worst_shares();
    return failed;
}
