// LINK: image
// COST: 24
// Damaged pictures: headers that promise too much, files cut short, bytes changed at random.
// VLM_FUZZ_SECONDS=N goes on with new mutants for so long; without it there are a few of each file.
#include "support/fuzz.h"
#include "support/image_case.h"
#include "support/sanitized.h"

#include "image/probe.h"

#include <stdio.h>
#include <time.h>

// ---- decompression bombs ----

static char *read_golden(size_t *size, const char *file) {
    Error err;
    char *path = golden_path("images/inputs/%s", file), *bytes;
    if (!file_read(&bytes, size, path, &err)) fail_msg("%s", err.text);
    free(path);
    return bytes;
}

static void put_number(char *at, uint32_t value, size_t n, bool big_endian) {
    for (size_t i = 0; i < n; i++) at[i] = (char)(value >> 8 * (big_endian ? n - 1 - i : i));
}

static uint32_t crc32_of(const char *bytes, size_t n) {
    uint32_t crc = UINT32_MAX;
    for (size_t i = 0; i < n; i++) {
        crc ^= (uint8_t)bytes[i];
        for (int k = 0; k < 8; k++) crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
    }
    return ~crc;
}

static void expect_bomb(char *bytes, size_t size, const char *format) {
    Error err;
    Image image;
    if (image_decode(&image, bytes, size, true, &err)) fail_msg("%s: a bomb was decoded", format);
    if (!strstr(err.text, "at most 178956970 in all are accepted")) fail_msg("%s: %s", format, err.text);
    assert_non_null(strstr(err.text, format));
    assert_null(image.rgb);
    free(bytes);
}

static void test_bombs(void **state) {
    (void)state;
    size_t size;
    char *png = read_golden(&size, "png_rgb_32.png");
    put_number(png + 16, 60000, 4, true), put_number(png + 20, 60000, 4, true);
    put_number(png + 29, crc32_of(png + 12, 17), 4, true);
    expect_bomb(png, size, "PNG");
    char *gif = read_golden(&size, "gif_plain.gif"); // its canvas
    put_number(gif + 6, 65535, 2, false), put_number(gif + 8, 65535, 2, false);
    expect_bomb(gif, size, "GIF");
    gif = read_golden(&size, "gif_plain.gif"); // its frame
    char *frame = memmem(gif, size, ",\0\0\0\0", 5);
    assert_non_null(frame);
    put_number(frame + 5, 65535, 2, false), put_number(frame + 7, 65535, 2, false);
    expect_bomb(gif, size, "GIF");
    char *bmp = read_golden(&size, "bmp_24.bmp");
    put_number(bmp + 18, 60000, 4, false), put_number(bmp + 22, 60000, 4, false);
    expect_bomb(bmp, size, "BMP");
    char *jpeg = read_golden(&size, "jpeg_420.jpg");
    char *sof = memmem(jpeg, size, "\xff\xc0\0\x11", 4);
    assert_non_null(sof);
    put_number(sof + 5, 65000, 2, true), put_number(sof + 7, 65000, 2, true);
    expect_bomb(jpeg, size, "JPEG");
    char *webp = read_golden(&size, "webp_lossless.webp");
    char *vp8l = memmem(webp, size, "VP8L", 4);
    assert_non_null(vp8l);
    put_number(vp8l + 9, 16382 | 16382u << 14, 4, false); // width - 1 and height - 1 in 14 bits each
    expect_bomb(webp, size, "WebP");
#ifdef VLM_TIFF
    static const char tiff[] = "II*\0\x08\0\0\0\x03\0" // three entries: width, height, where the pixels are
                               "\0\x01\x04\0\x01\0\0\0\x60\xea\0\0"
                               "\x01\x01\x04\0\x01\0\0\0\x60\xea\0\0"
                               "\x11\x01\x04\0\x01\0\0\0\x08\0\0\0\0\0\0\0";
    char *copy = mem_alloc(sizeof tiff);
    memcpy(copy, tiff, sizeof tiff);
    expect_bomb(copy, sizeof tiff, "TIFF");
#endif
}

static void test_limits(void **state) {
    (void)state;
    Error err;
    Image image;
    assert_false(image_alloc(&image, 100000, 100000, "PNG", &err));
    assert_non_null(strstr(err.text, "100000 x 100000 pixels, at most"));
    assert_false(image_alloc(&image, 178956971, 1, "PNG", &err));
    assert_true(image_size_check(178956970, 1, "PNG", &err));
    assert_false(image_alloc(&image, 0, 1, "PNG", &err));
    assert_false(image_decode(&image, "", 0, true, &err));
    assert_false(image_decode(&image, "RIFF\0\0\0\0WAVE", 12, true, &err));
    assert_non_null(strstr(err.text, "known format"));
    static const char *named[] = {"GIF89a", "BM", "II*", "MM"};
    static const size_t sizes[] = {6, 2, 4, 2};
    for (size_t i = 0; i < 4; i++) assert_false(image_decode(&image, named[i], sizes[i], true, &err));
    assert_false(image_decode(&image,
                              "\0\0\0\x1c"
                              "ftypavif\0\0\0\0",
                              16, true, &err));
    assert_non_null(strstr(err.text, "AVIF or HEIF pictures are not supported; convert"));
}

// ---- truncation and mutation ----

static struct { size_t mutants, decoded, cuts; } counts;
static uint64_t seed;

static const ResizeRule smaller = {16, 8, true};

// Decoded and made smaller, and then the same on the way.
static bool decode_both(const char *bytes, size_t n) {
    Error err;
    Image image;
    bool ok = image_decode(&image, bytes, n, true, &err);
    assert_true(ok == (image.rgb != NULL) && (ok || *err.text));
    expect_fitted_to(image, err, bytes, n, &smaller, true, "the same, made smaller");
    return ok;
}

static bool decode_fitted(const char *bytes, size_t n) {
    Error err;
    FittedImage f;
    bool ok = image_decode_fitted(&f, bytes, n, &(ImageReading){&smaller, true, false}, &err);
    assert_true(ok == (f.image.rgb != NULL) && (ok || *err.text));
    image_free(&f.image);
    return ok;
}

// Two mutants are strips of more than 100 million pixels, which under the sanitizers took nine tenths of the
// time. There such a picture is decoded and made smaller once; the release build compares that with what it
// is in two steps.
static bool is_huge(const char *bytes, size_t n) {
    const ImageProbe p = image_probe(bytes, n);
    return p.width > 0 && p.height > (1 << 24) / p.width;
}

// In an allocation of its own, so that the sanitizers see a read behind its end.
static bool decode_copy(const char *bytes, size_t n, Random *mutate) {
    char *copy = mem_alloc(n ? n : 1);
    memcpy(copy, bytes, n);
    for (uint64_t m = mutate && n ? 1 + random_below(mutate, 5) : 0; m > 0; m--) // half of them in the header
        copy[random_below(mutate, random_below(mutate, 2) || n < 64 ? n : 64)] = (char)random_u32(mutate);
    bool ok = SANITIZED && is_huge(copy, n) ? decode_fitted(copy, n) : decode_both(copy, n);
    free(copy);
    return ok;
}

static void cut(const char *bytes, size_t size, const char *file) {
    // What a complete picture may lack: PNG its last chunk, BMP what fills up the last row, GIF its end mark
    // (or further frames).
    const size_t spare = strstr(file, ".png") ? 12 : strstr(file, ".bmp") ? 3 : strstr(file, ".gif") ? 2 : 0;
    for (size_t k = 0; k < 20; k++, counts.cuts++) {
        const size_t n = size * k / 20;
        if (decode_copy(bytes, n, NULL) && n + spare < size && !strstr(file, "trailing") &&
            !strstr(file, "gif_animated"))
            fail_msg("%s: accepted with %zu of %zu bytes", file, n, size);
    }
}

static void damage(const char *path, const char *file) {
    Error err;
    char *bytes;
    size_t size;
    if (!file_read(&bytes, &size, path, &err)) fail_msg("%s", err.text);
    if (seed == 0 && !strstr(file, "odd/")) cut(bytes, size, file);
    Random random = random_stream(seed, RANDOM_TEST, counts.mutants);
    for (int k = 0; k < 12; k++, counts.mutants++) counts.decoded += decode_copy(bytes, size, &random);
    free(bytes);
}

static void damage_reference(const json_t *line) {
    const char *file = text_at(line, "file");
    if (text_at(line, "open_error") || strstr(file, "big")) return;
    char *path = golden_path("images/%s", file);
    damage(path, file);
    free(path);
}

static void damage_odd(const json_t *line) {
    char *path = mem_printf("%s/%s", odd_folder(), text_at(line, "file"));
    damage(path, text_at(line, "file"));
    free(path);
}

static void test_damaged_pictures(void **state) {
    (void)state;
    const time_t end = time(NULL) + (time_t)fuzz_seconds(0);
    char *reference = golden_path("images/index.jsonl"), *odd = mem_printf("%s/odd.jsonl", odd_folder());
    do {
        for_each_line(reference, damage_reference);
        for_each_line(odd, damage_odd);
        seed++;
    } while (time(NULL) < end);
    printf("%zu mutants: %zu decoded, the rest refused; %zu truncations\n", counts.mutants, counts.decoded,
           counts.cuts);
    assert_true(counts.mutants > 0 && counts.cuts > 0 && counts.decoded > 0 &&
                counts.decoded < counts.mutants);
    free(reference);
    free(odd);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_bombs),
        cmocka_unit_test(test_damaged_pictures),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
