// LINK: data
// LABELS: parity
// COST: 18
// Pictures: decoding, size, bicubic resize and tiles against nanoVLM with Pillow, bit for bit.
#include "support/jpeg_case.h"
#include "support/sha256.h"
#include "data/picture.h"

#include <math.h>
#include <stdio.h>

#define GLOBAL_LIMIT 1e-6 // the global tile is float arithmetic in an order of its own

static size_t size_at(const json_t *o, const char *key) {
    const json_t *value = json_object_get(o, key);
    assert_true(json_is_integer(value) || json_is_boolean(value));
    return json_is_boolean(value) ? json_is_true(value) : (size_t)json_integer_value(value);
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
    bool opens = load_image(&image, path, false, &err);
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
        if (!load_image(&image, path, true, &err)) fail_msg("%s", err.text);
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

static size_t odd_right, odd_refused, odd_wrong;

static void check_odd(const json_t *line) {
    Error err;
    Image image;
    char hex[65] = "";
    const char *expected = text_at(line, "rgb");
    char *path = mem_printf("%s/%s", odd_folder(), text_at(line, "file"));
    bool ok = load_image(&image, path, true, &err);
#ifndef VLM_TIFF
    if (strstr(path, "/tiff_")) {
        assert_true(!ok && strstr(err.text, "TIFF pictures are not built in"));
        free(path);
        return;
    }
#endif
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

static void test_png_encoded_and_decoded(void **state) {
    (void)state;
    Error err;
    static const size_t sizes[][2] = {{1, 1}, {7, 3}, {64, 33}, {1, 500}};
    for (size_t i = 0; i < 4; i++) {
        Image image = noise(sizes[i][0], sizes[i][1], i), again;
        unsigned char *bytes;
        size_t size;
        if (!image_encode_png(&bytes, &size, &image, &err) || !image_decode(&again, bytes, size, true, &err))
            fail_msg("%s", err.text);
        assert_int_equal(again.width, image.width);
        assert_int_equal(again.height, image.height);
        assert_memory_equal(again.rgb, image.rgb, image.width * image.height * 3);
        free(bytes);
        image_free(&image);
        image_free(&again);
    }
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

// ---- JPEGs at reduced scale ----

// Equal or not, but close in any case: of 255 levels the mean difference is a few.
static void expect_alike(const Picture *a, const Picture *b, bool equal) {
    const size_t n = a->width * a->height * 3;
    float *x = mem_alloc(n * sizeof *x), *y = mem_alloc(n * sizeof *y);
    double sum = 0;
    assert_true(image_to_tiles(x, &a->image, a->width, a->height, 32, false, NULL));
    assert_true(image_to_tiles(y, &b->image, b->width, b->height, 32, false, NULL));
    for (size_t i = 0; i < n; i++) sum += fabs((double)x[i] - (double)y[i]) * 255 / (double)n;
    printf("reduced to %zu x %zu: mean difference %.2f levels\n", b->image.width, b->image.height, sum);
    assert_true(equal ? sum == 0 : sum > 0 && sum < 6);
    free(x);
    free(y);
}

// A file of 511 x 513 is decoded no larger than what it becomes, and then looks much the same.
static void test_reduced_scale(void **state) {
    (void)state;
    static const struct {
        size_t side; // max_img_size
        unsigned eighths;
    } cases[] = {{64, 1}, {128, 2}, {224, 4}, {256, 4}, {512, 8}, {2048, 8}};
    Error err;
    size_t size;
    char *path = golden_path("images/inputs/jpeg_big.jpg"), *bytes;
    if (!file_read(&bytes, &size, path, &err)) fail_msg("%s", err.text);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        VLMConfig config = {
            .max_img_size = cases[i].side, .vit_img_size = 32, .resize_to_max_side_len = true};
        Picture whole, reduced;
        if (!picture_decode(&whole, bytes, size, &config, false, &err)) fail_msg("%s", err.text);
        if (!picture_decode(&reduced, bytes, size, &config, true, &err)) fail_msg("%s", err.text);
        assert_true(whole.width == reduced.width && whole.height == reduced.height);
        assert_true(whole.full.width == 511 && whole.full.height == 513);
        assert_true(reduced.full.width == 511 && reduced.full.height == 513);
        expect_alike(&whole, &reduced, cases[i].eighths == 8);
        Image scaled = made_smaller(decode_scaled(bytes, size, cases[i].eighths),
                                    (ImageSize){reduced.width, reduced.height});
        expect_same_pixels(&reduced.image, &scaled, path);
        image_free(&scaled);
        picture_free(&whole), picture_free(&reduced);
    }
    free(bytes);
    free(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sha256),
        cmocka_unit_test(test_target_size),
        cmocka_unit_test(test_orientation_in_metadata),
        cmocka_unit_test(test_orientations),
        cmocka_unit_test(test_reference_pictures),
        cmocka_unit_test(test_odd_pictures),
        cmocka_unit_test(test_png_encoded_and_decoded),
        cmocka_unit_test(test_reduced_scale),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    print_worst_shares();
    return failed;
}
