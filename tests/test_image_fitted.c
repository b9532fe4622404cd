// LINK: image
// COST: 22
// Pictures that get smaller while they are decoded: the pixels and the errors of decoding and then resizing,
// at sizes odd on purpose, for all kinds of JPEG and PNG, whole and cut short; and what that takes of memory.
#include "support/jpeg_case.h"
#include "support/png_case.h"

static const ResizeRule rules[] = {{64, 32, true},  {32, 16, false}, {96, 48, true}, {7, 7, true},
                                   {256, 8, false}, {100, 32, true}, // that often is no multiple
                                   {128, 128, true}};
enum { N_RULES = sizeof rules / sizeof *rules };

static const size_t sizes[][2] = {{1, 1},   {65, 63}, {129, 257}, {37, 301}, {301, 37},
                                  {250, 9}, {8, 200}, {333, 250}, {17, 16},  {97, 96}};
enum { N_SIZES = sizeof sizes / sizeof *sizes };

// By every rule; decoded whole once.
static void check_rules(const char *bytes, size_t size, bool exif, const char *what) {
    Error err;
    Image whole;
    image_decode(&whole, bytes, size, exif, &err);
    for (size_t r = 0; r < N_RULES; r++) {
        Image expected = whole;
        if (whole.rgb) {
            assert_true(image_alloc(&expected, whole.width, whole.height, what, NULL));
            memcpy(expected.rgb, whole.rgb, 3 * whole.width * whole.height);
        }
        expect_fitted_to(expected, err, bytes, size, &rules[r], exif, what);
    }
    image_free(&whole);
}

static void test_jpegs(void **state) {
    (void)state;
    for (size_t k = 0; k < N_JPEG_KINDS; k++) {
        for (size_t i = 0; i < N_SIZES; i++) {
            size_t size;
            char *bytes = make_jpeg(&size, sizes[i][0], sizes[i][1], &jpeg_kinds[k], 0);
            check_rules(bytes, size, true, jpeg_kinds[k].name);
            free(bytes);
        }
    }
}

// An interlaced one has the pixels of its twin; its rows come several times, so that it is decoded whole.
static void check_png(size_t width, size_t height, const PngKind *kind) {
    size_t size, twin_size;
    Image image, twin_image;
    char *bytes = make_png_of(&size, width, height, kind, false),
         *twin = make_png_of(&twin_size, width, height, kind, true);
    assert_true(image_decode(&image, bytes, size, true, NULL));
    assert_true(image_decode(&twin_image, twin, twin_size, true, NULL));
    expect_same_pixels(&twin_image, &image, kind->name);
    check_rules(bytes, size, true, kind->name);
    check_rules(twin, twin_size, true, kind->name);
    image_free(&image), image_free(&twin_image);
    free(bytes);
    free(twin);
}

static void test_pngs(void **state) {
    (void)state;
    for (size_t k = 0; k < N_PNG_KINDS; k++)
        for (size_t i = 0; i < N_SIZES; i++) check_png(sizes[i][0], sizes[i][1], &png_kinds[k]);
}

// ---- reference pictures: every format and kind of PNG, and orientations ----

static size_t n_files;

static void check_file(const json_t *line) {
    Error err;
    const char *file = text_at(line, "file");
    char *path = golden_path("images/%s", file), *bytes;
    size_t size;
    if (!file_read(&bytes, &size, path, &err)) fail_msg("%s", err.text);
    for (int exif = 0; exif < 2; exif++) check_rules(bytes, size, exif, file);
    free(bytes);
    free(path);
    n_files++;
}

static void test_reference_pictures(void **state) {
    (void)state;
    char *path = golden_path("images/index.jsonl");
    for_each_line(path, check_file);
    assert_true(n_files > 0);
    free(path);
}

// A chunk of a PNG by its name.
static char *find_chunk(size_t *length, char *bytes, size_t size, const char *name) {
    for (size_t at = 8; at + 12 <= size; at += *length) {
        const uint8_t *n = (const uint8_t *)bytes + at;
        *length = ((size_t)n[0] << 24 | (size_t)n[1] << 16 | (size_t)n[2] << 8 | n[3]) + 12;
        if (memcmp(n + 4, name, 4) == 0) return bytes + at;
    }
    fail_msg("no %s", name);
    return NULL;
}

// The orientation stands behind the pixels: when it is found they have been resized as they stand.
static void test_png_turned_at_its_end(void **state) {
    (void)state;
    Error err;
    Image expected, moved;
    size_t size, length = 0, end_length = 0;
    const ResizeRule rule = {16, 8, true};
    char *path = golden_path("images/inputs/png_exif_6.png"), *bytes, exif[4096];
    if (!file_read(&bytes, &size, path, &err)) fail_msg("%s", err.text);
    assert_true(image_decode(&expected, bytes, size, true, &err));
    char *chunk = find_chunk(&length, bytes, size, "eXIf");
    assert_true(length <= sizeof exif);
    memcpy(exif, chunk, length);
    char *end = find_chunk(&end_length, bytes, size, "IEND");
    memmove(chunk, chunk + length, (size_t)(end - chunk) - length);
    memcpy(end - length, exif, length);
    for (int without_end = 0; without_end < 2; without_end++) {
        const size_t n = size - (without_end ? end_length : 0);
        assert_true(image_decode(&moved, bytes, n, true, &err));
        expect_same_pixels(&moved, &expected, "eXIf behind the pixels");
        image_free(&moved);
        expect_fitted(bytes, n, &rule, true, "eXIf behind the pixels");
        expect_fitted(bytes, n, &rule, false, "eXIf behind the pixels, not asked for");
    }
    image_free(&expected);
    free(bytes);
    free(path);
}

// ---- JPEGs at reduced scale ----

static unsigned eighths_for(ImageSize full, ImageSize target) {
    unsigned n = 1;
    while (n < 8 && ((full.width * n + 7) / 8 < target.width || (full.height * n + 7) / 8 < target.height))
        n++;
    return n;
}

static void expect_reduced(const char *bytes, size_t size, const ResizeRule *rule, int orientation) {
    Error err;
    FittedImage f;
    ImageSize target;
    Image whole = decode_scaled(bytes, size, 8);
    const ImageSize full = {whole.width, whole.height};
    image_free(&whole);
    bool fits = image_target_size(&target.width, &target.height, full.width, full.height, rule, NULL);
    bool ok = image_decode_fitted(&f, bytes, size, &(ImageReading){rule, true, true}, &err);
    if (ok != fits) fail_msg("%s", ok ? "a refused size was accepted" : err.text);
    if (!ok) return;
    const bool lies = orientation >= 5;
    assert_true(f.full.width == (lies ? full.height : full.width));
    assert_true(f.full.height == (lies ? full.width : full.height));
    Image expected = decode_scaled(bytes, size, eighths_for(full, target));
    assert_true(image_orient(&expected, orientation, NULL));
    expected = made_smaller(expected, f.target);
    expect_same_pixels(&f.image, &expected, "a JPEG at reduced scale");
    image_free(&f.image), image_free(&expected);
}

static void test_reduced_scale(void **state) {
    (void)state;
    for (size_t k = 0; k < N_JPEG_KINDS; k++) {
        if (jpeg_kinds[k].given == JCS_CMYK) continue;
        for (size_t i = 0; i < N_SIZES; i++) {
            for (int o = 0; o <= 8; o += k ? 8 : 1) {
                size_t size;
                char *bytes = make_jpeg(&size, sizes[i][0], sizes[i][1], &jpeg_kinds[k], o);
                for (size_t r = 0; r < N_RULES; r++) expect_reduced(bytes, size, &rules[r], o);
                free(bytes);
            }
        }
    }
}

// ---- cut short ----

// In an allocation of its own, so that the sanitizers see a read behind its end.
static void check_cuts(const char *bytes, size_t size, const char *what) {
    for (size_t n = 1; n < size; n += n < 700 || n > size - 50 ? 1 : 37) {
        char *copy = mem_alloc(n);
        memcpy(copy, bytes, n);
        expect_fitted(copy, n, &rules[n % N_RULES], true, what);
        free(copy);
    }
}

static void test_cut_short(void **state) {
    (void)state;
    size_t size;
    for (size_t k = 0; k < N_JPEG_KINDS; k++) {
        char *bytes = make_jpeg(&size, 83, 71, &jpeg_kinds[k], 0);
        check_cuts(bytes, size, jpeg_kinds[k].name);
        free(bytes);
    }
    for (size_t k = 0; k < N_PNG_KINDS; k++) {
        char *bytes = make_png_of(&size, 67, 33, &png_kinds[k], k % 2);
        check_cuts(bytes, size, png_kinds[k].name);
        free(bytes);
    }
}

// ---- memory ----

// How far the most that was resident rises above what was before.
static size_t grown(const char *bytes, size_t size, FittedImage *f, const ResizeRule *rule) {
    Error err;
    mem_trim();
    FILE *file = fopen("/proc/self/clear_refs", "w"); // the peak begins anew
    bool ok = file && fputs("5", file) >= 0;
    ok = file && fclose(file) == 0 && ok;
    const size_t before = mem_resident();
    if (!image_decode_fitted(f, bytes, size, &(ImageReading){rule, true, false}, &err))
        fail_msg("%s", err.text);
    image_free(&f->image);
    const size_t peak = mem_resident_peak();
    return !ok ? 0 : peak > before ? peak - before : 0;
}

static void check_memory(const char *bytes, size_t size, const char *what, size_t least, size_t most) {
    FittedImage f;
    const size_t growth = grown(bytes, size, &f, &(ResizeRule){256, 64, true});
    printf("%s: %.2f MB planned, %.2f MB measured\n", what, (double)f.beside / 1e6, (double)growth / 1e6);
    assert_in_range(f.beside, least, most);
    const size_t most_grown = f.beside + f.beside / 8 + 1000000; // an eighth: the sanitizers' shadow
    if (growth > most_grown) fail_msg("%s takes %zu bytes, said were %zu", what, growth, f.beside);
}

// The picture has 9 MB of pixels. Of files of several scans libjpeg keeps all coefficients.
static void test_memory(void **state) {
    (void)state;
    enum { W = 2001, H = 1501, PIXELS = W * H };
    static const struct {
        size_t kind, least, most;
    } cases[] = {{0, 100000, 600000},
                 {2, 100000, 600000},
                 {6, 100000, 600000},
                 {8, 3 * PIXELS, 3 * PIXELS + 700000},
                 {9, 6 * PIXELS, 6 * PIXELS + 700000},
                 {12, 4 * PIXELS, 4 * PIXELS + 700000}};
    size_t size;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const JpegKind *kind = &jpeg_kinds[cases[i].kind];
        char *bytes = make_jpeg(&size, W, H, kind, 0);
        check_memory(bytes, size, kind->name, cases[i].least, cases[i].most);
        free(bytes);
    }
    char *turned = make_jpeg(&size, W, H, &jpeg_kinds[0], 6);
    check_memory(turned, size, "turned", 6 * PIXELS, 6 * PIXELS + 100000);
    free(turned);
    char *png = make_png_of(&size, W, H, &png_kinds[0], false);
    check_memory(png, size, "PNG", 50000, 600000);
    free(png);
    png = make_png_of(&size, W, H, &png_kinds[0], true);
    check_memory(png, size, "interlaced PNG", 3 * PIXELS, 3 * PIXELS + 100000);
    free(png);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_jpegs),
        cmocka_unit_test(test_pngs),
        cmocka_unit_test(test_reference_pictures),
        cmocka_unit_test(test_png_turned_at_its_end),
        cmocka_unit_test(test_reduced_scale),
        cmocka_unit_test(test_cut_short),
        cmocka_unit_test(test_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
